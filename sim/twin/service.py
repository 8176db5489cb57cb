"""The twin's simulated services: traffic from a trace, replicas from the cluster, and what they would export.

`ServiceFleet` steps `sim.physics.ServicePhysics` in control time. Ready replicas come from the workloads in
the emulator, the load from a trace (split by the weights of an HTTPRoute for pools). `/metrics` shows what
Envoy, cAdvisor and kube-state-metrics would: counters run in control time, so that Prometheus' `rate()` over
real seconds sees them `time_scale` times too fast, which is what the operator's time scale undoes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp.web
import numpy as np

from sim.physics import FloatArray, Interval, ServiceParams, ServicePhysics
from sim.traces import Trace
from sim.twin.emulator import TwinCluster
from sim.twin.errors import Json
from sim.twin.gateway import HTTP_ROUTES
from sim.twin.workloads import DEPLOYMENTS, REPLICASETS, STATEFULSETS, is_ready, pods_of

# Envoy's default histogram buckets in ms (source/common/stats/histogram_impl.cc).
ENVOY_LE_MS: tuple[float, ...] = (
    *(0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000),
    *(30000, 60000, 300000, 600000, 1800000, 3600000),
)
# Finer bounds for the demo's own table, up to the longest time-out that is usual.
_FINE_LE_MS = np.geomspace(10.0, 20_000.0, 96)
_TICK_S = 1.0  # control seconds
_PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")


@dataclass(frozen=True)
class SimulatedService:
    """One workload's traffic and physics.

    trace: rates by seconds since the fleet started, held at its ends. route, backend: an HTTPRoute in the
    same namespace whose weight for the Service `backend` gives this workload's share of the trace.
    """

    workload: str
    trace: Trace
    params: ServiceParams = field(default_factory=ServiceParams)
    namespace: str = "default"
    cluster_name: str = ""  # Envoy's name for the service; the workload's by default
    cpu_request: float = 1.0  # cores a replica
    route: str | None = None
    backend: str | None = None

    @property
    def envoy_cluster(self) -> str:
        return self.cluster_name or self.workload


@dataclass
class Sample:
    """What one service did in one sync period: means over it, counts of it, and replicas at its end."""

    time_s: float
    load_rps: float
    ready: int
    current: int
    desired: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    arrived: float
    served: float
    dropped: float
    violating: float
    replica_s: float


class ServiceFleet:
    """N services in one physics; `start` begins at control second 0 and follows real time from there."""

    def __init__(
        self,
        cluster: TwinCluster,
        services: list[SimulatedService],
        *,
        period_s: float = 15.0,
        seed: int = 0,
    ) -> None:
        self.cluster, self.services, self.period_s = cluster, services, period_s
        bounds = np.unique(np.concatenate([ENVOY_LE_MS, _FINE_LE_MS]))
        self._physics = ServicePhysics(
            _stacked(services), len(services), seed=np.full(len(services), seed), le_ms=bounds
        )
        self._physics.place(None, [max(0, self.replicas(i)[0]) for i in range(len(services))])
        self._shown = np.isin(bounds, ENVOY_LE_MS)
        self._cpu = [CpuMeters() for _ in services]
        self._used: FloatArray = np.zeros(len(services))
        self._period = [_Period() for _ in services]
        self.samples: list[list[Sample]] = [[] for _ in services]
        self.listeners: list[Callable[[], None]] = []
        self._began: float | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def clock_s(self) -> float:
        """Control seconds simulated so far."""
        return float(self._physics.clock_s[0])

    def replicas(self, index: int) -> tuple[int, int, int]:
        """(ready, existing, desired) replicas of a service's workload."""
        obj = self._workload(index)
        if obj is None:
            return 0, 0, 0
        status = obj.get("status") or {}
        return status.get("readyReplicas", 0), status.get("replicas", 0), obj["spec"].get("replicas", 0)

    def _workload(self, index: int) -> Json | None:
        service, store = self.services[index], self.cluster.api.store
        kinds = (DEPLOYMENTS, STATEFULSETS, REPLICASETS)
        found = (store.get(kind, service.namespace, service.workload) for kind in kinds)
        return next((obj for obj in found if obj is not None), None)

    def start(self) -> None:
        """Begins to follow real time, times the cluster's time scale."""
        self._began = time.monotonic()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self.catch_up()
            await asyncio.sleep(_TICK_S / self.cluster.time_scale)

    def catch_up(self) -> None:
        """Advances to now, in whole control seconds."""
        if self._began is None:
            return
        due = (time.monotonic() - self._began) * self.cluster.time_scale
        self.advance(int(due - self.clock_s))

    def advance(self, seconds: int) -> None:
        """Lets control seconds pass under the cluster's present replicas."""
        while seconds > 0:
            until_sample = int(self.period_s - self.clock_s % self.period_s)
            step = min(seconds, until_sample)
            self._step(step)
            seconds -= step
            if step == until_sample:
                self._close_period()

    def _step(self, seconds: int) -> None:
        counts = [self.replicas(i) for i in range(len(self.services))]
        self._physics.place(None, [ready for ready, _, _ in counts])
        middle = self.clock_s + seconds / 2
        rates = np.array([s.trace.at(middle) * self._share(s) for s in self.services], dtype=float)
        interval = self._physics.advance(None, seconds, rate_rps=rates)
        used = self._physics.read("used_s")
        for index, service in enumerate(self.services):
            self._period[index].add(interval, index, rates[index], counts[index][1] * seconds)
            pods = [p["metadata"]["name"] for p in self._ready_pods(service)]
            self._cpu[index].add(pods, (used[index] - self._used[index]) * service.cpu_request)
        self._used = used.copy()

    def _ready_pods(self, service: SimulatedService) -> list[Json]:
        return [p for p in pods_of(self.cluster.api, service.namespace, service.workload) if is_ready(p)]

    def _share(self, service: SimulatedService) -> float:
        if service.route is None:
            return 1.0
        route = self.cluster.api.store.get(HTTP_ROUTES, service.namespace, service.route)
        rules = ((route or {}).get("spec") or {}).get("rules") or []
        refs = [ref for rule in rules for ref in rule.get("backendRefs") or []]
        total = sum(ref.get("weight", 1) for ref in refs)
        own = sum(ref.get("weight", 1) for ref in refs if ref["name"] == service.backend)
        return own / total if total else 0.0

    def _close_period(self) -> None:
        for index, period in enumerate(self._period):
            self.samples[index].append(period.sample(self.clock_s, self.replicas(index)))
            self._period[index] = _Period()
        for listener in self.listeners:
            listener()

    # Exporters

    def latency_quantile(self, index: int, quantile: float, since: FloatArray | None = None) -> float:
        """Latency (ms) that this share of requests stayed below, from the start or an earlier `histogram`."""
        counts = self.histogram(index) - (0.0 if since is None else since)
        total = counts[-1]
        if total <= 0:
            return math.nan
        return float(np.interp(quantile * total, counts[:-1], self._physics.le_ms))

    def histogram(self, index: int) -> FloatArray:
        """Cumulative counts by the internal bounds; the last is of all requests."""
        served, dropped = self._physics.read("served")[index], self._physics.read("dropped")[index]
        return np.append(self._physics.histogram[index], served + dropped)

    def exposition(self) -> str:
        """The Prometheus text format of all services."""
        lines = Lines()
        for index, service in enumerate(self.services):
            self._envoy(lines, index, service)
            pods = pods_of(self.cluster.api, service.namespace, service.workload)
            add_pods(lines, service.namespace, pods, service.cpu_request, self._cpu[index])
        return lines.text()

    def _envoy(self, lines: Lines, index: int, service: SimulatedService) -> None:
        labels = {"namespace": service.namespace, "envoy_cluster_name": service.envoy_cluster}
        read = self._physics.read
        served, dropped = read("served")[index], read("dropped")[index]
        lines.add("envoy_cluster_upstream_rq_total", "counter", labels, read("arrived")[index])
        for code, count in (("2", served), ("5", dropped)):
            by_class = labels | {"envoy_response_code_class": code}
            lines.add("envoy_cluster_upstream_rq_xx", "counter", by_class, count)
        lines.add("envoy_cluster_upstream_rq_active", "gauge", labels, read("in_flight")[index])
        bucket = "envoy_cluster_upstream_rq_time"
        counts = self._physics.histogram[index]
        for bound, count in zip(self._physics.le_ms[self._shown], counts[self._shown], strict=True):
            lines.add(bucket, "histogram", labels | {"le": f"{bound:g}"}, count, "_bucket")
        lines.add(bucket, "histogram", labels | {"le": "+Inf"}, served + dropped, "_bucket")
        lines.add(bucket, "histogram", labels, self._latency_sum(index), "_sum")
        lines.add(bucket, "histogram", labels, served + dropped, "_count")

    def _latency_sum(self, index: int) -> float:
        bounds = np.concatenate([[0.0], self._physics.le_ms])
        counts = np.diff(self._physics.histogram[index], prepend=0.0)
        return float(np.sum(counts * (bounds[:-1] + bounds[1:]) / 2))


