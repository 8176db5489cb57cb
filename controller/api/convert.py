"""From an RLScaler to what the decision core knows of a service.

The operator calls `to_service_spec` for each object; simulators and `rl-scaler backtest` do so for
manifests.
"""

from __future__ import annotations

import math

from controller.api.decimals import parse_decimal
from controller.api.formula import to_formula
from controller.api.types import (
    Backend,
    Behavior,
    Fallback,
    Limits,
    RLScalerSpec,
    ScaleDownRules,
    ScaleTargetRef,
    ScaleUpRules,
)
from controller.api.validation import FieldProblem, InvalidSpec
from controller.core import spec as core
from controller.core.formulas import KedaPolicy, KnativePolicy


def to_service_spec(spec: RLScalerSpec) -> core.ServiceSpec:
    """The core's view of a spec: seconds, milliseconds, ratios and floats. Raises InvalidSpec."""
    try:
        return _service_spec(spec)
    except core.SpecError as error:
        problem = FieldProblem(f"spec.{error.field_name}", error.value, f"must be {error.allowed}")
        raise InvalidSpec([problem]) from None


def _service_spec(spec: RLScalerSpec) -> core.ServiceSpec:
    low, high = total_bounds(spec)
    idle_after_s, activation_rps = _sleep(spec)
    latency = spec.objective.slo.latency if spec.objective.slo else None
    start_up = spec.objective.start_up_seconds
    return core.ServiceSpec(
        min_replicas=low,
        max_replicas=high,
        sync_period_s=float(spec.sync_period_seconds),
        slo_latency_ms=float(latency.milliseconds) if latency else math.nan,
        slo_percentile=float(latency.percentile) if latency else 95.0,
        preference=float(spec.objective.preference),
        capacity_rps=_optional_decimal(spec.objective.capacity_per_replica),
        start_up_s=math.nan if start_up is None else float(start_up),
        target_utilisation=spec.objective.target_utilization / 100.0,
        policy_type=spec.policy.type,
        idle_after_s=idle_after_s,
        activation_rps=activation_rps,
        behavior=_behavior(spec.behavior),
        fallback=_fallback(spec.fallback),
        pools=tuple(_pool(backend) for backend in spec.backends or ()),
        limits=_limits(spec.limits),
    )


def total_bounds(spec: RLScalerSpec) -> tuple[int, int]:
    """Fewest and most replicas of the whole service; with backends the pools' sums, narrowed by the
    spec's own.
    """
    if not spec.backends:
        return spec.min_replicas, spec.max_replicas or spec.min_replicas
    low = max(spec.min_replicas, sum(backend.min_replicas for backend in spec.backends))
    high = sum(backend.max_replicas for backend in spec.backends)
    return low, min(high, spec.max_replicas or high)


def scale_targets(spec: RLScalerSpec) -> tuple[ScaleTargetRef, ...]:
    """Every object that the RLScaler scales: its target, or one a pool."""
    if spec.scale_target_ref is not None:
        return (spec.scale_target_ref,)
    return tuple(backend.scale_target_ref for backend in spec.backends or ())


def target_label(spec: RLScalerSpec) -> str:
    """What `status.target` says: Deployment/web, or the pools' names."""
    if spec.scale_target_ref is not None:
        return f"{spec.scale_target_ref.kind}/{spec.scale_target_ref.name}"
    return "+".join(backend.name for backend in spec.backends or ())[:253]


def backend_service(backend: Backend) -> str:
    """The Service that routes weigh for a pool."""
    return backend.service or backend.scale_target_ref.name


def _sleep(spec: RLScalerSpec) -> tuple[float, float]:
    """Seconds of idleness before zero, and the request rate (requests/s) up to which a service is idle.

    spec.scaleToZero goes before what the formula of another system says of it.
    """
    if spec.scale_to_zero is not None:
        rest = spec.scale_to_zero
        return float(rest.cooldown_seconds), parse_decimal(rest.activation_requests_per_second)
    policy = to_formula(spec.policy.formula) if spec.policy.formula is not None else None
    if isinstance(policy, KedaPolicy):
        return policy.cooldown_s, policy.activation_rps
    if isinstance(policy, KnativePolicy):
        return policy.idle_after_s, core.DEFAULT_ACTIVATION_RPS
    return core.DEFAULT_IDLE_AFTER_S, core.DEFAULT_ACTIVATION_RPS


def _pool(backend: Backend) -> core.Pool:
    return core.Pool(
        name=backend.name,
        min_replicas=backend.min_replicas,
        max_replicas=backend.max_replicas,
        cost_per_replica=parse_decimal(backend.cost_per_replica),
        min_weight=backend.min_weight,
        max_weight=backend.max_weight,
    )


def _behavior(behavior: Behavior) -> core.Behavior:
    return core.Behavior(scale_up=_rules(behavior.scale_up), scale_down=_rules(behavior.scale_down))


def _rules(rules: ScaleUpRules | ScaleDownRules) -> core.ScalingRules:
    return core.ScalingRules(
        stabilization_window_s=rules.stabilization_window_seconds,
        select_policy=rules.select_policy,
        policies=tuple(
            core.ScalingPolicy(rule.type, rule.value, rule.period_seconds) for rule in rules.policies
        ),
        tolerance=parse_decimal(rules.tolerance),
    )


def _fallback(fallback: Fallback) -> core.Fallback:
    return core.Fallback(
        failure_threshold=fallback.failure_threshold,
        behavior=fallback.behavior,
        replicas=fallback.replicas,
        recovery_threshold=fallback.recovery_threshold,
    )


def _limits(limits: Limits) -> core.Limits:
    return core.Limits(limits.changes_per_hour, limits.max_step, limits.min_step)


def _optional_decimal(text: str | None) -> float:
    return parse_decimal(text) if text is not None else math.nan
