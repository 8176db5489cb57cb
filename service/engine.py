"""Cluster, clock and store together: what the routes call. Acknowledges nothing that is not on disk."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from service.cluster import FOREVER_S, Answer, Asked, Cluster
from service.errors import Conflict, NotFound, ServiceError, StateError
from service.jobs import QUEUED, RUNNING, Job
from service.settings import Settings
from service.store import Store
from service.strategies import LEARNED, Strategy, named, strategies
from service.totals import Totals
from sim.scheduling import SchedulingParams

logger = logging.getLogger(__name__)

RECENT = 10_000
"""Jobs that are gone and still in memory."""


class Engine:
    """The service without HTTP. Use it from one event loop only; `start` first, `stop` last.

    Raises ServiceError where state and settings do not go together.
    """

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self.settings, self._now = settings, now
        self.known: Mapping[str, Strategy] = strategies(len(settings.fleet), settings.policy_file)
        self._check_default()
        params = SchedulingParams(order=settings.order, queue_limit=settings.queue_limit)
        self.cluster = Cluster(settings.fleet, self.known, params, settings.seed)
        self.cluster.run_s = self._run_s  # type: ignore[method-assign]
        self.store = Store(settings.state, settings.keep_jobs)
        try:
            self._restore()
        except BaseException:
            self.store.abandon()
            raise
        self._recent: OrderedDict[int, Job] = OrderedDict()
        self._wake: asyncio.TimerHandle | None = None

    def _check_default(self) -> None:
        if self.settings.strategy == LEARNED and LEARNED not in self.known:
            raise ServiceError(
                f"--strategy: {LEARNED!r} is not allowed, the policy is not installed or has no places for "
                f"{len(self.settings.fleet)} servers; must be one of {', '.join(self.known)}"
            )
        named(self.known, self.settings.strategy, "--strategy")

    def _restore(self) -> None:
        kept = self.store.read()
        self.epoch_s = kept.epoch_s or self._now()
        self.cluster.next_id = kept.next_id
        for name, totals in kept.totals.items():
            self.cluster.totals[name] = totals
        for job in kept.active:
            if job.strategy not in self.known:
                job.strategy = self.settings.strategy
        if kept.memory:
            self.cluster.restore(kept.active, kept.memory, self._clock_s())
        if kept.epoch_s:
            logger.info("state read from %s: %d jobs", self.settings.state, len(kept.active))

    def _run_s(self, estimate_s: float) -> float:
        return estimate_s if self.settings.ends == "estimate" else FOREVER_S

    def _clock_s(self) -> float:
        """Seconds since the state began; never back, whatever the machine's clock does."""
        return max(self._now() - self.epoch_s, self.cluster.clock_s)

    def now_s(self) -> float:
        """Unix time by this machine's clock."""
        return self._now()

    @property
    def clock_s(self) -> float:
        """The cluster's time."""
        return self.cluster.clock_s

    async def start(self) -> None:
        """Make up for the time that has passed, and write the first state."""
        self.cluster.advance(self._clock_s())
        await self._save()

    async def stop(self) -> None:
        """Write what is left."""
        if self._wake is not None:
            self._wake.cancel()
        await self.store.close()

    async def schedule(self, jobs: Sequence[Asked], strategy: str | None) -> list[Answer]:
        """Decide on jobs that come now, in their order; on disk when this returns.

        Raises FieldError for an unknown strategy, StateError where it cannot be written (the jobs may
        have been taken in all the same).
        """
        self._check_writable()
        chosen = named(self.known, strategy or self.settings.strategy).name
        answers = [self.cluster.submit(self._complete(job), chosen, self._clock_s()) for job in jobs]
        await self._save()
        return answers

    def _check_writable(self) -> None:
        """Nothing is taken that could not be kept. Raises StateError."""
        if self.store.problem is not None:
            raise StateError(self.store.problem)

    def _complete(self, job: Asked) -> Asked:
        return Asked(job.cpu, job.memory, job.estimate_s, self._run_s(job.estimate_s), job.name)

    async def finish(self, number: int) -> Job:
        """A job has ended, or is taken back. Raises NotFound, or Conflict for one that is gone already."""
        self._check_writable()
        self.advance()
        if self.cluster.job(number) is None:
            job = await self.job(number)
            raise Conflict(f"job {number} is {job.status} already")
        job = self.cluster.finish(number, self._clock_s())
        await self._save()
        return job

    async def job(self, number: int) -> Job:
        """A job of any status. Raises NotFound."""
        self.advance()
        found = self.cluster.job(number) or self._recent.get(number)
        found = found or await self.store.job(number)
        if found is None:
            raise NotFound(f"there is no job {number}")
        return found

    def advance(self) -> None:
        """Up to now; what changes is written without anybody waiting."""
        self.cluster.advance(self._clock_s())
        self._save_soon()

    def counts(self) -> dict[str, int]:
        """Jobs by status, of all time."""
        totals = self.cluster.totals.values()
        live = self.cluster.live
        return {
            "came": sum(one.came for one in totals),
            QUEUED: live.queue_length,
            RUNNING: live.running,
            "finished": sum(one.finished for one in totals),
            "rejected": sum(one.rejected for one in totals),
            "withdrawn": sum(one.withdrawn for one in totals),
        }

    def _save_soon(self) -> asyncio.Future[None]:
        """Hand changes to the store, and set the alarm for the next end of a job."""
        changed = self.cluster.changes()
        for job in changed:
            if job.status not in (QUEUED, RUNNING):
                self._recent[job.id] = job
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        self._set_alarm()
        if not changed:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        future = self.store.save(changed, self._touched(changed), self._meta())
        # nobody may be waiting for it; the store has told and will try again
        future.add_done_callback(lambda one: one.cancelled() or one.exception())
        return future

    async def _save(self) -> None:
        await self._save_soon()

    def _touched(self, changed: Sequence[Job]) -> dict[str, Totals]:
        return {job.strategy: self.cluster.totals[job.strategy] for job in changed}

    def _meta(self) -> dict[str, object]:
        return {
            "epoch_s": self.epoch_s,
            "next_id": self.cluster.next_id,
            "memory": self.cluster.live.memory(),
        }

    def _set_alarm(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        due = self.cluster.live.next_end_s()
        if math.isfinite(due) and due - self.clock_s < FOREVER_S / 2:
            loop = asyncio.get_running_loop()
            # an hour at most: timers of days are not to be trusted with a clock that may be set
            wait = min(max(due + self.epoch_s - self._now(), 0.0), 3600.0)
            self._wake = loop.call_later(wait, self.advance)
