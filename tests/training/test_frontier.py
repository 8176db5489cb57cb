"""Reading costs and violations off frontiers, and intervals by bootstrap: known answers."""

from __future__ import annotations

import numpy as np
import pytest

from training.frontier import (
    SMALLEST_VIOLATION,
    Interval,
    Outcomes,
    bracket,
    cost_at,
    costs_at,
    draw,
    gap_closed,
    gap_interval,
    interval,
    nearest_setting,
    one_knob,
    one_knob_at_median,
    pareto,
    per_window_costs,
    ratio_interval,
    violation_at,
)

COST = np.array([4.0, 2.0, 3.0, 1.0])
VIOLATION = np.array([0.001, 0.01, 0.02, 0.1])
NAN = float("nan")


def outcomes(cost: np.ndarray, violation: np.ndarray) -> Outcomes:
    """`[S, W]` or `[S, W, K]` figures as a family; the others are 0."""
    cubes = [np.atleast_3d(each) for each in (cost, violation)]
    zeros = np.zeros_like(cubes[0])
    return Outcomes("test", tuple(str(i) for i in range(len(cost))), *cubes, zeros, zeros, zeros)


def read_slowly(cost: np.ndarray, violation: np.ndarray, level: float) -> float:
    """The rules of `training.frontier` by NumPy's own interpolation."""
    shown = np.maximum(violation, SMALLEST_VIOLATION)
    front = pareto(cost, shown)
    if shown[front].min() > level:
        return NAN
    return float(np.exp(np.interp(np.log(level), np.log(shown[front]), np.log(cost[front]))))


def test_the_frontier_leaves_out_what_is_beaten_in_both() -> None:
    assert pareto(COST, VIOLATION).tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    ("level", "cost"),
    [
        pytest.param(0.001, 4.0, id="on the safest setting"),
        pytest.param(0.01, 2.0, id="on a setting"),
        pytest.param(10**-2.5, 8**0.5, id="half-way in logarithms"),
        pytest.param(0.5, 1.0, id="laxer than the cheapest"),
        pytest.param(0.0005, NAN, id="safer than any"),
    ],
)
def test_cost_at_a_violation_level(level: float, cost: float) -> None:
    assert cost_at(COST, VIOLATION, level) == pytest.approx(cost, nan_ok=True)


@pytest.mark.parametrize(
    ("spend", "violation"),
    [
        pytest.param(2.0, 0.01, id="on a setting"),
        pytest.param(8**0.5, 10**-2.5, id="half-way in logarithms"),
        pytest.param(9.0, 0.001, id="more than the safest costs"),
        pytest.param(0.5, NAN, id="less than any costs"),
    ],
)
def test_violation_at_a_cost(spend: float, violation: float) -> None:
    assert violation_at(COST, VIOLATION, spend) == pytest.approx(violation, nan_ok=True)


@pytest.mark.parametrize(
    ("cost", "violation", "level", "read"),
    [
        pytest.param([3.0, 2.0, 1.0], [0.01, 0.01, 0.1], 0.01, 2.0, id="of equal violations the cheapest"),
        pytest.param([2.0, 2.0, 1.0], [0.001, 0.01, 0.1], 0.01, 2**0.5, id="of equal costs the safest"),
        pytest.param([2.0, 2.0], [0.01, 0.01], 0.01, 2.0, id="twice the same setting"),
        pytest.param([3.0, 2.0, 1.0], [0.0, 1e-9, 0.1], 1e-6, 2.0, id="two below what counts: the cheapest"),
        pytest.param([2.0], [0.0], 0.001, 2.0, id="one setting without violations"),
    ],
)
def test_ties_are_read_as_documented(cost: list, violation: list, level: float, read: float) -> None:
    assert cost_at(np.array(cost), np.array(violation), level) == pytest.approx(read)


def test_a_setting_without_any_violation_can_be_interpolated() -> None:
    assert cost_at(np.array([3.0, 1.0]), np.array([0.0, 0.1]), 0.01) == pytest.approx(1.0 * 3 ** (1 / 5))


