"""Formulas for weights, and the ejection of sick pools, against what can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.ejection import EjectionRules, Ejector, Unejected, with_ejections
from controller.core.pools import guard_weights
from controller.core.weighing import WEIGHINGS, PoolReadings, Smoother

SLO_MS = np.array([200.0])


def readings(**columns: Any) -> PoolReadings:
    """One set of pools with plain defaults: one replica of 10 req/s each, 40 % busy, 100 ms."""
    pools = len(next(value for name, value in columns.items() if name != "load_rps"))
    plain: dict[str, Any] = {
        "ready": np.ones(pools),
        "capacity_rps": np.full(pools, 10.0),
        "request_rate": np.full(pools, 4.0),
        "latency_ms": np.full(pools, 100.0),
        "error_ratio": np.zeros(pools),
        "utilisation": np.full(pools, 0.4),
        "in_flight": np.zeros(pools),
        "price": np.ones(pools),
        "max_replicas": np.full(pools, 10),
        "weights": np.full(pools, 100 // pools),
    }
    load = columns.pop("load_rps", 4.0 * pools)
    listed = {name: np.asarray(columns.get(name, value))[None, :] for name, value in plain.items()}
    return PoolReadings(**listed, load_rps=np.array([float(load)]))


def shares(name: str, given_readings: PoolReadings, after_s: float = 1e9) -> list[float]:
    smoother = Smoother(*given_readings.ready.shape)
    smoother.update(given_readings, np.array([after_s]))
    return WEIGHINGS[name](given_readings, smoother)[0].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "columns", "expected"),
    [
        ("Equal", {"ready": [1, 5, 0]}, [0.5, 0.5, 0.0]),
        ("Capacity", {"max_replicas": [10, 30], "capacity_rps": [10, 10]}, [0.25, 0.75]),
        ("Ready", {"ready": [1, 3], "capacity_rps": [20, 20]}, [0.25, 0.75]),
        ("Ready", {"ready": [2, 1], "capacity_rps": [10, 40]}, [1 / 3, 2 / 3]),
        # 2 x 10 req/s x 70 % = 14 of 20 go to the cheap pool, 6 spill over
        ("CheapestFirst", {"ready": [2, 4], "price": [0.3, 1.0], "load_rps": 20}, [0.7, 0.3]),
        ("CheapestFirst", {"ready": [2, 4], "price": [0.3, 1.0], "load_rps": 7}, [1.0, 0.0]),
        # a pool that really serves half of what is believed: rate 4 at utilisation 0.8
        ("ExpectedDelay", {"utilisation": [0.4, 0.8], "load_rps": 10}, [2 / 3, 1 / 3]),
        # 300 requests wait in the first; 60 s x 10 req/s come: (300 + x) / 600 = (600 - x) / 600
        ("ExpectedDelay", {"in_flight": [301, 0], "load_rps": 10}, [0.25, 0.75]),
        ("ExpectedDelay", {"in_flight": [5000, 0], "load_rps": 10}, [0.0, 1.0]),
    ],
)
def test_a_formula_gives_what_the_sum_says(name: str, columns: dict[str, Any], expected: list[float]) -> None:
    assert shares(name, readings(**columns)) == pytest.approx(expected, abs=1e-9)


def test_the_latency_gradient_moves_to_the_faster_pool_until_latencies_are_equal() -> None:
    slow = readings(latency_ms=[300.0, 100.0])
    first = shares("LatencyGradient", slow)
    assert 0.4 < first[0] < 0.5 < first[1]
    even = shares("LatencyGradient", readings(latency_ms=[100.0, 100.0], weights=[30, 70]))
    assert even == pytest.approx([0.3, 0.7])
    unknown = shares("LatencyGradient", readings(latency_ms=[np.nan, 100.0], weights=[30, 70]))
    assert unknown == pytest.approx([0.3, 0.7])


def test_means_are_exponential_and_missing_readings_change_nothing() -> None:
    smoother = Smoother(1, 1)
    smoother.update(readings(latency_ms=[100.0]), np.array([15.0]))
    smoother.update(readings(latency_ms=[np.nan]), np.array([15.0]))
    assert smoother.latency_ms[0, 0] == 100.0
    smoother.update(readings(latency_ms=[200.0]), np.array([60.0]))
    assert smoother.latency_ms[0, 0] == pytest.approx(200.0 - 100.0 / np.e)


columns = st.integers(1, 5).flatmap(
    lambda pools: st.fixed_dictionaries(
        {
            name: st.lists(
                st.one_of(st.floats(0, top).map(lambda value: round(value, 3)), st.just(float("nan"))),
                min_size=pools,
                max_size=pools,
            )
            for name, top in (
                ("ready", 50), ("request_rate", 1e4), ("latency_ms", 1e4), ("error_ratio", 1.0),
                ("utilisation", 3.0), ("in_flight", 1e4),
            )
        }
    )
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(columns, st.one_of(st.floats(0, 1e5), st.just(float("nan"))), st.sampled_from(sorted(WEIGHINGS)))
def test_shares_sum_to_one_over_pools_that_serve_whatever_is_read(
    drawn: dict[str, list[float]], load: float, name: str
) -> None:
    given_readings = readings(**{key: np.array(value) for key, value in drawn.items()}, load_rps=load)
    found = np.array(shares(name, given_readings, 15.0))
    serving = given_readings.serving[0]
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found[~serving] == 0).all()
    assert found.sum() == pytest.approx(1.0 if serving.any() else 0.0)


class Episode:
    """One set through time, 15 s a turn."""

    def __init__(self, rules: EjectionRules | None = None, pools: int = 3) -> None:
        self.ejector = Ejector(1, pools, rules)
        self.now_s = 0.0

    def turn(self, given_readings: PoolReadings, turns: int = 1) -> list[list[float]]:
        found = []
        for _ in range(turns):
            self.now_s += 15.0
            now, elapsed = np.array([self.now_s]), np.array([15.0])
            found.append(self.ejector.update(now, elapsed, given_readings, SLO_MS)[0].tolist())
        return found


HEALTHY = readings(latency_ms=[100.0, 110.0, 90.0])
SLOW = readings(latency_ms=[500.0, 110.0, 90.0])


def test_a_slow_pool_is_out_at_once_and_comes_back_slowly_and_never_swings() -> None:
    episode = Episode()
    assert episode.turn(HEALTHY) == [[1.0, 1.0, 1.0]]
    assert episode.turn(SLOW)[0] == [0.05, 1.0, 1.0]
    while_slow = [row[0] for row in episode.turn(SLOW, 40)]
    assert while_slow == [0.05] * 40
    back = [row[0] for row in episode.turn(HEALTHY, 60)]
    assert back[-1] == 1.0
    steps = np.diff(back)
    assert (steps >= 0).all(), "once well, it only gains"
    assert steps.max() <= 15.0 / 120.0 + 1e-9
    assert all(row[1:] == [1.0, 1.0] for row in episode.turn(HEALTHY, 3))


def test_each_ejection_lasts_longer_and_is_forgotten_in_time() -> None:
    episode = Episode()

    def out_turns() -> int:
        episode.turn(SLOW)
        count = 1
        while episode.turn(HEALTHY)[0][0] == 0.05:
            count += 1
        return count

    lengths = [out_turns() for _ in range(4)]
    assert lengths == sorted(lengths)
    assert lengths[-1] > 3 * lengths[0]
    episode.turn(HEALTHY, 60)
    assert out_turns() == lengths[0]


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param(
            {"latency_ms": [190.0, 50.0, 50.0]}, id="slow beside the others but within the objective"
        ),
        pytest.param({"latency_ms": [900.0, 800.0, 850.0]}, id="all are slow"),
        pytest.param(
            {"latency_ms": [900.0, 100.0, 100.0], "request_rate": [9.0, 1.0, 1.0], "load_rps": 11},
            id="slow from too much load",
        ),
        pytest.param(
            {"latency_ms": [900.0, 100.0, 100.0], "load_rps": 25}, id="the others could not take it"
        ),
        pytest.param({"error_ratio": [0.04, 0.0, 0.0]}, id="few errors"),
        pytest.param({"error_ratio": [0.3, 0.3, 0.2]}, id="all fail"),
        pytest.param({"latency_ms": [np.nan, 100.0, 100.0]}, id="nothing is known"),
    ],
)
def test_a_pool_stays_where(columns: dict[str, Any]) -> None:
    assert Episode().turn(readings(**columns))[0] == [1.0, 1.0, 1.0]


def test_a_failing_pool_is_out() -> None:
    assert Episode().turn(readings(error_ratio=[0.3, 0.01, 0.0]))[0] == [0.05, 1.0, 1.0]


def test_no_more_than_half_of_the_capacity_is_out() -> None:
    big = readings(latency_ms=[900.0, 100.0, 100.0], ready=[6, 1, 1])
    assert Episode().turn(big)[0] == [1.0, 1.0, 1.0]


def test_what_is_taken_goes_to_the_others_by_their_shares() -> None:
    found = with_ejections(np.array([[0.5, 0.3, 0.2]]), np.array([[0.0, 1.0, 1.0]]))
    assert found[0].tolist() == pytest.approx([0.0, 0.6, 0.4])
    alone = with_ejections(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    assert alone[0].tolist() == [1.0, 0.0], "somebody has to serve"


def test_sets_are_apart_and_may_be_forgotten() -> None:
    both = {name: np.vstack([getattr(SLOW, name), getattr(HEALTHY, name)]) for name in PoolReadings.__slots__
            if name != "load_rps"}  # fmt: skip
    two = PoolReadings(**both, load_rps=np.array([12.0, 12.0]))
    ejector = Ejector(2, 3)
    found = ejector.update(np.zeros(2), np.full(2, 15.0), two, np.full(2, 200.0))
    assert found.tolist() == [[0.05, 1.0, 1.0], [1.0, 1.0, 1.0]]
    ejector.reset(np.array([0]))
    assert (ejector.factors == 1.0).all()


def test_a_pool_that_hangs_is_out_after_two_looks_at_its_requests_under_way() -> None:
    """A histogram knows only requests that were answered: it goes on showing what was before."""
    ejector = Ejector(1, 3)
    hangs = readings(ready=[4.0] * 3, request_rate=[10.0] * 3, in_flight=[150.0, 1.0, 1.0], load_rps=30)
    first = ejector.update(np.array([15.0]), np.array([15.0]), hangs, SLO_MS)
    assert first.tolist() == [[1.0, 1.0, 1.0]]
    second = ejector.update(np.array([30.0]), np.array([15.0]), hangs, SLO_MS)
    assert second.tolist() == [[0.05, 1.0, 1.0]]


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param({"in_flight": [8.0, 1.0, 1.0]}, id="few, as chance has it"),
        pytest.param({"in_flight": [150.0, 140.0, 160.0]}, id="all alike"),
        pytest.param({"in_flight": [150.0, 1.0, 1.0], "utilisation": [0.95, 0.4, 0.4]}, id="a queue"),
        pytest.param({"in_flight": [np.nan] * 3}, id="unknown"),
        pytest.param(
            {"in_flight": [30.0, 1.0, 1.0], "request_rate": [0.5, 10.0, 10.0], "weights": [80, 10, 10]},
            id="its weight has just risen, the rate over the window has not yet",
        ),
    ],
)
def test_requests_under_way_alone_do_not_make_a_pool_sick(columns: dict[str, Any]) -> None:
    ejector = Ejector(1, 3)
    found = {"ready": [4.0] * 3, "request_rate": [10.0] * 3, "load_rps": 150} | columns
    for turn in range(1, 5):
        factors = ejector.update(np.array([15.0 * turn]), np.array([15.0]), readings(**found), SLO_MS)
        assert factors.tolist() == [[1.0, 1.0, 1.0]]


class Loop:
    """Three pools of 10 req/s a replica under 40 req/s, whose integer weights follow a formula each 15 s.

    What a pool shows follows from its weight: without traffic it has no latency, and a busy one queues.
    """

    READY = np.array([4.0, 3.0, 3.0])

    def __init__(
        self, name: str, ejects: bool = True, undone: bool = True, first: tuple[int, ...] = (40, 30, 30)
    ):
        self.name, self.ejects, self.undone = name, ejects, undone
        self.smoother, self.ejector = Smoother(1, 3), Ejector(1, 3)
        self.unejected = Unejected.new(1, 3)
        self.weights = np.array([first])
        self.now_s = 0.0
        self.asked: list[np.ndarray] = []

    def readings(self, slower: float) -> PoolReadings:
        rate = 40.0 * self.weights[0] / 100.0
        busy = rate / (self.READY * 10.0)
        alone_ms = np.array([100.0, 100.0, 100.0 * slower])
        latency = np.where(rate > 0, alone_ms / np.maximum(1.0 - 0.5 * busy, 0.2), np.nan)
        return readings(
            ready=self.READY, request_rate=rate, utilisation=busy, latency_ms=latency,
            in_flight=rate * np.nan_to_num(latency) / 1000.0, weights=self.weights[0], load_rps=40.0,
        )  # fmt: skip

    def turns(self, count: int, slower: float = 1.0) -> list[int]:
        """The third pool's weights after each turn."""
        found = []
        for _ in range(count):
            self.now_s += 15.0
            now, elapsed = np.array([self.now_s]), np.array([15.0])
            seen = self.readings(slower)
            if self.undone:
                self.smoother.forget_latency(self.unejected.held)
            self.smoother.update(seen, elapsed)
            factors = self.ejector.update(now, elapsed, seen, SLO_MS) if self.ejects else np.ones((1, 3))
            whole = self.unejected.weights(self.weights) if self.undone else self.weights
            self.unejected = self.unejected.after(self.weights, factors)
            shares = WEIGHINGS[self.name](replace(seen, weights=whole), self.smoother)
            self.asked.append(shares)
            shares = with_ejections(shares, factors)
            bounds = np.zeros((1, 3), int), np.full((1, 3), 100)
            self.weights = guard_weights(shares, self.weights, self.READY[None, :], *bounds)
            found.append(int(self.weights[0, 2]))
        return found


