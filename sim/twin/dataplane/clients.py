"""Load on the data plane: an open loop, in which requests are sent when they are due, whether others have
come back or not; what a client sees is measured from there on."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import aiohttp

from sim.twin.dataplane.servers import POOL_HEADER

TIMEOUT_S = 10.0
_BEHIND_S = 1.0
"""A generator that is further behind than this (a stopped machine) leaves out what it missed."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One request as its client saw it; at_s: when it ended, by time.monotonic(). status 0: no answer."""

    at_s: float
    pool: str
    status: int
    seconds: float


class Clients:
    """`async with Clients(port, "web") as clients: clients.rate_rps = 60`; `samples` grows from then on.

    Arrivals are a Poisson process by `seed`. rate_rps may be changed at any time.
    """

    def __init__(self, port: int, host: str, rate_rps: float = 0.0, seed: int = 0) -> None:
        self.host, self.rate_rps = host, rate_rps
        self.samples: list[Sample] = []
        self.left_out = 0
        self._url = f"http://127.0.0.1:{port}/"
        self._random = random.Random(seed)
        self._session: aiohttp.ClientSession
        self._task: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(TIMEOUT_S),
            headers={"Host": self.host},
        )
        self._task = asyncio.create_task(self._send_forever())
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._task is not None
        for task in (self._task, *self._under_way):
            task.cancel()
        await asyncio.gather(self._task, *self._under_way, return_exceptions=True)
        await self._session.close()

    async def burst(self, count: int, at_a_time: int = 8) -> None:
        """So many requests as fast as they come back; returns after the last."""
        left = iter(range(count))

        async def client() -> None:
            for _ in left:
                await self._send()

        await asyncio.gather(*(client() for _ in range(at_a_time)))

    def between(self, since_s: float, until_s: float = float("inf")) -> list[Sample]:
        """Requests that ended between two moments of time.monotonic()."""
        return [sample for sample in self.samples if since_s <= sample.at_s < until_s]

    async def _send_forever(self) -> None:
        due_s = time.monotonic()
        while True:
            if self.rate_rps <= 0:
                await asyncio.sleep(0.02)
                due_s = time.monotonic()
                continue
            due_s += self._random.expovariate(self.rate_rps)
            behind_s = time.monotonic() - due_s
            if behind_s > _BEHIND_S:
                self.left_out += 1
                continue
            if behind_s < 0:
                await asyncio.sleep(-behind_s)
            task = asyncio.create_task(self._send())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _send(self) -> None:
        began_s = time.monotonic()
        try:
            async with self._session.get(self._url) as response:
                await response.read()
                status, pool = response.status, response.headers.get(POOL_HEADER, "")
        except (aiohttp.ClientError, TimeoutError):
            status, pool = 0, ""
        now_s = time.monotonic()
        self.samples.append(Sample(now_s, pool, status, now_s - began_s))


def split(samples: Iterable[Sample], pools: Iterable[str]) -> Mapping[str, float]:
    """Shares of the requests by pool."""
    found = Counter(sample.pool for sample in samples)
    total = max(sum(found.values()), 1)
    return {name: found[name] / total for name in pools}
