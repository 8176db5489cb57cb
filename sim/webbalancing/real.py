"""The real face of web balancing: HTTP requests to HTTP servers, and their metrics, in real time.

One thread runs the sockets (aiohttp) and writes into the balancer's book when something ends; the caller's
thread decides, and waits until the next batch is due. Whatever goes wrong with a server is noted in the
errors' log, counts as a failed request or a missing metric, and the run goes on; a local process that has
died is started again when the next episode begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import aiohttp
import numpy as np

from sim.errors import SimulationError
from sim.webbalancing import book as notes
from sim.webbalancing.batch import TwinBatch, WebBatch, WebConfig
from sim.webbalancing.episodes import DOWN, FAILING, NONE, SLOW, Episode, Fault
from sim.webbalancing.features import observe
from sim.webbalancing.fleet import Fleet, Wanted
from sim.webbalancing.layout import FAILED, OK, PENDING, REFUSED, TIMED_OUT, FloatArray, IntArray
from sim.webbalancing.scraping import Reading, read_metrics

HEALTHY = {"speed": 1.0, "error_share": 0.0, "down": False}
CALL_S = 5.0
"""How long a change of a server's capacity may take."""
DRAIN_S = 10.0
"""How long requests may take to end beyond their timeout, before they count as given up."""
OUTSIDE = (aiohttp.ClientError, OSError, ValueError, TimeoutError)
"""What servers and networks can do to us."""


