"""The rules that bind several fields of an RLScaler, and what this release does not do yet.

Each is a CEL expression for the API server beside the same predicate in Python; tests hold the two
together on random objects. Optional fields need has() in CEL; fields with defaults are always there,
because the API server fills in defaults before it evaluates rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pydantic.alias_generators import to_camel

from controller.api.decimals import is_percentile
from controller.api.model import Rule

if TYPE_CHECKING:
    from controller.api.artifact import Artifact
    from controller.api.formula import Formula
    from controller.api.types import (
        Backend,
        Fallback,
        LatencyObjective,
        Limits,
        Metrics,
        Policy,
        RLScalerSpec,
        Schedule,
    )

BACKENDS_LIMIT: Final = 8

AVAILABLE_PRESETS: Final = ("envoy", "istio", "ingress-nginx", "custom")


def _available(what: str, allowed: tuple[str, ...]) -> Rule:
    """A value that the design has but this release has not; refused, so that nothing is silently
    ignored.
    """
    listed = ", ".join(f"'{value}'" for value in allowed)
    return Rule(
        cel=f"self in [{listed}]",
        message=f"this {what} is not available in this release; use {_either(allowed)}",
        holds=lambda value: value in allowed,
    )


def _either(values: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(values[:-1]), values[-1])))


PRESET: Final = _available("preset", AVAILABLE_PRESETS)


def _percentile(latency: LatencyObjective) -> bool:
    return is_percentile(latency.percentile)


LATENCY: Final = (
    Rule(
        cel="double(self.percentile) > 0.0 && double(self.percentile) < 100.0",
        message='percentile must be greater than 0 and less than 100, such as 95 or "99.9"',
        holds=_percentile,
    ),
)


def _custom_has_load(metrics: Metrics) -> bool:
    queries = metrics.queries
    return metrics.preset != "custom" or bool(queries.request_rate or queries.cpu_utilization)


METRICS: Final = (
    Rule(
        cel=(
            "self.preset != 'custom' || (has(self.queries) && "
            "((has(self.queries.requestRate) && size(self.queries.requestRate) > 0) || "
            "(has(self.queries.cpuUtilization) && size(self.queries.cpuUtilization) > 0)))"
        ),
        message="preset custom needs queries.requestRate or queries.cpuUtilization",
        holds=_custom_has_load,
    ),
)


def _one_source(artifact: Artifact) -> bool:
    sources = (artifact.builtin, artifact.config_map, artifact.file, artifact.url)
    return sum(source is not None for source in sources) == 1


def _url_has_digest(artifact: Artifact) -> bool:
    return artifact.url is None or artifact.sha256 is not None


ARTIFACT: Final = (
    Rule(
        cel=(
            "[has(self.builtin), has(self.configMap), has(self.file), has(self.url)].filter(x, x).size() == 1"
        ),
        message="exactly one of builtin, configMap, file and url must be set",
        holds=_one_source,
    ),
    Rule(
        cel="!has(self.url) || has(self.sha256)",
        message="url needs sha256, the hex digest of the file",
        holds=_url_has_digest,
    ),
)


PARAMETERS: Final[dict[tuple[str, ...], tuple[str, ...]]] = {
    ("KEDA",): ("requests_per_replica", "activation_requests_per_second", "cooldown_seconds"),
    ("Knative",): (
        "metric",
        "target",
        "stable_window_seconds",
        "panic_window_percentage",
        "panic_threshold_percentage",
        "max_scale_up_rate",
        "max_scale_down_rate",
        "scale_to_zero_grace_seconds",
    ),
    ("HoltWinters",): ("alpha", "beta", "gamma"),
    ("HoltWinters", "SeasonalNaive"): ("season_seconds",),
    ("SeasonalNaive",): ("level_window_seconds",),
    ("MovingMaximum",): ("window_seconds", "averaging_seconds", "percentile", "half_life_seconds"),
    ("ErlangC",): ("wait_probability", "requests_at_once", "load_window_seconds"),
}
"""Formulas, and the parameters that only they have."""


def _only_for(formulas: tuple[str, ...], parameters: tuple[str, ...]) -> Rule:
    """Parameters of other formulas are refused, so that nothing is silently ignored."""
    named = [to_camel(parameter) for parameter in parameters]
    own = " || ".join(f"self.name == '{formula}'" for formula in formulas)
    absent = " && ".join(f"!has(self.{name})" for name in named)
    holds: Callable[[Formula], bool] = lambda formula: (  # noqa: E731 - each rule has its own
        formula.name in formulas or all(getattr(formula, parameter) is None for parameter in parameters)
    )
    verb = "is a parameter" if len(named) == 1 else "are parameters"
    return Rule(
        cel=f"{own} || ({absent})" if len(named) > 1 else f"{own} || {absent}",
        message=f"{_listed(tuple(named))} {verb} of {_listed(formulas)} only",
        holds=holds,
    )


def _listed(values: tuple[str, ...]) -> str:
    return " and ".join(filter(None, (", ".join(values[:-1]), values[-1])))


def _concurrency_has_target(formula: Formula) -> bool:
    return formula.metric != "concurrency" or formula.target is not None


def _whole_minutes(formula: Formula) -> bool:
    return formula.averaging_seconds is None or formula.averaging_seconds % 60 == 0


def _window_holds_averages(formula: Formula) -> bool:
    return (formula.window_seconds or 3600) >= (formula.averaging_seconds or 300)


def _formula_percentile(formula: Formula) -> bool:
    return formula.percentile is None or is_percentile(formula.percentile)


FORMULA: Final = (
    *(_only_for(formulas, parameters) for formulas, parameters in PARAMETERS.items()),
    Rule(
        cel="!has(self.metric) || self.metric != 'concurrency' || has(self.target)",
        message="metric concurrency needs target, the requests in flight for each replica",
        holds=_concurrency_has_target,
    ),
    Rule(
        cel="!has(self.averagingSeconds) || self.averagingSeconds % 60 == 0",
        message="averagingSeconds must be a multiple of 60",
        holds=_whole_minutes,
    ),
    Rule(
        cel=(
            "(has(self.windowSeconds) ? self.windowSeconds : 3600) >= "
            "(has(self.averagingSeconds) ? self.averagingSeconds : 300)"
        ),
        message="windowSeconds (3600 by default) must be at least averagingSeconds (300 by default)",
        holds=_window_holds_averages,
    ),
    Rule(
        cel="!has(self.percentile) || (double(self.percentile) > 0.0 && double(self.percentile) < 100.0)",
        message='percentile must be greater than 0 and less than 100, such as 98 or "99.5"',
        holds=_formula_percentile,
    ),
)


def _formula_named(policy: Policy) -> bool:
    return policy.type != "Formula" or policy.formula is not None


def _formula_wanted(policy: Policy) -> bool:
    return policy.type == "Formula" or policy.formula is None


POLICY: Final = (
    Rule(
        cel="self.type != 'Formula' || has(self.formula)",
        message="policy type Formula needs formula, such as {name: KEDA}",
        holds=_formula_named,
    ),
    Rule(
        cel="self.type == 'Formula' || !has(self.formula)",
        message="formula is for policy type Formula only",
        holds=_formula_wanted,
    ),
)


def _static_has_replicas(fallback: Fallback) -> bool:
    return fallback.behavior != "Static" or fallback.replicas is not None


FALLBACK: Final = (
    Rule(
        cel="self.behavior != 'Static' || has(self.replicas)",
        message="behavior Static needs replicas",
        holds=_static_has_replicas,
    ),
)


def _start_is_not_end(schedule: Schedule) -> bool:
    return schedule.start != schedule.end


SCHEDULE: Final = (
    Rule(
        cel="self.start != self.end",
        message="start and end must differ",
        holds=_start_is_not_end,
    ),
)


def _steps(limits: Limits) -> bool:
    return limits.min_step is None or limits.max_step is None or limits.min_step <= limits.max_step


LIMITS: Final = (
    Rule(
        cel="!has(self.minStep) || !has(self.maxStep) || self.minStep <= self.maxStep",
        message="minStep must be less than or equal to maxStep",
        holds=_steps,
    ),
)


def _pool_bounds(backend: Backend) -> bool:
    return backend.min_replicas <= backend.max_replicas


def _pool_weights(backend: Backend) -> bool:
    return backend.min_weight <= backend.max_weight


BACKEND: Final = (
    Rule(
        cel="self.minReplicas <= self.maxReplicas",
        message="minReplicas must be less than or equal to maxReplicas",
        holds=_pool_bounds,
    ),
    Rule(
        cel="self.minWeight <= self.maxWeight",
        message="minWeight must be less than or equal to maxWeight",
        holds=_pool_weights,
    ),
)


def _one_kind_of_target(spec: RLScalerSpec) -> bool:
    return (spec.scale_target_ref is None) != (spec.backends is None)


def _max_with_target(spec: RLScalerSpec) -> bool:
    return spec.scale_target_ref is None or spec.max_replicas is not None


def _bounds(spec: RLScalerSpec) -> bool:
    return spec.max_replicas is None or spec.min_replicas <= spec.max_replicas


def _min_fits_pools(spec: RLScalerSpec) -> bool:
    return spec.backends is None or max(spec.min_replicas, 1) <= sum(
        pool.max_replicas for pool in spec.backends
    )


def _pools_fit_max(spec: RLScalerSpec) -> bool:
    if spec.backends is None or spec.max_replicas is None:
        return True
    return sum(pool.min_replicas for pool in spec.backends) <= spec.max_replicas


def _min_weights(spec: RLScalerSpec) -> bool:
    return spec.backends is None or sum(pool.min_weight for pool in spec.backends) <= 100


def _max_weights(spec: RLScalerSpec) -> bool:
    return spec.backends is None or sum(pool.max_weight for pool in spec.backends) >= 100


def _distinct_targets(spec: RLScalerSpec) -> bool:
    targets = [(pool.scale_target_ref.kind, pool.scale_target_ref.name) for pool in spec.backends or ()]
    return len(set(targets)) == len(targets)


def _routing_has_routes(spec: RLScalerSpec) -> bool:
    return spec.routing is None or bool(spec.routes)


def _weighing_policy(spec: RLScalerSpec) -> bool:
    return spec.routing is None or spec.routing.policy != "Policy" or spec.policy.type == "RL"


def _routes_have_pools(spec: RLScalerSpec) -> bool:
    return not spec.routes or spec.backends is not None


def _canary_is_a_pool(spec: RLScalerSpec) -> bool:
    names = [pool.name for pool in spec.backends or ()]
    return spec.canary is None or (len(names) > 1 and spec.canary.pool in names)


def _canary_has_routes(spec: RLScalerSpec) -> bool:
    return spec.canary is None or bool(spec.routes)


def _canary_may_go_back(spec: RLScalerSpec) -> bool:
    canary = spec.canary
    return canary is None or all(
        pool.name != canary.pool or (pool.min_weight == 0 and canary.max_weight <= pool.max_weight)
        for pool in spec.backends or ()
    )


def _canary_leaves_room(spec: RLScalerSpec) -> bool:
    if spec.canary is None or spec.backends is None:
        return True
    return sum(pool.min_weight for pool in spec.backends) + spec.canary.max_weight <= 100


def _cost_has_target(spec: RLScalerSpec) -> bool:
    return spec.cost_per_replica is None or spec.backends is None


def _may_be_zero(spec: RLScalerSpec) -> bool:
    return spec.scale_to_zero is None or (
        spec.min_replicas == 0 and all(pool.min_replicas == 0 for pool in spec.backends or ())
    )


def _schedules_fit_max(spec: RLScalerSpec) -> bool:
    return spec.max_replicas is None or all(
        schedule.min_replicas <= spec.max_replicas for schedule in spec.schedules or ()
    )


def _sum(field: str) -> str:
    """CEL of a sum over the pools, term by term.

    `map(...).sum()` would read better, but API servers before 1.30 cannot bound the size of what map()
    returns, and refuse the CRD because of the rule's estimated cost.
    """
    pools = range(BACKENDS_LIMIT)
    return " + ".join(f"(size(self.backends) > {i} ? self.backends[{i}].{field} : 0)" for i in pools)


SPEC: Final = (
    Rule(
        cel="has(self.scaleTargetRef) != has(self.backends)",
        message="exactly one of spec.scaleTargetRef and spec.backends must be set",
        holds=_one_kind_of_target,
    ),
    Rule(
        cel="!has(self.scaleTargetRef) || has(self.maxReplicas)",
        message="spec.scaleTargetRef needs spec.maxReplicas",
        holds=_max_with_target,
    ),
    Rule(
        cel="!has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
        message="spec.minReplicas must be less than or equal to spec.maxReplicas",
        holds=_bounds,
    ),
    Rule(
        cel=(
            "!has(self.backends) || (self.backends.exists(b, b.maxReplicas > 0) && "
            f"self.minReplicas <= {_sum('maxReplicas')})"
        ),
        message="the sum of spec.backends[*].maxReplicas must be at least 1 and at least spec.minReplicas",
        holds=_min_fits_pools,
    ),
    Rule(
        cel=(f"!has(self.backends) || !has(self.maxReplicas) || {_sum('minReplicas')} <= self.maxReplicas"),
        message="the sum of spec.backends[*].minReplicas must be at most spec.maxReplicas",
        holds=_pools_fit_max,
    ),
    Rule(
        cel=f"!has(self.backends) || {_sum('minWeight')} <= 100",
        message="the sum of spec.backends[*].minWeight must be at most 100",
        holds=_min_weights,
    ),
    Rule(
        cel=f"!has(self.backends) || {_sum('maxWeight')} >= 100",
        message="the sum of spec.backends[*].maxWeight must be at least 100",
        holds=_max_weights,
    ),
    Rule(
        cel=(
            "!has(self.backends) || self.backends.all(a, self.backends.exists_one(b, "
            "b.scaleTargetRef.kind == a.scaleTargetRef.kind && "
            "b.scaleTargetRef.name == a.scaleTargetRef.name))"
        ),
        message="spec.backends must not name the same scaleTargetRef twice",
        holds=_distinct_targets,
    ),
    Rule(
        cel="!has(self.routes) || size(self.routes) == 0 || has(self.backends)",
        message="spec.routes needs spec.backends, whose weights the routes carry",
        holds=_routes_have_pools,
    ),
    Rule(
        cel="!has(self.routing) || (has(self.routes) && size(self.routes) > 0)",
        message="spec.routing needs spec.routes, whose weights it decides",
        holds=_routing_has_routes,
    ),
    Rule(
        cel=(
            "!has(self.routing) || !has(self.routing.policy) || self.routing.policy != 'Policy' || "
            "self.policy.type == 'RL'"
        ),
        message="spec.routing.policy Policy needs spec.policy.type RL, with an artifact for pools",
        holds=_weighing_policy,
    ),
    Rule(
        cel=(
            "!has(self.canary) || (has(self.backends) && size(self.backends) > 1 && "
            "self.backends.exists(b, b.name == self.canary.pool))"
        ),
        message="spec.canary.pool must be the name of one of at least two spec.backends",
        holds=_canary_is_a_pool,
    ),
    Rule(
        cel="!has(self.canary) || (has(self.routes) && size(self.routes) > 0)",
        message="spec.canary needs spec.routes, whose weights it steps",
        holds=_canary_has_routes,
    ),
    Rule(
        cel=(
            "!has(self.canary) || !has(self.backends) || self.backends.all(b, "
            "b.name != self.canary.pool || (b.minWeight == 0 && self.canary.maxWeight <= b.maxWeight))"
        ),
        message="the pool of spec.canary must have minWeight 0, and at least its maxWeight as maxWeight",
        holds=_canary_may_go_back,
    ),
    Rule(
        cel=(
            f"!has(self.canary) || !has(self.backends) || {_sum('minWeight')} + self.canary.maxWeight <= 100"
        ),
        message="spec.canary.maxWeight and the sum of spec.backends[*].minWeight must be at most 100",
        holds=_canary_leaves_room,
    ),
    Rule(
        cel="!has(self.costPerReplica) || !has(self.backends)",
        message="spec.costPerReplica is for spec.scaleTargetRef; spec.backends have their own costPerReplica",
        holds=_cost_has_target,
    ),
    Rule(
        cel=(
            "!has(self.scaleToZero) || (self.minReplicas == 0 && "
            "(!has(self.backends) || self.backends.all(b, b.minReplicas == 0)))"
        ),
        message="spec.scaleToZero needs spec.minReplicas 0, and minReplicas 0 of each of spec.backends",
        holds=_may_be_zero,
    ),
    Rule(
        cel=(
            "!has(self.schedules) || !has(self.maxReplicas) || "
            "self.schedules.all(s, s.minReplicas <= self.maxReplicas)"
        ),
        message="minReplicas of each of spec.schedules must be less than or equal to spec.maxReplicas",
        holds=_schedules_fit_max,
    ),
)
