"""PromQL by preset: what to ask Prometheus for, given where a service's traffic is measured.

Presets are data. A query is a template: `{{namespace}}`, `{{workload}}`, `{{service}}`, `{{window}}`,
`{{percentile}}` and `{{quantile}}` are filled in, escaped for use inside a PromQL string. The loop renders
them once a spec; `docs/metrics.md` lists them for users.

Every preset query gives one series, or none when nothing is known: a missing request rate is never zero.
Only errorRatio treats an absent 5xx series as zero, and only where requests are counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from controller.metrics.errors import QueryTemplateError
from controller.metrics.groups import AMONG, POD_LABELS, Family, Plan, Share
from controller.metrics.source import SIGNALS, QuerySet

MAX_AGE_IN_WINDOWS = 0.75
"""rate() over a window whose newest sample is older than this share of it has lost too much to be used."""

MIN_MAX_AGE_S = 1.0
"""Real seconds; below this, rehearsals at a high time scale would call scheduling jitter stale."""


@dataclass(frozen=True, slots=True)
class QueryContext:
    """What the placeholders stand for. window_s is in control seconds, percentile in (0, 100)."""

    namespace: str
    workload: str
    service: str = ""
    percentile: float = 95.0
    window_s: float = 60.0
    time_scale: float = 1.0
    other_workloads: tuple[str, ...] = ()
    """More workloads whose pods count: the other pools."""

    @property
    def real_window_s(self) -> float:
        """The window in the seconds of Prometheus."""
        return self.window_s / self.time_scale


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose series a query selects: one service's, or many services' at once, told apart by `labels`."""

    matchers: str
    labels: tuple[str, ...] = ()

    @classmethod
    def one(cls, namespace: str, service: str, more: str = "") -> Scope:
        """One service, under these label names."""
        return cls(f'{more}{namespace}="{{{{namespace}}}}",{service}="{{{{service}}}}"')

    @classmethod
    def many(cls, namespace: str, service: str, more: str = "") -> Scope:
        """All the services of a group, under the same label names."""
        return cls(f"{more}{AMONG}", (namespace, service))

    def select(self, metric: str, *more: str) -> str:
        """A selector."""
        return f"{metric}{{{','.join((self.matchers, *more))}}}"

    def by(self, *more: str) -> str:
        """What follows the name of an aggregation."""
        kept = (*more, *self.labels)
        return f" by ({', '.join(kept)}) " if kept else ""

    def rate(self, selector: str) -> str:
        """The sum of a counter's rates."""
        return f"sum{self.by()}(rate({selector}[{{{{window}}}}]))"

    def quantile(self, buckets: str) -> str:
        """A classic histogram's quantile."""
        return f"histogram_quantile({{{{quantile}}}}, sum{self.by('le')}(rate({buckets}[{{{{window}}}}])))"

    def ratio(self, errors: str, total: str) -> str:
        """Errors over total: 0 where requests are counted but no error has been, never where none are."""
        every = self.rate(total)
        return f"({self.rate(errors)} or 0 * {every}) / {every}"

    def age(self, *selectors: str) -> str:
        """The age (s) of the newest sample under the selectors; see `freshness_query`."""
        times = " or ".join(f"timestamp({selector})" for selector in selectors)
        return f"time() - max{self.by()}({times})"


@dataclass(frozen=True, slots=True)
class Preset:
    """Query templates by signal, and by signal the selectors whose newest sample tells its freshness.

    groups, ages: by signal, the same for many services at once; of several the first that knows a service
    answers (its youngest sample, for ages).
    """

    name: str
    description: str
    queries: Mapping[str, str] = field(default_factory=dict)
    selectors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    """The user must give at least one of these signals."""
    groups: Mapping[str, tuple[Family, ...]] = field(default_factory=dict)
    ages: Mapping[str, tuple[Family, ...]] = field(default_factory=dict)


_TRAFFIC = ("requestRate", "latency", "errorRatio")


def _metered(scope: Scope, requests: str, buckets: str, *failed: str) -> dict[str, str]:
    return {
        "requestRate": scope.rate(scope.select(requests)),
        "latency": scope.quantile(scope.select(buckets)),
        "errorRatio": scope.ratio(scope.select(requests, *failed), scope.select(requests)),
    }


def _families(scope: Scope, queries: Mapping[str, str]) -> dict[str, tuple[Family, ...]]:
    return {signal: (Family(query, scope.labels),) for signal, query in queries.items()}


def _ages(*scopes_and_metrics: tuple[Scope, str]) -> dict[str, tuple[Family, ...]]:
    families = tuple(
        Family(scope.age(scope.select(metric)), scope.labels) for scope, metric in scopes_and_metrics
    )
    return dict.fromkeys(_TRAFFIC, families)


