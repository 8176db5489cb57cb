"""Two operators for the same RLScalers: one leads and writes, and the other takes over when it is gone."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from controller.leader import LEASE_S, RENEW_S, RETRY_S
from tests.integration.harness import (
    Cluster,
    Namespace,
    OperatorProcess,
    Prometheus,
    Traffic,
    eventually,
    service_under_load,
)

LEASES = "/apis/coordination.k8s.io/v1"
pytestmark = pytest.mark.twin_only


class Pair:
    """Two operators with one Lease; `writes` tells who wrote what when."""

    def __init__(self, cluster: Cluster, ns: Namespace, prometheus: Prometheus, directory: Path) -> None:
        self._ns, self._twin = ns, cluster.twin.cluster
        self._since = time.monotonic()
        env = {"RLSCALER_LEADER_ELECTION": "true", "RLSCALER_LEASE_NAMESPACE": ns.name}
        self.members = [
            OperatorProcess(cluster.kubeconfig, ns.name, prometheus.address, directory / f"{name}.log", **env)
            for name in ("a", "b")
        ]

    def pid(self, member: OperatorProcess) -> int:
        assert member._process is not None
        return member._process.pid

    def holder(self) -> str:
        leases = self._ns.api.get(self._ns.path(LEASES, "leases"))["items"]
        return str(leases[0]["spec"].get("holderIdentity") or "") if leases else ""

    def leads(self, member: OperatorProcess) -> bool:
        return f"_{self.pid(member)}_" in self.holder()

    def writes(self, pid: int) -> list[tuple[float, str]]:
        """Times and paths of a process's writes, those to the Lease apart."""
        return [(entry.time, entry.path) for entry in self.requests(pid)]

    def requests(self, pid: int) -> list[Any]:
        """The same as the API server logged them."""
        return [
            entry
            for entry in list(self._twin.log)
            if entry.time > self._since
            and entry.method != "GET"
            and f"/namespaces/{self._ns.name}/" in entry.path
            and re.search(rf"\bpid {pid}\b", entry.user_agent)
            and "/leases" not in entry.path
        ]


@pytest.fixture
def pair(cluster: Cluster, namespace: Namespace, prometheus: Prometheus, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(cluster, namespace, prometheus, tmp_path)
    yield made
    for member in made.members:
        if member._process is not None:
            os.kill(member._process.pid, signal.SIGCONT)
        member.kill()


def under_way(pair: Pair, ns: Namespace, traffic: Traffic) -> tuple[OperatorProcess, OperatorProcess]:
    """The first leads and has scaled, the second stands by."""
    first, second = pair.members
    first.start()
    eventually(lambda: pair.leads(first), timeout_s=60)
    second.start()
    service_under_load(ns, traffic, "web", rate=40.0, replicas=4)
    ns.wait_replicas("web", 7, 8, 9, timeout_s=60)
    ns.wait_condition("web", "Ready", "True")
    return first, second


def test_when_the_leader_is_killed_the_other_takes_over_and_no_write_is_double(
    pair: Pair, namespace: Namespace, traffic: Traffic
) -> None:
    first, second = under_way(pair, namespace, traffic)
    old, new = pair.pid(first), pair.pid(second)
    assert pair.writes(old)
    assert pair.writes(new) == []
    first.kill()
    killed = time.monotonic()
    traffic.set(namespace.name, "web", rate=72.0)
    eventually(lambda: pair.leads(second), timeout_s=60)
    print(f"fail-over after {time.monotonic() - killed:.1f} s")
    namespace.wait_replicas("web", 14, 15, 16, timeout_s=60)
    scales = [path for _, path in pair.writes(new) if path.endswith("/scale")]
    assert 1 <= len(scales) <= 3
    assert max(at for at, _ in pair.writes(old)) < min(at for at, _ in pair.writes(new))


def test_a_leader_killed_between_the_writes_of_a_round_leaves_no_write_to_be_made_twice(
    pair: Pair, namespace: Namespace, traffic: Traffic
) -> None:
    first, second = under_way(pair, namespace, traffic)
    names = ["web", *(f"more-{number}" for number in range(5))]
    for name in names[1:]:
        service_under_load(namespace, traffic, name, rate=40.0, replicas=8)
    for name in names[1:]:
        namespace.wait_condition(name, "Ready", "True")
    old, new = pair.pid(first), pair.pid(second)
    before = len(scale_writes(pair, old))
    for name in names:
        traffic.set(namespace.name, name, rate=72.0)
    eventually(lambda: len(scale_writes(pair, old)) > before, timeout_s=60, every_s=0.005)
    first.kill()
    eventually(lambda: pair.leads(second), timeout_s=60)
    for name in names:
        namespace.wait_replicas(name, 14, 15, 16, timeout_s=60)
    accepted = scale_writes(pair, old) + scale_writes(pair, new)
    for name in names:
        mine = [json.loads(entry.body) for entry in accepted if f"/{name}/" in entry.path]
        replicas = [body["spec"]["replicas"] for body in mine]
        assert all(a != b for a, b in pairwise(replicas)), (name, replicas)
        versions = [body["metadata"]["resourceVersion"] for body in mine]
        assert len(set(versions)) == len(versions), name
    for entry in pair.requests(old) + pair.requests(new):
        if entry.path.endswith(("/scale", "/status")):
            assert json.loads(entry.body)["metadata"]["resourceVersion"], entry.path


def scale_writes(pair: Pair, pid: int) -> list[Any]:
    """A process's writes to /scale that were accepted, in order."""
    return [entry for entry in pair.requests(pid) if entry.path.endswith("/scale") and entry.code == 200]


def test_a_leader_that_wakes_after_its_lease_has_gone_writes_nothing_more_and_ends(
    pair: Pair, namespace: Namespace, traffic: Traffic
) -> None:
    first, second = under_way(pair, namespace, traffic)
    old = pair.pid(first)
    os.kill(old, signal.SIGSTOP)
    traffic.set(namespace.name, "web", rate=72.0)
    eventually(lambda: pair.leads(second), timeout_s=60)
    namespace.wait_replicas("web", 14, 15, 16, timeout_s=60)
    before = len(pair.writes(old))
    os.kill(old, signal.SIGCONT)
    assert first._process is not None
    assert first._process.wait(timeout=60) == 1
    first._process = None
    assert len(pair.writes(old)) == before
    assert pair.leads(second)


def test_a_leader_that_ends_in_order_gives_its_lease_up(
    pair: Pair, namespace: Namespace, traffic: Traffic
) -> None:
    first, second = under_way(pair, namespace, traffic)
    assert first.stop() == 0
    assert pair.holder() == "" or pair.leads(second)
    eventually(lambda: pair.leads(second), timeout_s=60)
    assert second.errors() == []


def test_writing_ends_before_anybody_else_may_lead_and_fail_over_is_quick() -> None:
    assert RENEW_S < LEASE_S
    assert LEASE_S + 2 * RETRY_S < 20
