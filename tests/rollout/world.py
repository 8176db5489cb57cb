"""A service of a stable pool and a canary, whose traffic goes where a route's weights say.

What Envoy would count comes from here, as in `tests.integration.harness`, with errors besides.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from tests.integration.harness import RLSCALERS, ApiError, Json, Namespace, Traffic

GATEWAY = "/apis/gateway.networking.k8s.io/v1"
ISTIO = "/apis/networking.istio.io/v1"
INGRESSES = "/apis/networking.k8s.io/v1"
CANARY_WEIGHT = "nginx.ingress.kubernetes.io/canary-weight"
PERIOD_S, INTERVAL_S = 10, 20
RATE = 200.0
OBJECTIVE = {
    "capacityPerReplica": "50",
    "targetUtilization": 50,
    "slo": {"latency": {"percentile": 95, "milliseconds": 250}},
}
"""200 requests/s need eight replicas."""


@dataclass
class FailingTraffic(Traffic):
    """Traffic of which a share fails, by service."""

    shares: dict[tuple[str, str], float] = field(default_factory=dict)
    _failed: dict[tuple[str, str], float] = field(default_factory=dict)

    def fail(self, namespace: str, service: str, share: float) -> None:
        with self._lock:
            self._advance()
            self.shares[namespace, service] = share

    def _advance(self) -> None:
        before = dict(self._totals)
        super()._advance()
        for key, total in self._totals.items():
            grown = total - before.get(key, total)
            self._failed[key] = self._failed.get(key, 0.0) + grown * self.shares.get(key, 0.0)

    def _series(self, key: tuple[str, str], total: float) -> str:
        failed = self._failed.get(key, 0.0)
        labels = f'namespace="{key[0]}",envoy_cluster_name="{key[1]}"'
        by_class = f"envoy_cluster_upstream_rq_xx{{{labels},envoy_response_code_class="
        good = (
            super()
            ._series(key, total)
            .replace(f'{by_class}"2"}} {total}', f'{by_class}"2"}} {total - failed}')
        )
        return good + f'{by_class}"5"}} {failed}\n'


@dataclass
class Shop:
    """One RLScaler with its pools `<name>-stable` and `<name>-canary`."""

    ns: Namespace
    traffic: FailingTraffic
    name: str

    @property
    def canary(self) -> str:
        return f"{self.name}-canary"

    def make(
        self, routes: list[Json] | None = None, analysis: Json | None = None, before: int = 0, **spec: Any
    ) -> None:
        """before: the canary's weight in the HTTPRoute as somebody has written it."""
        ns = self.ns
        for service, replicas in ((f"{self.name}-stable", 8), (self.canary, 0)):
            body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": service}}
            ns.api.create(ns.path("/api/v1", "services"), {**body, "spec": {"ports": [{"port": 80}]}})
            ns.deployment(service, replicas=replicas)
        weights = {f"{self.name}-stable": 100 - before, self.canary: before}
        refs = [{"name": name, "port": 80, "weight": weight} for name, weight in weights.items()]
        rules = [{"name": "main", "backendRefs": refs}]
        self._create(GATEWAY, "HTTPRoute", {"parentRefs": [{"name": "public"}], "rules": rules}, "httproutes")
        self.follow()
        time.sleep(1.5)
        canary = {
            "pool": "canary",
            "maxWeight": 30,
            "intervalSeconds": INTERVAL_S,
            "analysis": {"minRequests": 50, **(analysis or {})},
            **spec.pop("canary", {}),
        }
        ns.rlscaler(
            self.name,
            scaleTargetRef=None,
            maxReplicas=None,
            backends=[self._pool("stable", 20), self._pool("canary", 10)],
            routes=routes or [{"kind": "HTTPRoute", "name": self.name}],
            metrics={"service": self.name},
            objective=OBJECTIVE,
            syncPeriodSeconds=PERIOD_S,
            canary=canary,
            **spec,
        )

    def virtual_service(self) -> None:
        route = [
            {"destination": {"host": f"{self.name}-{pool}"}, "weight": 50} for pool in ("stable", "canary")
        ]
        spec = {"hosts": ["shop.example.com"], "http": [{"name": "main", "route": route}]}
        self._create(ISTIO, "VirtualService", spec, "virtualservices")

    def ingress(self) -> None:
        backend = {"service": {"name": self.canary, "port": {"number": 80}}}
        paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
        spec = {"rules": [{"host": "shop.example.com", "http": {"paths": paths}}]}
        notes = {"nginx.ingress.kubernetes.io/canary": "true", CANARY_WEIGHT: "50"}
        self._create(INGRESSES, "Ingress", spec, "ingresses", notes)

    def _create(
        self, root: str, kind: str, spec: Json, plural: str, annotations: dict[str, str] | None = None
    ) -> None:
        metadata = {"name": self.name, "annotations": annotations or {}}
        body = {"apiVersion": root.removeprefix("/apis/"), "kind": kind, "metadata": metadata, "spec": spec}
        self.ns.api.create(self.ns.path(root, plural), body)

    def _pool(self, pool: str, most: int) -> Json:
        target = {"kind": "Deployment", "name": f"{self.name}-{pool}"}
        return {"name": pool, "scaleTargetRef": target, "maxReplicas": most}

    def follow(self) -> None:
        """Send the traffic where the HTTPRoute sends it now."""
        weights = self.weights()
        self.traffic.set(self.ns.name, self.name, RATE)
        for service, weight in weights.items():
            key = (self.ns.name, service)
            latency = self.traffic.latencies.get(key, 20.0)
            self.traffic.set(*key, RATE * weight / max(sum(weights.values()), 1), latency)

    def weights(self) -> dict[str, int]:
        spec = self.ns.api.get(self.ns.path(GATEWAY, "httproutes", self.name))["spec"]
        return {ref["name"]: ref.get("weight", 1) for ref in spec["rules"][0]["backendRefs"]}

    def weight(self) -> int:
        return self.weights()[self.canary]

    def mesh_weight(self) -> int:
        spec = self.ns.api.get(self.ns.path(ISTIO, "virtualservices", self.name))["spec"]
        route = spec["http"][0]["route"]
        return next(int(r.get("weight", 0)) for r in route if r["destination"]["host"] == self.canary)

    def nginx_weight(self) -> int:
        body = self.ns.api.get(self.ns.path(INGRESSES, "ingresses", self.name))
        return int(body["metadata"]["annotations"][CANARY_WEIGHT])

    def status(self) -> Json:
        return dict(self.ns.status(self.name).get("canary") or {})

    def ready(self) -> int:
        body = self.ns.api.get(self.ns.path("/apis/apps/v1", "deployments", self.canary))
        return int((body.get("status") or {}).get("readyReplicas") or 0)

    def replicas(self) -> tuple[int, int]:
        """(stable, canary)"""
        return self.ns.replicas(f"{self.name}-stable"), self.ns.replicas(self.canary)

    def release(self, version: str) -> None:
        """A new version of the canary."""
        containers = [{"name": "app", "image": f"registry.k8s.io/pause:{version}"}]
        path = self.ns.path("/apis/apps/v1", "deployments", self.canary)
        self.ns.api.patch(path, {"spec": {"template": {"spec": {"containers": containers}}}})

    def delete(self) -> None:
        self.ns.api.delete(self.ns.path(RLSCALERS, "rlscalers", self.name))


class Gateways:
    """Keeps the traffic of shops where their routes send it, and notes what it has seen on the way."""

    def __init__(self) -> None:
        self.shops: list[Shop] = []
        self.seen: dict[str, list[tuple[int, int, int]]] = {}
        """By shop: (weight, ready canary replicas, weight by its status), changes only."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Gateways:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.1):
            for shop in list(self.shops):
                try:
                    shop.follow()
                    now = (shop.weight(), shop.ready(), int(shop.status().get("weight", -1)))
                except ApiError:
                    continue
                seen = self.seen.setdefault(shop.name, [])
                if not seen or seen[-1] != now:
                    seen.append(now)