@pytest.mark.parametrize("sick_turns", [2, 6, 40])
@pytest.mark.parametrize("first", [(40, 30, 30), (60, 32, 8)])
@pytest.mark.parametrize("name", sorted(WEIGHINGS.keys() - {"CheapestFirst"}))
def test_a_pool_that_was_out_gets_its_share_back_without_a_step_back(
    name: str, first: tuple[int, ...], sick_turns: int
) -> None:
    loop = Loop(name, first=first)
    before = loop.turns(8)[-1]
    out = loop.turns(sick_turns, slower=5.0)
    assert out[-1] <= max(2, 0.2 * before)
    assert loop.ejector.out.tolist() == [[False, False, True]]
    rules = loop.ejector.rules
    for _ in range(int(rules.longest_s / 15)):
        if loop.ejector.out.any():
            loop.turns(1)
    back = loop.turns(int(rules.recovery_s / 15) + 3)
    assert back[-1] >= 0.8 * before
    assert back == sorted(back)
    assert max(np.diff(back)) <= max(2, 0.25 * before), "gradually"


def test_the_gradient_from_cut_weights_would_keep_the_pool_out() -> None:
    """Why `Unejected` is there; as the operator was before it."""
    loop = Loop("LatencyGradient", undone=False)
    loop.turns(8)
    loop.turns(6, slower=5.0)
    assert loop.turns(60)[-1] <= 3


