"""A canary on real requests: it begins to answer errors behind a real Envoy, and loses its traffic.

`python -m pytest tests/rollout/test_envoy.py -s` prints what docs/canary.md quotes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sim.twin.dataplane.clients import split
from tests.dataplane.world import World, describe, settle, world
from tests.integration.harness import Cluster, Namespace, OperatorProcess, eventually
from tests.metrics.servers import job, prometheus
from tests.real_parts import real_part

GATEWAY = "/apis/gateway.networking.k8s.io/v1"
SYNC_S, WINDOW_S = 2, 10
RATE_RPS = 60.0
STABLE, CANARY = "web-stable", "web-canary"


def read_weights(ns: Namespace) -> dict[str, int]:
    refs = ns.api.get(ns.path(GATEWAY, "httproutes", "web"))["spec"]["rules"][0]["backendRefs"]
    return {ref["name"]: ref.get("weight", 1) for ref in refs}


@dataclass
class Running:
    """Everything that runs."""

    world: World
    operator: OperatorProcess
    namespace: Namespace

    def turns(self) -> int:
        return len(self.operator.decisions(self.namespace.name, "web"))


@pytest.fixture
def running(cluster: Cluster, namespace: Namespace, tmp_path: Path) -> Iterator[Running]:
    real_part("envoy")
    ns = namespace
    if not cluster.serves("gateway.networking.k8s.io/v1"):
        pytest.skip("the cluster has no Gateway API")
    make_objects(ns)
    with world(tmp_path, dict.fromkeys((STABLE, CANARY), 0.02), 16, lambda: read_weights(ns)) as made:
        jobs = [job("envoy", made.envoy.admin, "/stats/prometheus", namespace=ns.name)]
        with prometheus(tmp_path, jobs, "500ms") as address:
            made.clients.rate_rps = RATE_RPS
            operator = OperatorProcess(
                cluster.kubeconfig, ns.name, address, tmp_path / "operator.log", RLSCALER_TIME_SCALE="1"
            ).start()
            make_rlscaler(ns)
            yield Running(made, operator, ns)
            operator.stop()
            assert operator.errors() == []


def make_objects(ns: Namespace) -> None:
    for name, replicas in ((STABLE, 4), (CANARY, 0)):
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}}
        ns.api.create(ns.path("/api/v1", "services"), service | {"spec": {"ports": [{"port": 80}]}})
        ns.deployment(name, replicas=replicas)
    refs = [{"name": name, "port": 80, "weight": weight} for name, weight in ((STABLE, 100), (CANARY, 0))]
    spec = {"parentRefs": [{"name": "public"}], "rules": [{"name": "main", "backendRefs": refs}]}
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web"}}
    ns.api.create(ns.path(GATEWAY, "httproutes"), route | {"spec": spec})


def make_rlscaler(ns: Namespace) -> None:
    backends = [
        {"name": pool, "scaleTargetRef": {"kind": "Deployment", "name": f"web-{pool}"}, "maxReplicas": 8}
        for pool in ("stable", "canary")
    ]
    rate = 'sum(rate(envoy_cluster_upstream_rq_total{envoy_cluster_name=~"web-.*"}[10s]))'
    ns.rlscaler(
        "web",
        scaleTargetRef=None,
        maxReplicas=None,
        backends=backends,
        routes=[{"kind": "HTTPRoute", "name": "web", "rule": "main", "maxStep": 25}],
        metrics={"windowSeconds": WINDOW_S, "queries": {"requestRate": rate}},
        objective={
            "capacityPerReplica": "20",
            "slo": {"latency": {"percentile": 95, "milliseconds": 250}},
        },
        policy={"type": "HPA"},
        syncPeriodSeconds=SYNC_S,
        canary={
            "pool": "canary",
            "maxWeight": 50,
            "stepWeight": 25,
            "intervalSeconds": 6,
            "analysis": {"minRequests": 50, "maxErrorRatio": "0.02"},
        },
    )


def test_a_canary_that_begins_to_fail_loses_its_real_traffic_at_once(running: Running) -> None:
    made, ns = running.world, running.namespace
    eventually(lambda: made.weights_in_force().get(CANARY) == 50, timeout_s=180)
    phase_s = random.uniform(0.0, SYNC_S)  # between two turns; what is asserted holds for any
    time.sleep(2 * SYNC_S + phase_s)
    before_s = time.monotonic() - SYNC_S
    assert split(made.clients.between(before_s), made.servers)[CANARY] == pytest.approx(0.5, abs=0.15)

    made.servers[CANARY].error_share = 1.0
    failing_s, turns = time.monotonic(), running.turns()
    eventually(lambda: read_weights(ns)[CANARY] == 0, timeout_s=90, every_s=0.02)
    written_s, turns = time.monotonic() - failing_s, running.turns() - turns
    eventually(lambda: made.weights_in_force()[CANARY] == 0)
    gone_s = time.monotonic() - failing_s
    after_s = settle(1.0)
    time.sleep(SYNC_S)
    samples = made.clients.between(failing_s)
    shown = {
        "weights": made.series(CANARY, 0.0),
        "phase_s": round(phase_s, 2),
        "turns": turns,
        "sync_s": SYNC_S,
        "written_s": round(written_s, 2),
        "in_envoy_s": round(gone_s, 2),
        "failed": sum(sample.status != 200 for sample in samples),
        "requests": len(samples),
    }
    print("\ncanary", describe(shown))
    assert made.series(CANARY, 0.0)[-2:] == [50, 0], "in one step, though maxStep is 25"
    assert not [sample for sample in made.clients.between(after_s) if sample.pool == CANARY]
    assert ns.status("web")["canary"]["phase"] == "Failed"
    assert turns <= 3
