"""A real HTTP server of a given capacity: `python -m sim.webbalancing.server --workers 4 --service-ms 100`.

It works on `workers` requests at once, the others wait, first come, first served; with BACKLOG waiting it
answers 503. A request is work of `size` times the mean service time: by the query `/work?size=1.3`, or drawn
(gamma, by the seed, so that the n-th request of a server is the same in every run). The work is waiting, not
computing: a laptop has room for a whole fleet, and what is measured is queueing.

`GET /metrics` is Prometheus text, `GET /healthz` says ok. With `--control`, `POST /control` changes capacity
and lets it be slow, fail or be down; only for tests and training, it is not authenticated. It prints one
line of JSON with its address when it listens. Started by `sim.webbalancing.fleet`, and by
manifests/webbalancing/compose.yaml; of this project it imports nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import time
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BACKLOG = 64
ERROR_WORK = 0.1
BUCKETS = tuple(0.005 * 2**k for k in range(12))


class Capacity:
    """What a server can do, and what ails it. Changed as a whole, by `changed`."""

    def __init__(self, workers: int, service_s: float, variation: float) -> None:
        self.workers, self.service_s, self.variation = workers, service_s, variation
        self.speed, self.error_share, self.down = 1.0, 0.0, False

    def changed(self, content: Any) -> Capacity:
        """A copy with the settings of a JSON object. Raises ValueError that says which is not allowed."""
        if not isinstance(content, dict):
            raise ValueError(f"a JSON object is expected, not {content!r}")
        made = Capacity(self.workers, self.service_s, self.variation)
        made.speed, made.error_share, made.down = self.speed, self.error_share, self.down
        for name, value in content.items():
            if name not in ALLOWED:
                raise ValueError(f"{name}: unknown; known are {', '.join(ALLOWED)}")
            kind, accepts, allowed = ALLOWED[name]
            whole = isinstance(value, bool) == (kind is bool)
            if not whole or not isinstance(value, int if kind is int else int | float) or not accepts(value):
                raise ValueError(f"{name}: {value!r} is not allowed, must be {allowed}")
            setattr(made, name, kind(value))
        return made


ALLOWED: dict[str, tuple[Any, Any, str]] = {
    "workers": (int, lambda value: 1 <= value <= 1024, "a whole number in 1..1024"),
    "service_s": (float, lambda value: 0 < value <= 60, "above 0, at most 60 seconds"),
    "variation": (float, lambda value: 0 <= value <= 100, "in 0..100"),
    "speed": (float, lambda value: 0 < value <= 100, "above 0, at most 100"),
    "error_share": (float, lambda value: 0 <= value <= 1, "in 0..1"),
    "down": (bool, lambda value: True, "true or false"),
}


class Server:
    """Answers requests; counts them in metrics of its own."""

    def __init__(self, name: str, capacity: Capacity, seed: int = 0) -> None:
        self.name, self.capacity = name, capacity
        self._rng = random.Random(f"{seed} {name}")
        self._busy = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._metrics = Metrics()

    def app(self, control: bool) -> web.Application:
        """The routes."""
        made = web.Application()
        made.router.add_get("/work", self.work)
        made.router.add_get("/metrics", self.metrics)
        made.router.add_get("/healthz", self.health)
        if control:
            made.router.add_post("/control", self.control)
        return made

    async def work(self, request: web.Request) -> web.StreamResponse:
        """One request: wait for a worker, work, answer."""
        began = time.perf_counter()
        if self.capacity.down:
            return _hang_up(request)
        try:
            size, luck = self._drawn(request)
        except ValueError as error:
            return self._answered(400, began, str(error))
        if len(self._waiting) >= BACKLOG:
            return self._answered(503, began, "busy")
        await self._worker()
        try:
            failing = luck < self.capacity.error_share
            worked_s = size * self.capacity.service_s / self.capacity.speed * (ERROR_WORK if failing else 1.0)
            at_work = time.perf_counter()
            await asyncio.sleep(worked_s)
        finally:
            self._release()
        if failing:
            return self._answered(500, began, "failed")
        self._metrics.service.observe(time.perf_counter() - at_work)
        return self._answered(200, began, "done")

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """Prometheus text."""
        if self.capacity.down:
            return _hang_up(request)
        text = self._metrics.text(self.capacity, self._busy, len(self._waiting))
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def health(self, request: web.Request) -> web.StreamResponse:
        """ok, unless it is down."""
        return _hang_up(request) if self.capacity.down else web.Response(text="ok\n")

    async def control(self, request: web.Request) -> web.Response:
        """Change the capacity, or what ails it."""
        try:
            self.capacity = self.capacity.changed(await request.json())
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=422)
        self._wake()
        return web.json_response(vars(self.capacity))

    def _drawn(self, request: web.Request) -> tuple[float, float]:
        """Size and luck of a request: as its query says, or drawn."""
        variation = self.capacity.variation
        size = self._rng.gammavariate(1 / variation, variation) if variation > 0 else 1.0
        luck = self._rng.random()
        found = []
        for name, value in (("size", size), ("luck", luck)):
            value = float(request.query.get(name, value))
            if not 0 <= value <= 1e4:
                raise ValueError(f"{name}: {value} is not allowed, must be in 0..10000")
            found.append(value)
        return found[0], found[1]

    async def _worker(self) -> None:
        if self._busy < self.capacity.workers and not self._waiting:
            self._busy += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def _release(self) -> None:
        self._busy -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._busy < self.capacity.workers:
            turn = self._waiting.pop(0)
            if not turn.done():
                self._busy += 1
                turn.set_result(None)

    def _answered(self, status: int, began: float, text: str) -> web.Response:
        self._metrics.requests.labels(str(status)).inc()
        self._metrics.duration.observe(time.perf_counter() - began)
        return web.Response(status=status, text=text + "\n", headers={"x-server": self.name})


class Metrics:
    """The server's own registry, so that several can live in one process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("web_requests", "Requests by status code.", ["code"], registry=registry)
        self.duration = Histogram(
            "web_request_duration_seconds", "Wait and work of a request.", buckets=BUCKETS, registry=registry
        )
        self.service = Histogram(
            "web_service_seconds", "Work of answered requests.", buckets=BUCKETS, registry=registry
        )
        self._workers = Gauge("web_workers", "Requests worked on at once, at most.", registry=registry)
        self._busy = Gauge("web_busy_workers", "Requests being worked on.", registry=registry)
        self._queue = Gauge("web_queue", "Requests that wait for a worker.", registry=registry)
        self._flight = Gauge(
            "web_requests_in_flight", "Requests that wait or are worked on.", registry=registry
        )
        self._nominal = Gauge("web_service_seconds_configured", "Mean work of a request.", registry=registry)

    def text(self, capacity: Capacity, busy: int, waiting: int) -> bytes:
        """All of it now."""
        self._workers.set(capacity.workers)
        self._busy.set(busy)
        self._queue.set(waiting)
        self._flight.set(busy + waiting)
        self._nominal.set(capacity.service_s)
        return generate_latest(self._registry)


