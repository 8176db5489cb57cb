"""What the decision core knows of a service: plain values, no Kubernetes types.

`controller.api.convert` makes these from RLScaler objects; simulators make them directly.
Field meanings and defaults are those of autoscaling/v2 where the names are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

MAX_STABILIZATION_WINDOW_S = 3600
MAX_POLICY_PERIOD_S = 1800

DEFAULT_IDLE_AFTER_S = 300.0
DEFAULT_ACTIVATION_RPS = 0.0

PolicyType = Literal["RL", "HPA", "Forecast", "Formula"]
POLICY_TYPES = get_args(PolicyType)


class SpecError(ValueError):
    """A field of a specification has a value that is not allowed; says which, and what is."""

    def __init__(self, field_name: str, value: object, allowed: str) -> None:
        super().__init__(f"{field_name}: {value!r} is not allowed, must be {allowed}")
        self.field_name = field_name
        self.value = value
        self.allowed = allowed


def _require(condition: bool, field_name: str, value: object, allowed: str) -> None:
    if not condition:
        raise SpecError(field_name, value, allowed)


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """One rate rule: at most `value` Pods, or `value` Percent, in any `period_s` seconds."""

    type: Literal["Pods", "Percent"]
    value: int
    period_s: int

    def __post_init__(self) -> None:
        _require(self.type in ("Pods", "Percent"), "policies.type", self.type, "Pods or Percent")
        _require(self.value > 0, "policies.value", self.value, "greater than 0")
        _require(
            0 < self.period_s <= MAX_POLICY_PERIOD_S,
            "policies.periodSeconds",
            self.period_s,
            f"in 1..{MAX_POLICY_PERIOD_S}",
        )


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """One direction of `behavior`: a stabilisation window (s), rate rules, and a tolerance (ratio)."""

    stabilization_window_s: int
    select_policy: Literal["Max", "Min", "Disabled"]
    policies: tuple[ScalingPolicy, ...]
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        _require(
            0 <= self.stabilization_window_s <= MAX_STABILIZATION_WINDOW_S,
            "stabilizationWindowSeconds",
            self.stabilization_window_s,
            f"in 0..{MAX_STABILIZATION_WINDOW_S}",
        )
        _require(
            self.select_policy in ("Max", "Min", "Disabled"),
            "selectPolicy",
            self.select_policy,
            "Max, Min or Disabled",
        )
        _require(bool(self.policies), "policies", self.policies, "at least one rule")
        _require(
            math.isfinite(self.tolerance) and self.tolerance >= 0, "tolerance", self.tolerance, "0 or more"
        )


def default_scale_up() -> ScalingRules:
    """autoscaling/v2's default: no window, the larger of 100 % and 4 pods in 15 s."""
    return ScalingRules(0, "Max", (ScalingPolicy("Pods", 4, 15), ScalingPolicy("Percent", 100, 15)))


def default_scale_down() -> ScalingRules:
    """autoscaling/v2's default: a window of 300 s, then 100 % in 15 s."""
    return ScalingRules(300, "Max", (ScalingPolicy("Percent", 100, 15),))


@dataclass(frozen=True, slots=True)
class Behavior:
    """How fast replicas may move in each direction."""

    scale_up: ScalingRules = field(default_factory=default_scale_up)
    scale_down: ScalingRules = field(default_factory=default_scale_down)


