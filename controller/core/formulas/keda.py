"""KEDA's requests per replica: the HPA's AverageValue formula, with activation and cooldown at zero.

Sources: kedacore/keda pkg/scaling (activation, cooldown), kubernetes
pkg/controller/podautoscaler/replica_calculator.go `GetExternalPerPodMetricReplicas`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from controller.core.formulas.base import FormulaPolicy, replicas_for, require
from controller.core.hpa import within_tolerance
from controller.core.observation import FINE_SLOTS, FINE_STEP_S
from controller.core.samples import BoolArray, FloatArray

if TYPE_CHECKING:
    from controller.core.view import View

LONGEST_COOLDOWN_S = 3600.0


@dataclass(frozen=True)
class KedaPolicy(FormulaPolicy):
    """`ceil(request rate / requests per replica)`, unchanged while within the HPA's tolerance (0.1).

    - `requests_per_replica` (requests/s, KEDA's `threshold` of metric type AverageValue). None: the
      capacity of a replica x the target utilisation. This is the dial; `preference` does nothing.
    - `activation_rps`: at or below it the service counts as idle (strictly greater activates; default 0).
    - `cooldown_s`: seconds of idleness before zero (default 300, only for going to zero).
    - Bounds, stabilisation window and rate rules are the guard's, as KEDA leaves them to the HPA.

    Differences: activation is judged at every sync period, not every `pollingInterval` of 30 s; a
    missing or empty metric is missing, where KEDA's Prometheus trigger reads 0.
    """

    requests_per_replica: float | None = None
    activation_rps: float = 0.0
    cooldown_s: float = 300.0

    name = "KEDA"

    def __post_init__(self) -> None:
        given = self.requests_per_replica
        require(
            given is None or (math.isfinite(given) and given > 0),
            "requestsPerReplica",
            given,
            "greater than 0",
        )
        require(
            math.isfinite(self.activation_rps) and self.activation_rps >= 0,
            "activationRequestsPerSecond",
            self.activation_rps,
            "0 or more",
        )
        require(
            0 <= self.cooldown_s <= LONGEST_COOLDOWN_S,
            "cooldownSeconds",
            self.cooldown_s,
            f"in 0..{LONGEST_COOLDOWN_S:.0f}",
        )

    @property
    def needs_capacity(self) -> bool:  # type: ignore[override]
        """Not with a rate for each replica given."""
        return self.requests_per_replica is None

    def recommend(self, view: View) -> FloatArray:
        """Replicas of the formula; 0 after a cooldown of idleness; NaN without a request rate."""
        if self.requests_per_replica is None:
            metric, target = view.load, view.target_utilisation
        else:
            metric = view.samples.request_rate
            target = np.full(len(view), self.requests_per_replica)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = metric / (target * view.current)
            held = within_tolerance(ratio, view.tolerance_down, view.tolerance_up)
        replicas = np.where(held, view.current, replicas_for(metric, target))
        awake = np.where(self._cold(view), replicas, np.maximum(replicas, 1.0))
        asleep = self._cold(view) & ~self._active(view)
        return np.where(asleep & np.isfinite(metric), 0.0, awake)

    def _active(self, view: View) -> BoolArray:
        """Whether the metric is above the activation threshold now."""
        rate = view.samples.request_rate
        with np.errstate(invalid="ignore"):
            return np.where(np.isfinite(rate), rate > self.activation_rps, ~(view.load <= 0))

    def _cold(self, view: View) -> BoolArray:
        """Whether no reading of the cooldown was above the threshold; unknown bins count as above."""
        bins = min(max(math.ceil(self.cooldown_s / FINE_STEP_S), 1), FINE_SLOTS)
        recent = view.fine(bins)
        capacity = view.capacity_rps
        threshold = np.where(np.isfinite(capacity), self.activation_rps / capacity, 0.0)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.all(recent <= threshold[:, None], axis=1))
