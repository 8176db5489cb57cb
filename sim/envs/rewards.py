"""The reward of the environments: named terms, and how they are weighed.

Called by the batches behind `rlscaler/Autoscale-v0` and `rlscaler/Pools-v0` through `RewardWeights`, and by
the fused kernel through `step_reward`: both run the same compiled arithmetic.

Terms of a control step are scale-free: `cost` is what was billed over the workload's mean ideal cost,
`violation` the requests that violated over the mean requests of a step, `violation_share` the same over the
requests that came in this very step, `churn` the replicas changed over the ideal ones, `route_churn` the part
of the traffic whose pool was changed. A sum of costs over an episode is then its cost over the ideal.

Two kinds of reward:

* `banded` (the default): the objective first. A step *holds* its objective if its `violation_share` is at
  most the allowed one, which the preference dial sets: `allowed_violation` from preference 0 to 100,
  geometrically in between (5 %, 0.5 % and 0.05 % at 0, 50 and 100). Then

      reward = -band(x)                                          in (-1, 0]    if it holds
      reward = -(2 + (1 - m) * excess + m * band(x))             in [-3, -2]   if it does not

      x      = (cost * c + churn * a + route_churn * r) / scale, band(x) = x / (1 + x)
      excess = ln(violation_share / allowed) / ln(1 / allowed), at most 1
      scale  = c * what a plain reactive rule would pay on the same workload
      m      = cost_in_violation

  so that any step that holds beats any that does not, a reactive rule's cost is worth -1/2, and doubling the
  share of violations costs the same anywhere. Bands [0, 1] and [2, 3] are those of Autothrottle (Wang et al.,
  NSDI 2024); the logarithm, the saturating cost and m are ours: m keeps a reason to be frugal
  while the objective is out of reach, such as until replicas have started.

* `weighted`: reward = -(cost * c + 10^w * v + churn * a + route_churn * r) / scale, with w rising linearly
  with the preference and v = min(violation, violation_cap). Not bounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numba as nb
import numpy as np
import numpy.typing as npt

from sim.errors import require

FloatArray = npt.NDArray[np.floating[Any]]
USUAL_VIOLATION = 0.01
TERMS = ("cost", "violation", "churn")
"""The terms that every environment sums up over an episode."""
TERM_ROWS = ("cost", "violation", "violation_share", "churn", "route_churn")
"""Rows of the float `[5, N]` matrix of terms that the compiled reward reads, in order."""
T_COST, T_VIOLATION, T_SHARE, T_CHURN, T_ROUTE_CHURN = range(len(TERM_ROWS))
CONSTANT_ROWS = ("violation_weight", "scale", "allowed")
"""Rows of the float `[3, N]` matrix of an episode's constants, in order: `RewardWeights.constants`."""
C_WEIGHT, C_SCALE, C_ALLOWED = range(len(CONSTANT_ROWS))
SETTINGS = ("banded", "cost", "churn", "route_churn", "violation_cap", "cost_in_violation")
"""Columns of the float `[6]` of settings that the compiled reward reads: `RewardWeights.settings`."""
R_BANDED, R_COST, R_CHURN, R_ROUTE_CHURN, R_CAP, R_COST_IN_VIOLATION = range(len(SETTINGS))