@dataclass(frozen=True, slots=True)
class Fallback:
    """What to do after `failure_threshold` readings in a row without usable metrics.

    HPA: the formula on the metrics that are left. Hold: stay. Static: at least `replicas`.
    None of them ever goes below the current replicas while metrics are missing. The policy decides again
    at the `recovery_threshold`th good reading in a row; at 1 a fallback leaves no trace.
    """

    failure_threshold: int = 3
    behavior: Literal["HPA", "Hold", "Static"] = "HPA"
    replicas: int | None = None
    recovery_threshold: int = 1

    def __post_init__(self) -> None:
        _require(
            self.failure_threshold >= 1, "fallback.failureThreshold", self.failure_threshold, "1 or more"
        )
        _require(
            self.behavior in ("HPA", "Hold", "Static"),
            "fallback.behavior",
            self.behavior,
            "HPA, Hold or Static",
        )
        needs = self.behavior == "Static"
        _require(
            not needs or (self.replicas is not None and self.replicas >= 0),
            "fallback.replicas",
            self.replicas,
            "0 or more when behavior is Static",
        )
        _require(
            self.recovery_threshold >= 1, "fallback.recoveryThreshold", self.recovery_threshold, "1 or more"
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """How restless a service may be; None: no limit.

    changes_per_hour: after so many scale changes within an hour nothing is scaled down; up is never refused.
    max_step: most replicas that one decision adds or removes. min_step: smaller changes are not made.
    """

    changes_per_hour: int | None = None
    max_step: int | None = None
    min_step: int | None = None

    def __post_init__(self) -> None:
        for value, name in (
            (self.changes_per_hour, "changesPerHour"),
            (self.max_step, "maxStep"),
            (self.min_step, "minStep"),
        ):
            _require(value is None or value >= 1, f"limits.{name}", value, "1 or more")
        if self.min_step is not None and self.max_step is not None:
            allowed = f"in 1..maxStep ({self.max_step})"
            _require(self.min_step <= self.max_step, "limits.minStep", self.min_step, allowed)


@dataclass(frozen=True, slots=True)
class Pool:
    """One of several backends that share one traffic. Weights are parts of 100."""

    name: str
    min_replicas: int = 0
    max_replicas: int = 10
    cost_per_replica: float = 1.0
    min_weight: int = 0
    max_weight: int = 100

    def __post_init__(self) -> None:
        _require(
            0 <= self.min_replicas <= self.max_replicas,
            "backends.minReplicas",
            self.min_replicas,
            f"in 0..maxReplicas ({self.max_replicas})",
        )
        _require(
            0 <= self.min_weight <= self.max_weight <= 100,
            "backends.minWeight",
            self.min_weight,
            f"in 0..maxWeight ({self.max_weight}), both at most 100",
        )
        _require(
            math.isfinite(self.cost_per_replica) and self.cost_per_replica >= 0,
            "backends.costPerReplica",
            self.cost_per_replica,
            "0 or more",
        )


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service as the core sees it.

    Units: seconds, milliseconds, requests/s for each replica, ratios in 0..1.
    `capacity_rps` NaN: estimated online. `start_up_s` NaN: learned from how long replicas take to be ready.
    `slo_latency_ms` NaN: no latency objective.
    `idle_after_s` and `activation_rps` matter where min_replicas is 0: the last replica goes once no
    reading of that many seconds was above the threshold, and the first comes with one above it.
    """

    min_replicas: int = 1
    max_replicas: int = 10
    sync_period_s: float = 15.0
    slo_latency_ms: float = math.nan
    slo_percentile: float = 95.0
    preference: float = 50.0
    capacity_rps: float = math.nan
    start_up_s: float = 60.0
    target_utilisation: float = 0.7
    policy_type: PolicyType = "RL"
    idle_after_s: float = DEFAULT_IDLE_AFTER_S
    activation_rps: float = DEFAULT_ACTIVATION_RPS
    behavior: Behavior = field(default_factory=Behavior)
    fallback: Fallback = field(default_factory=Fallback)
    limits: Limits = field(default_factory=Limits)
    pools: tuple[Pool, ...] = ()

    def __post_init__(self) -> None:
        _require(
            0 <= self.min_replicas <= self.max_replicas,
            "minReplicas",
            self.min_replicas,
            f"in 0..maxReplicas ({self.max_replicas})",
        )
        _require(self.max_replicas >= 1, "maxReplicas", self.max_replicas, "1 or more")
        _require(1 <= self.sync_period_s <= 3600, "syncPeriodSeconds", self.sync_period_s, "in 1..3600")
        _require(
            math.isnan(self.slo_latency_ms) or self.slo_latency_ms > 0,
            "objective.slo.latency.milliseconds",
            self.slo_latency_ms,
            "greater than 0",
        )
        _require(
            0 < self.slo_percentile < 100,
            "objective.slo.latency.percentile",
            self.slo_percentile,
            "between 0 and 100, both excluded",
        )
        _require(0 <= self.preference <= 100, "objective.preference", self.preference, "in 0..100")
        _require(
            math.isnan(self.capacity_rps) or self.capacity_rps > 0,
            "objective.capacityPerReplica",
            self.capacity_rps,
            "greater than 0",
        )
        _require(
            math.isnan(self.start_up_s) or 0 <= self.start_up_s < math.inf,
            "objective.startUpSeconds",
            self.start_up_s,
            "0 or more",
        )
        _require(
            0 < self.target_utilisation <= 1,
            "objective.targetUtilization",
            self.target_utilisation,
            "greater than 0 and at most 1 (100 %)",
        )
        _require(
            self.policy_type in POLICY_TYPES,
            "policy.type",
            self.policy_type,
            "RL, HPA, Forecast or Formula",
        )
        _require(
            math.isfinite(self.idle_after_s) and self.idle_after_s >= 0,
            "idleAfterSeconds",
            self.idle_after_s,
            "0 or more",
        )
        _require(
            math.isfinite(self.activation_rps) and self.activation_rps >= 0,
            "activationRequestsPerSecond",
            self.activation_rps,
            "0 or more",
        )
        names = [pool.name for pool in self.pools]
        _require(len(set(names)) == len(names), "backends.name", names, "unique")
