"""The guard of route weights (`controller.core.pools.guard_weights`), as the pools environment uses it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.pools import guard_weights
from sim.envs.pool_batch import PoolsBatch, PoolsConfig, PoolsView
from sim.pool_baselines import BASELINES


def guarded(asked, current, ready, low=None, high=None, step=100):
    pools = len(asked)
    row = [
        np.array([values]) for values in (asked, current, ready, low or [0] * pools, high or [100] * pools)
    ]
    return guard_weights(*row, step)[0].tolist()


@pytest.mark.parametrize(
    ("expected", "case"),
    [
        pytest.param([50, 30, 20], {"asked": [5, 3, 2], "ready": [1, 1, 1]}, id="scaled to 100"),
        pytest.param([34, 33, 33], {"asked": [1, 1, 1], "ready": [1, 1, 1]}, id="largest remainder"),
        pytest.param([0, 60, 40], {"asked": [5, 3, 2], "ready": [0, 1, 1]}, id="nothing for the unready"),
        pytest.param([0, 0, 100], {"asked": [5, 0, 0], "ready": [0, 0, 2], "high": [99, 99, 30]}, id="all"),
        pytest.param([40, 40, 20], {"asked": [1, 0, 0], "ready": [0, 0, 0]}, id="none ready: as they were"),
        pytest.param([40, 40, 20], {"asked": [np.nan, 1, 1], "ready": [1, 1, 1]}, id="not a number"),
        pytest.param([40, 40, 20], {"asked": [0, 0, 0], "ready": [1, 1, 1]}, id="asks for nothing"),
        pytest.param([50, 40, 10], {"asked": [1, 0, 0], "low": [0, 40, 10], "high": [50, 90, 90]}, id="band"),
        pytest.param([50, 30, 20], {"asked": [1, 0, 0], "ready": [1, 1, 1], "step": 10}, id="slew"),
        pytest.param([0, 60, 40], {"asked": [1, 1, 1], "ready": [0, 1, 1], "step": 5}, id="ejected"),
    ],
)  # fmt: skip
def test_known_weights(expected, case):
    assert guarded(current=[40, 40, 20], **{"ready": [1, 1, 1]} | case) == expected


@st.composite
def routes(draw):
    pools = draw(st.integers(1, 6))
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=pools - 1, max_size=pools - 1)))
    current = [b - a for a, b in itertools.pairwise([0, *cuts, 100])]
    bands = [sorted(draw(st.tuples(st.integers(0, 100), st.integers(0, 100)))) for _ in range(pools)]
    number = st.one_of(st.floats(0, 1e6), st.just(float("nan")))
    return {
        "asked": draw(st.lists(number, min_size=pools, max_size=pools)),
        "current": current,
        "ready": draw(st.lists(st.integers(0, 3), min_size=pools, max_size=pools)),
        "low": [band[0] for band in bands],
        "high": [band[1] for band in bands],
        "step": draw(st.integers(1, 100)),
    }


@settings(deadline=None, max_examples=400)
@given(routes())
def test_every_rule_holds_for_any_route(route):
    result = guarded(**route)
    assert sum(result) == 100
    if not any(route["ready"]):
        assert result == route["current"]
        return
    serving = [count > 0 for count in route["ready"]]
    assert all(weight == 0 for weight, serves in zip(result, serving, strict=True) if not serves)
    assert all(weight >= 0 for weight in result)
    low = [value if serves else 0 for value, serves in zip(route["low"], serving, strict=True)]
    high = [value if serves else 0 for value, serves in zip(route["high"], serving, strict=True)]
    bands_hold = sum(low) <= 100 <= sum(high)
    inside = all(a <= c <= b for a, c, b in zip(low, route["current"], high, strict=True))
    if bands_hold and inside:
        assert all(a <= weight <= b for a, weight, b in zip(low, result, high, strict=True))
        steps = [abs(weight - was) for weight, was in zip(result, route["current"], strict=True)]
        assert max(steps) <= route["step"], "within the bands nothing needs a larger step"


def test_many_services_at_once_are_each_as_alone():
    rng = np.random.default_rng(0)
    services, pools = 200, 4
    current = rng.multinomial(100, [0.25] * pools, services)
    asked = rng.exponential(1.0, (services, pools))
    ready = rng.integers(0, 3, (services, pools))
    low = rng.integers(0, 20, (services, pools))
    high = rng.integers(40, 101, (services, pools))
    step = rng.integers(5, 100, services)
    together = guard_weights(asked, current, ready, low, high, step)
    for row in range(services):
        one = slice(row, row + 1)
        alone = guard_weights(asked[one], current[one], ready[one], low[one], high[one], step[one])
        assert np.array_equal(alone[0], together[row])


def test_a_pool_that_comes_back_gets_its_traffic_step_by_step():
    weights = [0, 60, 40]
    seen = []
    for _ in range(6):
        weights = guarded([1, 1, 1], weights, [2, 2, 2], step=10)
        seen.append(weights[0])
    assert seen == [10, 20, 30, 34, 34, 34]


def shown(plain: PoolsView, weights: np.ndarray, slower: float, turn: int) -> PoolsView:
    """Two pools of 4 replicas under 20 req/s, the second so many times slower."""
    pair = np.ones((1, 2))
    rate = 20.0 * weights / 100.0
    metrics = replace(
        plain.metrics,
        ready=4 * pair, request_rate=rate, latency_ms=np.where(rate > 0, [[100.0, 100.0 * slower]], np.nan),
        error_ratio=0 * pair, utilisation=rate / 40.0, in_flight=0 * pair, weights_asked=weights,
    )  # fmt: skip
    return replace(
        plain, metrics=metrics, load_rps=np.array([20.0]), capacity_rps=10 * pair, price=pair,
        max_replicas=np.array([[8, 8]]), present=np.array([[True, True]]), now_s=np.array([15.0 * turn]),
        sync_s=np.array([15]), slo_ms=np.array([200.0]),
    )  # fmt: skip


def test_the_latency_gradient_with_ejection_gives_a_pool_back_in_the_simulator_too():
    batch = PoolsBatch(PoolsConfig(), 1, seed=0)
    batch.reset()
    plain, weights, seen = batch.view(), np.array([[50, 50]]), []
    policy = BASELINES["latency-gradient + ejection"]()
    for turn in range(30):
        view = shown(plain, weights, 5.0 if 2 <= turn < 8 else 1.0, turn)
        shares = (policy(view, 1.5).reshape(1, 2, 2)[:, :, 1] + 1.0) / 2.0
        weights = guard_weights(shares, weights, [[4, 4]], np.zeros((1, 2), int), np.full((1, 2), 100))
        seen.append(int(weights[0, 1]))
    assert max(seen[2:8]) <= 5
    assert seen[8:] == sorted(seen[8:])
    assert seen[-1] >= 40
