"""The operator's weights on real requests: real servers, a real Envoy, a real Prometheus.

`python -m pytest tests/dataplane -s` prints what docs/routes.md quotes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.dataplane.world import Gateway, World, describe, world
from tests.integration.harness import Cluster, Namespace, OperatorProcess, eventually
from tests.metrics.servers import job, prometheus
from tests.real_parts import real_part

GATEWAY = "/apis/gateway.networking.k8s.io/v1"
SYNC_S = 2
FAST_S, SLOW_S = 0.04, 0.20
RATE_RPS = 60.0
OBJECTIVE_MS = 120
CAPACITY_RPS = "20"
POOLS = {"web-od": 6, "web-spot": 2}


@dataclass
class Running:
    """Everything that runs."""

    world: World
    gateway: Gateway
    namespace: Namespace

    def weights(self) -> dict[str, int]:
        return read_weights(self.namespace)


def read_weights(ns: Namespace) -> dict[str, int]:
    """Of the route, by Service."""
    refs = ns.api.get(ns.path(GATEWAY, "httproutes", "web"))["spec"]["rules"][0]["backendRefs"]
    return {ref["name"]: ref.get("weight", 1) for ref in refs}


@pytest.fixture(scope="module")
def running(
    cluster: Cluster, shared_namespace: Namespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    real_part("envoy")
    ns, folder = shared_namespace, tmp_path_factory.mktemp("dataplane")
    if not cluster.serves("gateway.networking.k8s.io/v1"):
        pytest.skip("the cluster has no Gateway API")
    make_objects(ns)
    with world(folder, dict.fromkeys(POOLS, FAST_S)) as made:
        jobs = [job("envoy", made.admin, "/stats/prometheus", namespace=ns.name)]
        with prometheus(folder, jobs, "500ms") as address, Gateway(made, lambda: read_weights(ns)) as gateway:
            made.rate_rps = RATE_RPS
            operator = OperatorProcess(
                cluster.kubeconfig, ns.name, address, folder / "operator.log", RLSCALER_TIME_SCALE="1"
            ).start()
            make_rlscaler(ns)
            yield Running(made, gateway, ns)
            operator.stop()
            assert operator.errors() == []


def make_objects(ns: Namespace) -> None:
    for name, replicas in POOLS.items():
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}}
        ns.api.create(ns.path("/api/v1", "services"), service | {"spec": {"ports": [{"port": 80}]}})
        ns.deployment(name, replicas=replicas)
    refs = [{"name": name, "port": 80, "weight": 50} for name in POOLS]
    spec = {"parentRefs": [{"name": "public"}], "rules": [{"name": "main", "backendRefs": refs}]}
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web"}}
    ns.api.create(ns.path(GATEWAY, "httproutes"), route | {"spec": spec})


def make_rlscaler(ns: Namespace) -> None:
    backends = [
        {
            "name": name.removeprefix("web-"),
            "scaleTargetRef": {"kind": "Deployment", "name": name},
            "minReplicas": replicas,
            "maxReplicas": replicas,
        }
        for name, replicas in POOLS.items()
    ]
    rate = 'sum(rate(envoy_cluster_upstream_rq_total{envoy_cluster_name=~"web-.*"}[10s]))'
    ns.rlscaler(
        "web",
        scaleTargetRef=None,
        maxReplicas=None,
        backends=backends,
        routes=[{"kind": "HTTPRoute", "name": "web", "rule": "main"}],
        routing={"policy": "Ready", "ejection": {"baseSeconds": 4, "recoverySeconds": 16}},
        metrics={"windowSeconds": 10, "queries": {"requestRate": rate}},
        objective={
            "capacityPerReplica": CAPACITY_RPS,
            "slo": {"latency": {"percentile": 95, "milliseconds": OBJECTIVE_MS}},
        },
        policy={"type": "HPA"},
        syncPeriodSeconds=SYNC_S,
    )


def figures(made: World, since_s: float) -> dict[str, Any]:
    """p99 (ms), error ratio and split of the requests since a moment."""
    found = made.since(since_s)
    seconds = np.array([sample.seconds for sample in found])
    return {
        "requests": len(found),
        "p99_ms": round(1000 * float(np.quantile(seconds, 0.99)), 1),
        "error_ratio": round(float(np.mean([sample.status != 200 for sample in found])), 4),
        "split": {name: round(share, 3) for name, share in made.split(since_s).items()},
    }


def test_requests_are_split_as_the_operator_says(running: Running) -> None:
    eventually(lambda: running.weights() == {"web-od": 75, "web-spot": 25}, timeout_s=30)
    eventually(lambda: running.gateway.changes[-1][1] == running.weights())
    time.sleep(1.0)
    servers = running.world.servers.values()
    running.world.rate_rps = 0.0
    for server in servers:
        server.service_s = 0.0
    began_s = time.monotonic()
    running.world.burst(6000)
    found = figures(running.world, began_s)
    print("\nsteady", describe(found))
    assert found["split"]["web-spot"] == pytest.approx(0.25, abs=0.02)
    assert found["error_ratio"] == 0.0
    for server in servers:
        server.service_s = FAST_S
    running.world.rate_rps = RATE_RPS


def test_a_pool_made_five_times_slower_loses_its_traffic_and_gets_it_back_gradually(running: Running) -> None:
    eventually(lambda: running.weights() == {"web-od": 75, "web-spot": 25}, timeout_s=30)
    spot, gateway = running.world.servers["web-spot"], running.gateway
    # what a pool of a fifth of the speed deserves, and a fifth of what is above that
    deserved = 100 * (2 / 5) / (6 + 2 / 5)
    enough = deserved + 0.2 * (25 - deserved)

    spot.service_s, slow_s = SLOW_S, time.monotonic()
    eventually(lambda: running.weights()["web-spot"] <= enough, timeout_s=60)
    lost_s = time.monotonic() - slow_s
    time.sleep(3 * SYNC_S)
    while_slow = figures(running.world, time.monotonic() - 2 * SYNC_S)

    spot.service_s, well_s = FAST_S, time.monotonic()
    eventually(lambda: running.weights()["web-spot"] >= 24, timeout_s=120)
    back = gateway.series("web-spot", well_s)
    turns = int((np.diff(np.sign(np.diff(back))) != 0).sum())
    print(
        "\ngrey",
        describe(
            {
                "lost_after_s": round(lost_s, 1),
                "sync_s": SYNC_S,
                "while_slow": while_slow,
                "back": back,
                "back_after_s": round(gateway.changes[-1][0] - well_s, 1),
            }
        ),
    )
    assert max(np.diff(back)) <= 6, "gradually"
    assert turns <= 2, "without swinging"
    assert while_slow["p99_ms"] < 1000 * SLOW_S * 1.5
    assert lost_s <= 10 * SYNC_S
