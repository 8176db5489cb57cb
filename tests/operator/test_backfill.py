"""Histories are read for many together, and whoever waits hears of it whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from controller.backfill import TOGETHER, Backfiller
from controller.clock import Clock
from controller.core import Engine, HpaPolicy, Outcome
from controller.feeds import Feed
from controller.metrics import QuerySet, RangeReading
from controller.policybook import Chosen
from controller.registry import Entry, Registry
from controller.work import Work
from tests.operator.bodies import rlscaler


class Source:
    """Answers with each service's own number as its rate; `fails` makes it raise."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.fails = False

    async def read_range_many(
        self, batch: Sequence[QuerySet], start_s: float, end_s: float, step_s: float
    ) -> list[RangeReading]:
        if self.fails:
            raise ValueError("a bug")
        self.batches.append(len(batch))
        times_s = np.arange(start_s, end_s, step_s)
        return [
            RangeReading(
                times_s,
                {"requestRate": np.full(len(times_s), float(queries["requestRate"]))},
                {"requestRate": Outcome.OK},
                {"requestRate": ""},
            )
            for queries in batch
        ]


class Bench:
    def __init__(self, count: int) -> None:
        self.engine, self.source = Engine(), Source()
        self.backfiller = Backfiller(self.engine, Clock())
        registry: Registry = Registry()
        self.entries = [self._entry(registry, number) for number in range(count)]

    def _entry(self, registry: Registry, number: int) -> Entry:
        entry = registry.apply(rlscaler(f"web-{number}")).entry
        assert entry.service is not None
        source: Any = self.source
        feed = Feed(source, QuerySet({"requestRate": str(number + 1)}))
        row = self.engine.add(entry.service, HpaPolicy())
        entry.work = Work(1, row, Chosen(HpaPolicy()), feed, None, 1e18)
        return entry

    def ask(self, entry: Entry) -> asyncio.Future[None]:
        assert entry.work is not None
        return self.backfiller.ask(entry, entry.work)


def work_of(entry: Entry) -> Work:
    assert entry.work is not None
    return entry.work


async def test_each_gets_its_own_history_in_few_reads() -> None:
    bench = Bench(2 * TOGETHER + 5)
    await asyncio.gather(*(bench.ask(entry) for entry in bench.entries))
    assert bench.source.batches == [TOGETHER] * 4 + [5] * 2  # fine and coarse
    assert all(work_of(entry).backfilled for entry in bench.entries)
    rows = np.array([work_of(entry).row for entry in bench.entries])
    now_s = np.full(len(rows), Clock().now())
    fine = bench.engine._memory.fine.window(rows, now_s, 40, 60.0)
    np.testing.assert_allclose(np.nanmax(fine, axis=1), np.arange(len(rows)) + 1.0)


async def test_who_asks_twice_is_read_once() -> None:
    bench = Bench(3)
    asked = [bench.ask(entry) for entry in bench.entries for _ in range(2)]
    await asyncio.gather(*asked)
    assert bench.source.batches == [3, 3]


async def test_one_that_was_deleted_meanwhile_is_left_out() -> None:
    bench = Bench(3)
    asked = [bench.ask(entry) for entry in bench.entries]
    bench.entries[1].alive = False
    await asyncio.gather(*asked)
    assert bench.source.batches == [2, 2]
    assert [work_of(entry).backfilled for entry in bench.entries] == [True, False, True]


async def test_a_failure_ends_the_wait_and_the_next_asks_again() -> None:
    bench = Bench(2)
    bench.source.fails = True
    await asyncio.gather(*(bench.ask(entry) for entry in bench.entries))
    assert not any(work_of(entry).backfilled for entry in bench.entries)
    bench.source.fails = False
    await asyncio.gather(*(bench.ask(entry) for entry in bench.entries))
    assert all(work_of(entry).backfilled for entry in bench.entries)
