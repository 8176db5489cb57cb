"""The control loop: who is due, in batches, at fixed points in time.

One task sleeps until the next turn and starts a batch of all that are due. Objects whose readings are late
are decided in a second batch of their own, so that one slow Prometheus holds up nobody else; an object is
never in two batches at once. The loop itself only keeps time: `controller.turn` does the work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from controller.clock import Clock
from controller.registry import Entry, Registry
from controller.schedule import Schedule, Turn, next_due
from controller.telemetry import Telemetry
from controller.turn import Case, Reconciler

logger = logging.getLogger(__name__)

LONGEST_SLEEP_REAL_S = 1.0
LATE_REAL_S = 0.5
STUCK_REAL_S = 30.0
AFTER_ERROR_REAL_S = 1.0


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
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._batches: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._beat = time.monotonic()
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

    def expect(self, entry: Entry) -> None:
        """A turn at the next point of the entry's own grid."""
        self._put(entry.uid, next_due(entry.uid, entry.period_s, self._clock.now()))

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
        self._busy |= {turn.uid for turn in turns}
        task = asyncio.create_task(self._batch(turns), name="batch")
        self._batches.add(task)
        task.add_done_callback(self._batches.discard)

    async def _batch(self, turns: Sequence[Turn]) -> None:
        entries = [entry for turn in turns if (entry := self._registry.entries.get(turn.uid)) is not None]
        cases = [Case(entry, entry.generation) for entry in entries]
        try:
            await self._observe_and_conclude(cases)
        except Exception:
            logger.exception("unexpected error in a batch of %d", len(cases))
            self._telemetry.tick_errors.inc()
        finally:
            self._finish(turns, {case.entry.uid: case.retry_after_s for case in cases})

    async def _observe_and_conclude(self, cases: Sequence[Case]) -> None:
        observing = {asyncio.create_task(self._reconciler.observe(case)): case for case in cases}
        try:
            done, late = await asyncio.wait(observing, timeout=LATE_REAL_S)
            await self._conclude([observing[task] for task in done])
            if late:
                await asyncio.wait(late)
                await self._conclude([observing[task] for task in late])
        finally:
            for task in observing:
                task.cancel()

    async def _conclude(self, cases: Sequence[Case]) -> None:
        started = time.perf_counter()
        self._reconciler.decide(cases)
        await asyncio.gather(*(self._reconciler.conclude(case) for case in cases))
        self._telemetry.duration.observe(time.perf_counter() - started)

    def _finish(self, turns: Sequence[Turn], retry_after_s: dict[str, float]) -> None:
        self.turns_done += len(turns)
        for turn in turns:
            self._busy.discard(turn.uid)
            entry = self._registry.entries.get(turn.uid)
            if entry is None:
                continue
            wait_s = retry_after_s.get(turn.uid, 0.0)
            if turn.uid in self._again and not wait_s:
                self._put(turn.uid, self._clock.now())
            else:
                earliest_s = self._clock.now() + self._clock.to_control(wait_s)
                self._put(turn.uid, next_due(turn.uid, entry.period_s, earliest_s))
            self._again.discard(turn.uid)
