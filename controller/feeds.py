"""Where each RLScaler's signals are read: its PromQL, and a Prometheus client shared by all who use the
same one.

Credentials come from Secrets in the RLScaler's own namespace, read when its feed is opened.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from controller.api.constants import Reason
from controller.api.convert import backend_service
from controller.api.types import Prometheus, RLScalerSpec
from controller.errors import Forbidden, KubernetesError, MetricsError, NotFound
from controller.kube import SECRETS, Kube
from controller.metrics import PrometheusConfig, PrometheusSource, QueryContext, TlsConfig, render_queries
from controller.metrics.source import SIGNALS, MetricsSource, QuerySet
from controller.registry import Entry
from controller.settings import Settings

logger = logging.getLogger(__name__)

LONGEST_SHARED_S = 5.0
"""Control seconds for which a costly answer about many services may serve those whose turn comes later."""

_FIELDS = ("request_rate", "latency", "cpu_utilization", "in_flight", "error_ratio")
_SIGNAL_OF = {
    "request_rate": "requestRate",
    "latency": "latency",
    "cpu_utilization": "cpuUtilization",
    "in_flight": "inFlight",
    "error_ratio": "errorRatio",
}
assert set(_SIGNAL_OF.values()) == set(SIGNALS)


class FeedError(MetricsError):
    """A feed cannot be opened; `reason` is MetricsAvailable's."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Feed:
    """One RLScaler's queries and the source that answers them."""

    source: MetricsSource
    queries: QuerySet

    @property
    def history_queries(self) -> QuerySet:
        """The request rate alone: what Engine.backfill takes. Empty where there is no such query."""
        return self.queries.only(["requestRate"])


class Feeds:
    """Opens feeds; one PrometheusSource for each distinct address and credentials."""

    def __init__(self, kube: Kube, settings: Settings) -> None:
        self._kube = kube
        self._settings = settings
        self._sources: dict[PrometheusConfig, PrometheusSource] = {}

    async def open(self, entry: Entry) -> Feed:
        """The feed of an RLScaler. Raises FeedError."""
        assert entry.spec is not None
        try:
            queries = render_queries(
                entry.spec.metrics.preset, _overrides(entry.spec), _context(entry, self._settings.time_scale)
            )
            config = await self._config(entry.namespace, entry.spec.metrics.prometheus)
            return Feed(self._source(config), queries)
        except FeedError:
            raise
        except MetricsError as error:
            raise FeedError(Reason.INVALID_SPEC, str(error)) from error

    def keep(self, feeds: list[Feed]) -> None:
        """Close the sources that none of these feeds uses."""
        used = {id(feed.source) for feed in feeds}
        for config, source in list(self._sources.items()):
            if id(source) not in used:
                source.close()
                del self._sources[config]

    def close(self) -> None:
        self.keep([])

    def _source(self, config: PrometheusConfig) -> PrometheusSource:
        if config not in self._sources:
            shared_s = LONGEST_SHARED_S / self._settings.time_scale
            self._sources[config] = PrometheusSource(config, self._settings.metrics_workers, shared_s)
        return self._sources[config]

    async def _config(self, namespace: str, prometheus: Prometheus) -> PrometheusConfig:
        address = prometheus.address or self._settings.prometheus_address
        if not address:
            raise FeedError(
                Reason.NO_PROMETHEUS_ADDRESS,
                "no Prometheus: set spec.metrics.prometheus.address, or the operator's --prometheus-address",
            )
        token, username, password = await self._credentials(namespace, prometheus)
        return PrometheusConfig(
            address=address,
            timeout_s=float(prometheus.timeout_seconds or self._settings.prometheus_timeout),
            bearer_token=token,
            username=username,
            password=password,
            tls=await self._tls(namespace, prometheus),
        )

    async def _credentials(self, namespace: str, prometheus: Prometheus) -> tuple[str, str, str]:
        """Bearer token, user name, password; empty where not asked for."""
        auth = prometheus.auth
        if auth is None:
            return "", "", ""
        name, keys = auth.secret_ref.name, auth.keys
        data = await self._secret(namespace, name)
        if auth.type == "Bearer":
            return _key(data, keys.token, name), "", ""
        return "", _key(data, keys.username, name), _key(data, keys.password, name)

    async def _tls(self, namespace: str, prometheus: Prometheus) -> TlsConfig:
        tls = prometheus.tls
        if tls is None:
            return TlsConfig()
        data = await self._secret(namespace, tls.secret_ref.name) if tls.secret_ref else {}
        return TlsConfig(
            ca=data.get(tls.keys.ca, ""),
            cert=data.get(tls.keys.cert, ""),
            key=data.get(tls.keys.key, ""),
            insecure_skip_verify=tls.insecure_skip_verify,
        )

    async def _secret(self, namespace: str, name: str) -> Mapping[str, str]:
        try:
            data = (await self._kube.get(SECRETS, namespace, name)).get("data") or {}
            return {key: base64.b64decode(value).decode() for key, value in data.items()}
        except NotFound as error:
            raise FeedError(
                Reason.PROMETHEUS_SECRET_NOT_FOUND, f"Secret {namespace}/{name} not found"
            ) from error
        except Forbidden as error:
            raise FeedError(Reason.FORBIDDEN, f"Secret {namespace}/{name}: {error}") from error
        except KubernetesError as error:
            raise FeedError(
                Reason.PROMETHEUS_SECRET_NOT_FOUND, f"Secret {namespace}/{name}: {error}"
            ) from error
        except (binascii.Error, UnicodeDecodeError) as error:
            raise FeedError(
                Reason.PROMETHEUS_SECRET_INVALID, f"Secret {namespace}/{name} holds no text: {error}"
            ) from error


_PLACE = re.compile(r"\{\{\s*(service|workload)\s*\}\}")


def pool_queries(entry: Entry, time_scale: float) -> list[QuerySet]:
    """The same signals for each pool alone, in the order of spec.backends. Raises MetricsError.

    Queries of the spec count where they name `{{service}}` or `{{workload}}`; others are about all pools.
    """
    assert entry.spec is not None
    whole = _context(entry, time_scale)
    own = {name: text for name, text in _overrides(entry.spec).items() if _PLACE.search(text) or not text}
    found = []
    for backend in entry.spec.backends or ():
        service = backend.metrics_service or backend_service(backend)
        name = backend.scale_target_ref.name
        one = replace(whole, workload=name, service=service, other_workloads=())
        found.append(render_queries(entry.spec.metrics.preset, own, one))
    return found


def _key(data: Mapping[str, str], key: str, secret: str) -> str:
    if key not in data:
        raise FeedError(Reason.PROMETHEUS_SECRET_INVALID, f"Secret {secret} has no key {key!r}")
    return data[key].strip()


def _overrides(spec: RLScalerSpec) -> dict[str, str]:
    given = {_SIGNAL_OF[name]: getattr(spec.metrics.queries, name) for name in _FIELDS}
    return {signal: query for signal, query in given.items() if query is not None}


def _context(entry: Entry, time_scale: float) -> QueryContext:
    assert entry.spec is not None
    workload = entry.targets[0].name
    latency = entry.spec.objective.slo.latency if entry.spec.objective.slo else None
    return QueryContext(
        namespace=entry.namespace,
        workload=workload,
        service=entry.spec.metrics.service or workload,
        other_workloads=tuple(target.name for target in entry.targets[1:]),
        percentile=float(latency.percentile) if latency else 95.0,
        window_s=float(entry.spec.metrics.window_seconds),
        time_scale=time_scale,
    )
