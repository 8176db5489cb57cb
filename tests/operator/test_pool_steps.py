"""How a step of the whole is carried by its pools."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.actuation.apply import pool_steps
from controller.core import Pool

OD = Pool("od", min_replicas=2, max_replicas=40, cost_per_replica=1.0, min_weight=10)
SPOT = Pool("spot", min_replicas=0, max_replicas=60, cost_per_replica=0.3, max_weight=80)


@pytest.mark.parametrize(
    ("current", "desired", "expected"),
    [
        pytest.param([2, 0], 10, [2, 8], id="growth goes to the cheaper pool"),
        pytest.param([2, 8], 10, [2, 8], id="nothing to do"),
        pytest.param([5, 5], 10, [5, 5], id="the total stands still, so nobody moves"),
        pytest.param([5, 5], 12, [5, 7], id="a step up lowers nobody"),
        pytest.param([9, 1], 8, [7, 1], id="a step down raises nobody"),
        pytest.param([0, 10], 10, [2, 8], id="a pool below its own minimum is raised"),
        pytest.param([0, 0], 2, [2, 0], id="from nothing"),
    ],
)
def test_pools_move_towards_their_shares(current: list[int], desired: int, expected: list[int]) -> None:
    assert pool_steps(current, desired, [OD, SPOT]) == expected


pools_and_state = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(0, 20),
        st.sampled_from(["0.3", "1.0", "2.0"]),
        st.integers(0, 30),
        st.integers(0, 40),
    ),
    min_size=1,
    max_size=4,
)


@given(pools_and_state, st.data())
def test_the_sum_is_what_was_decided_and_no_pool_moves_against_it(
    rows: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    pools = [
        Pool(f"p{i}", low, low + more, float(cost), min_weight=weight // len(rows))
        for i, (low, more, cost, weight, _) in enumerate(rows)
    ]
    current = [
        min(max(now, pool.min_replicas), pool.max_replicas)
        for (*_, now), pool in zip(rows, pools, strict=True)
    ]
    low, high = sum(pool.min_replicas for pool in pools), sum(pool.max_replicas for pool in pools)
    desired = data.draw(st.integers(low, high))
    steps = pool_steps(current, desired, pools)
    assert sum(steps) == desired
    for pool, before, after in zip(pools, current, steps, strict=True):
        assert pool.min_replicas <= after <= pool.max_replicas
        assert (after - before) * (desired - sum(current)) >= 0
