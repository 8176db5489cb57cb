"""The unmodified operator in the twin through what the demo invites to: kill -9, and no Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
import yaml

from sim.demo.objects import HPA, rlscaler_yaml
from sim.demo.operator import OperatorProcess
from sim.physics import ServiceParams
from sim.traces import Trace
from sim.twin.service import SimulatedService
from sim.twin.twin import Twin

SCALE = 30.0
SYNC_S = 15.0 / SCALE  # real seconds
RLSCALERS = ("rlscaler.dev", "rlscalers")
DEPLOYMENTS = ("apps", "deployments")


class Scene:
    """A twin with one RLScaler whose load rises and falls, and the operator over it."""

    def __init__(self, twin: Twin, operator: OperatorProcess) -> None:
        self.twin, self.operator = twin, operator
        self.changes: list[tuple[float, int, int]] = []  # (monotonic, replicas before, after)
        twin.cluster.api.store.listeners.append(self._observe)

    def _observe(self, change: Any) -> None:
        if change.resource == DEPLOYMENTS and change.previous is not None:
            before, after = (o["spec"]["replicas"] for o in (change.previous, change.obj))
            if before != after:
                self.changes.append((time.monotonic(), before, after))

    @property
    def status(self) -> dict[str, Any]:
        return (self.twin.cluster.api.store.get(RLSCALERS, "default", HPA) or {}).get("status") or {}

    @property
    def replicas(self) -> int:
        obj = self.twin.cluster.api.store.get(DEPLOYMENTS, "default", HPA)
        assert obj is not None
        return int(obj["spec"]["replicas"])

    def condition(self, kind: str) -> dict[str, Any]:
        return next((c for c in self.status.get("conditions", []) if c["type"] == kind), {})

    async def until(self, check: Callable[[], Any], timeout_s: float, what: str) -> float:
        """Waits for a check; how long it took, in real seconds."""
        begun = time.monotonic()
        while not check():
            assert time.monotonic() - begun < timeout_s, f"{what}: {self.status.get('conditions')}"
            await asyncio.sleep(0.01)
        return time.monotonic() - begun


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    directory = tmp_path_factory.mktemp("scene")
    times = np.arange(0.0, 36_000.0, 15.0)
    rates = 25.0 * (12.0 + 8.0 * np.sin(2 * np.pi * times / 600.0))  # a wave of 10 minutes, 20 s here
    service = SimulatedService(HPA, Trace(times, rates), ServiceParams(capacity_rps=25.0, start_up_s=60.0))
    async with Twin(directory / "twin", [service], 16, time_scale=SCALE) as twin:
        spec = yaml.safe_load(rlscaler_yaml(HPA, 50))
        spec["spec"]["behavior"] = {
            "scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]},
            "scaleDown": {
                "stabilizationWindowSeconds": 120,
                "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}],
            },
        }
        twin.apply(yaml.safe_dump(spec))
        operator = OperatorProcess(twin, directory / "operator.log")
        await operator.start()
        try:
            await operator.until_ready()
            yield Scene(twin, operator)
        finally:
            await operator.child.stop()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_real_prometheus_sees_rates_time_scale_times_too_fast(scene: Scene) -> None:
    query = "sum(rate(envoy_cluster_upstream_rq_total[2s]))"
    async with httpx.AsyncClient() as http:
        await asyncio.sleep(3)
        url = f"{scene.twin.prometheus.url}/api/v1/query"
        answer = (await http.get(url, params={"query": query})).json()
    seen = float(answer["data"]["result"][0]["value"][1]) / SCALE
    simulated = np.mean([sample.load_rps for sample in scene.twin.fleet.samples[0][-8:]])
    assert seen == pytest.approx(simulated, rel=0.2)


def largest_change(changes: list[tuple[float, int, int]], up: bool, period_s: float) -> int:
    """Most replicas added (or removed) within any period of control seconds."""
    sign = 1 if up else -1
    moves = [(when * SCALE, max(0, sign * (after - before))) for when, before, after in changes]
    return max((sum(m for t, m in moves if start <= t < start + period_s) for start, _ in moves), default=0)


@pytest.mark.asyncio(loop_scope="module")
async def test_kill_9_and_restart_decides_within_two_sync_periods_and_keeps_to_behavior(scene: Scene) -> None:
    await scene.until(lambda: len(scene.changes) >= 2, 20, "no scaling before the kill")
    for _ in range(2):
        await scene.operator.child.kill()
        replicas = scene.replicas
        await asyncio.sleep(4 * SYNC_S)
        assert scene.replicas == replicas
        killed = time.monotonic()
        await scene.operator.start()
        decided = await first_decision(scene.operator)
        # From its first request on: at 30x, Python's own start alone may take several sync periods.
        began = min(r.time for r in scene.twin.cluster.log if r.time > killed)
        assert decided - began <= 2 * SYNC_S
        await asyncio.sleep(6 * SYNC_S)
    # A period's edges are seen a little late, hence a control second less than the 60 of the rules.
    assert largest_change(scene.changes, up=True, period_s=45) <= 4
    assert largest_change(scene.changes, up=False, period_s=45) <= 2


async def first_decision(operator: OperatorProcess) -> float:
    """When a fresh operator has its first decision, in seconds of time.monotonic()."""
    deadline = time.monotonic() + 20
    async with httpx.AsyncClient() as http:
        while time.monotonic() < deadline:
            try:
                if (await http.get(f"{operator.url}/v1/decisions")).json()["decisions"]:
                    return time.monotonic()
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.01)
    raise AssertionError(operator.child.last_words())


@pytest.mark.asyncio(loop_scope="module")
async def test_without_prometheus_nothing_scales_down_and_it_recovers_by_itself(scene: Scene) -> None:
    prometheus = scene.twin.prometheus
    await scene.until(lambda: scene.condition("MetricsAvailable").get("status") == "True", 20, "no metrics")
    assert prometheus.child is not None
    await prometheus.child.kill()
    await scene.until(lambda: scene.condition("MetricsAvailable").get("status") == "False", 10, "not noticed")
    condition = scene.condition("MetricsAvailable")
    assert condition["reason"]
    assert condition["message"]
    await scene.until(lambda: scene.condition("Fallback").get("status") == "True", 10, "no fallback")
    begun = time.monotonic()
    await asyncio.sleep(16 * SYNC_S)
    assert [c for c in scene.changes if c[0] >= begun and c[2] < c[1]] == []
    await prometheus.start()
    await scene.until(lambda: scene.condition("MetricsAvailable").get("status") == "True", 15, "no recovery")
    await scene.until(lambda: scene.condition("Fallback").get("status") == "False", 5, "still in fallback")
