"""Simulated services: what they export reproduces what they simulate."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from sim.physics import ServiceParams
from sim.traces import Trace
from sim.twin.emulator import TwinCluster
from sim.twin.prometheus import Prometheus, PrometheusError
from sim.twin.service import ENVOY_LE_MS, ServiceFleet, SimulatedService

from .conftest import Json, deployment

PARAMS = ServiceParams(capacity_rps=25.0, capacity_spread=0.0, poisson=0.0, idle_utilisation=0.0)


def steady(rate_rps: float) -> Trace:
    return Trace(np.array([0.0, 3600.0]), np.array([rate_rps, rate_rps]))


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[TwinCluster]:
    async with TwinCluster(time_scale=600) as twin:
        yield twin


async def until(check: Callable[[], bool]) -> None:
    for _ in range(500):
        if check():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to pass")


async def fleet_of(
    cluster: TwinCluster, rate_rps: float, replicas: int = 4, starting: int = 0
) -> ServiceFleet:
    """A service with ready replicas, and some that take for ever to start."""
    resource = cluster.api.resource(("apps", "deployments"))
    cluster.api.create(resource, "default", deployment(replicas=replicas))
    fleet = ServiceFleet(cluster, [SimulatedService("web", steady(rate_rps), PARAMS)])
    await until(lambda: fleet.replicas(0)[0] == replicas)
    if starting:
        for controller in cluster._controllers[:1]:
            controller._start_up_s = 1e6
        body = {"spec": {"replicas": replicas + starting}}
        cluster.api.update(resource, "default", "web", lambda o: o | {"spec": o["spec"] | body["spec"]})
        await until(lambda: fleet.replicas(0)[1] == replicas + starting)
    return fleet


def exported(fleet: ServiceFleet) -> dict[str, list[tuple[dict[str, str], float]]]:
    """By sample name: (labels, value)."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for name, labels, value in re.findall(r"^(\w+)\{(.*)\} (\S+)$", fleet.exposition(), re.MULTILINE):
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        found.setdefault(name, []).append((pairs, float(value)))
    return found


def total(samples: list[tuple[dict[str, str], float]], **labels: str) -> float:
    return sum(v for found, v in samples if labels.items() <= found.items())


@pytest.mark.asyncio
async def test_counters_count_the_traffic(cluster: TwinCluster) -> None:
    fleet = await fleet_of(cluster, rate_rps=50.0)
    fleet.advance(120)
    shown = exported(fleet)
    ((labels, requests),) = shown["envoy_cluster_upstream_rq_total"]
    assert labels == {"namespace": "default", "envoy_cluster_name": "web"}
    assert requests == pytest.approx(50 * 120)
    assert total(shown["envoy_cluster_upstream_rq_xx"], envoy_response_code_class="2") == pytest.approx(6000)
    assert total(shown["envoy_cluster_upstream_rq_xx"], envoy_response_code_class="5") == 0


@pytest.mark.asyncio
async def test_overload_shows_as_errors_and_requests_in_flight(cluster: TwinCluster) -> None:
    fleet = await fleet_of(cluster, rate_rps=150.0)
    fleet.advance(300)
    shown = exported(fleet)
    assert total(shown["envoy_cluster_upstream_rq_xx"], envoy_response_code_class="5") > 1000
    assert shown["envoy_cluster_upstream_rq_active"][0][1] > 500


@pytest.mark.asyncio
@pytest.mark.parametrize("rate_rps", [60.0, 92.0, 110.0])
async def test_the_histogram_holds_the_simulated_latency(cluster: TwinCluster, rate_rps: float) -> None:
    fleet = await fleet_of(cluster, rate_rps)
    fleet.advance(15 * 8)
    shown = exported(fleet)["envoy_cluster_upstream_rq_time_bucket"]
    bounds = [float(labels["le"]) for labels, _ in shown]
    counts = [count for _, count in shown]
    assert bounds == [*ENVOY_LE_MS, math.inf]
    assert counts == sorted(counts)
    index = next(i for i, count in enumerate(counts) if count >= 0.95 * counts[-1])
    truth = fleet.latency_quantile(0, 0.95)
    assert ([0.0, *bounds])[index] <= truth <= bounds[index]


@pytest.mark.asyncio
async def test_cpu_is_used_by_ready_pods_and_asked_for_by_all(cluster: TwinCluster) -> None:
    fleet = await fleet_of(cluster, rate_rps=50.0, starting=2)
    fleet.advance(100)
    shown = exported(fleet)
    assert len(shown["container_cpu_usage_seconds_total"]) == 4
    assert total(shown["container_cpu_usage_seconds_total"]) == pytest.approx(100 * 50 / 25, rel=0.01)
    assert total(shown["kube_pod_container_resource_requests"], resource="cpu") == 6
    assert total(shown["kube_pod_status_ready"], condition="true") == 4


@pytest.mark.asyncio
async def test_samples_hold_each_sync_period_and_bill_pods_that_are_starting(cluster: TwinCluster) -> None:
    fleet = await fleet_of(cluster, rate_rps=50.0, starting=2)
    fleet.advance(37)
    first, second = fleet.samples[0]
    assert (first.time_s, second.time_s) == (15, 30)
    assert (first.ready, first.current, first.desired) == (4, 6, 6)
    assert first.replica_s == 6 * 15
    assert first.arrived == pytest.approx(50 * 15)


@pytest.mark.asyncio
async def test_a_routes_weights_split_the_load(cluster: TwinCluster) -> None:
    routes = cluster.api.resource(("gateway.networking.k8s.io", "httproutes"))
    refs: list[Json] = [
        {"name": "web-od", "port": 80, "weight": 30},
        {"name": "web-spot", "port": 80, "weight": 10},
    ]
    cluster.api.create(
        routes, "default", {"metadata": {"name": "r"}, "spec": {"rules": [{"backendRefs": refs}]}}
    )
    pools = [
        SimulatedService(name, steady(40.0), PARAMS, route="r", backend=name)
        for name in ("web-od", "web-spot")
    ]
    fleet = ServiceFleet(cluster, pools)
    fleet.advance(15)
    assert [s[0].arrived for s in fleet.samples] == pytest.approx([30 * 15, 10 * 15])


@pytest.mark.asyncio
async def test_a_missing_prometheus_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrometheusError, match="apt-get install prometheus"):
        await Prometheus(tmp_path, 1, 60).start()
