"""Seasonal-naive forecast: what came an hour or a day ago comes again, at today's level.

Source: Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., 5.2, with the level
correction that capacity planners use (the same time last period x recent level / level then).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from controller.core.formulas.base import FormulaPolicy, lead_bins, mean_known, replicas_for, require
from controller.core.observation import COARSE_STEP_S, DAY_S, HOUR_S, MIN_LOAD
from controller.core.samples import FloatArray

if TYPE_CHECKING:
    from controller.core.view import View

LEVEL_RATIO = (0.25, 4.0)


@dataclass(frozen=True)
class SeasonalNaivePolicy(FormulaPolicy):
    """`ceil(max(load now, forecast) / target utilisation)`.

    forecast = largest load one season before the lead time to come (start-up time + sync period) x
    (mean load of the last `level_window_s`) / (mean load of the same span one season ago). The ratio is
    clipped to 0.25..4, and means below a twentieth of a replica count as that.

    - `season_s`: 3600 or 86400 (default). History is kept for 25 hours, so a week cannot be looked up.
    - `level_window_s`: 600.
    - The dial is `objective.targetUtilization`: 70 means 43 % headroom. `preference` does nothing.

    While the season is not known the forecast is the load now.
    """

    season_s: float = DAY_S
    level_window_s: float = 600.0

    name = "SeasonalNaive"

    def __post_init__(self) -> None:
        require(self.season_s in (HOUR_S, DAY_S), "seasonSeconds", self.season_s, "3600 or 86400")
        require(
            COARSE_STEP_S <= self.level_window_s <= HOUR_S,
            "levelWindowSeconds",
            self.level_window_s,
            f"in {COARSE_STEP_S:.0f}..{HOUR_S:.0f}",
        )

    def recommend(self, view: View) -> FloatArray:
        """Replicas for the load to be expected in the lead time; NaN without a load."""
        expected = np.fmax(view.load, self.forecast(view))
        return np.where(np.isnan(view.load), np.nan, replicas_for(expected, view.target_utilisation))

    def forecast(self, view: View) -> FloatArray:
        """Largest load in replicas to be expected in the lead time `[N]`; NaN while the season is unknown."""
        lead = lead_bins(view, COARSE_STEP_S)
        ahead = int(lead.max(initial=1.0))
        season = view.coarse(ahead + 1, self.season_s - ahead * COARSE_STEP_S).astype(np.float64)
        within = np.arange(ahead + 1)[None, :] <= lead[:, None]
        highest = np.fmax.reduce(np.where(within, season, np.nan), axis=1)
        width = round(self.level_window_s / COARSE_STEP_S)
        level = np.maximum(mean_known(view.coarse(width)), MIN_LOAD)
        level_then = np.maximum(mean_known(view.coarse(width, self.season_s)), MIN_LOAD)
        return np.asarray(highest * np.clip(level / level_then, *LEVEL_RATIO))
