"""Real HTTP servers of different speeds behind a real Envoy, whose weights are those of an HTTPRoute.

The gateway is as small as one can be: it reads the route from the API server a few times a second and hands
the weights to Envoy as a file (RDS by file system). What the operator sees of it comes through Prometheus.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from tests.metrics.servers import envoy_cluster, free_port, get, process, wait_for
from tests.real_parts import real_part

API = "type.googleapis.com/envoy"
WORKERS = 16
"""Requests that a server works on at once."""


@dataclass
class Server:
    """One pool's server. service_s: what a request takes; may be changed at any time."""

    name: str
    service_s: float
    error_share: float = 0.0
    port: int = 0
    served: int = 0


@dataclass(frozen=True)
class Sample:
    """One request as its client saw it."""

    at_s: float
    pool: str
    status: int
    seconds: float


@dataclass
class World:
    """Servers, Envoy and clients; `samples` grows while clients send `rate_rps`."""

    servers: dict[str, Server]
    listen: int
    admin: int
    rds: Path
    samples: list[Sample] = field(default_factory=list)
    rate_rps: float = 0.0
    loop: asyncio.AbstractEventLoop | None = None

    def burst(self, count: int, at_a_time: int = 8) -> None:
        """So many requests as fast as they come back; returns after the last."""
        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(_burst(self, count, at_a_time), self.loop).result(timeout=300)

    def since(self, at_s: float) -> list[Sample]:
        """Requests that ended after a moment of time.monotonic()."""
        return [sample for sample in self.samples if sample.at_s >= at_s]

    def split(self, at_s: float) -> dict[str, float]:
        """Shares of the requests since then, by pool."""
        found = Counter(sample.pool for sample in self.since(at_s))
        total = max(sum(found.values()), 1)
        return {name: found[name] / total for name in self.servers}

    def apply(self, weights: dict[str, int]) -> None:
        """Hand weights to Envoy; it reads the file when it is moved into place."""
        clusters = [{"name": name, "weight": weight} for name, weight in weights.items()]
        route = {"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": clusters}}}
        host = {"name": "all", "domains": ["*"], "routes": [route]}
        table = {"@type": f"{API}.config.route.v3.RouteConfiguration", "name": "web", "virtual_hosts": [host]}
        text = yaml.safe_dump({"version_info": str(time.time_ns()), "resources": [table]})
        fresh = self.rds.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.rds)


def _bootstrap(admin: int, listen: int, rds: Path, clusters: list[dict[str, Any]]) -> dict[str, Any]:
    router = {"@type": f"{API}.extensions.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{API}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "rds": {
            "route_config_name": "web",
            "config_source": {"path_config_source": {"path": str(rds)}, "resource_api_version": "V3"},
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": listen}}
    return {
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "stats_flush_interval": "0.5s",
        "static_resources": {
            "listeners": [{"name": "in", "address": address, "filter_chains": [chain]}],
            "clusters": clusters,
        },
    }


@contextmanager
def world(directory: Path, services_s: dict[str, float]) -> Iterator[World]:
    """Servers by name with their service times (s), behind Envoy, under no traffic yet."""
    servers = {name: Server(name, service_s) for name, service_s in services_s.items()}
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="servers and clients", daemon=True)
    thread.start()

    def run(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(timeout=30)

    runners = [run(_serve(server)) for server in servers.values()]
    listen, admin, rds = free_port(), free_port(), directory / "rds.yaml"
    made = World(servers, listen, admin, rds, loop=loop)
    made.apply(dict.fromkeys(servers, 50))
    clusters = [envoy_cluster(server.name, server.port) for server in servers.values()]
    (directory / "envoy.yaml").write_text(yaml.safe_dump(_bootstrap(admin, listen, rds, clusters)))
    command = [real_part("envoy"), "-c", str(directory / "envoy.yaml"), "--concurrency", "1"]
    try:
        with process([*command, "--log-level", "warn", "--use-dynamic-base-id"], directory / "envoy.log"):
            wait_for(lambda: get(admin, "/ready")[0] == 200, "Envoy")
            ending = asyncio.Event()
            clients = asyncio.run_coroutine_threadsafe(_send_forever(made, ending), loop)
            try:
                yield made
            finally:
                loop.call_soon_threadsafe(ending.set)
                clients.result(timeout=30)
    finally:
        for runner in runners:
            run(runner.cleanup())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _serve(server: Server) -> web.AppRunner:
    slots = asyncio.Semaphore(WORKERS)

    async def answer(request: web.Request) -> web.Response:
        async with slots:
            await asyncio.sleep(server.service_s)
        server.served += 1
        failing = server.error_share > 0 and server.served % round(1 / server.error_share) == 0
        return web.Response(status=503 if failing else 200, headers={"x-pool": server.name})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    return runner


async def _send_forever(made: World, ending: asyncio.Event) -> None:
    """An open loop: requests are sent when they are due, whether others have come back or not."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        under_way: set[asyncio.Task[None]] = set()
        due_s = time.monotonic()
        while not ending.is_set():
            if made.rate_rps <= 0:
                await asyncio.sleep(0.05)
                due_s = time.monotonic()
                continue
            due_s = max(due_s + 1.0 / made.rate_rps, time.monotonic() - 1.0)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            task = asyncio.ensure_future(_send(made, session))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)


async def _burst(made: World, count: int, at_a_time: int) -> None:
    left = iter(range(count))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def client() -> None:
            for _ in left:
                await _send(made, session)

        await asyncio.gather(*(client() for _ in range(at_a_time)))


async def _send(made: World, session: aiohttp.ClientSession) -> None:
    began_s = time.monotonic()
    try:
        async with session.get(
            f"http://127.0.0.1:{made.listen}/", timeout=aiohttp.ClientTimeout(10)
        ) as response:
            await response.read()
            status, pool = response.status, response.headers.get("x-pool", "")
    except (aiohttp.ClientError, TimeoutError):
        status, pool = 0, ""
    now_s = time.monotonic()
    made.samples.append(Sample(now_s, pool, status, now_s - began_s))


class Gateway:
    """Keeps Envoy's weights those of one HTTPRoute; `changes` are the weights it has seen, with times."""

    def __init__(self, made: World, read: Callable[[], dict[str, int]], every_s: float = 0.2) -> None:
        self._world, self._read, self._every_s = made, read, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self.changes: list[tuple[float, dict[str, int]]] = []

    def __enter__(self) -> Gateway:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            weights = self._read()
            if not self.changes or weights != self.changes[-1][1]:
                self._world.apply(weights)
                self.changes.append((time.monotonic(), weights))

    def series(self, name: str, since_s: float) -> list[int]:
        """One pool's weights since a moment, changes only; the weight at that moment first."""
        before = [weights[name] for at_s, weights in self.changes if at_s < since_s]
        return before[-1:] + [weights[name] for at_s, weights in self.changes if at_s >= since_s]


def describe(found: dict[str, Any]) -> str:
    """Figures for a report, one line."""
    return json.dumps(found, sort_keys=True)
