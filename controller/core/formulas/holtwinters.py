"""Holt-Winters: additive level, trend and season, smoothed exponentially.

Source: Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., 8.3 (additive).
predictive-horizontal-pod-autoscaler scales by the same model. The smoothed states are linear in the
observations, so a forecast is one dot product with weights that depend on the parameters alone; they
are made once, and no state has to be kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from controller.core.formulas.base import FormulaPolicy, lead_bins, replicas_for, require
from controller.core.observation import COARSE_STEP_S, DAY_S, HOUR_S
from controller.core.samples import FloatArray
from controller.core.view import MAX_COARSE_BINS

if TYPE_CHECKING:
    from controller.core.view import View

HOURS_OF_HOURLY = 6
PLAIN_BINS = 120
KNOWN_SHARE = 0.8


@dataclass(frozen=True)
class HoltWintersPolicy(FormulaPolicy):
    """`ceil(max(load now, forecast) / target utilisation)`, forecast over the lead time.

    On means of 60 s, with m bins a season: level l[t] = alpha (y[t] - s[t-m]) + (1 - alpha)(l[t-1] + b[t-1]);
    trend b[t] = beta (l[t] - l[t-1]) + (1 - beta) b[t-1];
    season s[t] = gamma (y[t] - l[t-1] - b[t-1]) + (1 - gamma) s[t-m];
    forecast h bins ahead: l + h b + s of that bin, at least 0; the largest over the lead time (start-up
    time + sync period) counts.
    Starts from the first season: its mean, no trend, and its differences from the mean.

    - `alpha` 0.5, `beta` 0.02, `gamma` 0.3: shares in 0..1, chosen by hand, not fitted.
    - `season_s`: 3600 (over the last 6 hours) or 86400 (default, over the last 25 hours).
    - The dial is `objective.targetUtilization`: 70 means 43 % headroom. `preference` does nothing.

    Bins that are not known take the last known value. A service whose first season is not known for 80 %
    is forecast without a season (Holt's linear trend over the last two hours).
    """

    alpha: float = 0.5
    beta: float = 0.02
    gamma: float = 0.3
    season_s: float = DAY_S

    name = "HoltWinters"

    def __post_init__(self) -> None:
        for field_name in ("alpha", "beta", "gamma"):
            value = getattr(self, field_name)
            require(0 <= value <= 1, field_name, value, "in 0..1")
        require(self.season_s in (HOUR_S, DAY_S), "seasonSeconds", self.season_s, "3600 or 86400")

    def recommend(self, view: View) -> FloatArray:
        """Replicas for the largest forecast load in the lead time; NaN without a load."""
        expected = np.fmax(view.load, self.forecast(view))
        return np.where(np.isnan(view.load), np.nan, replicas_for(expected, view.target_utilisation))

    def forecast(self, view: View) -> FloatArray:
        """Largest load in replicas that is expected in the lead time `[N]`."""
        season = round(self.season_s / COARSE_STEP_S)
        bins = MAX_COARSE_BINS if self.season_s == DAY_S else HOURS_OF_HOURLY * season
        history = view.coarse(bins)
        lead = lead_bins(view, COARSE_STEP_S)
        horizon = int(lead.max(initial=1.0))
        seasonal = np.mean(~np.isnan(history[:, :season]), axis=1) >= KNOWN_SHARE
        ahead = np.zeros((len(view), horizon))
        if np.any(seasonal):
            ahead[seasonal] = self._ahead(history[seasonal], season, horizon)
        if not np.all(seasonal):
            ahead[~seasonal] = self._ahead(history[~seasonal, -PLAIN_BINS:], 0, horizon)
        within = np.arange(1, horizon + 1)[None, :] <= lead[:, None]
        return np.asarray(np.max(np.where(within, ahead, 0.0), axis=1))

    def _ahead(self, history: FloatArray, season: int, horizon: int) -> FloatArray:
        weights = smoothing_weights(self.alpha, self.beta, self.gamma, season, history.shape[1], horizon)
        return np.maximum(last_known(history) @ weights, 0.0)


@lru_cache(maxsize=64)
def smoothing_weights(
    alpha: float, beta: float, gamma: float, season: int, bins: int, horizon: int
) -> FloatArray:
    """Weights `[bins, horizon]` of the observations in the forecasts of 1..horizon bins ahead.

    season: bins in a season, 0 for none. Column h of `history @ weights` is the forecast h + 1 ahead.
    """
    observed = np.eye(bins)
    level, trend = observed[0].copy(), np.zeros(bins)
    seasonal = np.zeros((max(season, 1), bins))
    if season:
        level = observed[:season].mean(axis=0)
        seasonal = observed[:season] - level
    for t in range(season or 1, bins):
        slot = t % len(seasonal)
        expected = level + trend
        newer = alpha * (observed[t] - seasonal[slot]) + (1.0 - alpha) * expected
        trend = beta * (newer - level) + (1.0 - beta) * trend
        level = newer
        if season:
            seasonal[slot] = gamma * (observed[t] - expected) + (1.0 - gamma) * seasonal[slot]
    steps = range(1, horizon + 1)
    weights = np.stack([level + h * trend + seasonal[(bins + h - 1) % len(seasonal)] for h in steps], axis=1)
    return weights.astype(np.float32)


def last_known(values: FloatArray) -> FloatArray:
    """Each NaN of `[N, T]` replaced by the value before it, leading ones by the first; 0 in rows of NaN."""
    unknown = np.isnan(values)
    if not np.any(unknown):
        return values
    bins = values.shape[1]
    source = np.where(unknown, 0, np.arange(bins)[None, :])
    np.maximum.accumulate(source, axis=1, out=source)
    filled = np.take_along_axis(values, source, axis=1)
    first = np.take_along_axis(values, np.argmin(unknown, axis=1)[:, None], axis=1)
    return np.nan_to_num(np.where(np.isnan(filled), first, filled), nan=0.0)
