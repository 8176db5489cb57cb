"""Cost against violations: each policy's frontier over its knob, and the numbers read off it.

Pure arithmetic over the results of a replay; `evaluate.py` is the caller. Costs are ratios to the fluid ideal
(load over capacity, summed), violations are shares of requests over the objective.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
LEVELS = (0.001, 0.005, 0.01)
SMALLEST_VIOLATION = 1e-6


@dataclass(frozen=True)
class Outcomes:
    """One policy family over its settings and the windows: arrays `[S, W]`, and the settings' labels."""

    family: str
    settings: tuple[str, ...]
    cost: FloatArray
    violation: FloatArray
    flaps_per_hour: FloatArray

    @property
    def mean_cost(self) -> FloatArray:
        """Geometric mean over windows, `[S]`."""
        return np.asarray(np.exp(np.mean(np.log(self.cost), axis=1)))

    @property
    def mean_violation(self) -> FloatArray:
        """Arithmetic mean over windows, `[S]`; hard windows dominate it."""
        return np.asarray(np.mean(self.violation, axis=1))

    @property
    def median_violation(self) -> FloatArray:
        """Median over windows, `[S]`."""
        return np.asarray(np.median(self.violation, axis=1))

    def windows(self, index: npt.NDArray[np.intp]) -> Outcomes:
        """The same for some of the windows."""
        return Outcomes(
            self.family,
            self.settings,
            self.cost[:, index],
            self.violation[:, index],
            self.flaps_per_hour[:, index],
        )


def pareto(cost: FloatArray, violation: FloatArray) -> npt.NDArray[np.intp]:
    """Indices of the settings that no other one beats in both, by rising violation."""
    order = np.lexsort((cost, violation))
    kept: list[int] = []
    cheapest = np.inf
    for index in order:
        if cost[index] < cheapest:
            kept.append(int(index))
            cheapest = cost[index]
    return np.array(kept, dtype=np.intp)


def cost_at(cost: FloatArray, violation: FloatArray, level: float) -> float:
    """Cost at a violation level, log-log interpolated on the frontier; NaN where no setting is that safe."""
    front = pareto(cost, violation)
    safe = violation[front] <= level
    if not safe.any():
        return float("nan")
    logs = np.log(np.maximum(violation[front], SMALLEST_VIOLATION))
    return float(np.exp(np.interp(np.log(level), logs, np.log(cost[front]))))


def violation_at(cost: FloatArray, violation: FloatArray, spend: float) -> float:
    """Violation for a cost, log-log interpolated on the frontier; NaN where no setting is that cheap."""
    front = pareto(cost, violation)[::-1]
    if cost[front].min() > spend:
        return float("nan")
    logs = np.log(np.maximum(violation[front], SMALLEST_VIOLATION))
    return float(np.exp(np.interp(np.log(spend), np.log(cost[front]), logs)))


def one_knob(outcomes: Outcomes, level: float) -> float:
    """Geometric-mean cost at a mean violation, with one setting for all windows."""
    return cost_at(outcomes.mean_cost, outcomes.mean_violation, level)


def nearest_setting(outcomes: Outcomes, level: float) -> int:
    """The cheapest setting whose mean violation is at most `level`; the safest where there is none."""
    safe = np.flatnonzero(outcomes.mean_violation <= level)
    if len(safe) == 0:
        return int(np.argmin(outcomes.mean_violation))
    return int(safe[np.argmin(outcomes.mean_cost[safe])])


def gap_closed(policy: float, baseline: float, bound: float) -> float:
    """Share of the way from the baseline's cost to the bound's that a policy goes; NaN where undefined."""
    if not np.isfinite([policy, baseline, bound]).all() or baseline <= bound:
        return float("nan")
    return (baseline - policy) / (baseline - bound)


def per_window_costs(outcomes: Outcomes, level: float) -> FloatArray:
    """Cost of each window with the knob turned for that window alone, `[W]`; NaN where out of reach."""
    columns = range(outcomes.cost.shape[1])
    return np.array([cost_at(outcomes.cost[:, w], outcomes.violation[:, w], level) for w in columns])


def bootstrap(
    policy: Outcomes, baseline: Outcomes, level: float, rounds: int = 200, seed: int = 0
) -> tuple[float, float]:
    """10 % and 90 % quantiles of policy cost / baseline cost at a level, windows drawn with replacement."""
    generator = np.random.default_rng(seed)
    windows = policy.cost.shape[1]
    ratios = []
    for _ in range(rounds):
        drawn = np.asarray(generator.integers(0, windows, size=windows))
        ratios.append(one_knob(policy.windows(drawn), level) / one_knob(baseline.windows(drawn), level))
    known = np.array([ratio for ratio in ratios if np.isfinite(ratio)])
    if len(known) < rounds / 2:
        return float("nan"), float("nan")
    return float(np.quantile(known, 0.1)), float(np.quantile(known, 0.9))
