"""Getting an RLScaler ready to be decided for: its policy, its metrics, its row in the engine, its past.

Done at its first turn, after a change of its spec, and again now and then while something is missing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from controller.clock import Clock
from controller.core import Engine
from controller.feeds import Feed, FeedError, Feeds
from controller.policybook import Chosen, PolicyBook
from controller.registry import Entry
from controller.status import stabilization_state
from controller.trouble import Trouble

if TYPE_CHECKING:
    from controller.backfill import Backfiller

logger = logging.getLogger(__name__)

RETRY_REAL_S = 10.0
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
    restored: bool = False
    backfilled: bool = False


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
        chosen = await self._book.choose(entry)
        if entry.generation != generation:
            return None
        feed, trouble = await self._open(entry)
        if not entry.alive or entry.generation != generation:
            return None
        missing = chosen.trouble is not None or trouble is not None
        # not all of them at once, though all of them were prepared at once
        wait_s = RETRY_REAL_S if missing else self._renew_real_s * random.uniform(0.75, 1.25)
        renew_at_s = self._clock.now() + self._clock.to_control(wait_s)
        fresh = Work(generation, -1, chosen, feed, trouble, renew_at_s)
        if work is None:
            fresh.row = self.engine.add(service, chosen.policy)
        else:
            self._take_over(fresh, work, entry)
        entry.work = fresh
        return fresh

    def _take_over(self, fresh: Work, old: Work, entry: Entry) -> None:
        """Keep the row; its past too, unless it is now about something else."""
        assert entry.service is not None
        fresh.row = old.row
        self.engine.update(old.row, entry.service, fresh.chosen.policy)
        same = fresh.feed is None or old.feed is None or fresh.feed.queries == old.feed.queries
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
        desired = entry.status.get("desiredReplicas")
        if entry.mode == "Active" and desired is not None:
            state["desired"] = desired
        self.engine.restore(work.row, self._clock.now(), state, current_replicas)
        work.restored = True

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
            logger.warning("%s/%s: history not read within %g s", entry.namespace, entry.name, limit_s)

    def current(self, entry: Entry) -> Work | None:
        """The entry's work if it needs no renewal."""
        work = entry.work
        if work is not None and work.generation == entry.generation and self._clock.now() < work.renew_at_s:
            return work
        return None

    def drop(self, entry: Entry) -> None:
        """Free what a deleted RLScaler held."""
        if entry.work is not None:
            self.engine.remove(entry.work.row)
            entry.work = None

    def tidy(self, entries: list[Entry]) -> None:
        """Close metrics sources that nobody uses any more."""
        works = [entry.work for entry in entries if entry.work is not None]
        self._feeds.keep([work.feed for work in works if work.feed is not None])
