"""The guard: everything between a recommendation and replicas, in a fixed order, each step named.

SLO floor, out-of-distribution, missing metrics, activation from zero, stabilisation windows, rate
rules, bounds. Nothing goes round it, in simulation or in a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from controller.core.behavior import BehaviorState
from controller.core.decision import Stage
from controller.core.hpa import MAX_REPLICAS
from controller.core.samples import BoolArray, FloatArray, IntArray


@dataclass(slots=True)
class GuardInputs:
    """Arrays `[N]`: what the guard knows beside the recommendation (float, NaN: nothing said)."""

    rows: IntArray
    now_s: FloatArray
    current: IntArray
    hpa_replicas: FloatArray
    usable: BoolArray
    slo_in_danger: BoolArray
    unfamiliar: BoolArray
    idle: BoolArray
    wake_replicas: IntArray
    min_replicas: IntArray
    max_replicas: IntArray

    @property
    def at_zero_by_hand(self) -> BoolArray:
        """Targets somebody scaled to 0 although minReplicas is above 0: left alone, as the HPA does."""
        return np.asarray((self.current == 0) & (self.min_replicas > 0))


@dataclass(slots=True)
class Guarded:
    """Desired replicas int `[N]` and the stages on the way."""

    desired: IntArray
    stages: list[Stage] = field(default_factory=list)

    def apply(self, name: str, up: str, down: str, after: IntArray, explain: str) -> None:
        """Move on to `after` and remember the stage if it changed anything."""
        after = np.asarray(after, dtype=np.int64)
        if np.any(after != self.desired):
            self.stages.append(Stage(name, up, down, self.desired, after, explain))
        self.desired = after


def guard(inputs: GuardInputs, recommended: FloatArray, behavior: BehaviorState) -> Guarded:
    """Desired replicas for a recommendation float `[N]`; NaN means hold. Records it for the windows."""
    said = np.isfinite(recommended)
    limit = np.where(said, np.clip(recommended, 0, MAX_REPLICAS), inputs.current)
    result = Guarded(limit.astype(np.int64))
    _floors(inputs, result)
    _activation(inputs, result)
    _behavior(inputs, result, said, behavior)
    _bounds(inputs, result)
    return result


def _floors(inputs: GuardInputs, result: Guarded) -> None:
    formula = np.where(np.isfinite(inputs.hpa_replicas), inputs.hpa_replicas, 0).astype(np.int64)
    floored = np.where(inputs.slo_in_danger, np.maximum(result.desired, formula), result.desired)
    result.apply(
        "SLOFloor", "SLOInDanger", "SLOInDanger", floored, "objective in danger, HPA formula is the floor"
    )
    kept = np.maximum(result.desired, np.maximum(inputs.current, formula))
    familiar = np.where(inputs.unfamiliar, kept, result.desired)
    result.apply(
        "OutOfDistribution",
        "OutOfDistribution",
        "OutOfDistribution",
        familiar,
        "observation unlike any in training, no scale-down",
    )
    held = np.where(inputs.usable, result.desired, np.maximum(result.desired, inputs.current))
    result.apply(
        "MissingMetrics", "MetricsMissing", "MetricsMissing", held, "metrics are missing, no scale-down"
    )


def _activation(inputs: GuardInputs, result: Guarded) -> None:
    may_sleep = inputs.min_replicas == 0
    woken = np.where(inputs.current == 0, inputs.wake_replicas, result.desired)
    awake = np.where(inputs.idle, woken, np.maximum(woken, np.where(inputs.current > 0, 1, woken)))
    result.apply(
        "Activation",
        "Active",
        "Idle",
        np.where(may_sleep & inputs.usable, awake, result.desired),
        "scale to and from zero follows the traffic",
    )


def _behavior(inputs: GuardInputs, result: Guarded, said: BoolArray, behavior: BehaviorState) -> None:
    inside = (inputs.current >= inputs.min_replicas) & (inputs.current <= inputs.max_replicas)
    acting = np.flatnonzero(said & inside & ~inputs.at_zero_by_hand)
    if len(acting) == 0:
        return
    rows, now_s, current = inputs.rows[acting], inputs.now_s[acting], inputs.current[acting]
    stable = result.desired.copy()
    stable[acting] = behavior.stabilize(rows, now_s, current, result.desired[acting])
    result.apply(
        "StabilizationWindow",
        "ScaleDownStabilized",
        "ScaleUpStabilized",
        stable,
        "recommendations inside the stabilisation window",
    )
    lowest, highest = behavior.limits(rows, now_s, current)
    limited = result.desired.copy()
    limited[acting] = np.clip(limited[acting], lowest, highest)
    result.apply("ScalingPolicies", "ScaleDownLimit", "ScaleUpLimit", limited, "rate rules of behavior")


def _bounds(inputs: GuardInputs, result: Guarded) -> None:
    bounded = np.clip(result.desired, inputs.min_replicas, inputs.max_replicas)
    bounded = np.where(inputs.current > inputs.max_replicas, inputs.max_replicas, bounded)
    bounded = np.where(inputs.current < inputs.min_replicas, inputs.min_replicas, bounded)
    bounded = np.where(inputs.at_zero_by_hand, 0, bounded)
    result.apply("Bounds", "TooFewReplicas", "TooManyReplicas", bounded, "minReplicas and maxReplicas")
