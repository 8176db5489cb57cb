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
class Preset:
    """Query templates by signal, and by signal the selectors whose newest sample tells its freshness."""

    name: str
    description: str
    queries: Mapping[str, str] = field(default_factory=dict)
    selectors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    """The user must give at least one of these signals."""


_PODS = 'namespace="{{namespace}}",pod=~"{{workloadPods}}"'
_CPU_USED = f'container_cpu_usage_seconds_total{{{_PODS},container!=""}}'
_CPU_ASKED = f'kube_pod_container_resource_requests{{{_PODS},resource="cpu"}}'


def _rate(selector: str) -> str:
    return f"sum(rate({selector}[{{{{window}}}}]))"


def _ratio(errors: str, total: str) -> str:
    """Errors over total: 0 where requests are counted but no error has been, never where none are counted."""
    return f"({_rate(errors)} or 0 * {_rate(total)}) / {_rate(total)}"


# The core counts utilisation over ready replicas, as the HPA does: what pods that are still starting ask for
# would dilute it just when the service is short of them. Where readiness is not exported, all pods count.
_NOT_READY = f'kube_pod_status_ready{{{_PODS},condition="true"}} == 0'
CPU_QUERY = f"{_rate(_CPU_USED)} / sum({_CPU_ASKED} unless on (namespace, pod) ({_NOT_READY}))"


def _quantile(buckets: str) -> str:
    return f"histogram_quantile({{{{quantile}}}}, sum by (le) (rate({buckets}[{{{{window}}}}])))"


def _metered(requests: str, buckets: str, errors: str) -> dict[str, str]:
    return {
        "requestRate": _rate(requests),
        "latency": _quantile(buckets),
        "errorRatio": _ratio(errors, requests),
    }


def _traffic_selectors(*selectors: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(("requestRate", "latency", "errorRatio"), selectors)


_ENVOY = 'namespace="{{namespace}}",envoy_cluster_name="{{service}}"'
_ENVOY_TOTAL = f"envoy_cluster_upstream_rq_total{{{_ENVOY}}}"

_ENVOY_RESPONSES = f"envoy_cluster_upstream_rq_xx{{{_ENVOY}}}"
_ENVOY_REFUSALS = {
    "no_endpoint": f"envoy_cluster_upstream_cx_none_healthy{{{_ENVOY}}}",
    "no_connection": f"envoy_cluster_upstream_rq_pending_failure_eject{{{_ENVOY}}}",
    "circuit_breaker": f"envoy_cluster_upstream_rq_pending_overflow{{{_ENVOY}}}",
}
"""Requests that Envoy answered itself and does not count as upstream requests.

Without them the rate of a service whose replicas have all died would read zero, and that of one whose
circuit breaker is open would read what it serves instead of what is asked of it.
"""


def _envoy_rate() -> str:
    terms = [
        f'label_replace({_rate(selector)}, "refused", "{why}", "", "")'
        for why, selector in _ENVOY_REFUSALS.items()
    ]
    return f"sum({' or '.join([_rate(_ENVOY_TOTAL), *terms])})"


ENVOY = Preset(
    "envoy",
    "Envoy's own statistics of the upstream cluster called metrics.service",
    {
        "requestRate": _envoy_rate(),
        "latency": _quantile(f"envoy_cluster_upstream_rq_time_bucket{{{_ENVOY}}}"),
        "errorRatio": _ratio(
            f'envoy_cluster_upstream_rq_xx{{{_ENVOY},envoy_response_code_class="5"}}', _ENVOY_RESPONSES
        ),
        "inFlight": f"sum(envoy_cluster_upstream_rq_active{{{_ENVOY}}})",
    },
    _traffic_selectors(_ENVOY_TOTAL),
)

_ISTIO = (
    'reporter=~"destination|waypoint",'
    'destination_service_namespace="{{namespace}}",destination_service_name="{{service}}"'
)
_ISTIO_TOTAL = f"istio_requests_total{{{_ISTIO}}}"

ISTIO = Preset(
    "istio",
    "Istio's standard metrics of the Service called metrics.service, from its sidecars or waypoint",
    _metered(
        _ISTIO_TOTAL,
        f"istio_request_duration_milliseconds_bucket{{{_ISTIO}}}",
        f'istio_requests_total{{{_ISTIO},response_code=~"5.."}}',
    ),
    _traffic_selectors(_ISTIO_TOTAL),
)

_NGINX_EXPORTED = 'exported_namespace="{{namespace}}",exported_service="{{service}}"'
_NGINX_HONOURED = 'namespace="{{namespace}}",service="{{service}}"'


def _nginx(query: str) -> str:
    """Either label pair: Prometheus renames the exporter's labels unless the scrape sets honor_labels."""
    return f"{query.replace('LABELS', _NGINX_EXPORTED)} or {query.replace('LABELS', _NGINX_HONOURED)}"


_NGINX_TOTAL = "nginx_ingress_controller_requests{LABELS}"
_NGINX_QUERIES = _metered(
    _NGINX_TOTAL,
    "nginx_ingress_controller_request_duration_seconds_bucket{LABELS}",
    'nginx_ingress_controller_requests{LABELS,status=~"5.."}',
)

INGRESS_NGINX = Preset(
    "ingress-nginx",
    "ingress-nginx's controller metrics of the Service called metrics.service",
    {
        "requestRate": _nginx(_NGINX_QUERIES["requestRate"]),
        "latency": f"1000 * ({_nginx(_NGINX_QUERIES['latency'])})",
        "errorRatio": _nginx(_NGINX_QUERIES["errorRatio"]),
    },
    _traffic_selectors(
        _NGINX_TOTAL.replace("LABELS", _NGINX_EXPORTED), _NGINX_TOTAL.replace("LABELS", _NGINX_HONOURED)
    ),
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
