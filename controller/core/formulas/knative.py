"""Knative's Pod Autoscaler (KPA): a stable and a panic window.

Source: knative/serving pkg/autoscaler/scaling/autoscaler.go `Scale`, defaults of config-autoscaler.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from controller.core.formulas.base import FormulaPolicy, mean_known, replicas_for, require
from controller.core.observation import FINE_STEP_S
from controller.core.samples import BoolArray, FloatArray

if TYPE_CHECKING:
    from controller.core.view import View

LONGEST_WINDOW_S = 1800.0


@dataclass(frozen=True)
class KnativePolicy(FormulaPolicy):
    """`ceil(metric over the stable window / target)`, and the panic window's while in panic.

    - `metric`: "rps" (request rate) or "concurrency" (requests in flight).
    - `target` for each replica, requests/s or requests in flight. None with rps: capacity of a replica x
      the target utilisation (Knative's target percentage, 70 % there as here). This is the dial;
      `preference` does nothing. Concurrency needs it given.
    - `stable_window_s` 60; `panic_window_percentage` 10 of it; `panic_threshold_percentage` 200: panic begins
      when the panic window's replicas are that share of the ready ones, and ends when a stable window has
      passed since it last was so. In panic replicas never fall.
    - `max_scale_up_rate` 1000, `max_scale_down_rate` 2: the result is clamped to
      [floor(ready / 2), ceil(1000 x ready)].
    - `scale_to_zero_grace_s` 30: with minReplicas 0 the last replica goes after the stable window and
      this without traffic (the guard's Activation stage counts it).

    Approximations: windows are whole bins of 15 s, and a panic window below a sync period is the newest
    reading, which is itself a mean over the query's window. Whether panic began earlier in the stable
    window is told from the history: the replicas that were ready then are taken to be those that the
    stable window before it asked for, at most those ready now. While in panic, "never fall" means never
    below the replicas asked for now. Past concurrency is not kept: the window's load is scaled by what
    is in flight now over the load now.
    """

    metric: Literal["rps", "concurrency"] = "rps"
    target: float | None = None
    stable_window_s: float = 60.0
    panic_window_percentage: float = 10.0
    panic_threshold_percentage: float = 200.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    scale_to_zero_grace_s: float = 30.0

    name = "Knative"

    def __post_init__(self) -> None:
        require(self.metric in ("rps", "concurrency"), "metric", self.metric, "rps or concurrency")
        require(
            self.target is not None or self.metric == "rps",
            "target",
            self.target,
            "given when metric is concurrency",
        )
        require(
            self.target is None or (math.isfinite(self.target) and self.target > 0),
            "target",
            self.target,
            "greater than 0",
        )
        require(
            6 <= self.stable_window_s <= LONGEST_WINDOW_S,
            "stableWindowSeconds",
            self.stable_window_s,
            f"in 6..{LONGEST_WINDOW_S:.0f}",
        )
        require(
            1 <= self.panic_window_percentage <= 100,
            "panicWindowPercentage",
            self.panic_window_percentage,
            "in 1..100",
        )
        require(
            110 <= self.panic_threshold_percentage <= 1000,
            "panicThresholdPercentage",
            self.panic_threshold_percentage,
            "in 110..1000",
        )
        require(self.max_scale_up_rate > 1, "maxScaleUpRate", self.max_scale_up_rate, "greater than 1")
        require(self.max_scale_down_rate > 1, "maxScaleDownRate", self.max_scale_down_rate, "greater than 1")
        require(
            0 <= self.scale_to_zero_grace_s <= 3600,
            "scaleToZeroGraceSeconds",
            self.scale_to_zero_grace_s,
            "in 0..3600",
        )

    @property
    def needs_capacity(self) -> bool:  # type: ignore[override]
        """Not with a target given: the metric is then read as it is."""
        return self.target is None

    @property
    def idle_after_s(self) -> float:
        """Seconds without traffic before the last replica goes."""
        return self.stable_window_s + self.scale_to_zero_grace_s

    def recommend(self, view: View) -> FloatArray:
        """Replicas of the stable or panic window; NaN without the metric."""
        stable_bins = max(1, round(self.stable_window_s / FINE_STEP_S))
        panic_bins = max(1, round(self.panic_window_percentage / 100.0 * self.stable_window_s / FINE_STEP_S))
        bins, now, target = self._metric(view, 2 * stable_bins + 1)
        stable = mean_known(bins[:, -stable_bins:])
        panic = now if panic_bins == 1 else mean_known(bins[:, -panic_bins:])
        ready = np.maximum(view.ready, 1.0)
        lowest = np.floor(ready / self.max_scale_down_rate)
        highest = np.ceil(ready * self.max_scale_up_rate)
        wanted = replicas_for(panic, target)
        in_panic = wanted / ready >= self.panic_threshold_percentage / 100.0
        in_panic |= self._was_over(view, bins, target, stable_bins)
        calm = np.clip(replicas_for(stable, target), lowest, highest)
        alarmed = np.maximum(np.clip(wanted, lowest, highest), np.maximum(calm, view.current))
        return np.where(np.isfinite(now), np.where(in_panic, alarmed, calm), np.nan)

    def _metric(self, view: View, bins: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The metric in bins `[N, bins]`, its newest reading `[N]`, and its target for each replica `[N]`."""
        loads = view.fine(bins).astype(np.float64)
        if self.target is None:
            return loads, view.load, view.target_utilisation
        now = view.samples.in_flight if self.metric == "concurrency" else view.samples.request_rate
        with np.errstate(invalid="ignore", divide="ignore"):
            scaled = loads * np.where(view.load > 0, now / view.load, np.nan)[:, None]
        # without a load to scale by, the newest reading is all there is
        scaled[:, -1] = np.where(np.isnan(scaled[:, -1]), now, scaled[:, -1])
        return scaled, now, np.full(len(view), self.target)

    def _was_over(self, view: View, bins: FloatArray, target: FloatArray, width: int) -> BoolArray:
        """Whether a bin of the last stable window asked for that share of the replicas that there were."""
        threshold = self.panic_threshold_percentage / 100.0
        over = np.zeros(len(view), dtype=bool)
        floor = np.maximum(view.min_replicas, 1.0)
        for end in range(width, 2 * width):
            before = replicas_for(mean_known(bins[:, end - width : end]), target)
            then = np.maximum(np.minimum(view.ready, np.maximum(before, floor)), 1.0)
            with np.errstate(invalid="ignore"):
                over |= replicas_for(bins[:, end], target) / then >= threshold
        return over
