"""The control loop: who is due, in batches, at fixed points in time.

One task sleeps until the next turn and starts a batch of all that are due. Objects of different Prometheus
servers are batches of their own, and so are those whose readings are late, so that a slow one holds up nobody
else; an object is never in two batches at once. The loop itself only keeps time: `controller.observing` and
`controller.turn` do the work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence

from controller.case import Case
from controller.clock import Clock
from controller.observing import Party
from controller.registry import Entry, Registry
from controller.schedule import Schedule, Turn, next_due
from controller.telemetry import Telemetry
from controller.turn import Reconciler

logger = logging.getLogger(__name__)

LONGEST_SLEEP_REAL_S = 1.0
LATE_REAL_S = 0.5
STUCK_REAL_S = 30.0
AFTER_ERROR_REAL_S = 1.0
PREPARED_REAL_S = 0.05
"""So long a batch waits for those that have to be prepared first."""
TOGETHER_REAL_S = 0.2
"""Late ones that come within this time of each other are decided in one batch."""


Shared = tuple[list[Case], list[Case]]
"""Of those that need no request of their own: who has been observed, and who needs one after all."""


class ControlLoop:
    """Gives every RLScaler its turns."""

    def __init__(
        self, registry: Registry, reconciler: Reconciler, telemetry: Telemetry, clock: Clock
    ) -> None:
        self._registry = registry
        self._reconciler = reconciler
        self._telemetry = telemetry
        self._clock = clock
        self._schedule = Schedule()
        self._busy: dict[str, Turn] = {}
        self._again: set[str] = set()
        self._batches: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._beat = time.monotonic()
        self._cpu_s = 0.0
        """The process's time when the newest batch began; they overlap only when one is late."""
        self.turns_done = 0

    async def run(self) -> None:
        """Turn until cancelled; whatever a round raises is logged and counted, and the loop goes on."""
        while True:
            self._beat = time.monotonic()
            try:
                self._start_due()
                await self._sleep()
            except Exception:
                logger.exception("unexpected error in the control loop")
                self._telemetry.tick_errors.inc()
                await asyncio.sleep(AFTER_ERROR_REAL_S)

    def stuck(self) -> str | None:
        """What is wrong when the loop has not turned for long."""
        age_s = time.monotonic() - self._beat
        return f"the control loop has not turned for {age_s:.0f} s" if age_s > STUCK_REAL_S else None

    def expect(self, entry: Entry, since_s: float) -> None:
        """A turn at the first point of the entry's grid after `since_s`, over by a period at most."""
        after_s = max(since_s, self._clock.now() - entry.period_s)
        self._put(entry.uid, next_due(entry.uid, entry.period_s, after_s))

    def hasten(self, entry: Entry) -> None:
        """A turn as soon as may be: it is new, or its spec has changed."""
        if entry.uid in self._busy:
            self._again.add(entry.uid)
        else:
            self._put(entry.uid, self._clock.now())

    def drop(self, entry: Entry) -> None:
        """No more turns."""
        self._schedule.remove(entry.uid)
        self._again.discard(entry.uid)

    async def stop(self) -> None:
        """End the batches under way."""
        for task in self._batches:
            task.cancel()
        await asyncio.gather(*self._batches, return_exceptions=True)

    def _put(self, uid: str, due_s: float) -> None:
        self._schedule.put(uid, due_s)
        self._wake.set()

    async def _sleep(self) -> None:
        """Until the next turn, or until somebody is put on the schedule."""
        self._wake.clear()
        due_s = self._schedule.next_s()
        left_s = LONGEST_SLEEP_REAL_S if due_s is None else self._clock.to_real(due_s - self._clock.now())
        try:
            async with asyncio.timeout(min(max(left_s, 0.0), LONGEST_SLEEP_REAL_S)):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _start_due(self) -> None:
        now_s = self._clock.now()
        turns = [turn for turn in self._schedule.pop_due(now_s) if turn.uid in self._registry.entries]
        if not turns:
            return
        for turn in turns:
            self._telemetry.lag.observe(max(0.0, self._clock.to_real(now_s - turn.due_s)))
        self._busy.update((turn.uid, turn) for turn in turns)
        task = asyncio.create_task(self._batch(turns), name="batch")
        self._batches.add(task)
        task.add_done_callback(self._batches.discard)

    async def _batch(self, turns: Sequence[Turn]) -> None:
        self._cpu_s = time.process_time()
        cases = [
            Case(entry, entry.generation, turn.due_s)
            for turn in turns
            if (entry := self._registry.entries.get(turn.uid)) is not None
        ]
        try:
            observer = self._reconciler.observer
            ready: list[Case] = []
            fresh: list[Case] = []
            for case in cases:
                (ready if observer.prepared(case) else fresh).append(case)
            await self._turns(ready, fresh)
        except Exception as error:
            self._unexpected(cases, error)
        finally:
            for turn in turns:
                if self._busy.get(turn.uid) is turn:  # not one that has begun since
                    self._finish(turn.uid, 0.0)

    async def _turns(self, ready: list[Case], fresh: Sequence[Case]) -> None:
        """Turns for those that are prepared, and with them for those that soon will be.

        Mostly it takes no request; apart they would ask Prometheus for themselves.
        """
        preparing = {asyncio.create_task(self._reconciler.observer.prepare(case)): case for case in fresh}
        try:
            if preparing:
                await asyncio.wait(preparing, timeout=PREPARED_REAL_S)
            ready += _ended(preparing)
            await asyncio.gather(self._turn(ready), self._late(preparing))
        finally:
            for task in preparing:
                task.cancel()

    async def _late(self, preparing: dict[asyncio.Task[None], Case]) -> None:
        """Turns for those whose preparation takes requests, as they come."""
        async for cases, _ in _as_done(preparing):
            await self._turn(cases)

    async def _turn(self, cases: Sequence[Case]) -> None:
        """Those of one Prometheus do not wait for those of another."""
        parties = self._reconciler.observer.parties(cases)
        await asyncio.gather(*(self._party(party) for party in parties))

    async def _party(self, party: Party) -> None:
        """Conclude in batches: first whoever is observed soon, then the late ones as they come."""
        observer = self._reconciler.observer
        observing = {asyncio.create_task(observer.observe(case)): case for case in party.alone}
        sharing = asyncio.create_task(observer.share(party)) if party.shared else None
        concluding = []
        async for ready, shared in _as_done(observing, sharing):
            if shared is not None:
                known, rest = shared
                ready += known
                observing |= {asyncio.create_task(observer.observe(case)): case for case in rest}
            for case in ready:
                case.round = None  # answers about everybody must not wait for everybody's writes
            concluding.append(asyncio.create_task(self._conclude(ready)))
        party.round = None
        await asyncio.gather(*concluding)

    async def _conclude(self, cases: Sequence[Case]) -> None:
        started = time.perf_counter()
        try:
            self._reconciler.decide(cases)
            self._telemetry.batch_cpu.observe(time.process_time() - self._cpu_s)
            now_s = self._clock.now()
            for case in cases:
                if case.decision is not None:
                    self._telemetry.delay.observe(self._clock.to_real(now_s - case.due_s))
            await self._reconciler.conclude(cases, self._done)
        except Exception as error:
            self._unexpected(cases, error)
        self._telemetry.duration.observe(time.perf_counter() - started)

    def _unexpected(self, cases: Sequence[Case], error: Exception) -> None:
        logger.error("unexpected error in a batch of %d", len(cases), exc_info=error)
        self._telemetry.tick_errors.inc()

    def _done(self, case: Case) -> None:
        self._finish(case.entry.uid, case.retry_after_s)
        case.release()

    def _finish(self, uid: str, wait_s: float) -> None:
        """The turn is over; the next one is at the object's next point, or after what it has to wait."""
        self.turns_done += 1
        self._busy.pop(uid, None)
        entry = self._registry.entries.get(uid)
        again = uid in self._again
        self._again.discard(uid)
        if entry is None:
            return
        if again and not wait_s:
            self._put(uid, self._clock.now())
        else:
            earliest_s = self._clock.now() + self._clock.to_control(wait_s)
            self._put(uid, next_due(uid, entry.period_s, earliest_s))