# CPU: for every preset

_PODS = 'namespace="{{namespace}}",pod=~"{{workloadPods}}"'


def _cpu_used(matchers: str) -> str:
    return f'container_cpu_usage_seconds_total{{{matchers},container!=""}}'


def _cpu_asked(matchers: str) -> str:
    """What the pods that count ask for.

    The core counts utilisation over ready replicas, as the HPA does: what pods that are still starting ask
    for would dilute it just when the service is short of them. Where readiness isn't exported, all count.
    """
    asked = f'kube_pod_container_resource_requests{{{matchers},resource="cpu"}}'
    not_ready = f'kube_pod_status_ready{{{matchers},condition="true"}} == 0'
    return f"{asked} unless on (namespace, pod) ({not_ready})"


_CPU_USED = _cpu_used(_PODS)
CPU_QUERY = f"{Scope(_PODS).rate(_CPU_USED)} / sum({_cpu_asked(_PODS)})"


def _by_pods(aggregate: str, inner: str) -> str:
    """Per workload by the names of its pods; `Family.pods` says what the labels mean."""
    named = (
        f'label_replace({aggregate} by (namespace, pod) ({inner}), "workload", "$1", "pod", "(.+)-[a-z0-9]+")'
    )
    both = f'label_replace({named}, "deep", "1", "pod", ".+-[a-z0-9]+-[a-z0-9]{{5}}")'
    return f"{aggregate} by ({', '.join(POD_LABELS)}) ({both})"


CPU_FAMILIES = (
    Family(_by_pods("sum", f"rate({_cpu_used(AMONG)}[{{{{window}}}}])"), POD_LABELS, pods="sum"),
    Family(_by_pods("sum", _cpu_asked(AMONG)), POD_LABELS, pods="sum"),
)
"""Cores used, and cores asked for: their ratio is CPU_QUERY's."""
CPU_AGE = Family(f"time() - {_by_pods('max', f'timestamp({_cpu_used(AMONG)})')}", POD_LABELS, pods="min")


# Envoy

_ENVOY = ("namespace", "envoy_cluster_name")
_ENVOY_TOTAL = "envoy_cluster_upstream_rq_total"
_ENVOY_RESPONSES = "envoy_cluster_upstream_rq_xx"
_ENVOY_REFUSALS = {
    "no_endpoint": "envoy_cluster_upstream_cx_none_healthy",
    "no_connection": "envoy_cluster_upstream_rq_pending_failure_eject",
    "circuit_breaker": "envoy_cluster_upstream_rq_pending_overflow",
}
"""Requests that Envoy answered itself and does not count as upstream requests.

Without them the rate of a service whose replicas have all died would read zero, and that of one whose
circuit breaker is open would read what it serves instead of what is asked of it.
"""


def _envoy_rate(scope: Scope) -> str:
    terms = [
        f'label_replace({scope.rate(scope.select(metric))}, "refused", "{why}", "", "")'
        for why, metric in _ENVOY_REFUSALS.items()
    ]
    return f"sum{scope.by()}({' or '.join([scope.rate(scope.select(_ENVOY_TOTAL)), *terms])})"


def _envoy(scope: Scope) -> dict[str, str]:
    failed = scope.select(_ENVOY_RESPONSES, 'envoy_response_code_class="5"')
    return {
        "requestRate": _envoy_rate(scope),
        "latency": scope.quantile(scope.select("envoy_cluster_upstream_rq_time_bucket")),
        "errorRatio": scope.ratio(failed, scope.select(_ENVOY_RESPONSES)),
        "inFlight": f"sum{scope.by()}({scope.select('envoy_cluster_upstream_rq_active')})",
    }


ENVOY = Preset(
    "envoy",
    "Envoy's own statistics of the upstream cluster called metrics.service",
    _envoy(Scope.one(*_ENVOY)),
    dict.fromkeys(_TRAFFIC, (Scope.one(*_ENVOY).select(_ENVOY_TOTAL),)),
    groups=_families(Scope.many(*_ENVOY), _envoy(Scope.many(*_ENVOY))),
    ages=_ages((Scope.many(*_ENVOY), _ENVOY_TOTAL)),
)

# Istio

_ISTIO = ("destination_service_namespace", "destination_service_name", 'reporter=~"destination|waypoint",')
_ISTIO_TOTAL = "istio_requests_total"


def _istio(scope: Scope) -> dict[str, str]:
    return _metered(scope, _ISTIO_TOTAL, "istio_request_duration_milliseconds_bucket", 'response_code=~"5.."')


