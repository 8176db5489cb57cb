"""Does a policy violate more than the HPA for the same money? Read off both frontiers, with paired intervals.

The cost levels are those of settings of the HPA: the ones that people run, and points of its frontier within
the range that both can spend. `training/robustness.py` is the caller; how a frontier is read is
`training.frontier`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.frontier import (
    SMALLEST_VIOLATION,
    Draws,
    FloatArray,
    Interval,
    Outcomes,
    interval,
    pareto,
    violation_at,
    violations_at,
)
from training.summary import REFERENCES

POINTS = 4
"""Levels from the HPA's own frontier, beside REFERENCES."""
DEAR, HOLDS, OPEN, FAILS = "dearer at any setting", "no more", "more, within the interval", "more"
ORDER = (DEAR, HOLDS, OPEN, FAILS)
"""Verdicts, the worst last. DEAR says nothing of violations: the policy's dial does not go that low."""


@dataclass(frozen=True)
class Level:
    """What happens at the cost of one setting of the HPA; violations are shares of requests.

    ours, theirs: read off the frontiers of mean violations. difference, ratio: ours less and over theirs,
    the interval of common draws. NaN where the policy has no setting that is as cheap.
    """

    setting: str
    cost: float
    ours: float
    theirs: float
    our_median: float
    their_median: float
    difference: Interval
    ratio: Interval

    @property
    def verdict(self) -> str:
        """DEAR, HOLDS, or by whether 0 is in the difference's interval OPEN or FAILS."""
        if np.isnan(self.ours):
            return DEAR
        if self.ours <= self.theirs * (1 + 1e-9):
            return HOLDS
        return FAILS if self.difference.low > 0 else OPEN

    @property
    def median_holds(self) -> bool:
        """Whether the median over windows is no more than the HPA's."""
        return bool(self.our_median <= self.their_median * (1 + 1e-9))


def levels(policy: Outcomes, base: Outcomes, draws: Draws) -> list[Level]:
    """The policy beside the HPA at each cost level, by rising cost."""
    chosen = {base.settings.index(name) for name in REFERENCES if name in base.settings}
    chosen |= set(_common(policy, base))
    ours = (draws.mean_cost(policy), draws.mean_violation(policy))
    theirs = (draws.mean_cost(base), draws.mean_violation(base))
    ranked = sorted(chosen, key=lambda index: float(base.mean_cost[index]))
    return [_level(policy, base, index, ours, theirs) for index in ranked]


def worst(found: list[Level]) -> Level:
    """The level that decides: the worst verdict, of equals the largest ratio of violations.

    Where a policy is dearer at any setting nothing can be compared: that decides only if it is so everywhere.
    """
    return max(found, key=lambda one: (ORDER.index(one.verdict), _ratio(one.ours, one.theirs)))


def _common(policy: Outcomes, base: Outcomes) -> list[int]:
    """Settings of the HPA's frontier that both can pay for, spread evenly over the logarithm of cost."""
    front = pareto(base.mean_cost, base.mean_violation)
    ours = pareto(policy.mean_cost, policy.mean_violation)
    low, high = policy.mean_cost[ours].min(), policy.mean_cost[ours].max()
    costs = base.mean_cost[front]
    within = front[(costs >= low) & (costs <= high)]
    if len(within) <= POINTS:
        return [int(index) for index in within]
    logs = np.log(base.mean_cost[within])
    wanted = np.linspace(logs.min(), logs.max(), POINTS)
    return [int(within[np.argmin(np.abs(logs - each))]) for each in wanted]


def _level(
    policy: Outcomes,
    base: Outcomes,
    index: int,
    ours: tuple[FloatArray, FloatArray],
    theirs: tuple[FloatArray, FloatArray],
) -> Level:
    spend = float(base.mean_cost[index])
    # what a setting costs itself must not exclude it by its last bit
    within, drawn_spend = spend * (1 + 1e-9), theirs[0][:, index] * (1 + 1e-9)
    mine, other = violations_at(*ours, drawn_spend), violations_at(*theirs, drawn_spend)
    return Level(
        base.settings[index],
        spend,
        violation_at(policy.mean_cost, policy.mean_violation, within),
        violation_at(base.mean_cost, base.mean_violation, within),
        violation_at(policy.mean_cost, policy.median_violation, within),
        violation_at(base.mean_cost, base.median_violation, within),
        interval(mine - other),
        interval(mine / np.maximum(other, SMALLEST_VIOLATION)),
    )


def _ratio(ours: float, theirs: float) -> float:
    return 0.0 if np.isnan(ours) else ours / max(theirs, SMALLEST_VIOLATION)
