"""The loop keeps time: who is late, stuck or broken does not hold up or stop anybody else."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from controller.case import Case
from controller.clock import Clock
from controller.loop import LATE_REAL_S, ControlLoop
from controller.observing import Party
from controller.registry import Registry
from controller.telemetry import Telemetry
from tests.operator.bodies import rlscaler

SCALE = 100.0
PERIOD_S = 10
"""A tenth of a real second."""


class Answers:
    """What a party's Prometheus has said about everybody."""


class Script:
    """Stages of a turn that take as long, or fail, as the test says; notes when each object was concluded."""

    def __init__(self) -> None:
        self.delays: dict[str, float] = {}
        self.fails: dict[str, Exception] = {}
        self.concluded: dict[str, list[float]] = defaultdict(list)
        self.batches: list[list[str]] = []
        self.running: set[str] = set()
        self.overlaps: list[str] = []
        self.retry_after_s = 0.0
        self.unprepared: dict[str, float] = {}
        """Seconds that preparing an object takes, once."""
        self.writes: dict[str, float] = {}
        """Seconds that carrying out a decision takes."""
        self.answers: list[weakref.ref[Answers]] = []

    @property
    def observer(self) -> Script:
        return self

    def prepared(self, case: Case) -> bool:
        return case.entry.name not in self.unprepared

    async def prepare(self, case: Case) -> None:
        await asyncio.sleep(self.unprepared.pop(case.entry.name))

    def parties(self, cases: Sequence[Case]) -> list[Party]:
        """Objects of one letter read one Prometheus."""
        letters = sorted({case.entry.name[0] for case in cases})
        return [self.party([case for case in cases if case.entry.name[0] == letter]) for letter in letters]

    def party(self, cases: list[Case]) -> Party:
        answers = Answers()
        self.answers.append(weakref.ref(answers))
        for case in cases:
            case.round = answers  # type: ignore[assignment]
        return Party([], cases, answers)  # type: ignore[arg-type]

    async def observe(self, case: Case) -> None:
        name = case.entry.name
        self.overlaps += [name] if name in self.running else []
        self.running.add(name)
        await asyncio.sleep(self.delays.get(name, 0.0))

    def decide(self, cases: Sequence[Case]) -> None:
        self.batches.append([case.entry.name for case in cases])
        for case in cases:
            if case.entry.name in self.fails:
                raise self.fails[case.entry.name]

    async def conclude(self, cases: Sequence[Case], done: Callable[[Case], None]) -> None:
        for case in cases:
            await asyncio.sleep(self.writes.get(case.entry.name, 0.0))
            self.concluded[case.entry.name].append(time.monotonic())
            self.running.discard(case.entry.name)
            case.retry_after_s = self.retry_after_s
            done(case)


