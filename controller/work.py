"""Getting an RLScaler ready to be decided for: its policy, its metrics, its row in the engine, its past.

Done at its first turn, after a change of its spec, and again now and then while something is missing.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from controller.canary import Canary, Digests, digests, renewed
from controller.clock import Clock
from controller.core import Engine
from controller.feeds import Feed, FeedError, Feeds
from controller.logs import about
from controller.policybook import Chosen, PolicyBook
from controller.registry import Entry
from controller.schedules import Floor
from controller.status import stabilization_state
from controller.trouble import Trouble

if TYPE_CHECKING:
    from controller.backfill import Backfiller

logger = logging.getLogger(__name__)

RETRY_REAL_S = 10.0
AWAITED_REAL_S = 1.0
LEAST_HISTORY_REAL_S = 1.0


@dataclass
class Work:
    """What the loop holds for one RLScaler. `row` is its row in the engine."""

    generation: int
    row: int
    chosen: Chosen
    feed: Feed | None
    feed_trouble: Trouble | None
    renew_at_s: float
    floor: Floor | None = None
    """The schedule's floor that the engine was told of."""
    unanswered: tuple[int, int] | None = None
    """Replicas before a write that seemed to fail, and those that it asked for: it may have been done."""
    restored: bool = False
    backfilled: bool = False
    base: Chosen | None = None
    """What the spec names; other than `chosen`, which decides, while a canary is in charge."""
    canary: Canary | None = None

    @property
    def fresh(self) -> bool:
        """Whether its policies are still what their ConfigMaps and files hold."""
        if self.canary is None:
            return self.chosen.fresh
        return self.canary.base.fresh and self.canary.candidate.fresh


class Preparer:
    """Makes and renews `Work`; the only one who adds and removes rows of the engine."""

    def __init__(
        self,
        engine: Engine,
        book: PolicyBook,
        feeds: Feeds,
        clock: Clock,
        renew_real_s: float,
        backfiller: Backfiller,
    ) -> None:
        self.engine = engine
        self._book = book
        self._feeds = feeds
        self._clock = clock
        self._renew_real_s = renew_real_s
        self._backfiller = backfiller

    async def prepare(self, entry: Entry) -> Work | None:
        """The entry's work, renewed where its spec has changed or time is up; None if it changed again."""
        work = self.current(entry)
        if work is not None:
            return work
        work = entry.work
        generation, service = entry.generation, entry.service
        assert service is not None
        base, canary = await self._policies(entry, work)
        if entry.generation != generation:
            return None
        feed, trouble = await self._open(entry)
        if not entry.alive or entry.generation != generation:
            return None
        chosen = base if canary is None else canary.in_charge
        wait_s = self._wait_s([base] if canary is None else [base, canary.candidate], trouble is not None)
        renew_at_s = self._clock.now() + self._clock.to_control(wait_s)
        fresh = Work(generation, -1, chosen, feed, trouble, renew_at_s, base=base, canary=canary)
        if work is None:
            fresh.row = self.engine.add(service, chosen.policy)
        else:
            self._take_over(fresh, work, entry)
        entry.work = fresh
        return fresh

    async def _policies(self, entry: Entry, work: Work | None) -> tuple[Chosen, Canary | None]:
        """What the spec's policy and its canary are now; the latter's phase and scores go on."""
        assert entry.spec is not None
        spec, old = entry.spec.policy.canary, work.canary if work is not None else None
        earlier = digests(entry) if work is None else Digests()
        base = await self._book.choose(entry, work.base if work is not None else None, earlier.base)
        if spec is None:
            return base, None
        candidate = await self._book.candidate(
            entry.namespace, spec.artifact, old.candidate if old is not None else None, earlier.canary
        )
        return base, renewed(entry, base, candidate, old, self._clock)

    def _wait_s(self, policies: Sequence[Chosen], missing: bool) -> float:
        """Real seconds until all is read again: soon while something is missing."""
        if any(chosen.awaited for chosen in policies):
            return AWAITED_REAL_S
        if missing or any(chosen.trouble is not None for chosen in policies):
            return RETRY_REAL_S
        # not all of them at once, though all of them were prepared at once
        return self._renew_real_s * random.uniform(0.75, 1.25)

    def _take_over(self, fresh: Work, old: Work, entry: Entry) -> None:
        """Keep the row; its past too, unless it is now about something else."""
        assert entry.service is not None
        fresh.row = old.row
        self.engine.update(old.row, entry.service, fresh.chosen.policy)
        same = fresh.feed is None or old.feed is None or fresh.feed.queries == old.feed.queries
        fresh.floor, fresh.unanswered = old.floor, old.unanswered
        fresh.restored, fresh.backfilled = old.restored and same, old.backfilled and same

    async def _open(self, entry: Entry) -> tuple[Feed | None, Trouble | None]:
        try:
            return await self._feeds.open(entry), None
        except FeedError as error:
            return None, Trouble(error.reason, str(error))

    async def restore(self, entry: Entry, work: Work, current_replicas: int) -> None:
        """Bring back the past: request rates from Prometheus, stabilisation from status."""
        self.engine.reset(np.array([work.row]))
        await self.backfill(entry, work)
        state = stabilization_state(entry.status, self._clock.to_control)
        # what the last turn left behind: a write that failed has not done what desiredReplicas says
        left = entry.status.get("currentReplicas", entry.status.get("desiredReplicas"))
        if entry.mode == "Active" and left is not None:
            state["desired"] = left
        state["startUpSeconds"] = entry.status.get("startUpSeconds", math.nan)
        self.engine.restore(work.row, self._clock.now(), state, current_replicas)
        work.restored, work.unanswered = True, None

    def ask_history(self, entry: Entry, work: Work) -> asyncio.Future[None] | None:
        """Have the request rate's history read in the background; None where there is none to read."""
        if work.feed is None or not work.feed.history_queries:
            return None
        return self._backfiller.ask(entry, work)

    async def backfill(self, entry: Entry, work: Work) -> None:
        """Wait a little for the history; neither a slow Prometheus nor a crowd delays a decision much."""
        done = self.ask_history(entry, work)
        if done is None or self._backfiller.busy(work):
            return
        limit_s = max(LEAST_HISTORY_REAL_S, self._clock.to_real(entry.period_s) / 2)
        try:
            await asyncio.wait_for(asyncio.shield(done), limit_s)
        except TimeoutError:
            message = "%s/%s: history not read within %g s"
            logger.warning(message, entry.namespace, entry.name, limit_s, extra=about(entry))

    def current(self, entry: Entry) -> Work | None:
        """The entry's work if it needs no renewal."""
        work = entry.work
        if work is None or work.generation != entry.generation or self._clock.now() >= work.renew_at_s:
            return None
        return work if work.fresh else None

    def drop(self, entry: Entry) -> None:
        """Free what a deleted RLScaler held."""
        if entry.work is not None:
            self.engine.remove(entry.work.row)
            entry.work = None

    def tidy(self, entries: list[Entry]) -> None:
        """Close metrics sources that nobody uses any more."""
        works = [entry.work for entry in entries if entry.work is not None]
        self._feeds.keep([work.feed for work in works if work.feed is not None])