class CpuMeters:
    """CPU seconds by ready pod: load is spread evenly; a pod that is gone takes its meter along."""

    def __init__(self) -> None:
        self.used_s: dict[str, float] = {}

    def add(self, pods: list[str], seconds: float) -> None:
        share = seconds / len(pods) if pods else 0.0
        self.used_s = {pod: self.used_s.get(pod, 0.0) + share for pod in pods}


class _Period:
    """Sums of one sync period; latencies are means weighted by the requests served."""

    def __init__(self) -> None:
        self._seconds = self._offered = self._replica_s = 0.0
        self._counts = dict.fromkeys(("arrived", "served", "dropped", "violating"), 0.0)
        self._latency = dict.fromkeys(_PERCENTILES, 0.0)

    def add(self, interval: Interval, index: int, rate_rps: float, replica_s: float) -> None:
        seconds = float(interval.seconds[index])
        self._seconds += seconds
        self._offered += rate_rps * seconds
        self._replica_s += replica_s
        for name in self._counts:
            self._counts[name] += float(getattr(interval, name)[index])
        served = float(interval.served[index])
        for name in _PERCENTILES:
            self._latency[name] += served * float(np.nan_to_num(getattr(interval, name)[index]))

    def sample(self, time_s: float, replicas: tuple[int, int, int]) -> Sample:
        served = self._counts["served"]
        latency = {k: v / served if served else math.nan for k, v in self._latency.items()}
        ready, current, desired = replicas
        load = self._offered / max(self._seconds, 1e-9)
        return Sample(
            time_s, load, ready, current, desired, **latency, **self._counts, replica_s=self._replica_s
        )


