"""The rules that bind several fields of an RLScaler, and what this release does not do yet.

Each is a CEL expression for the API server beside the same predicate in Python; tests hold the two
together on random objects. Optional fields need has() in CEL; fields with defaults are always there,
because the API server fills in defaults before it evaluates rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from controller.api.decimals import is_percentile
from controller.api.model import Rule

if TYPE_CHECKING:
    from controller.api.types import Artifact, Backend, Fallback, LatencyObjective, Metrics, RLScalerSpec

BACKENDS_LIMIT: Final = 8

AVAILABLE_PRESETS: Final = ("envoy", "istio", "ingress-nginx", "custom")
AVAILABLE_ROUTE_KINDS: Final = ("HTTPRoute",)


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
ROUTE_KIND: Final = _available("kind of route", AVAILABLE_ROUTE_KINDS)
SCHEDULES: Final = Rule(
    cel="size(self) == 0",
    message="schedules are not available in this release; leave spec.schedules out",
    holds=lambda schedules: not schedules,
)


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


def _no_url(artifact: Artifact) -> bool:
    return artifact.url is None


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
    Rule(
        cel="!has(self.url)",
        message="url is not available in this release; use builtin, configMap or file",
        holds=_no_url,
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


def _routes_have_pools(spec: RLScalerSpec) -> bool:
    return not spec.routes or spec.backends is not None


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
)
