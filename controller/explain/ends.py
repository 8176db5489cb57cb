"""What would end each rule of the guard that changed a decision, and what else would change the next one.

One sentence each, from the RLScaler's spec and what is known of the past. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.api.types import RLScalerSpec
from controller.clock import rfc3339, unix_seconds

Json = dict[str, Any]


@dataclass(frozen=True)
class Past:
    """status.stabilization, the decision's time (Unix seconds), and control seconds in a real one."""

    stabilization: Mapping[str, Any] = field(default_factory=dict)
    decided_s: float = 0.0
    scale: float = 1.0


Ending = Callable[[Mapping[str, Any], RLScalerSpec, Past], str]


def what_ends(clamp: Mapping[str, Any], spec: RLScalerSpec, past: Past) -> str:
    """What would end the rule's hold on the replicas; "" for a rule that is not known here."""
    ending = _ENDINGS.get(str(clamp.get("name")))
    return ending(clamp, spec, past) if ending is not None else ""


def _slo(clamp: Mapping[str, Any], spec: RLScalerSpec, past: Past) -> str:
    objective = spec.objective.slo
    limit = f" of {objective.latency.milliseconds} ms" if objective is not None else ""
    return f"latency below the objective{limit}: then the policy's own number counts again"


def _unfamiliar(clamp: Mapping[str, Any], spec: RLScalerSpec, past: Past) -> str:
    return "an observation like those in the policy's training, or a policy trained on such a load"


def _missing(clamp: Mapping[str, Any], spec: RLScalerSpec, past: Past) -> str:
    return "readings of the load: nothing is scaled down while they are missing"


def _schedule(clamp: Mapping[str, Any], spec: RLScalerSpec, past: Past) -> str:
    return "the end of the schedule's time, or a smaller minReplicas in spec.schedules"


def _activation(clamp: Mapping[str, Any], spec: RLScalerSpec, past: Past) -> str:
    settings = spec.scale_to_zero
    above = settings.activation_requests_per_second if settings is not None else "0"
    if clamp.get("after") == 0:
        return f"more than {above} requests/s wake it; spec.minReplicas 1 would keep one replica"
    return "requests keep it awake; it goes to zero once they have ceased for the cooldown"


def _min_step(clamp: Mapping[str, Any], spec: RLScalerSpec, past: Past) -> str:
    return f"a recommendation that differs by spec.limits.minStep ({spec.limits.min_step}) or more"


def _canary(clamp: Mapping[str, Any], spec: RLScalerSpec, past: Past) -> str:
    return "the end of the roll-out: until spec.canary has succeeded its pool comes on top of the others"


def _max_step(clamp: Mapping[str, Any], spec: RLScalerSpec, past: Past) -> str:
    return f"the next decision goes on by as many; spec.limits.maxStep is {spec.limits.max_step}"


def _flaps(clamp: Mapping[str, Any], spec: RLScalerSpec, past: Past) -> str:
    return f"fewer than {spec.limits.changes_per_hour} changes within an hour (spec.limits.changesPerHour)"


def _outside(clamp: Mapping[str, Any], spec: RLScalerSpec, past: Past) -> str:
    seconds = spec.outside_change.hold_seconds
    return f"{seconds} s after somebody else set the replicas (spec.outsideChange.holdSeconds)"


def _budget(clamp: Mapping[str, Any], spec: RLScalerSpec, past: Past) -> str:
    return "a larger budget, a higher spec.priority, or others of its group that need less"


def _bounds(clamp: Mapping[str, Any], spec: RLScalerSpec, past: Past) -> str:
    if clamp.get("reason") == "TooManyReplicas":
        if spec.max_replicas is None:
            return "a larger maxReplicas of its pools"
        return f"a larger spec.maxReplicas than {spec.max_replicas}"
    return f"a smaller spec.minReplicas than {spec.min_replicas}"


def _rate(clamp: Mapping[str, Any], spec: RLScalerSpec, past: Past) -> str:
    up = clamp.get("reason") == "ScaleUpLimit"
    rules = spec.behavior.scale_up if up else spec.behavior.scale_down
    name = "scaleUp" if up else "scaleDown"
    if rules.select_policy == "Disabled":
        return f"spec.behavior.{name}.selectPolicy other than Disabled"
    allowed = ", ".join(f"{p.value} {p.type} in {p.period_seconds} s" for p in rules.policies)
    return f"the next period: spec.behavior.{name} allows {allowed} ({rules.select_policy})"


def _window(clamp: Mapping[str, Any], spec: RLScalerSpec, past: Past) -> str:
    down = clamp.get("reason") == "ScaleDownStabilized"
    rules = spec.behavior.scale_down if down else spec.behavior.scale_up
    seconds = rules.stabilization_window_seconds
    word = "highest" if down else "lowest"
    said = f"the {word} recommendation of the last {seconds} s counts"
    until = _window_end(int(clamp.get("after") or 0), down, seconds, past)
    return f"{said}; that of {clamp.get('after')} drops out at {rfc3339(until)}" if until else said


def _window_end(held: int, down: bool, window_s: int, past: Past) -> float | None:
    """When the newest recommendation that holds the replicas where they are leaves the window."""
    times = [
        found
        for item in past.stabilization.get("recommendations") or []
        if (item["replicas"] >= held if down else item["replicas"] <= held)
        and (found := unix_seconds(item["time"])) is not None
    ]
    if not times:
        return None
    end = max(times) + window_s / past.scale
    return end if end > past.decided_s else None


def _pools(clamp: Mapping[str, Any], spec: RLScalerSpec, past: Past) -> str:
    return "each pool's own bounds, windows and rate rules (spec.backends, spec.behavior), see the message"


_ENDINGS: dict[str, Ending] = {
    "Pools": _pools,
    "SLOFloor": _slo,
    "OutOfDistribution": _unfamiliar,
    "MissingMetrics": _missing,
    "Schedule": _schedule,
    "Activation": _activation,
    "MinStep": _min_step,
    "StabilizationWindow": _window,
    "ScalingPolicies": _rate,
    "MaxStep": _max_step,
    "FlapBudget": _flaps,
    "OutsideChange": _outside,
    "Bounds": _bounds,
    "Budget": _budget,
    "Canary": _canary,
}