@dataclass(frozen=True)
class RewardWeights:
    """What the reward is made of; the formulas are in the docstring of `sim.envs.rewards`."""

    kind: Literal["banded", "weighted"] = "banded"
    """banded: the objective first, bounded. weighted: a sum, with a price of violations."""
    cost: float = 1.0
    """Weight of the cost term; above 0 in a banded reward, where it only counts against the churns'."""
    violation_exponent: tuple[float, float] = (0.5, 3.0)
    """weighted: w at preference 0 and at 100."""
    churn: float = 0.05
    """Weight of the churn of replicas."""
    violation_cap: float = 5.0
    """weighted: largest violation term of one step: five times the mean traffic, all of it late."""
    normalise: bool = True
    """Divide by what a reactive rule would pay on the same workload at the same preference (`scale`), or hard
    traces drown the rest."""
    allowed_violation: tuple[float, float] = (0.05, 0.0005)
    """banded: largest share of a step's requests that may violate, at preference 0 and at 100."""
    cost_in_violation: float = 0.1
    """banded: part of the upper band that the cost has; the rest is the violations'."""
    route_churn: float = 0.05
    """Weight of the churn of route weights (environments with several pools)."""

    def __post_init__(self) -> None:
        require(self.kind in ("banded", "weighted"), "kind", self.kind, "banded or weighted")
        for name in ("cost", "churn", "route_churn", "violation_cap"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        banded = self.kind == "banded"
        require(self.cost > 0 or not banded, "cost", self.cost, "above 0 in a banded reward")
        lax, strict = self.allowed_violation
        ordered = 0 < strict <= lax < 1
        require(ordered, "allowed_violation", self.allowed_violation, "two shares in 0..1, descending")
        share = self.cost_in_violation
        require(0 <= share < 1, "cost_in_violation", share, "in 0..1, 1 excluded")

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest reward of a step."""
        return (-3.0 if self.kind == "banded" else -math.inf), 0.0

    @property
    def settings(self) -> FloatArray:
        """The columns of SETTINGS, float64 `[6]`."""
        banded = float(self.kind == "banded")
        rest = (self.cost, self.churn, self.route_churn, self.violation_cap, self.cost_in_violation)
        return np.array((banded, *rest), dtype=np.float64)

    def violation(self, preference: npt.ArrayLike) -> FloatArray:
        """10^w for preferences 0..100."""
        low, high = self.violation_exponent
        return np.asarray(10.0 ** (low + (high - low) * np.asarray(preference) / 100.0))

    def allowed(self, preference: npt.ArrayLike) -> FloatArray:
        """Largest share of a step's requests that may violate, for preferences 0..100."""
        lax, strict = self.allowed_violation
        return np.asarray(lax * (strict / lax) ** (np.asarray(preference, dtype=np.float64) / 100.0))

    def scale(self, preference: npt.ArrayLike, cost: FloatArray, violation: FloatArray) -> FloatArray:
        """What the reward (banded: its cost) is divided by, given a reactive rule's cost and violation share.

        In a weighted reward 10^w times its violations (and 1 % more, or smooth traces would count for too
        much) enters with the power 0.5, since a policy that is told to avoid them at any price avoids most
        of them.
        """
        if not self.normalise:
            return np.ones_like(np.asarray(cost, dtype=np.float64))
        if self.kind == "banded":
            return np.asarray(self.cost * np.asarray(cost, dtype=np.float64))
        weight = self.violation(preference)
        return np.asarray(self.cost * cost + np.sqrt(weight * (violation + USUAL_VIOLATION)))

    def constants(self, preference: FloatArray, cost: FloatArray, violation: FloatArray) -> FloatArray:
        """What stays the same over an episode, float64 `[3, N]` in the order of CONSTANT_ROWS.

        preference `[N]` 0..100; cost and violation `[N]`: a reactive rule's, as in `scale`.
        """
        rows = (self.violation(preference), self.scale(preference, cost, violation), self.allowed(preference))
        return np.stack([np.asarray(row, dtype=np.float64) for row in rows])

    def total(self, terms: Mapping[str, FloatArray], constants: FloatArray) -> FloatArray:
        """The reward of a step for its terms `[N]`, by the names of TERM_ROWS; no `route_churn` is 0.

        A weighted reward needs no `violation_share`, a banded one no `violation`.
        """
        matrix = np.zeros((len(TERM_ROWS), constants.shape[1]))
        for row, name in enumerate(TERM_ROWS):
            if name in terms:
                matrix[row] = terms[name]
        needed = TERM_ROWS[T_SHARE] if self.kind == "banded" else TERM_ROWS[T_VIOLATION]
        for name in ("cost", needed, "churn"):
            require(name in terms, "terms", sorted(terms), f"with {name} for a {self.kind} reward")
        rewards = np.empty(constants.shape[1])
        reward_rows(self.settings, matrix, constants, rewards)
        return rewards


@nb.njit(cache=True, inline="always")
def step_reward(settings, term, constant):  # type: ignore[no-untyped-def]
    """The reward of one step of one service: columns of SETTINGS, TERM_ROWS and CONSTANT_ROWS."""
    paid = settings[R_COST] * term[T_COST]
    restless = settings[R_CHURN] * term[T_CHURN] + settings[R_ROUTE_CHURN] * term[T_ROUTE_CHURN]
    if settings[R_BANDED] == 0.0:
        late = min(term[T_VIOLATION], settings[R_CAP])
        return -(paid + constant[C_WEIGHT] * late + restless) / constant[C_SCALE]
    x = (paid + restless) / constant[C_SCALE]
    band = x / (1.0 + x)
    share, allowed = term[T_SHARE], constant[C_ALLOWED]
    if share <= allowed:
        return -band
    excess = min(math.log(share / allowed) / -math.log(allowed), 1.0)
    kept = settings[R_COST_IN_VIOLATION]
    return -(2.0 + (1.0 - kept) * excess + kept * band)


@nb.njit(cache=True)
def reward_rows(settings, terms, constants, rewards):  # type: ignore[no-untyped-def]
    """Write the rewards float64 `[N]` of terms `[5, N]` under constants `[3, N]`."""
    for k in range(len(rewards)):
        rewards[k] = step_reward(settings, terms[:, k], constants[:, k])
