"""Real HTTP servers, one a pool: as many requests at a time as its replicas can work on, and a queue."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque

from aiohttp import web

POOL_HEADER = "x-pool"


class PoolServer:
    """`async with PoolServer("web-spot", 0.08, slots=3) as server: server.port`, on 127.0.0.1.

    service_s: what a request takes in a slot. error_share: of the requests that are answered 500, after their
    work. slots: requests that are worked on at once, replicas times what one can do; the others wait in one
    queue. All three may be changed at any time; requests that are worked on go on as they began.
    """

    def __init__(
        self, name: str, service_s: float, slots: int, error_share: float = 0.0, seed: int = 0
    ) -> None:
        self.name, self.service_s, self.error_share = name, service_s, error_share
        self.port = 0
        self.served = 0
        self._slots, self._working = slots, 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._random = random.Random(f"{name} {seed}")
        self._busy_s, self._at_s = 0.0, time.monotonic()
        self._runner: web.AppRunner | None = None
        self._answering: set[asyncio.Task[web.Response]] = set()

    @property
    def slots(self) -> int:
        return self._slots

    @slots.setter
    def slots(self, slots: int) -> None:
        self._slots = slots
        self._wake()

    @property
    def busy_s(self) -> float:
        """Seconds that slots have been busy so far, all together."""
        now_s = time.monotonic()
        self._busy_s += self._working * (now_s - self._at_s)
        self._at_s = now_s
        return self._busy_s

    async def __aenter__(self) -> PoolServer:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._begin)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _begin(self, request: web.Request) -> web.Response:
        task = asyncio.create_task(self._answer())
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        return await task

    async def _answer(self) -> web.Response:
        await self._take()
        try:
            await asyncio.sleep(self.service_s)
        finally:
            self._work(-1)
            self._wake()
        self.served += 1
        failed = self._random.random() < self.error_share
        return web.Response(status=500 if failed else 200, headers={POOL_HEADER: self.name})

    async def _take(self) -> None:
        if self._working < self._slots and not self._queue:
            self._work(1)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        await turn

    def _work(self, more: int) -> None:
        _ = self.busy_s
        self._working += more

    def _wake(self) -> None:
        while self._queue and self._working < self._slots:
            turn = self._queue.popleft()
            if not turn.done():
                self._work(1)
                turn.set_result(None)
