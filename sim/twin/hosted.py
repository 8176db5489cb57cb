"""A TwinCluster in a thread of its own, for tests and programs that are synchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self, TypeVar

from sim.twin.emulator import Fault, TwinCluster

T = TypeVar("T")


class HostedCluster:
    """`with HostedCluster(time_scale=60) as cluster: cluster.url`; takes TwinCluster's arguments.

    `cluster.call(f)` runs `f()` in the cluster's event loop, which is where its objects may be touched.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="twin", daemon=True)
        self.cluster: TwinCluster

    def __enter__(self) -> Self:
        self._thread.start()
        self.cluster = self.run(self._start())
        return self

    def __exit__(self, *exc: object) -> None:
        self.run(self.cluster.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> TwinCluster:
        return await TwinCluster(**self._options).__aenter__()

    @property
    def url(self) -> str:
        return self.cluster.url

    def write_kubeconfig(self, path: str | Path) -> Path:
        return self.cluster.write_kubeconfig(path)

    def inject(self, **fields: Any) -> Fault:
        return self.call(lambda: self.cluster.inject(**fields))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the cluster's loop and waits for its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=60)

    def call(self, function: Callable[[], T]) -> T:
        """Calls a function in the cluster's loop and waits for its result."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(_async(function), self._loop)
        return future.result(timeout=60)


async def _async(function: Callable[[], T]) -> T:
    return function()
