"""Moving-window maximum or percentile of the load, in the manner of Google's Autopilot.

Source: Rzadca et al., Autopilot: workload autoscaling at Google scale, EuroSys 2020, sections 3.2
(moving window recommenders, weights 2^(-age / half-life), half-life 12 h for CPU) and 3.3 (horizontal
scaling: replicas = statistic of the 5-minute mean usage over a horizon / target average utilisation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from controller.core.formulas.base import FormulaPolicy, mean_known, replicas_for, require
from controller.core.observation import COARSE_STEP_S, DAY_S, HOUR_S
from controller.core.samples import FloatArray

if TYPE_CHECKING:
    from controller.core.view import View


@dataclass(frozen=True)
class MovingMaximumPolicy(FormulaPolicy):
    """`ceil(S / target utilisation)`, S the decaying percentile of the load over a moving window.

    - `window_s`: how far back (default 3600; at most a day, as history is kept for 25 hours; the paper's
      horizon is 72 hours).
    - `averaging_s`: loads are means over this much first (default 300 as published; multiples of 60).
    - `percentile`: 100 (default) is the maximum; below it the weighted percentile, the least value such
      that values up to it have that share of the weight, with weights 2^(-age / `half_life_s`).
    - `half_life_s`: 43200 as published for CPU.
    - The dial is `objective.targetUtilization` (the paper's target average utilisation); `preference` does
      nothing. The paper's "maximum recommendation of the last hour" is
      `behavior.scaleDown.stabilizationWindowSeconds: 3600`.

    Means that are not known have no weight. The paper's deferred, slowly decaying scale-down and its
    learned recommender are not here.
    """

    window_s: float = HOUR_S
    averaging_s: float = 300.0
    percentile: float = 100.0
    half_life_s: float = 43200.0

    name = "MovingMaximum"

    def __post_init__(self) -> None:
        require(
            COARSE_STEP_S <= self.averaging_s <= HOUR_S and self.averaging_s % COARSE_STEP_S == 0,
            "averagingSeconds",
            self.averaging_s,
            f"a multiple of {COARSE_STEP_S:.0f} in {COARSE_STEP_S:.0f}..{HOUR_S:.0f}",
        )
        require(
            self.averaging_s <= self.window_s <= DAY_S,
            "windowSeconds",
            self.window_s,
            f"in averagingSeconds ({self.averaging_s:g})..{DAY_S:.0f}",
        )
        require(0 < self.percentile <= 100, "percentile", self.percentile, "above 0 and at most 100")
        require(self.half_life_s > 0, "halfLifeSeconds", self.half_life_s, "greater than 0")

    def recommend(self, view: View) -> FloatArray:
        """Replicas for the window's statistic; NaN without a load."""
        replicas = replicas_for(self.statistic(view), view.target_utilisation)
        return np.where(np.isnan(view.load), np.nan, replicas)

    def statistic(self, view: View) -> FloatArray:
        """Maximum or weighted percentile of the averaged load in replicas `[N]`."""
        each = round(self.averaging_s / COARSE_STEP_S)
        blocks = max(1, round(self.window_s / self.averaging_s))
        means = mean_known(view.coarse(blocks * each).reshape(len(view), blocks, each))
        if self.percentile == 100.0:
            return np.asarray(np.fmax.reduce(means, axis=1))
        ages_s = self.averaging_s * np.arange(blocks - 1, -1, -1)
        return weighted_percentile(means, 2.0 ** (-ages_s / self.half_life_s), self.percentile)


def weighted_percentile(values: FloatArray, weights: FloatArray, percentile: float) -> FloatArray:
    """Least value of each row `[N, K]` with at least `percentile` % of the weights `[K]` at or below it.

    NaNs have no weight; a row of nothing else gives NaN.
    """
    order = np.argsort(values, axis=1)  # NaNs last
    ordered = np.take_along_axis(values, order, axis=1)
    share = np.cumsum(np.where(np.isnan(ordered), 0.0, weights[order]), axis=1)
    aim = share[:, -1] * (percentile / 100.0) * (1.0 - 1e-12)
    first = np.argmax(share >= aim[:, None], axis=1)
    return np.asarray(np.take_along_axis(ordered, first[:, None], axis=1)[:, 0])
