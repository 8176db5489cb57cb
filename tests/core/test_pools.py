"""Pools: replicas where they are cheap and allowed, weights where replicas are ready."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core import Pool, route_weights, split_replicas
from controller.core.pools import largest_remainder

STEADY = Pool("on-demand", 2, 40, 1.0, min_weight=10)
SPOT = Pool("spot", 0, 60, 0.3, max_weight=80)


@pytest.mark.parametrize(
    ("desired", "expected"),
    [
        pytest.param(2, [2, 0], id="floors first"),
        pytest.param(10, [2, 8], id="the cheap pool up to its share"),
        pytest.param(50, [10, 40], id="the dear pool keeps what the cheap one may not have"),
        pytest.param(100, [40, 60], id="all there is"),
        pytest.param(500, [40, 60], id="never more than there is"),
    ],
)
def test_split(desired: int, expected: list[int]) -> None:
    assert split_replicas(desired, [STEADY, SPOT]) == expected


@pytest.mark.parametrize(
    ("ready", "expected"),
    [
        pytest.param([2, 8], [20, 80], id="proportional to ready replicas"),
        pytest.param([1, 99], [20, 80], id="maxWeight"),
        pytest.param([99, 1], [99, 1], id="no floor on the cheap pool"),
        pytest.param([0, 5], [0, 100], id="a pool that is not ready gets nothing"),
        pytest.param([5, 0], [100, 0], id="nor the other"),
        pytest.param([0, 0], None, id="none ready: leave the weights"),
        pytest.param([1, 2], [33, 67], id="largest remainder"),
    ],
)
def test_weights(ready: list[int], expected: list[int] | None) -> None:
    assert route_weights(ready, [STEADY, SPOT]) == expected


pools = st.builds(
    lambda low, room, cost, floor, width: Pool("p", low, low + room, cost, floor, min(100, floor + width)),
    st.integers(0, 10),
    st.integers(0, 50),
    st.floats(0, 5),
    st.integers(0, 30),
    st.integers(1, 100),
)


@given(st.lists(pools, min_size=1, max_size=5), st.integers(0, 300))
def test_split_stays_inside_every_pool_and_meets_the_sum_where_it_can(many: list[Pool], desired: int) -> None:
    split = split_replicas(desired, many)
    for count, pool in zip(split, many, strict=True):
        assert pool.min_replicas <= count <= pool.max_replicas
    assert sum(split) >= min(desired, sum(pool.max_replicas for pool in many))


@given(st.lists(st.tuples(pools, st.integers(0, 40)), min_size=1, max_size=6))
def test_weights_sum_to_the_total_and_spare_pools_that_are_not_ready(given_pools: list) -> None:
    ready = [count for _, count in given_pools]
    weights = route_weights(ready, [pool for pool, _ in given_pools])
    if sum(ready) == 0:
        assert weights is None
        return
    assert weights is not None
    assert sum(weights) == 100
    assert all(weight == 0 for weight, count in zip(weights, ready, strict=True) if count == 0)


@given(
    st.lists(st.floats(0.0, 1e6), min_size=1, max_size=8).filter(lambda v: sum(v) > 0), st.integers(1, 1000)
)
def test_largest_remainder_is_within_one_of_the_exact_share(shares: list[float], total: int) -> None:
    result = largest_remainder(shares, total)
    assert sum(result) == total
    for value, share in zip(result, shares, strict=True):
        assert abs(value - share * total / sum(shares)) < 1 + 1e-6
