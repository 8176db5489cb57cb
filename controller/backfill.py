"""Histories after a start: read back for many RLScalers together, in the background of their turns.

An RLScaler's first turn asks for its history and waits a little. Few get it in time; of thousands, most
decide without and have it minutes later, because reading it must not delay anybody's decisions.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from controller.clock import Clock
from controller.core import Engine, Outcome
from controller.metrics import read_histories
from controller.metrics.source import MetricsSource
from controller.registry import Entry
from controller.work import Work

logger = logging.getLogger(__name__)

TOGETHER = 50
"""RLScalers in one range query: a day at a minute's step is then an answer of one or two megabytes."""
GATHER_REAL_S = 0.02
REST = 1.0
"""Rest after a part as long as it took while many wait: turns come first."""
MANY = 200


@dataclass
class _Wanted:
    entry: Entry
    work: Work
    done: asyncio.Future[None]


class Backfiller:
    """Reads histories, source by source, and writes them into the engine."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine, self._clock = engine, clock
        self._waiting: dict[MetricsSource, deque[_Wanted]] = {}
        self._tasks: dict[MetricsSource, asyncio.Task[None]] = {}
        self._futures: dict[str, asyncio.Future[None]] = {}

    def busy(self, work: Work) -> bool:
        """Whether so many wait for the same source that nobody's decision should."""
        return work.feed is not None and len(self._waiting.get(work.feed.source, ())) > MANY

    def ask(self, entry: Entry, work: Work) -> asyncio.Future[None]:
        """Done when the history was read, or could not be (`work.backfilled` tells)."""
        assert work.feed is not None
        known = self._futures.get(entry.uid)
        if known is not None and not known.done():
            return known
        done = self._futures[entry.uid] = asyncio.get_running_loop().create_future()
        source = work.feed.source
        self._waiting.setdefault(source, deque()).append(_Wanted(entry, work, done))
        if source not in self._tasks:
            self._tasks[source] = asyncio.create_task(self._run(source), name="histories")
        return done

    def close(self) -> None:
        """End what is under way."""
        for task in self._tasks.values():
            task.cancel()

    async def _run(self, source: MetricsSource) -> None:
        waiting = self._waiting[source]
        try:
            await asyncio.sleep(GATHER_REAL_S)
            while waiting:
                part = [waiting.popleft() for _ in range(min(TOGETHER, len(waiting)))]
                begun_s = time.monotonic()
                await self._part(source, part)
                if len(waiting) > MANY:
                    await asyncio.sleep(REST * (time.monotonic() - begun_s))
        finally:
            del self._tasks[source], self._waiting[source]

    async def _part(self, source: MetricsSource, part: list[_Wanted]) -> None:
        """Whatever goes wrong, those who wait are told."""
        try:
            await self._read(source, [wanted for wanted in part if _current(wanted)])
        except Exception:
            logger.exception("histories of %d RLScalers could not be read", len(part))
        finally:
            for wanted in part:
                self._futures.pop(wanted.entry.uid, None)
                if not wanted.done.done():
                    wanted.done.set_result(None)

    async def _read(self, source: MetricsSource, part: list[_Wanted]) -> None:
        batch = [wanted.work.feed.history_queries for wanted in part if wanted.work.feed is not None]
        if not batch:
            return
        histories = await read_histories(source, batch, self._clock.now(), self._clock.scale)
        rows, rates = [], []
        for wanted, history in zip(part, histories, strict=True):
            if not _current(wanted):
                continue
            fine = (Outcome.OK, Outcome.EMPTY, Outcome.NAN)
            wanted.work.backfilled = history.outcomes["requestRate"] in fine
            if np.isfinite(history.arrays["request_rate"]).any():
                rows.append(wanted.work.row)
                rates.append(history.arrays["request_rate"])
        if rows:
            self._engine.backfill(histories[0].times_s, np.stack(rates, axis=1), rows=np.array(rows))


def _current(wanted: _Wanted) -> bool:
    """Whether the row is still about the same."""
    return wanted.entry.alive and wanted.entry.work is wanted.work