def test_many_frontiers_at_once_are_read_as_each_alone() -> None:
    generator = np.random.default_rng(3)
    cost = generator.integers(1, 8, (500, 6)).astype(float)
    violation = generator.choice([0.0, 0.0005, 0.001, 0.003, 0.01, 0.05], (500, 6))
    levels = generator.choice([0.0005, 0.001, 0.002, 0.02, 0.2], 500)
    slowly = [read_slowly(*each) for each in zip(cost, violation, levels, strict=True)]
    assert np.isnan(slowly).any()
    assert costs_at(cost, violation, levels) == pytest.approx(np.array(slowly), nan_ok=True)


@pytest.mark.parametrize(
    ("level", "settings"),
    [(0.0005, ()), (0.001, (0,)), (0.005, (0, 1)), (0.01, (1,)), (0.05, (1, 3)), (0.5, (3,))],
)
def test_the_settings_that_a_cost_is_read_between_are_named(level: float, settings: tuple) -> None:
    assert bracket(COST, VIOLATION, level) == settings


def test_one_knob_uses_geometric_cost_and_mean_violation() -> None:
    cost = np.array([[2.0, 8.0], [1.0, 1.0]])
    violation = np.array([[0.0, 0.01], [0.1, 0.3]])
    assert one_knob(outcomes(cost, violation), 0.005) == pytest.approx(4.0)