def add_pods(lines: Lines, namespace: str, pods: list[Json], cpu_request: float, meters: CpuMeters) -> None:
    """What kube-state-metrics and the kubelet tell of pods: cores asked for and used, readiness."""
    for pod in pods:
        labels = {"namespace": namespace, "pod": pod["metadata"]["name"], "container": "main"}
        asked = labels | {"resource": "cpu", "unit": "core"}
        lines.add("kube_pod_container_resource_requests", "gauge", asked, cpu_request)
        ready = {"namespace": namespace, "pod": pod["metadata"]["name"], "condition": "true"}
        lines.add("kube_pod_status_ready", "gauge", ready, float(is_ready(pod)))
    for name, used in meters.used_s.items():
        labels = {"namespace": namespace, "pod": name, "container": "main"}
        lines.add("container_cpu_usage_seconds_total", "counter", labels, used)


class Lines:
    """Metric families in the text format, each with its TYPE line once and its samples together."""

    def __init__(self) -> None:
        self._families: dict[str, list[str]] = {}

    def add(self, name: str, kind: str, labels: dict[str, str], value: float, suffix: str = "") -> None:
        family = self._families.setdefault(name, [f"# TYPE {name} {kind}"])
        pairs = ",".join(f'{k}="{v}"' for k, v in labels.items())
        family.append(f"{name}{suffix}{{{pairs}}} {value:.6f}")

    def text(self) -> str:
        return "\n".join(line for family in self._families.values() for line in family) + "\n"


def _stacked(services: list[SimulatedService]) -> ServiceParams:
    """The parameters of all services, one array a field."""
    names = ServiceParams.__dataclass_fields__
    columns: dict[str, Any] = {n: np.array([float(getattr(s.params, n)) for s in services]) for n in names}
    return ServiceParams(**columns)


class Exposing(Protocol):
    """Who has metrics to show."""

    def catch_up(self) -> None:
        """Bring them up to date."""

    def exposition(self) -> str:
        """The Prometheus text format."""


class Exporter:
    """Serves a fleet's `/metrics` on loopback: `async with Exporter(fleet) as exporter: exporter.port`."""

    def __init__(self, fleet: Exposing) -> None:
        self._fleet = fleet
        self._runner: aiohttp.web.AppRunner | None = None
        self.port = 0

    async def __aenter__(self) -> Exporter:
        app = aiohttp.web.Application()
        app.router.add_get("/metrics", self._serve)
        self._runner = aiohttp.web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = aiohttp.web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        self._fleet.catch_up()
        return aiohttp.web.Response(text=self._fleet.exposition(), content_type="text/plain", charset="utf-8")
