"""Reading costs and violations off frontiers: known answers."""

from __future__ import annotations

import numpy as np
import pytest

from training.frontier import (
    Outcomes,
    bootstrap,
    cost_at,
    gap_closed,
    nearest_setting,
    one_knob,
    pareto,
    per_window_costs,
    violation_at,
)

COST = np.array([4.0, 2.0, 3.0, 1.0])
VIOLATION = np.array([0.001, 0.01, 0.02, 0.1])


def outcomes(cost: np.ndarray, violation: np.ndarray) -> Outcomes:
    return Outcomes("test", tuple(str(i) for i in range(len(cost))), cost, violation, np.zeros_like(cost))


def test_the_frontier_leaves_out_what_is_beaten_in_both() -> None:
    assert pareto(COST, VIOLATION).tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    ("level", "cost"),
    [
        pytest.param(0.001, 4.0, id="on the safest setting"),
        pytest.param(0.01, 2.0, id="on a setting"),
        pytest.param(10**-2.5, 8**0.5, id="half-way in logarithms"),
        pytest.param(0.5, 1.0, id="laxer than the cheapest"),
        pytest.param(0.0005, float("nan"), id="safer than any"),
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
        pytest.param(0.5, float("nan"), id="less than any costs"),
    ],
)
def test_violation_at_a_cost(spend: float, violation: float) -> None:
    assert violation_at(COST, VIOLATION, spend) == pytest.approx(violation, nan_ok=True)


def test_a_setting_without_any_violation_can_be_interpolated() -> None:
    assert cost_at(np.array([3.0, 1.0]), np.array([0.0, 0.1]), 0.01) == pytest.approx(1.0 * 3 ** (1 / 5))


def test_one_knob_uses_geometric_cost_and_mean_violation() -> None:
    cost = np.array([[2.0, 8.0], [1.0, 1.0]])
    violation = np.array([[0.0, 0.01], [0.1, 0.3]])
    assert one_knob(outcomes(cost, violation), 0.005) == pytest.approx(4.0)


def test_per_window_costs_turn_the_knob_for_each_window() -> None:
    cost = np.array([[3.0, 3.0], [1.0, 1.0]])
    violation = np.array([[0.001, 0.1], [0.01, 0.2]])
    assert per_window_costs(outcomes(cost, violation), 0.01) == pytest.approx([1.0, np.nan], nan_ok=True)


def test_nearest_setting_is_the_cheapest_safe_one_or_the_safest() -> None:
    both = outcomes(COST[:, None], VIOLATION[:, None])
    assert nearest_setting(both, 0.01) == 1
    assert nearest_setting(both, 0.0001) == 0


@pytest.mark.parametrize(
    ("policy", "baseline", "bound", "share"),
    [
        (1.5, 2.0, 1.0, 0.5),
        (2.5, 2.0, 1.0, -0.5),
        (1.0, 2.0, 1.0, 1.0),
        (float("nan"), 2.0, 1.0, float("nan")),
        (1.0, 1.0, 1.0, float("nan")),
    ],
    ids=["half", "worse than the baseline", "the bound itself", "not reached", "no gap"],
)
def test_gap_closed(policy: float, baseline: float, bound: float, share: float) -> None:
    assert gap_closed(policy, baseline, bound) == pytest.approx(share, nan_ok=True)


def test_bootstrap_brackets_a_ratio_that_is_the_same_in_every_window() -> None:
    generator = np.random.default_rng(0)
    violation = np.tile([[0.001], [0.1]], (1, 12))
    cost = np.array([[2.0], [1.0]]) * generator.uniform(1, 3, size=12)
    low, high = bootstrap(outcomes(0.8 * cost, violation), outcomes(cost, violation), 0.01)
    assert (low, high) == (pytest.approx(0.8), pytest.approx(0.8))
