"""Decisions as server-sent events: who gets which, how many may follow, and how a stream ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from controller.server import HttpServer, create_app, watching
from controller.server.streams import Streams, event
from tests.telling.records import TO_BOUND, Operator, record
from tests.telling.test_decisions import get


@pytest.fixture
def operator() -> Operator:
    made = Operator()
    for name in ("web", "api"):
        made.log.add(record(name))
    return made


class Served:
    """The application on a real socket; `events` opens a stream."""

    def __init__(self, operator: Operator) -> None:
        self.app = create_app(operator)
        self.server = HttpServer(self.app, "127.0.0.1:0")

    async def __aenter__(self) -> Served:
        port = await self.server.start()
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.client.aclose()
        await self.server.stop()

    async def clients(self, wanted: int) -> None:
        async with asyncio.timeout(20):
            while self.app.state.streams.clients != wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def told(answer: httpx.Response) -> AsyncIterator[Any]:
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


async def test_decisions_come_as_they_are_made_to_whoever_wants_them(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "TOLD_EVERY_S", 0.02)
    async with Served(operator) as served:
        url = "/v1/events?name=web&outcome=ScaledUp,NoChange"
        async with served.client.stream("GET", url) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = told(answer)
            first = await anext(events)
            assert [one["name"] for one in first["decisions"]] == ["web"]
            operator.log.add(record("api"))
            operator.log.add(record("web", outcome="Held"))
            operator.log.add(record("web", outcome="ScaledUp", clamps=(TO_BOUND,)))
            (one,) = (await anext(events))["decisions"]
            assert (one["outcome"], one["clamps"]) == ("ScaledUp", ["Bounds"])
        await served.clients(0)


async def test_a_quiet_stream_shows_that_it_is_there(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "TOLD_EVERY_S", 0.01)
    monkeypatch.setattr(watching, "ALIVE_EVERY_S", 0.02)
    async with Served(operator) as served, served.client.stream("GET", "/v1/events") as answer:
        async for line in answer.aiter_lines():
            if line.startswith(": "):
                return
    raise AssertionError("it ended")


async def test_too_many_who_follow_are_refused_and_one_who_goes_makes_room(operator: Operator) -> None:
    async with Served(operator) as served:
        served.app.state.streams.most = 1
        async with served.client.stream("GET", "/v1/events") as first:
            assert first.status_code == 200
            await served.clients(1)
            refused = await served.client.get("/v1/events")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
            assert "1 clients" in refused.json()["detail"]
        await served.clients(0)
        async with served.client.stream("GET", "/v1/events") as again:
            assert again.status_code == 200


async def test_streams_end_with_the_server(operator: Operator) -> None:
    served = Served(operator)
    async with served:
        async with served.client.stream("GET", "/v1/events") as answer:
            await served.clients(1)
            await served.server.stop()
            async with asyncio.timeout(10):
                lines = [line async for line in answer.aiter_lines()]
        assert lines[0] == "event: decisions"


async def test_a_slow_client_is_waited_for_and_nothing_piles_up() -> None:
    made = 0

    async def events() -> AsyncIterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield event("decisions", {"made": made})

    stuck, gone = asyncio.Event(), asyncio.Event()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) > 3:
            stuck.set()
            await asyncio.Event().wait()

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    streams = Streams()
    answering = asyncio.create_task(streams.answer(events())({"type": "http"}, receive, send))
    await stuck.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert (made, streams.clients) == (3, 1)
    gone.set()
    await answering
    assert streams.clients == 0


async def test_bad_streams_are_refused_in_clear_words(operator: Operator) -> None:
    answer = await get(operator, "/v1/events?limit=3")
    assert answer.status_code == 422
    assert "limit" in answer.json()["detail"]
