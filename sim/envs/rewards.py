"""The reward of the autoscaling environments: named terms, and how they are weighed.

Terms of a control step are scale-free: `cost` is replicas billed over the workload's mean ideal replicas,
`violation` the requests that violated over the mean requests of a step, `churn` the replicas changed over
that ideal. A sum over an episode is then its cost over the ideal, its share of violations and its
restlessness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import require

FloatArray = npt.NDArray[np.floating[Any]]
USUAL_VIOLATION = 0.01
TERMS = ("cost", "violation", "churn")


@dataclass(frozen=True)
class RewardWeights:
    """reward = -(cost * c + 10^w * v + churn * a) / scale, with w rising linearly with the preference."""

    cost: float = 1.0
    """Weight of the cost term."""
    violation_exponent: tuple[float, float] = (0.5, 3.0)
    """w at preference 0 and at 100."""
    churn: float = 0.05
    """Weight of the churn term."""
    violation_cap: float = 5.0
    """Largest violation term of one step: five times the mean traffic, all of it late."""
    normalise: bool = True
    """Divide by what a reactive rule would pay on the same workload at the same preference (`scale`), or hard
    traces drown the rest."""

    def __post_init__(self) -> None:
        for name in ("cost", "churn", "violation_cap"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")

    def violation(self, preference: FloatArray) -> FloatArray:
        """10^w for preferences 0..100."""
        low, high = self.violation_exponent
        return np.asarray(10.0 ** (low + (high - low) * np.asarray(preference) / 100.0))

    def scale(self, preference: FloatArray, cost: FloatArray, violation: FloatArray) -> FloatArray:
        """What the reward is divided by, given a reactive rule's cost and violation share.

        10^w times its violations (and 1 % more, or smooth traces would count for too much) enters
        with the power 0.5, since a policy that is told to avoid them at any price avoids most of them.
        """
        if not self.normalise:
            return np.ones_like(np.asarray(cost, dtype=np.float64))
        weight = self.violation(preference)
        return np.asarray(self.cost * cost + np.sqrt(weight * (violation + USUAL_VIOLATION)))

    def total(self, terms: dict[str, FloatArray], weight: FloatArray, scale: FloatArray) -> FloatArray:
        """The reward of a step for its terms `[N]`; weight: 10^w."""
        late = np.minimum(terms["violation"], self.violation_cap)
        return -(self.cost * terms["cost"] + weight * late + self.churn * terms["churn"]) / scale
