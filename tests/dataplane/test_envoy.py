"""The operator's weights on real requests: real servers, a real Envoy, a real Prometheus.

`python -m pytest tests/dataplane -s` prints what docs/routes.md quotes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from tests.dataplane.world import World, describe, settle, world
from tests.integration.harness import Cluster, Namespace, OperatorProcess, eventually
from tests.metrics.servers import job, prometheus
from tests.real_parts import real_part

GATEWAY = "/apis/gateway.networking.k8s.io/v1"
SYNC_S, WINDOW_S = 2, 10
FAST_S, SLOW_S, HANGS_S = 0.03, 0.15, 60.0
RATE_RPS = 60.0
OBJECTIVE_MS = 120
CAPACITY_RPS = "20"
SLOTS = 16
POOLS = {"web-od": 6, "web-spot": 2}
AS_IT_SHOULD_BE = {"web-od": 75, "web-spot": 25}
ENOUGH = 100 * (2 / 5) / (6 + 2 / 5) + 0.2 * (25 - 100 * (2 / 5) / (6 + 2 / 5))
"""What a pool of a fifth of the speed deserves, and a fifth of what it has above that."""


@dataclass
class Running:
    """Everything that runs."""

    world: World
    operator: OperatorProcess
    namespace: Namespace

    def weights(self) -> dict[str, int]:
        return read_weights(self.namespace)

    def turns(self) -> int:
        """Decisions that the operator has made: the time by which it is judged here."""
        return len(self.operator.decisions(self.namespace.name, "web"))

    def well(self) -> None:
        """Everybody fast, the weights those of ready pools, and a window without anything else."""
        self.world.clients.rate_rps = RATE_RPS
        for server in self.world.servers.values():
            server.service_s = FAST_S
        eventually(lambda: self.weights() == AS_IT_SHOULD_BE, timeout_s=180)
        time.sleep(WINDOW_S + SYNC_S)

    def turns_until_it_loses(self, service_s: float) -> int:
        """Make the spot pool take so long, and count turns until it has lost at least what it should."""
        before = self.turns()
        self.world.servers["web-spot"].service_s = service_s
        eventually(lambda: self.weights()["web-spot"] <= ENOUGH, timeout_s=90)
        return self.turns() - before


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
    with world(folder, dict.fromkeys(POOLS, FAST_S), SLOTS, lambda: read_weights(ns)) as made:
        jobs = [job("envoy", made.envoy.admin, "/stats/prometheus", namespace=ns.name)]
        with prometheus(folder, jobs, "500ms") as address:
            made.clients.rate_rps = RATE_RPS
            operator = OperatorProcess(
                cluster.kubeconfig, ns.name, address, folder / "operator.log", RLSCALER_TIME_SCALE="1"
            ).start()
            make_rlscaler(ns)
            yield Running(made, operator, ns)
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
        metrics={"windowSeconds": WINDOW_S, "queries": {"requestRate": rate}},
        objective={
            "capacityPerReplica": CAPACITY_RPS,
            "slo": {"latency": {"percentile": 95, "milliseconds": OBJECTIVE_MS}},
        },
        policy={"type": "HPA"},
        syncPeriodSeconds=SYNC_S,
    )


def test_requests_are_split_as_the_operator_says(running: Running) -> None:
    made = running.world
    eventually(lambda: running.weights() == AS_IT_SHOULD_BE, timeout_s=180)
    eventually(lambda: made.weights_in_force() == running.weights())
    made.clients.rate_rps = 0.0
    for server in made.servers.values():
        server.service_s = 0.0
    began_s = settle(1.0)
    made.burst(6000)
    found = made.figures(began_s)
    print("\nsteady", describe(found))
    assert found["split"]["web-spot"] == pytest.approx(0.25, abs=0.02)
    assert found["error_ratio"] == 0.0


def test_a_pool_made_five_times_slower_loses_its_traffic_and_gets_it_back_gradually(running: Running) -> None:
    running.well()
    slow_s = time.monotonic()
    turns = running.turns_until_it_loses(SLOW_S)
    lost_s = time.monotonic() - slow_s
    settled_s = settle(SYNC_S)
    settle(2 * SYNC_S)
    while_slow = running.world.figures(settled_s)

    running.world.servers["web-spot"].service_s, well_s = FAST_S, time.monotonic()
    eventually(lambda: running.weights()["web-spot"] >= 24, timeout_s=180)
    back = running.world.series("web-spot", well_s)
    swings = int((np.diff(np.sign(np.diff(back))) != 0).sum())
    found = {"lost_after_s": round(lost_s, 1), "lost_after_turns": turns, "sync_s": SYNC_S}
    back_s = round(time.monotonic() - well_s, 1)
    print("\ngrey", describe(found | {"while_slow": while_slow, "back": back, "back_after_s": back_s}))
    assert turns <= 3
    assert max(np.diff(back)) <= 6, "gradually"
    assert swings <= 2, "without swinging"
    assert while_slow["p99_ms"] < 1000 * SLOW_S * 1.5


def test_a_pool_that_hangs_loses_its_traffic_before_any_of_its_requests_has_failed(running: Running) -> None:
    running.well()
    hung_s = time.monotonic()
    turns = running.turns_until_it_loses(HANGS_S)
    found = running.world.figures(hung_s)
    hung = {"lost_after_s": round(time.monotonic() - hung_s, 1), "lost_after_turns": turns} | found
    print("\nhangs", describe(hung))
    assert turns <= 3
    assert found["error_ratio"] == 0.0
