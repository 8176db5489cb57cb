"""The cluster and the Prometheus that `benchmarks.operator` puts around an operator, in one process.

The Kubernetes API is the twin's (`sim.twin`), with N Deployments whose pods become ready without delay and N
RLScalers on them. The Prometheus answers the operator's queries, grouped or not, from the services' request
rates and the cluster's replicas. What it was asked is counted; `/bench` tells and sets the traffic:

    GET  /bench                          counts since the start
    POST /bench?factor=1.5&noise=0.03    from now on

It is no general Prometheus: it looks for names of metrics in a query and for the names in its matchers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from aiohttp import web

from controller.api.crd import crd_yaml
from controller.core.samples import FloatArray
from sim.twin.api import storage_key
from sim.twin.emulator import TwinCluster
from sim.twin.processes import free_port
from sim.twin.store import Change, new_metadata
from sim.twin.workloads import DEPLOYMENTS

NAMESPACE_SIZE = 100
CAPACITY_RPS = 25.0
UTILISATION = 0.7
WRITES = ("POST", "PUT", "PATCH", "DELETE")


@dataclass
class Service:
    """One service: its steady rate and the labels under which it is measured."""

    namespace: str
    name: str
    rate: float
    replicas: int

    @property
    def envoy(self) -> str:
        """Labels of its series in an answer, as JSON."""
        return json.dumps({"namespace": self.namespace, "envoy_cluster_name": self.name})

    @property
    def pods(self) -> str:
        """The same for families that are told apart by the names of pods."""
        return json.dumps({"namespace": self.namespace, "workload": f"{self.name}-7c9d8f6b5d", "deep": "1"})


def make_services(count: int) -> list[Service]:
    """Services of 2 to 20 replicas, spread over namespaces."""
    replicas = np.random.default_rng(0).integers(2, 21, count)
    return [
        Service(f"team-{i // NAMESPACE_SIZE}", f"service-{i}", CAPACITY_RPS * UTILISATION * n, int(n))
        for i, n in enumerate(replicas)
    ]


@dataclass
class Traffic:
    """Every service's rate: steady times `factor`, with noise that is anew every 15 s."""

    services: list[Service]
    factor: float = 1.0
    noise: float = 0.0

    def rates(self, now_s: float) -> FloatArray:
        """Requests/s `[N]`."""
        steady = np.array([service.rate for service in self.services])
        seed = int(now_s // 15)
        wave = np.random.default_rng(seed).normal(0.0, 1.0, len(steady))
        return steady * self.factor * np.maximum(0.0, 1.0 + self.noise * wave)


@dataclass
class Counts:
    """What was asked."""

    api: Counter[str] = field(default_factory=Counter)
    scales: int = 0
    queries: int = 0
    ranges: int = 0
    answered_bytes: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "api": dict(self.api),
            "scales": self.scales,
            "queries": self.queries,
            "ranges": self.ranges,
            "answered_bytes": self.answered_bytes,
        }