@pytest.mark.parametrize("name", sorted(WEIGHINGS))
def test_formulas_are_bit_for_bit_as_they_were_but_for_the_gradient_with_a_pool_out(name: str) -> None:
    ejects = name != "LatencyGradient"
    plain, undone = Loop(name, ejects, undone=False), Loop(name, ejects)
    for loop in (plain, undone):
        loop.turns(4)
        loop.turns(6, slower=5.0)
        loop.turns(30)
    assert np.array_equal(plain.asked, undone.asked)
    assert len({row.tobytes() for row in plain.asked}) > 1 or name in (
        "Equal",
        "Capacity",
        "Ready",
        "CheapestFirst",
    )


def test_what_pools_had_is_held_for_as_many_as_are_out_and_when_nobody_else_serves() -> None:
    known = Unejected.new(2, 3).after(
        np.array([[50, 30, 20], [40, 40, 20]]), np.array([[1, 1, 0.05], [1, 1, 1]])
    )
    present = np.array([[60, 39, 1], [40, 35, 25]])
    assert known.weights(present).tolist() == [pytest.approx([48.4848, 31.5152, 20], abs=1e-4), [40, 35, 25]]
    both = known.after(present, np.array([[1, 0.05, 0.4], [1, 1, 1]]))
    assert both.weights(np.array([[80, 2, 18], [40, 35, 25]]))[0].tolist() == pytest.approx(
        [48.4848, 31.5152, 20], abs=1e-4
    )
    alone = both.weights(np.array([[0, 60, 40], [40, 35, 25]]))[0]
    assert alone.tolist() == pytest.approx([0, 31.5152, 20], abs=1e-4)
    assert np.isfinite(
        Unejected.new(1, 2).after(np.zeros((1, 2), int), np.full((1, 2), 0.05)).weights(np.zeros((1, 2)))
    ).all()
