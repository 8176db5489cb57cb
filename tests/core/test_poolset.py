"""The operator's decision for pools is the environment's for the same action, but where it is stricter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core import Behavior, ScalingPolicy, ScalingRules
from controller.core.poolfeatures import PoolSettings, PoolSights
from controller.core.poolset import (
    PoolsGuard,
    SetState,
    asked_replicas,
    asked_weights,
    by_ready_capacity,
    fitted,
)
from sim.envs import PoolsBatch, PoolsConfig
from sim.envs.pool_batch import capacity_of
from sim.envs.pool_features import SHOWN, STATIC

POOLS = 4


class Mirror:
    """The operator's functions fed with what an environment shows, step by step."""

    def __init__(self, batch: PoolsBatch) -> None:
        self.batch = batch
        self.guard = PoolsGuard(batch.num_envs, POOLS)
        for slot, scenario in enumerate(batch.scenarios):
            assert scenario is not None
            spec = scenario.base.spec
            self.guard.configure(slot, spec.behavior, spec.sync_period_s)

    def decide(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(replicas, weights) `[N, P]` for actions `[N, 2 P]`, by the operator's way."""
        batch, settings = self.batch, self.batch.settings
        view = batch.view()
        shown = PoolSights(**{name: getattr(view.metrics, name) for name in SHOWN})
        static = PoolSettings(**{name: getattr(settings, name) for name in STATIC})
        pairs = actions.reshape(batch.num_envs, POOLS, 2)
        share = (np.clip(pairs[:, :, 1], -1, 1) + 1) / 2
        weights = asked_weights(share, shown, static, settings.max_step)
        capacity = capacity_of(pairs[:, :, 0])
        asked = asked_replicas(capacity, view.load_rps, static.capacity_rps, shown.current)
        nobody = np.zeros(batch.num_envs, dtype=bool)
        state = SetState(
            slots=np.arange(batch.num_envs),
            now_s=batch.now_s,
            usable=np.isfinite(view.load_rps),
            unfamiliar=nobody,
            held=nobody,
            slo_ms=settings.slo_ms,
            target=settings.target,
        )
        desired = self.guard.guarded(state, asked, weights, shown, static)
        for slot in range(batch.num_envs):
            there = static.present[slot]
            before = np.where(there, shown.current[slot], 0).astype(int).tolist()
            self.guard.record(slot, float(batch.now_s[slot]), before, desired[slot].tolist())
        return desired, weights


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_action_gives_the_same_replicas_and_weights_as_in_the_environment(seed: int) -> None:
    batch = PoolsBatch(PoolsConfig(pools=POOLS), num_envs=24, seed=seed)
    batch.reset()
    mirror, rng = Mirror(batch), np.random.default_rng(seed)
    moved = 0
    for _ in range(40):
        actions = rng.uniform(-1, 1, (24, 2 * POOLS))
        before = batch.view().metrics.current
        desired, weights = mirror.decide(actions)
        batch.step(actions)
        there = batch.settings.present
        assert np.array_equal(batch.physics.weights_asked[there], weights[there])
        assert np.array_equal(batch.situation()["desired_replicas"][there], desired[there])
        moved += int((desired[there] != before[there]).sum())
    assert moved > 200, "it was tried on something"


def one_set(**changes: Any) -> tuple[PoolSights, PoolSettings, SetState]:
    """Two pools of 4 replicas of 10 req/s with 20 req/s each, weighed equally."""

    def both(value: float) -> np.ndarray:
        return np.full((1, 2), value)

    shown = {
        "request_rate": both(20.0), "latency_ms": both(50.0), "error_ratio": both(0.0),
        "utilisation": both(0.5), "in_flight": both(1.0), "ready": both(4.0), "current": both(4.0),
        "weights": both(50.0), "weights_asked": both(50.0), "told": both(0.0),
    }  # fmt: skip
    static = {
        "present": both(1.0) > 0, "capacity_rps": both(10.0), "price": both(1.0), "start_up_s": both(60.0),
        "risk": both(0.0), "min_replicas": both(0).astype(int), "max_replicas": both(20).astype(int),
        "min_weight": both(0).astype(int), "max_weight": both(100).astype(int),
    }  # fmt: skip
    state = {
        "slots": np.array([0]), "now_s": np.array([0.0]), "usable": np.array([True]),
        "unfamiliar": np.array([False]), "held": np.array([False]), "slo_ms": np.array([200.0]),
        "target": np.array([0.7]),
    }  # fmt: skip
    for part in (shown, static, state):
        part.update({name: value for name, value in changes.items() if name in part})
    return PoolSights(**shown), PoolSettings(**static), SetState(**state)


def guard_of(down_s: int = 0) -> PoolsGuard:
    guard = PoolsGuard(1, 2)
    any_number = (ScalingPolicy("Percent", 100, 15), ScalingPolicy("Pods", 50, 15))
    guard.configure(0, Behavior(scale_down=ScalingRules(down_s, "Max", any_number)), 15.0)
    return guard


def guarded(
    asked: list[float], to_come: list[int], guard: PoolsGuard | None = None, **changes: Any
) -> list[int]:
    shown, static, state = one_set(**changes)
    found = (guard or guard_of()).guarded(state, np.array([asked]), np.array([to_come]), shown, static)
    return [int(n) for n in found[0]]


def test_what_is_asked_is_capacity_over_the_load_in_replicas_of_each_pool() -> None:
    capacity, size = np.array([[1.0, 0.5]]), np.array([[10.0, 40.0]])
    found = asked_replicas(capacity, np.array([80.0]), size, np.array([[3.0, 3.0]]))
    assert found.tolist() == [[8.0, 1.0]]
    near = asked_replicas(capacity, np.array([124.0]), size, np.array([[10.0, 2.0]]))
    assert near.tolist() == [[13.0, 2.0]]
    assert asked_replicas(capacity, np.array([99.0]), size, np.array([[10.0, 2.0]])).tolist() == [[10.0, 2.0]]
    assert np.isnan(asked_replicas(capacity, np.array([np.nan]), size, np.ones((1, 2)))).all()


def test_a_pool_with_traffic_keeps_a_replica_and_one_without_may_go() -> None:
    assert guarded([0.0, 5.0], [50, 50]) == [1, 5]
    idle = {"weights": np.array([[0.0, 100.0]]), "weights_asked": np.array([[0.0, 100.0]])}
    assert guarded([0.0, 5.0], [0, 100], **idle) == [0, 5]


def test_a_pool_that_misses_its_objective_is_not_scaled_below_the_formula() -> None:
    slow = {"latency_ms": np.array([[900.0, 50.0]]), "utilisation": np.array([[1.4, 0.5]])}
    assert guarded([2.0, 2.0], [50, 50], **slow) == [8, 2]


@pytest.mark.parametrize("name", ["usable", "unfamiliar", "held"])
def test_nothing_goes_down_without_metrics_out_of_distribution_or_while_held(name: str) -> None:
    assert guarded([1.0, 1.0], [50, 50], **{name: np.array([name != "usable"])}) == [4, 4]


def test_unsaid_is_hold() -> None:
    assert guarded([np.nan, np.nan], [50, 50]) == [4, 4]


def test_each_pool_has_its_own_window_and_a_fresh_guard_keeps_what_is_there_for_one() -> None:
    guard = guard_of(60)
    found = [guarded([2.0, 6.0], [50, 50], guard, now_s=np.array([15.0 * turn])) for turn in range(6)]
    assert found == [[4, 6]] * 4 + [[2, 6]] * 2


def test_weights_of_pools_that_nobody_weighs_follow_ready_capacity() -> None:
    ready, capacity = np.array([[3.0, 1.0], [0.0, 0.0]]), np.array([[10.0, 30.0], [1.0, 1.0]])
    assert by_ready_capacity(ready, capacity).tolist() == [[50, 50], [0, 0]]


def test_fitting_more_keeps_what_is_there_first_and_then_grows_the_cheapest() -> None:
    bounds = [0, 0, 0], [10, 10, 10]
    price = [1.0, 0.3, 2.0]
    assert fitted([2, 3, 1], [4, 3, 2], 8, *bounds, price) == [4, 3, 1]
    assert fitted([2, 3, 1], [4, 3, 2], 9, *bounds, price) == [4, 3, 2]
    assert fitted([2, 3, 1], [4, 3, 2], 14, *bounds, price) == [4, 8, 2]


def test_fitting_less_raises_less_first_and_then_shrinks_the_dearest() -> None:
    bounds = [1, 0, 0], [10, 10, 10]
    price = [1.0, 0.3, 2.0]
    assert fitted([6, 6, 4], [4, 3, 2], 12, *bounds, price) == [4, 6, 2]
    assert fitted([6, 6, 4], [4, 3, 2], 9, *bounds, price) == [4, 3, 2]
    assert fitted([6, 6, 4], [4, 3, 2], 5, *bounds, price) == [2, 3, 0]


sizes = st.lists(
    st.tuples(
        st.integers(0, 12), st.integers(0, 12), st.integers(0, 6), st.integers(0, 8), st.integers(0, 3)
    ),
    min_size=1,
    max_size=8,
)


@given(sizes, st.integers(0, 80))
def test_fitted_pools_sum_to_the_total_wherever_their_bounds_allow(
    pools: list[tuple[int, int, int, int, int]], total: int
) -> None:
    wished, current, low, room, price = (list(column) for column in zip(*pools, strict=True))
    high = [least + more for least, more in zip(low, room, strict=True)]
    found = fitted(wished, current, total, low, high, [float(p) for p in price])
    assert all(least <= n <= most for n, least, most in zip(found, low, high, strict=True))
    assert sum(found) == min(max(total, sum(low)), sum(high))
    inside = [min(max(n, least), most) for n, least, most in zip(wished, low, high, strict=True)]
    sign = np.sign(total - sum(inside))
    assert all(sign * (after - before) >= 0 for after, before in zip(found, inside, strict=True)), (
        "one way only"
    )
