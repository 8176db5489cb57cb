"""`python -m tests.page.figures`: what the operator's page costs at 10,000 RLScalers (docs/dashboard.md)."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from typing import Any

import httpx

from controller.decisions import Filter
from controller.server import create_app, watching
from tests.operator.bodies import rlscaler
from tests.telling.records import BY_RATE, Operator, record

OBJECTS, ROUNDS = 10_000, 9


def populated() -> Operator:
    operator = Operator()
    operator.log.remembered = 2000
    for number in range(OBJECTS):
        body = rlscaler(f"web-{number:05}", objective={"slo": {"latency": {"milliseconds": 250}}})
        condition = {"type": "Ready", "status": "True", "reason": "Scaling", "message": "fine"}
        body["status"] = {"conditions": [condition], "currentReplicas": 4}
        operator.registry.apply(body)
        operator.log.add(record(f"web-{number:05}", clamps=(BY_RATE,)))
    return operator


def told(name: str, values_ms: list[float]) -> None:
    spread = f"{min(values_ms):.1f} to {max(values_ms):.1f}"
    print(f"{name}: {statistics.median(values_ms):.1f} ms (median of {len(values_ms)}; {spread})")


async def gaps(over: asyncio.Event, found: list[float]) -> None:
    """Processor time in which nobody else has had a turn."""
    last = time.process_time()
    while not over.is_set():
        await asyncio.sleep(0)
        now = time.process_time()
        found.append(1e3 * (now - last))
        last = now


async def measure() -> None:
    operator = populated()
    gc.collect()
    gc.freeze()  # as `controller.garbage` does it
    surveys: list[float] = []
    longest: list[float] = []
    answer: Any = None
    for _ in range(ROUNDS):
        transport = httpx.ASGITransport(app=create_app(operator))
        async with httpx.AsyncClient(transport=transport, base_url="http://operator") as client:
            found: list[float] = []
            over = asyncio.Event()
            await client.get("/healthz")  # makes the routes
            beating = asyncio.create_task(gaps(over, found))
            await asyncio.sleep(0)
            started = time.process_time()
            answer = await client.get("/v1/rlscalers?sort=trouble")
            surveys.append(1e3 * (time.process_time() - started))
            over.set()
            await beating
            longest.append(max(found))
    told("a survey and its first page, processor", surveys)
    told("longest stretch of it without a turn for decisions", longest)
    print(f"a page of 50: {len(answer.content) / 1000:.0f} kB")
    news: list[float] = []
    for _ in range(ROUNDS):
        number = operator.log.made - 667
        started = time.process_time()
        operator.news(number, Filter(limit=watching.TOLD_AT_ONCE))
        news.append(1e3 * (time.process_time() - started))
    told("news of a second for one who follows, 667 decisions, processor", news)
    lines: list[float] = []
    for _ in range(ROUNDS):
        started = time.process_time()
        watching.columns(operator.decisions(Filter("shop", "web-00007", limit=1000)))
        lines.append(1e3 * (time.process_time() - started))
    told("a timeline, processor", lines)
    stream = watching.follow(operator, Filter())
    print(f"an event with 50 decisions: {len(await anext(stream)) / 1000:.0f} kB")
    await stream.aclose()


if __name__ == "__main__":
    asyncio.run(measure())