class RealBatch(WebBatch):
    """One balancer before real servers: local processes, or those at `config.addresses`."""

    def __init__(
        self,
        config: WebConfig | None = None,
        seed: int = 0,
        autoreset: bool = True,
        given: Sequence[Episode] | None = None,
    ) -> None:
        super().__init__(config, 1, seed, autoreset, given)
        count = self.config.servers
        self.fleet: Fleet | None = None
        if self.config.addresses:
            self.addresses, self.names = list(self.config.addresses), list(self.config.addresses)
        else:
            self.fleet = Fleet([Wanted(f"web-{place + 1}", seed=seed) for place in range(count)])
            self.addresses, self.names = self.fleet.addresses, self.fleet.names
        _compile()
        self._lock = threading.Lock()
        self._began_s, self._late_s = 0.0, 0.0
        self._readings: list[Reading | None] = [None] * count
        self.at_start: list[Reading | None] = [None] * count
        self._plans: list[asyncio.Task[None]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="web requests", daemon=True)
        self._thread.start()
        self.session = self.run(_new_session())
        if self.config.addresses:
            self._check_addresses()

    def prepare(self, row: int, episode: Episode) -> None:
        """Let the last episode end, start dead servers again, give all their capacity, begin to scrape."""
        self._drain()
        self.run(self._cancel_plans())
        self._restart_dead()
        for place, (workers, service_s) in enumerate(zip(episode.workers, episode.service_s, strict=True)):
            wanted = {"workers": int(workers), "service_s": float(service_s), **HEALTHY}
            self.run(self._control(place, wanted))
        self.run(self._scrape_all(forget=True))
        self.at_start = list(self._readings)
        self._late_s, self._began_s = 0.0, time.monotonic()
        self.run(self._begin_plans(episode.fault))

    def play(self, actions: IntArray) -> FloatArray:
        """Send the batch, wait until the next one is due, and observe."""
        server, step = int(actions[0]), int(self.book.step[0])
        first, count = int(self.truth.first[0, step]), int(self.book.batch[0])
        with self._lock:
            self.book.cost[0] = 0.0
            notes.note_sent(self.book, 0, server, first)
        self._send(server, range(first, first + count))
        due_s = float(self.truth.arrive_s[0, step + 1])
        self._late_s += max(self._now() - due_s, 0.0)
        time.sleep(max(due_s - self._now(), 0.0))
        with self._lock:
            notes.note_arrival(self.book, 0, max(self._now(), due_s), int(self.truth.counts[0, step + 1]))
            observe(self.book, 0, self.low, self.high, self.observations[0])
        self.final[0] = step + 1 == self.config.batches
        if self.final[0]:
            self._drain()
        with self._lock:
            return self.book.cost.copy()

    def summary(self, row: int) -> dict[str, float]:
        """The twin's figures; `late_ms`: how late batches were sent in the mean, for want of this machine."""
        found = super().summary(row)
        return found | {"late_ms": 1000 * self._late_s / max(found["steps"], 1.0)}

    def close(self) -> None:
        """End the thread and stop the servers that were started."""
        if self._thread.is_alive():
            with contextlib.suppress(*OUTSIDE):
                self.run(self._cancel_plans())
                if self.fleet is None:
                    self.run(self._heal())
                self.run(self.session.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        if self.fleet is not None:
            self.fleet.close()

    def _now(self) -> float:
        return time.monotonic() - self._began_s

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Have the sockets' thread do something; what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _send(self, server: int, requests: range) -> None:
        began_s, timeout_s = self._now(), notes.TIMEOUT * float(self.book.reference_s[0])
        for request in requests:
            work = self._request(server, request, began_s, timeout_s)
            asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _request(self, server: int, request: int, began_s: float, timeout_s: float) -> None:
        query = {name: f"{value[0, request]:.9g}" for name, value in self._drawn().items()}
        try:
            async with self.session.get(
                f"{self.addresses[server]}/work", params=query, timeout=aiohttp.ClientTimeout(timeout_s)
            ) as response:
                await response.read()
                status = {200: OK, 503: REFUSED}.get(response.status, FAILED)
        except TimeoutError as error:
            status = TIMED_OUT
            self.errors.note("request", self.names[server], f"gave up after {timeout_s:.2f} s {error}")
        except OUTSIDE as error:
            status = REFUSED
            self.errors.note("request", self.names[server], error)
        now_s = self._now()
        with self._lock:
            if self.book.status[0, request] == PENDING:
                notes.note_end(self.book, 0, request, now_s, now_s - began_s, status)

    def _drawn(self) -> dict[str, FloatArray]:
        return {"size": self.truth.sizes, "luck": self.truth.luck}

    def _drain(self) -> None:
        """Wait until every request has ended; what never does counts as given up."""
        until_s = time.monotonic() + notes.TIMEOUT * float(self.book.reference_s[0]) + DRAIN_S
        while (pending := self._pending()) and time.monotonic() < until_s:
            time.sleep(0.01)
        for request in pending:
            with self._lock:
                if self.book.status[0, request] == PENDING:
                    self.errors.note("request", self.names[self.book.server[0, request]], "never ended")
                    notes.note_end(self.book, 0, int(request), self._now(), DRAIN_S, TIMED_OUT)

    def _pending(self) -> list[int]:
        with self._lock:
            sent = (self.book.status[0] == PENDING) & (self.book.server[0] >= 0)
            return [] if self.book.in_flight[0].sum() == 0 else np.flatnonzero(sent).tolist()

    def _restart_dead(self) -> None:
        for place in self.fleet.dead() if self.fleet is not None else []:
            assert self.fleet is not None
            self.errors.note("process", self.names[place], "has died; it is started again")
            try:
                self.fleet.restart(place)
            except (SimulationError, OSError) as error:
                self.errors.note("process", self.names[place], error)

    def _check_addresses(self) -> None:
        for place, address in enumerate(self.addresses):
            if not self.run(self._control(place, {})):
                self.close()
                raise SimulationError(
                    f"addresses: {address!r} does not answer POST /control; start the server with --control"
                )

    async def _control(self, place: int, content: dict[str, Any]) -> bool:
        try:
            async with self.session.post(
                f"{self.addresses[place]}/control", json=content, timeout=aiohttp.ClientTimeout(CALL_S)
            ) as response:
                if response.status == 200:
                    return True
                self.errors.note("control", self.names[place], f"status {response.status}")
        except OUTSIDE as error:
            self.errors.note("control", self.names[place], error)
        return False

    async def _heal(self) -> None:
        """Servers that were not ours to stop are left without a fault."""
        await asyncio.gather(*(self._control(place, HEALTHY) for place in range(self.config.servers)))

    async def _begin_plans(self, fault: Fault) -> None:
        self._plans = [asyncio.ensure_future(self._scrape_for_ever())]
        if fault.kind != NONE:
            self._plans.append(asyncio.ensure_future(self._befall(fault)))

    async def _cancel_plans(self) -> None:
        for plan in self._plans:
            plan.cancel()
        await asyncio.gather(*self._plans, return_exceptions=True)
        self._plans = []

    async def _befall(self, fault: Fault) -> None:
        kinds: dict[int, dict[str, Any]] = {
            SLOW: {"speed": fault.speed},
            FAILING: {"error_share": fault.error_share},
            DOWN: {"down": True},
        }
        await asyncio.sleep(max(fault.begin_s - self._now(), 0.0))
        await self._control(fault.server, kinds[fault.kind])
        await asyncio.sleep(max(fault.end_s - self._now(), 0.0))
        await self._control(fault.server, HEALTHY)

    async def _scrape_for_ever(self) -> None:
        due_s = 0.0
        while True:
            due_s = max(due_s + notes.SCRAPE_S, self._now())
            await asyncio.sleep(max(due_s - self._now(), 0.0))
            await self._scrape_all()

    async def _scrape_all(self, forget: bool = False) -> None:
        """forget: only set the counters' starts."""
        await asyncio.gather(*(self._scrape(place, forget) for place in range(self.config.servers)))

    async def read(self, place: int) -> Reading | None:
        """A server's metrics now; None, and a line in the errors' log, where they cannot be had."""
        try:
            async with self.session.get(
                f"{self.addresses[place]}/metrics", timeout=aiohttp.ClientTimeout(notes.SCRAPE_S)
            ) as response:
                response.raise_for_status()
                return read_metrics(await response.text())
        except OUTSIDE as error:
            self.errors.note("scrape", self.names[place], error)
            return None

    async def _scrape(self, place: int, forget: bool) -> None:
        reading = await self.read(place)
        before = self._readings[place]
        if reading is None:
            return
        self._readings[place] = reading
        if forget:
            return
        service_s, count = reading.since(before)
        with self._lock:
            notes.note_scrape(self.book, 0, place, self._now(), reading.busy, reading.queue, service_s, count)


async def _new_session() -> aiohttp.ClientSession:
    # our own servers, by their own addresses: no proxy of the environment, no limit on connections
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trust_env=False)


def _compile() -> None:
    """Have all compiled code ready before the first request is due: a scratch book's short life."""
    scratch = TwinBatch(WebConfig(batches=10), 1, autoreset=False)
    scratch.reset()
    scratch.true_costs()
    book = scratch.book
    first = int(scratch.truth.first[0, 0])
    notes.note_sent(book, 0, 0, first)
    notes.note_end(book, 0, first, 0.1, 0.1, OK)
    notes.note_scrape(book, 0, 0, 0.5, 0.5, 0.0, 0.1, 1.0)
    notes.note_arrival(book, 0, 0.5, 1)
    observe(book, 0, scratch.low, scratch.high, scratch.observations[0])