ISTIO = Preset(
    "istio",
    "Istio's standard metrics of the Service called metrics.service, from its sidecars or waypoint",
    _istio(Scope.one(*_ISTIO)),
    dict.fromkeys(_TRAFFIC, (Scope.one(*_ISTIO).select(_ISTIO_TOTAL),)),
    groups=_families(Scope.many(*_ISTIO), _istio(Scope.many(*_ISTIO))),
    ages=_ages((Scope.many(*_ISTIO), _ISTIO_TOTAL)),
)

# ingress-nginx: Prometheus renames the exporter's labels unless the scrape sets honor_labels; both are tried.

_NGINX = (("exported_namespace", "exported_service"), ("namespace", "service"))
_NGINX_TOTAL = "nginx_ingress_controller_requests"


def _nginx(scope: Scope) -> dict[str, str]:
    buckets = "nginx_ingress_controller_request_duration_seconds_bucket"
    return _metered(scope, _NGINX_TOTAL, buckets, 'status=~"5.."')


def _nginx_either() -> dict[str, str]:
    renamed, honoured = (_nginx(Scope.one(*labels)) for labels in _NGINX)
    either = {signal: f"{renamed[signal]} or {honoured[signal]}" for signal in renamed}
    return either | {"latency": f"1000 * ({either['latency']})"}


def _nginx_families() -> dict[str, tuple[Family, ...]]:
    found = []
    for scope in (Scope.many(*labels) for labels in _NGINX):
        queries = _nginx(scope)
        found.append(_families(scope, queries | {"latency": f"1000 * {queries['latency']}"}))
    return {signal: tuple(part[signal][0] for part in found) for signal in found[0]}


INGRESS_NGINX = Preset(
    "ingress-nginx",
    "ingress-nginx's controller metrics of the Service called metrics.service",
    _nginx_either(),
    dict.fromkeys(_TRAFFIC, tuple(Scope.one(*labels).select(_NGINX_TOTAL) for labels in _NGINX)),
    groups=_nginx_families(),
    ages=_ages(*((Scope.many(*labels), _NGINX_TOTAL) for labels in _NGINX)),
)

CUSTOM = Preset(
    "custom", "your own queries under metrics.queries", requires=("requestRate", "cpuUtilization")
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (ENVOY, INGRESS_NGINX, ISTIO, CUSTOM)}


def render_queries(preset: str, overrides: Mapping[str, str] | None, context: QueryContext) -> QuerySet:
    """PromQL by signal: the preset's, with the user's own queries in place of them where given.

    An override of "" turns a signal off. Raises QueryTemplateError for an unknown preset, signal or
    placeholder, for a `custom` without a load signal, and for a percentile or window out of range.
    """
    _check_context(context)
    chosen, own = _preset(preset), _own_queries(overrides or {})
    if chosen.requires and not any(own.get(signal) for signal in chosen.requires):
        raise QueryTemplateError(
            "queries", f"preset {preset!r} needs a query for {' or '.join(chosen.requires)}"
        )
    templates = {"cpuUtilization": CPU_QUERY, **chosen.queries, **own}
    values = _placeholders(context)
    queries = {name: _fill(text, name, values) for name, text in templates.items() if text}
    fresh = {name: _freshness(chosen, name, own, queries, values) for name in queries}
    return QuerySet(
        queries,
        {name: query for name, query in fresh.items() if query},
        max_age_s=max(MAX_AGE_IN_WINDOWS * context.real_window_s, MIN_MAX_AGE_S),
        time_scale=context.time_scale,
        plans=_plans(chosen, own, queries, fresh, context),
    )


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise QueryTemplateError("preset", f"unknown preset {name!r}; one of {', '.join(PRESETS)}")
    return PRESETS[name]


def _check_context(context: QueryContext) -> None:
    if not 0 < context.percentile < 100:
        raise QueryTemplateError("percentile", f"{context.percentile!r} is not allowed; between 0 and 100")
    if not context.real_window_s >= 0.001:
        raise QueryTemplateError("windowSeconds", f"{context.window_s!r} is not allowed; must be positive")


def _own_queries(overrides: Mapping[str, str]) -> dict[str, str]:
    unknown = sorted(set(overrides) - set(SIGNALS))
    if unknown:
        raise QueryTemplateError("queries", f"unknown signal {unknown[0]!r}; one of {', '.join(SIGNALS)}")
    return {name: text.strip() for name, text in overrides.items()}


# Placeholders

_PLACEHOLDER = re.compile(r"\{\{\s*(.*?)\s*\}\}")
_HEX_ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\x22", "'": r"\x27", "`": r"\x60"})


def escape(value: str) -> str:
    """`value` for use inside a PromQL string; in hex, since PromQL refuses to escape the other quote."""
    return value.translate(_HEX_ESCAPED)