class World:
    """The twin, filled, and the Prometheus beside it."""

    def __init__(self, count: int, history_s: float, policy: str) -> None:
        self._policy = policy
        self.services = make_services(count)
        self.traffic = Traffic(self.services)
        self.counts = Counts()
        self.cluster = TwinCluster(time_scale=1.0, workloads=False)
        self._history_s = history_s
        self._index = {(s.namespace, s.name): i for i, s in enumerate(self.services)}
        self._labels = {
            "envoy": [service.envoy for service in self.services],
            "pods": [service.pods for service in self.services],
        }
        self._replicas = np.array([service.replicas for service in self.services], dtype=float)

    # The cluster

    def fill(self) -> None:
        """All objects, straight into the store: validating thousands takes the twin minutes."""
        api = self.cluster.api
        crds = api.resource(("apiextensions.k8s.io", "customresourcedefinitions"))
        api.create(crds, None, _without_rules(yaml.safe_load(crd_yaml())))
        for namespace in {service.namespace for service in self.services}:
            api.create(api.resource(("", "namespaces")), None, {"metadata": {"name": namespace}})
        rlscalers = api.resource(("rlscaler.dev", "rlscalers"))
        valid = api.create(rlscalers, "default", _rlscaler("valid", self._policy))
        api.delete(rlscalers, "default", "valid")
        for service in self.services:
            api.store.commit(DEPLOYMENTS, _deployment(service))
            target = {**valid["spec"]["scaleTargetRef"], "name": service.name}
            body = {**valid, "spec": {**valid["spec"], "scaleTargetRef": target}}
            body["metadata"] = new_metadata({"name": service.name, "generation": 1}, service.namespace)
            api.store.commit(storage_key(rlscalers), body)
        api.store.listeners.append(self._follow)

    def _follow(self, change: Change) -> None:
        """Pods become ready at once, in a later write as in a real cluster."""
        if change.resource != DEPLOYMENTS or change.type == "DELETED":
            return
        wanted = change.obj["spec"]["replicas"]
        if change.obj["status"].get("readyReplicas") == wanted:
            return
        self.counts.scales += 1
        meta = change.obj["metadata"]
        self._replicas[self._index[meta["namespace"], meta["name"]]] = wanted
        asyncio.get_running_loop().call_later(0.05, self._ready, meta["namespace"], meta["name"])

    def _ready(self, namespace: str, name: str) -> None:
        store = self.cluster.api.store
        obj = store.get(DEPLOYMENTS, namespace, name)
        if obj is not None:
            wanted = obj["spec"]["replicas"]
            store.commit(DEPLOYMENTS, obj | {"status": {"replicas": wanted, "readyReplicas": wanted}})

    def count_requests(self) -> None:
        """Move what the twin has logged into the counts; watches are logged when they end."""
        while self.cluster.log:
            entry = self.cluster.log.popleft()
            if entry.user_agent.startswith("rl-scaler"):
                kind = "write" if entry.method in WRITES else "read"
                part = entry.path.rstrip("/").rpartition("/")[2]
                self.counts.api[f"{kind} {part}" if part in ("status", "scale", "events") else kind] += 1

    # Prometheus

    async def query(self, request: web.Request) -> web.Response:
        """/api/v1/query"""
        fields = dict(await request.post()) if request.method == "POST" else dict(request.query)
        text, now_s = str(fields["query"]), time.time()
        self.counts.queries += 1
        grouped = " by (" in text.replace("by (le)", "").replace("by (namespace, pod)", "")
        values = self._values(text, now_s)
        picked = self._picked(text)
        labels = self._labels["pods" if "pod=" in text or "pod!=" in text else "envoy"] if grouped else None
        series = [
            f'{{"metric":{labels[i] if labels else "{}"},"value":[{now_s:.3f},"{values[i]:.9g}"]}}'
            for i in picked
        ]
        return self._answer("vector", series)

    async def query_range(self, request: web.Request) -> web.Response:
        """/api/v1/query_range: the steady rate since `history_s` ago, and an age of 5 s."""
        fields = dict(await request.post()) if request.method == "POST" else dict(request.query)
        text = str(fields["query"])
        start, end, step = (float(str(fields[name])) for name in ("start", "end", "step"))
        self.counts.ranges += 1
        times = np.arange(start, end + 1e-6, step)
        times = times[times >= time.time() - self._history_s]
        if len(times) == 0:
            return self._answer("matrix", [])
        values = self._values(text, time.time())
        grouped = " by (namespace" in text
        series = []
        for i in self._picked(text):
            points = ",".join([f'[{t:.3f},"{values[i]:.6g}"]' for t in times])
            series.append(f'{{"metric":{self._labels["envoy"][i] if grouped else "{}"},"values":[{points}]}}')
        return self._answer("matrix", series)

    def _answer(self, kind: str, series: Iterable[str]) -> web.Response:
        body = f'{{"status":"success","data":{{"resultType":"{kind}","result":[{",".join(series)}]}}}}'
        self.counts.answered_bytes += len(body)
        return web.Response(text=body, content_type="application/json")

    def _picked(self, text: str) -> list[int]:
        """The services that the matchers of a query name."""
        namespaces = _names(text, "namespace")
        names = _names(text, "envoy_cluster_name") or _names(text, "pod")
        if namespaces and names and len(namespaces) * len(names) < len(self.services):
            found = [self._index.get((namespace, name)) for namespace in namespaces for name in names]
            return [index for index in found if index is not None]
        return [
            i
            for i, s in enumerate(self.services)
            if (not namespaces or s.namespace in namespaces) and (not names or s.name in names)
        ]

    def _values(self, text: str, now_s: float) -> FloatArray:
        """`[N]`, by what a query is about."""
        if "timestamp(" in text:
            return np.full(len(self.services), 5.0)
        rates = self.traffic.rates(now_s)
        used = rates / CAPACITY_RPS * 0.5
        if "container_cpu_usage" in text and "kube_pod_container" in text:
            return used / (self._replicas * 0.5)
        if "container_cpu_usage" in text:
            return used
        if "kube_pod_container" in text:
            return self._replicas * 0.5
        if "histogram_quantile" in text:
            load = rates / CAPACITY_RPS / self._replicas
            return np.where(load < 0.95, 40.0 + 40.0 * load, 900.0)
        if "rq_xx" in text:
            return np.full(len(self.services), 0.001)
        if "rq_active" in text:
            return np.rint(rates * 0.05)
        return rates

    # Control

    async def bench(self, request: web.Request) -> web.Response:
        """/bench"""
        for name in ("factor", "noise"):
            if name in request.query:
                setattr(self.traffic, name, float(request.query[name]))
        self.count_requests()
        return web.json_response(self.counts.as_json())


