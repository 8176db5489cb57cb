"""The guard: everything between a recommendation and replicas, in a fixed order, each step named.

SLO floor, out-of-distribution, missing metrics, schedule, activation from zero, stabilisation windows,
least step, rate rules, largest step, flap budget, outside change, bounds; the engine adds the group's budget.
Nothing goes round it, in simulation or in a cluster.
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
    """Arrays `[N]`: what the guard knows beside the recommendation (float, NaN: nothing said).

    floor: a schedule's replicas, 0 without one. min_step, max_step: 0 is no limit. used_up: no scale-down is
    left in the flap budget. held: somebody else has set the replicas. steadied: the recommendation is a sum
    of what has gone through stabilisation windows, a pool each. None of these six: off everywhere.
    """

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
    floor: IntArray | None = None
    min_step: IntArray | None = None
    max_step: IntArray | None = None
    used_up: BoolArray | None = None
    held: BoolArray | None = None
    steadied: BoolArray | None = None

    @property
    def at_zero_by_hand(self) -> BoolArray:
        """Targets somebody scaled to 0 although minReplicas is above 0: left alone, as the HPA does."""
        return np.asarray((self.current == 0) & (self.min_replicas > 0))

    @property
    def may_sleep(self) -> BoolArray:
        """Services that may be at zero now."""
        awake = self.floor > 0 if self.floor is not None else False
        return np.asarray((self.min_replicas == 0) & ~np.asarray(awake))

    @property
    def goes_to_sleep(self) -> BoolArray:
        """Services that were idle for their cooldown: to zero, whatever anybody recommends, as in KEDA."""
        return np.asarray(
            self.may_sleep & self.idle & self.usable & ~self.unfamiliar & (self.current > 0), dtype=bool
        )


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
    _schedule(inputs, result)
    _activation(inputs, result)
    _damping(inputs, result, said, behavior)
    _max_step(inputs, result)
    _flap_budget(inputs, result)
    _outside_change(inputs, result)
    _bounds(inputs, result)
    return result


def within_budget(inputs: GuardInputs, result: Guarded, most: IntArray) -> None:
    """The last stage: the replicas int `[N]` that the service's group has left for it.

    A budget never takes what minReplicas promises.
    """
    granted = np.maximum(most, np.minimum(inputs.min_replicas, result.desired))
    result.apply(
        "Budget",
        "BudgetExhausted",
        "BudgetExhausted",
        np.minimum(result.desired, granted),
        "the budget of its group leaves no more",
    )


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


def _schedule(inputs: GuardInputs, result: Guarded) -> None:
    if inputs.floor is None:
        return
    after = np.maximum(result.desired, inputs.floor)
    result.apply("Schedule", "ScheduledFloor", "ScheduledFloor", after, "floor of the schedule in force")


def _activation(inputs: GuardInputs, result: Guarded) -> None:
    woken = np.where(inputs.current == 0, inputs.wake_replicas, result.desired)
    awake = np.where(inputs.idle, woken, np.maximum(woken, np.where(inputs.current > 0, 1, woken)))
    awake = np.where(inputs.goes_to_sleep, 0, awake)
    result.apply(
        "Activation",
        "Active",
        "Idle",
        np.where(inputs.may_sleep & inputs.usable, awake, result.desired),
        "scale to and from zero follows the traffic",
    )


def _damping(inputs: GuardInputs, result: Guarded, said: BoolArray, behavior: BehaviorState) -> None:
    """Windows and rate rules of `behavior`, and between them the least step.

    The window hands out its own highest and lowest, so only after it is it known how small a step is.
    """
    inside = (inputs.current >= inputs.min_replicas) & (inputs.current <= inputs.max_replicas)
    # floors speak where nobody else does, and are damped like anybody
    moving = said | (result.desired != inputs.current)
    acting = np.flatnonzero(moving & inside & ~inputs.at_zero_by_hand)
    if len(acting) == 0:
        return
    rows, now_s, current = inputs.rows[acting], inputs.now_s[acting], inputs.current[acting]
    stable = result.desired.copy()
    stable[acting] = behavior.stabilize(rows, now_s, current, result.desired[acting])
    # the cooldown was the window
    stable = np.where(inputs.goes_to_sleep, result.desired, stable)
    if inputs.steadied is not None:
        stable = np.where(inputs.steadied, result.desired, stable)
    result.apply(
        "StabilizationWindow",
        "ScaleDownStabilized",
        "ScaleUpStabilized",
        stable,
        "recommendations inside the stabilisation window",
    )
    _min_step(inputs, result)
    lowest, highest = behavior.limits(rows, now_s, current)
    limited = result.desired.copy()
    limited[acting] = np.clip(limited[acting], lowest, highest)
    result.apply("ScalingPolicies", "ScaleDownLimit", "ScaleUpLimit", limited, "rate rules of behavior")


def _min_step(inputs: GuardInputs, result: Guarded) -> None:
    if inputs.min_step is None:
        return
    current, desired = inputs.current, result.desired
    small = np.abs(desired - current) < inputs.min_step
    urgent = inputs.slo_in_danger | inputs.unfamiliar
    if inputs.floor is not None:
        urgent = urgent | (current < inputs.floor)
    # to and from zero is on or off, whatever the number
    urgent = (urgent & (desired > current)) | (current == 0) | (desired == 0)
    after = np.where(small & ~urgent, current, desired)
    result.apply("MinStep", "StepTooSmall", "StepTooSmall", after, "a change smaller than limits.minStep")


def _max_step(inputs: GuardInputs, result: Guarded) -> None:
    if inputs.max_step is None:
        return
    step = np.where(inputs.max_step > 0, inputs.max_step, MAX_REPLICAS)
    after = np.clip(result.desired, inputs.current - step, inputs.current + step)
    result.apply("MaxStep", "StepTooLarge", "StepTooLarge", after, "a change larger than limits.maxStep")


def _flap_budget(inputs: GuardInputs, result: Guarded) -> None:
    if inputs.used_up is None:
        return
    after = np.where(inputs.used_up, np.maximum(result.desired, inputs.current), result.desired)
    result.apply(
        "FlapBudget",
        "FlapBudgetUsedUp",
        "FlapBudgetUsedUp",
        after,
        "limits.changesPerHour are used up, no scale-down",
    )


def _outside_change(inputs: GuardInputs, result: Guarded) -> None:
    if inputs.held is None:
        return
    after = np.where(inputs.held, inputs.current, result.desired)
    result.apply(
        "OutsideChange", "OutsideChange", "OutsideChange", after, "replicas were set by somebody else"
    )


def _bounds(inputs: GuardInputs, result: Guarded) -> None:
    bounded = np.clip(result.desired, inputs.min_replicas, inputs.max_replicas)
    bounded = np.where(inputs.current > inputs.max_replicas, inputs.max_replicas, bounded)
    bounded = np.where(inputs.current < inputs.min_replicas, inputs.min_replicas, bounded)
    bounded = np.where(inputs.at_zero_by_hand, 0, bounded)
    result.apply("Bounds", "TooFewReplicas", "TooManyReplicas", bounded, "minReplicas and maxReplicas")