def test_one_knob_at_the_median_does_not_see_a_hard_window() -> None:
    cost = np.array([[2.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    violation = np.array([[0.0, 0.0, 0.5], [0.01, 0.01, 0.9]])
    both = outcomes(cost, violation)
    assert np.isnan(one_knob(both, 0.01))
    assert one_knob_at_median(both, 0.01) == pytest.approx(1.0)


def test_seeds_are_averaged_before_windows_are_compared() -> None:
    cost = np.array([[[1.0, 4.0], [2.0, 2.0]]])
    violation = np.array([[[0.0, 0.02], [0.3, 0.5]]])
    both = outcomes(cost, violation)
    assert both.shape == (1, 2, 2)
    assert both.window_cost == pytest.approx(np.array([[2.0, 2.0]]))
    assert both.window_violation == pytest.approx(np.array([[0.01, 0.4]]))
    assert both.mean_cost == pytest.approx([2.0])
    assert both.median_violation == pytest.approx([0.205])


def test_per_window_costs_turn_the_dial_for_each_window() -> None:
    cost = np.array([[3.0, 3.0], [1.0, 1.0]])
    violation = np.array([[0.001, 0.1], [0.01, 0.2]])
    assert per_window_costs(outcomes(cost, violation), 0.01) == pytest.approx([1.0, np.nan], nan_ok=True)


def test_nearest_setting_is_the_cheapest_safe_one_or_the_safest() -> None:
    both = outcomes(COST[:, None], VIOLATION[:, None])
    assert nearest_setting(both, 0.01) == 1
    assert nearest_setting(both, 0.0001) == 0


def test_of_several_safest_settings_the_cheapest_is_nearest() -> None:
    both = outcomes(np.array([[3.0], [2.0], [1.0]]), np.array([[0.05], [0.05], [0.2]]))
    assert nearest_setting(both, 0.01) == 1


@pytest.mark.parametrize(
    ("policy", "baseline", "bound", "share"),
    [
        (1.5, 2.0, 1.0, 0.5),
        (2.5, 2.0, 1.0, -0.5),
        (1.0, 2.0, 1.0, 1.0),
        (NAN, 2.0, 1.0, NAN),
        (1.5, NAN, 1.0, NAN),
        (1.0, 1.0, 1.0, NAN),
    ],
    ids=["half", "worse than the baseline", "the bound itself", "not reached", "no baseline", "no gap"],
)
def test_gap_closed(policy: float, baseline: float, bound: float, share: float) -> None:
    assert gap_closed(policy, baseline, bound) == pytest.approx(share, nan_ok=True)


@pytest.mark.parametrize(
    ("traces", "seeds", "over"),
    [
        pytest.param([0, 0, 1, 2], 3, "traces", id="several traces"),
        pytest.param([5, 5, 5], 3, "windows", id="one trace"),
        pytest.param([0], 3, "seeds", id="one window"),
    ],
)
def test_the_highest_level_with_several_members_is_drawn(traces: list, seeds: int, over: str) -> None:
    found = draw(traces, seeds, rounds=50)
    assert found.over == over
    assert found.weights.shape == (50, len(traces), seeds)
    assert found.weights.sum(axis=(1, 2)) == pytest.approx(np.ones(50))


def test_windows_of_one_trace_are_drawn_together() -> None:
    weights = draw([0, 0, 1, 1, 2], seeds=2, rounds=200).weights
    assert np.array_equal(weights[:, 0], weights[:, 1])
    assert np.array_equal(weights[:, 2], weights[:, 3])
    assert not np.array_equal(weights[:, 0], weights[:, 2])


def test_drawing_seeds_keeps_every_window() -> None:
    weights = draw([0, 1, 2], seeds=4, rounds=100, over="seeds").weights
    assert weights.sum(axis=2) == pytest.approx(np.full((100, 3), 1 / 3))
    assert weights.std() > 0.01


def test_draws_are_the_same_for_a_seed() -> None:
    first, again, other = (draw([0, 1, 2], 2, seed=seed).weights for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Log-normal costs of 40 traces: 95 % intervals of the geometric mean, 300 times."""
    generator = np.random.default_rng(11)
    covered = 0
    for trial in range(300):
        cost = np.exp(generator.normal(0.7, 0.5, (1, 40, 1)))
        drawn = draw(range(40), 1, rounds=400, seed=trial)
        found = interval(drawn.costs(outcomes(cost, np.zeros_like(cost)), [0.01])[0])
        covered += found.low <= np.exp(0.7) <= found.high
    assert 0.90 <= covered / 300 <= 0.98


def test_windows_that_resemble_each_other_do_not_narrow_an_interval() -> None:
    """Each of 12 traces cut into 5 equal windows: as uncertain as 12 windows."""
    cost = np.exp(np.random.default_rng(2).normal(0.0, 0.5, 12))
    alone, copies = outcomes(cost[None, :], np.zeros((1, 12))), np.repeat(cost, 5)[None, :]
    few = interval(draw(range(12), 1).costs(alone, [0.01])[0])
    many = interval(draw(np.repeat(range(12), 5), 1).costs(outcomes(copies, np.zeros((1, 60))), [0.01])[0])
    assert (many.low, many.high) == pytest.approx((few.low, few.high), rel=0.05)


def test_an_end_that_draws_do_not_reach_is_infinite_and_counted() -> None:
    found = interval(np.array([1.0] * 60 + [NAN] * 40))
    assert found == Interval(1.0, np.inf, 0.6)
    assert interval(np.array([1.0, 2.0] * 50)) == Interval(1.0, 2.0, 1.0)
    nothing = interval(np.full(10, NAN))
    assert np.isnan(nothing.low)
    assert nothing.reached == 0


def test_the_ratio_of_paired_draws_is_exact_where_it_is_the_same_in_every_window() -> None:
    generator = np.random.default_rng(0)
    violation = np.tile([[0.001], [0.1]], (1, 12))
    cost = np.array([[2.0], [1.0]]) * generator.uniform(1, 3, size=12)
    drawn = draw(range(12), 1, rounds=200)
    ours = drawn.costs(outcomes(0.8 * cost, violation), [0.01])[0]
    base = drawn.costs(outcomes(cost, violation), [0.01])[0]
    found = ratio_interval(ours, base)
    assert (found.low, found.high, found.reached) == (pytest.approx(0.8), pytest.approx(0.8), 1.0)
    assert base.std() > 0.01


def test_a_ratio_knows_who_did_not_reach_the_level() -> None:
    ours = np.array([1.0] * 90 + [NAN] * 10)
    base = np.array([2.0] * 80 + [NAN] * 10 + [2.0] * 10)
    found = ratio_interval(ours, base)
    assert found == Interval(0.0, np.inf, 0.9)
    assert gap_interval(ours, base, np.full(100, 1.0)) == Interval(1.0, 1.0, 0.8)