def _ended(tasks: dict[asyncio.Task[None], Case]) -> list[Case]:
    """The cases whose tasks are done, which are taken out: a batch lives long, and its tasks need not."""
    return [tasks.pop(task) for task in list(tasks) if task.done()]


async def _as_done(
    tasks: dict[asyncio.Task[None], Case], sharing: asyncio.Task[Shared] | None = None
) -> AsyncIterator[tuple[list[Case], Shared | None]]:
    """Cases as their tasks end, all of the first LATE_REAL_S at once, and what `sharing` found, when it ends.

    Ended tasks are taken out of `tasks`, which may grow meanwhile. Whatever is still under way when the
    caller leaves is cancelled.
    """
    limit_s: float | None = LATE_REAL_S
    try:
        while tasks or sharing is not None:
            when = asyncio.FIRST_COMPLETED if limit_s is None else asyncio.ALL_COMPLETED
            pending = [*tasks, *([sharing] if sharing is not None else [])]
            await asyncio.wait(pending, timeout=limit_s, return_when=when)
            del pending
            if limit_s is None:
                await asyncio.sleep(TOGETHER_REAL_S)
            limit_s = None
            cases, found = _ended(tasks), None
            if sharing is not None and sharing.done():
                found, sharing = sharing.result(), None
            if cases or found is not None:
                yield cases, found
    finally:
        for task in [*tasks, *([sharing] if sharing is not None else [])]:
            task.cancel()