def _without_rules(crd: Any) -> Any:
    """The CRD but for its CEL rules: evaluating them takes the twin, not the operator, most of a write."""
    if isinstance(crd, dict):
        return {key: _without_rules(value) for key, value in crd.items() if key != "x-kubernetes-validations"}
    return [_without_rules(item) for item in crd] if isinstance(crd, list) else crd


def _names(text: str, label: str) -> set[str]:
    """The alternatives of a label's first matcher; none where it does not restrict."""
    match = re.search(rf'\b{label}=~?"([^"]*)"', text)
    if match is None:
        return set()
    return {part.strip("()") for part in match[1].partition("-[a-z0-9]+")[0].split("|")}


def _deployment(service: Service) -> dict[str, Any]:
    labels = {"app": service.name}
    container = {"name": "main", "image": "example.com/app:1", "resources": {"requests": {"cpu": "500m"}}}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    meta = {"name": service.name, "generation": 1, "labels": labels}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": new_metadata(meta, service.namespace),
        "spec": {
            "replicas": service.replicas,
            "selector": {"matchLabels": labels},
            "template": template,
        },
        "status": {"replicas": service.replicas, "readyReplicas": service.replicas},
    }


def _rlscaler(name: str, policy: str) -> dict[str, Any]:
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": 1,
        "maxReplicas": 100,
        "objective": {
            "slo": {"latency": {"percentile": 95, "milliseconds": 250}},
            "capacityPerReplica": f"{CAPACITY_RPS:g}",
        },
        "metrics": {"preset": "envoy"},
        "policy": {"type": policy},
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
    }
    return {"metadata": {"name": name}, "spec": spec}


async def serve(count: int, directory: Path, history_s: float, policy: str) -> None:
    """Until the process is ended. `directory` gets the kubeconfig and, when all is up, world.json."""
    world = World(count, history_s, policy)
    async with world.cluster:
        world.fill()
        world.cluster.write_kubeconfig(directory / "kubeconfig")
        app = web.Application(client_max_size=64 * 1024 * 1024)
        for path, handler in (("/api/v1/query", world.query), ("/api/v1/query_range", world.query_range)):
            app.router.add_get(path, handler)
            app.router.add_post(path, handler)
        app.router.add_get("/bench", world.bench)
        app.router.add_post("/bench", world.bench)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        (directory / "world.json").write_text(json.dumps({"prometheus": f"http://127.0.0.1:{port}"}))
        await asyncio.Event().wait()


def main() -> None:
    """`python -m benchmarks.operator_world --objects N --dir DIR`"""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, required=True)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--history", type=float, default=3600.0)
    parser.add_argument("--policy", default="RL")
    args = parser.parse_args()
    asyncio.run(serve(args.objects, args.dir, args.history, args.policy))


if __name__ == "__main__":
    main()
