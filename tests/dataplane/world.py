"""The twin's data plane (`sim.twin.dataplane`) beside any API server, for tests that are synchronous.

It runs in a thread of its own; the gateway reads the route from the API server some times a second.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sim.twin.dataplane import Clients, Envoy, Gateway, PoolServer
from sim.twin.dataplane.clients import split

HOST = "web"
T = TypeVar("T")
Read = Callable[[], dict[str, int]]


class World:
    """Servers, Envoy, clients and the gateway of one route."""

    def __init__(self, directory: Path, services_s: dict[str, float], slots: int, read: Read) -> None:
        self._directory, self._services_s, self._slots, self._read = directory, services_s, slots, read
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="data plane", daemon=True)
        self._stack = AsyncExitStack()
        self.servers: dict[str, PoolServer] = {}
        self.envoy: Envoy
        self.gateway: Gateway
        self.clients: Clients

    def __enter__(self) -> World:
        self._thread.start()
        self.run(self._start())
        return self

    def __exit__(self, *exc: object) -> None:
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float = 300) -> T:
        """Runs a coroutine in the data plane's loop and waits for its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    async def _start(self) -> None:
        enter = self._stack.enter_async_context
        for name, service_s in self._services_s.items():
            self.servers[name] = await enter(PoolServer(name, service_s, self._slots))
        ports = {name: server.port for name, server in self.servers.items()}
        self.envoy = await enter(Envoy(self._directory, ports, {HOST: dict.fromkeys(ports, 1)}))
        self.gateway = Gateway(self.envoy)
        self.clients = await enter(Clients(self.envoy.listen, HOST))
        polling = asyncio.create_task(self._poll())
        self._stack.callback(polling.cancel)

    async def _poll(self) -> None:
        while True:
            self.gateway.take({HOST: await asyncio.to_thread(self._read)})
            await asyncio.sleep(0.2)

    def burst(self, count: int) -> None:
        """So many requests as fast as they come back; returns after the last."""
        self.run(self.clients.burst(count))

    def weights_in_force(self) -> dict[str, int]:
        """What Envoy was told last."""
        return dict(self.gateway.weights(HOST))

    def series(self, name: str, since_s: float) -> list[int]:
        """One pool's weights since a moment, changes only; the weight at that moment first."""
        return [weight for _, weight in self.gateway.series(HOST, name, since_s)]

    def figures(self, since_s: float) -> dict[str, Any]:
        """p99 (ms), error ratio and split of the requests since a moment."""
        found = self.clients.between(since_s)
        return {
            "requests": len(found),
            "p99_ms": round(1000 * float(np.quantile([sample.seconds for sample in found], 0.99)), 1),
            "error_ratio": round(float(np.mean([sample.status != 200 for sample in found])), 4),
            "split": {name: round(share, 3) for name, share in split(found, self.servers).items()},
        }


@contextmanager
def world(directory: Path, services_s: dict[str, float], slots: int, read: Read) -> Iterator[World]:
    """Servers by name with their service times (s) and slots each, behind Envoy, under no traffic yet."""
    with World(directory, services_s, slots, read) as made:
        yield made


def describe(found: dict[str, Any]) -> str:
    """Figures for a report, one line."""
    return json.dumps(found, sort_keys=True)


def settle(seconds: float) -> float:
    """Wait, and the moment after it."""
    time.sleep(seconds)
    return time.monotonic()