class Bench:
    """A loop over a registry with a script for its turns."""

    def __init__(self) -> None:
        self.registry, self.script, self.telemetry = Registry(), Script(), Telemetry()
        self.clock = Clock(SCALE)
        self.loop = ControlLoop(self.registry, self.script, self.telemetry, self.clock)  # type: ignore[arg-type]

    def add(self, name: str, period_s: int = PERIOD_S) -> None:
        entry = self.registry.apply(rlscaler(name, syncPeriodSeconds=period_s)).entry
        self.loop.expect(entry, self.clock.now())

    def metric(self, name: str) -> float:
        return self.telemetry.registry.get_sample_value(name) or 0.0


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[None]:
    task = asyncio.create_task(bench.loop.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await bench.loop.stop()


async def until(check: Callable[[], object], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not check():  # noqa: ASYNC110 - what it waits for is in another task
            await asyncio.sleep(0.01)


async def test_each_object_has_its_turns_at_its_own_period() -> None:
    bench = Bench()
    bench.add("fast", period_s=10)
    bench.add("slow", period_s=40)
    async with running(bench):
        await asyncio.sleep(2.05)
    fast, slow = (len(bench.script.concluded[name]) for name in ("fast", "slow"))
    assert 17 <= fast <= 21
    assert 4 <= slow <= 6
    assert bench.script.overlaps == []


async def test_what_was_due_while_the_operator_started_is_due_at_once_and_keeps_its_grid() -> None:
    bench = Bench()
    period_s = 200
    now_s = bench.clock.now()
    for number in range(40):
        entry = bench.registry.apply(rlscaler(f"web-{number}", syncPeriodSeconds=period_s)).entry
        bench.loop.expect(entry, now_s - 0.6 * period_s)
    async with running(bench):
        await asyncio.sleep(0.05 * period_s / SCALE)
        at_once = len(bench.script.concluded)
        await until(lambda: all(len(bench.script.concluded[f"web-{n}"]) > 1 for n in range(40)))
    assert 12 <= at_once < 40
    gaps = [times[1] - times[0] for times in bench.script.concluded.values()]
    assert max(gaps) < 1.3 * period_s / SCALE


async def test_after_a_long_start_nobody_is_later_than_a_period() -> None:
    bench = Bench()
    for number in range(20):
        entry = bench.registry.apply(rlscaler(f"web-{number}", syncPeriodSeconds=100)).entry
        bench.loop.expect(entry, bench.clock.now() - 60_000.0)
    async with running(bench):
        await until(lambda: len(bench.script.concluded) == 20)
    assert bench.metric("rlscaler_tick_lag_seconds_count") >= 20
    assert bench.metric("rlscaler_tick_lag_seconds_sum") < 20 * 1.5 * 100 / SCALE


async def test_those_that_are_due_together_are_decided_together() -> None:
    bench = Bench()
    for number in range(80):
        bench.add(f"web-{number}")
    async with running(bench):
        await until(lambda: len(bench.script.concluded) == 80)
    assert max(len(batch) for batch in bench.script.batches) >= 5


async def test_those_that_are_soon_prepared_are_decided_with_the_others_and_a_slow_one_later() -> None:
    bench = Bench()
    names = [f"web-{number}" for number in range(80)]
    for name in names:
        bench.add(name)
    bench.script.unprepared = dict.fromkeys(names[::2], 0.0) | {names[0]: LATE_REAL_S + 0.2}
    async with running(bench):
        await until(lambda: len(bench.script.concluded) == 80)
    of = {name: batch for batch in reversed(bench.script.batches) for name in batch}
    assert any({name in names[::2] for name in batch} == {True, False} for batch in of.values())
    assert of[names[0]] == [names[0]]
    assert bench.script.overlaps == []


async def test_a_late_reading_delays_only_its_own_object() -> None:
    bench = Bench()
    bench.script.delays["late"] = LATE_REAL_S + 0.4
    bench.add("late")
    for number in range(8):
        bench.add(f"web-{number}")
    async with running(bench):
        await until(lambda: bench.script.concluded["late"])
    assert ["late"] in bench.script.batches
    for number in range(8):
        assert len(bench.script.concluded[f"web-{number}"]) >= 1
    others = [name for name in bench.script.concluded if name != "late"]
    assert min(bench.script.concluded[name][0] for name in others) < bench.script.concluded["late"][0] - 0.3
    assert bench.script.overlaps == []


async def test_what_was_read_and_known_is_let_go_before_the_last_write_of_a_batch() -> None:
    bench = Bench()
    bench.script.writes = {"web": 0.5}
    bench.add("web")
    async with running(bench):
        await until(lambda: bench.script.batches)
        await asyncio.sleep(0.1)
        assert bench.script.concluded["web"] == []
        assert [answers() for answers in bench.script.answers] == [None]


async def test_an_object_is_never_in_two_turns_at_once_even_when_hastened() -> None:
    bench = Bench()
    bench.script.delays["web"] = 0.3
    bench.add("web")
    entry = next(iter(bench.registry))
    async with running(bench):
        await until(lambda: "web" in bench.script.running)
        bench.loop.hasten(entry)
        bench.loop.hasten(entry)
        await until(lambda: len(bench.script.concluded["web"]) >= 2)
    first, second = bench.script.concluded["web"][:2]
    assert second - first < 0.3 + 0.2
    assert bench.script.overlaps == []


async def test_an_unexpected_error_is_counted_and_the_next_turn_comes() -> None:
    bench = Bench()
    bench.script.fails["web"] = ValueError("a bug")
    bench.add("web")
    async with running(bench):
        await until(lambda: len(bench.script.batches) >= 2)
        bench.script.fails.clear()
        await until(lambda: bench.script.concluded["web"])
    assert bench.metric("rlscaler_tick_errors_total") >= 2


async def test_a_dropped_object_has_no_more_turns() -> None:
    bench = Bench()
    bench.add("web")
    async with running(bench):
        await until(lambda: bench.script.concluded["web"])
        entry = bench.registry.forget("uid-web")
        assert entry is not None
        bench.loop.drop(entry)
        await asyncio.sleep(0.15)
        made = len(bench.script.concluded["web"])
        await asyncio.sleep(0.3)
    assert len(bench.script.concluded["web"]) == made


async def test_what_the_api_server_asks_to_wait_is_waited() -> None:
    bench = Bench()
    bench.script.retry_after_s = 0.5
    bench.add("web")
    async with running(bench):
        await until(lambda: len(bench.script.concluded["web"]) >= 2)
    first, second = bench.script.concluded["web"][:2]
    assert second - first >= 0.5


async def test_lag_is_measured() -> None:
    bench = Bench()
    bench.add("web")
    async with running(bench):
        await until(lambda: len(bench.script.concluded["web"]) >= 3)
    assert bench.metric("rlscaler_tick_lag_seconds_count") >= 3
    assert (
        bench.metric("rlscaler_tick_lag_seconds_sum") / bench.metric("rlscaler_tick_lag_seconds_count") < 0.05
    )


async def test_a_loop_that_stands_still_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    assert bench.loop.stuck() is None
    monkeypatch.setattr("controller.loop.STUCK_REAL_S", 0.05)
    await asyncio.sleep(0.1)
    assert "not turned" in str(bench.loop.stuck())
    async with running(bench):
        await asyncio.sleep(0.05)
        monkeypatch.setattr("controller.loop.STUCK_REAL_S", 2.0)
        assert bench.loop.stuck() is None


async def test_objects_of_another_prometheus_keep_their_period_beside_one_that_hangs() -> None:
    bench = Bench()
    bench.script.delays = {f"slow-{number}": 1.5 for number in range(10)}
    for number in range(10):
        bench.add(f"slow-{number}")
        bench.add(f"web-{number}")
    async with running(bench):
        await until(lambda: all(bench.script.concluded[name] for name in bench.script.delays))
        turns = [len(bench.script.concluded[f"web-{number}"]) for number in range(10)]
    assert min(turns) >= 5
    assert all(len({name[0] for name in batch}) == 1 for batch in bench.script.batches)