def _hang_up(request: web.Request) -> web.StreamResponse:
    """A server that is down has no answer: the connection breaks."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)


def build_parser() -> argparse.ArgumentParser:
    """The command line; defaults from WEB_... variables, for containers."""
    parser = argparse.ArgumentParser(prog="python -m sim.webbalancing.server", description="A web server.")
    of = os.environ.get
    parser.add_argument("--name", default=of("WEB_NAME", "web"), help="in the header x-server")
    parser.add_argument("--host", default=of("WEB_HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(of("WEB_PORT", "0")), help="default: a free one")
    parser.add_argument(
        "--workers", type=int, default=int(of("WEB_WORKERS", "4")), help="requests at once; default: 4"
    )
    parser.add_argument(
        "--service-ms", type=float, default=float(of("WEB_SERVICE_MS", "100")), help="mean; default: 100"
    )
    parser.add_argument(
        "--variation", type=float, default=float(of("WEB_VARIATION", "0.5")),
        help="squared coefficient of variation of the work; default: 0.5",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=int(of("WEB_SEED", "0")), help="of the work; default: 0")
    parser.add_argument(
        "--control", action="store_true", default=of("WEB_CONTROL") == "1", help="allow POST /control"
    )
    parser.add_argument("--parent", type=int, help="end when this process is gone")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C; 2 for settings that are not allowed."""
    parser = build_parser()
    args = parser.parse_args(argv)
    wanted = {"workers": args.workers, "service_s": args.service_ms / 1000, "variation": args.variation}
    try:
        capacity = Capacity(1, 1.0, 0.0).changed(wanted)
    except ValueError as error:
        parser.error(str(error))
    try:
        asyncio.run(_serve(args, Server(args.name, capacity, args.seed)))
    except KeyboardInterrupt:
        return 0
    return 0


async def _serve(args: argparse.Namespace, server: Server) -> None:
    loop, ending = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    runner = web.AppRunner(server.app(args.control), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, args.host, args.port, backlog=1024)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(json.dumps({"name": args.name, "address": f"http://{host}:{port}"}), flush=True)
    while not ending.is_set():
        if args.parent and os.getppid() != args.parent:
            break
        try:
            async with asyncio.timeout(1.0):
                await ending.wait()
        except TimeoutError:
            continue
    await runner.cleanup()


if __name__ == "__main__":
    raise SystemExit(main())