def pods_pattern(workload: str) -> str:
    """Regular expression for the pods' names of a Deployment or StatefulSet, and not of its namesakes.

    `web` must not match the pods of `web-api`, hence at most two parts, the second of five characters.
    """
    return re.escape(workload).replace(r"\-", "-") + "-[a-z0-9]+(-[a-z0-9]{5})?"


def _placeholders(context: QueryContext) -> dict[str, str]:
    percentile = Decimal(str(context.percentile))
    return {
        "namespace": escape(context.namespace),
        "workload": escape(context.workload),
        "workloadPods": escape("|".join(map(pods_pattern, (context.workload, *context.other_workloads)))),
        "service": escape(context.service or context.workload),
        "window": duration(context.real_window_s),
        "percentile": f"{percentile.normalize():f}",
        "quantile": f"{(percentile / 100).normalize():f}",
    }


def duration(seconds: float) -> str:
    """A PromQL duration: whole seconds where they are, else milliseconds."""
    milliseconds = round(seconds * 1000)
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def _fill(template: str, signal: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise QueryTemplateError(
                f"queries.{signal}", f"unknown placeholder {match[0]!r}; one of {', '.join(values)}"
            )
        return values[match[1]]

    return _PLACEHOLDER.sub(value, template)


# Groups


def _plans(
    preset: Preset,
    own: Mapping[str, str],
    queries: Mapping[str, str],
    fresh: Mapping[str, str],
    context: QueryContext,
) -> dict[str, Plan]:
    """By query text, how a grouped answer gives the same; the user's own queries have none."""
    values = {name: text for name, text in _placeholders(context).items() if name in ("window", "quantile")}
    key = (context.namespace, context.service or context.workload)

    def shares(families: tuple[Family, ...], keys: tuple[tuple[str, ...], ...]) -> tuple[Share, ...]:
        return tuple(Share(family.filled(values), keys) for family in families)

    plans = {}
    for signal, text in queries.items():
        if signal in own or signal not in preset.groups:
            continue
        plans[text] = Plan("first", shares(preset.groups[signal], (key,)))
        if fresh.get(signal):
            plans[fresh[signal]] = Plan("youngest", shares(preset.ages[signal], (key,)))
    workloads = (context.workload, *context.other_workloads)
    if "cpuUtilization" in queries and "cpuUtilization" not in own and _distinct_pods(workloads):
        keys = tuple((context.namespace, workload) for workload in workloads)
        plans[queries["cpuUtilization"]] = Plan("ratio", shares(CPU_FAMILIES, keys))
        plans[fresh["cpuUtilization"]] = Plan("youngest", shares((CPU_AGE,), keys))
    return plans


def _distinct_pods(workloads: tuple[str, ...]) -> bool:
    """Whether no pod's name fits two of the workloads, which would count it twice in a sum over both."""
    longer = [b[len(a) + 1 :] for a in workloads for b in workloads if b.startswith(f"{a}-")]
    return not any(rest and "-" not in rest for rest in longer)


# Freshness

_STRING = r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`"
_RANGE_SELECTOR = re.compile(
    rf"([a-zA-Z_:][a-zA-Z0-9_:]*\s*(?:\{{(?:[^{{}}\"'`]|{_STRING})*\}})?|\{{(?:[^{{}}\"'`]|{_STRING})*\}})"
    r"\s*\[[^\[\]:]+\]"
)
_SHIFTED = re.compile(r"\boffset\b|@")


def freshness_query(selectors: tuple[str, ...]) -> str:
    """PromQL for the age (s) of the newest sample under `selectors`; empty once the scrape has failed.

    An instant query carries the time of its evaluation, not of its samples, and rate() goes on giving
    ever smaller values while old samples leave its window. timestamp() of a plain selector sees both: a
    target that is down (Prometheus marks its series stale) and samples that merely grow old.
    """
    return f"time() - max({' or '.join(f'timestamp({selector})' for selector in selectors)})"


def range_selectors(query: str) -> tuple[str, ...]:
    """The selectors under a `[window]` in a query that somebody wrote; none if they are shifted in time."""
    if _SHIFTED.search(re.sub(_STRING, "", query)):
        return ()
    return tuple(dict.fromkeys(match[1].strip() for match in _RANGE_SELECTOR.finditer(query)))


def _freshness(
    preset: Preset, signal: str, own: Mapping[str, str], queries: Mapping[str, str], values: Mapping[str, str]
) -> str:
    if own.get(signal):
        selectors = range_selectors(queries[signal])
    else:
        templates = preset.selectors.get(signal, (_CPU_USED,) if signal == "cpuUtilization" else ())
        selectors = tuple(_fill(template, signal, values) for template in templates)
    return freshness_query(selectors) if selectors else ""
