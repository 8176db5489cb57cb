"""What breaks around the operator, and that it neither scales down on it nor forgets over it."""

from __future__ import annotations

import threading
import time
from datetime import datetime

import pytest

from tests.conftest import OperatorFactory
from tests.integration.harness import (
    APPS,
    SETTLED_REAL_S,
    TIME_SCALE,
    ApiError,
    Namespace,
    OperatorProcess,
    Prometheus,
    Traffic,
    eventually,
    http_get,
    service_under_load,
)

PERIOD_S = 15
SLOW_DOWN = {
    "scaleDown": {
        "stabilizationWindowSeconds": 120,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
    }
}


def start(ns: Namespace, traffic: Traffic, name: str, rate: float, replicas: int, **spec: object) -> None:
    service_under_load(ns, traffic, name, rate, replicas, **spec)
    ns.wait_condition(name, "Ready", "True")


def test_prometheus_down_is_a_fallback_without_scale_down_and_recovers_by_itself(
    namespace: Namespace, traffic: Traffic, own_prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    ns = namespace
    make_operator(own_prometheus)
    start(ns, traffic, "web", rate=40.0, replicas=8, behavior=SLOW_DOWN)

    own_prometheus.stop()
    found = ns.wait_condition("web", "MetricsAvailable", "False", "PrometheusUnreachable")
    assert own_prometheus.address in found["message"]
    ns.wait_condition("web", "Fallback", "True", "MetricsUnavailable")
    ns.wait_condition("web", "Ready", "False")
    traffic.set(ns.name, "web", rate=60.0)
    time.sleep(10 * PERIOD_S / TIME_SCALE)
    assert ns.replicas("web") == 8
    assert ns.events("FallbackStarted")

    own_prometheus.start()
    ns.wait_condition("web", "MetricsAvailable", "True")
    ns.wait_condition("web", "Fallback", "False", "PolicyInCharge")
    ns.wait_replicas("web", 11, 12, 13)
    assert eventually(lambda: ns.events("FallbackEnded"))
    assert eventually(lambda: ns.events("MetricsRecovered"))


def test_a_static_fallback_raises_replicas_and_never_lowers_them(
    namespace: Namespace, traffic: Traffic, own_prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    ns = namespace
    make_operator(own_prometheus)
    static = {"behavior": "Static", "replicas": 6}
    start(ns, traffic, "low", rate=15.0, replicas=3, fallback=static)
    start(ns, traffic, "high", rate=45.0, replicas=9, fallback=static)
    own_prometheus.stop()
    ns.wait_replicas("low", 6)
    time.sleep(6 * PERIOD_S / TIME_SCALE)
    assert ns.replicas("high") == 9


def test_after_kill_9_decisions_go_on_within_two_periods_and_behavior_still_binds(
    namespace: Namespace, traffic: Traffic, prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    ns = namespace
    operator = make_operator(prometheus)
    start(ns, traffic, "web", rate=40.0, replicas=8, behavior=SLOW_DOWN)
    time.sleep(2 * PERIOD_S / TIME_SCALE)
    traffic.set(ns.name, "web", rate=9.0)
    dropped = time.monotonic()
    ns.wait_replicas("web", 7, timeout_s=20)
    first_down = time.monotonic()
    assert (first_down - dropped) * TIME_SCALE > 100
    eventually(lambda: ns.status("web")["desiredReplicas"] == 7)
    seen = ns.status("web")

    operator.kill()
    operator.start()
    listed = time.monotonic()
    eventually(lambda: operator.decisions(ns.name, "web"))
    assert (time.monotonic() - listed) * TIME_SCALE <= 2 * PERIOD_S

    # One replica a minute, and a restart is no way round it: the window is 120 s from the restart.
    assert ns.replicas("web") == 7
    again = ns.wait_replicas("web", 6, timeout_s=20)
    assert again == 6
    assert (time.monotonic() - first_down) * TIME_SCALE > 55
    assert ns.status("web")["observedGeneration"] == seen["observedGeneration"]


def test_after_kill_9_in_the_middle_of_a_rise_the_load_is_known_at_once(
    namespace: Namespace, traffic: Traffic, prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    ns = namespace
    operator = make_operator(prometheus)
    start(ns, traffic, "web", rate=40.0, replicas=8)
    operator.kill()
    traffic.set(ns.name, "web", rate=72.0)
    time.sleep(SETTLED_REAL_S)
    operator.start()
    first = eventually(lambda: operator.decisions(ns.name, "web"))[-1]
    assert first["fallback"] is None
    assert first["observation"]["requestRate"] > 60
    ns.wait_replicas("web", 14, 15, 16)


def test_a_restarted_operator_does_not_tell_old_news_again(
    namespace: Namespace, traffic: Traffic, prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    ns = namespace
    operator = make_operator(prometheus)
    ns.rlscaler("lost", scaleTargetRef={"kind": "Deployment", "name": "absent"})
    ns.wait_condition("lost", "AbleToScale", "False", "TargetNotFound")
    eventually(lambda: ns.events("TargetNotFound"))
    before = ns.get("lost")["metadata"]["resourceVersion"]
    operator.kill()
    operator.start()
    time.sleep(3 * PERIOD_S / TIME_SCALE)
    assert [event["count"] for event in ns.events("TargetNotFound")] == [1]
    assert ns.get("lost")["metadata"]["resourceVersion"] == before


def test_another_writer_is_never_overwritten_with_what_was_decided_before_it_wrote(
    namespace: Namespace, traffic: Traffic, prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    """Somebody else touches the Deployment all the time; scaling up still gets through."""
    ns = namespace
    operator = make_operator(prometheus)
    start(ns, traffic, "web", rate=40.0, replicas=8)
    over = threading.Event()

    def touch() -> None:
        path, number = ns.path(APPS, "deployments", "web"), 0
        while not over.is_set():
            number += 1
            try:
                ns.api.patch(path, {"metadata": {"annotations": {"touched": str(number)}}})
            except ApiError:
                continue
            time.sleep(0.02)

    writer = threading.Thread(target=touch)
    writer.start()
    try:
        traffic.set(ns.name, "web", rate=72.0)
        ns.wait_replicas("web", 14, 15, 16)
    finally:
        over.set()
        writer.join()
    assert operator.errors() == []


@pytest.mark.twin_only
def test_a_write_that_loses_the_race_is_read_again_and_reported(
    namespace: Namespace, traffic: Traffic, prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    ns = namespace
    make_operator(prometheus)
    start(ns, traffic, "web", rate=40.0, replicas=8)
    twin = ns.cluster.twin
    races = twin.inject(method="PATCH", path=f"/{ns.name}/deployments/web/scale$", code=409, times=4)
    traffic.set(ns.name, "web", rate=72.0)
    found = ns.wait_condition("web", "AbleToScale", "False", "ScaleConflict")
    assert found["message"]
    ns.wait_replicas("web", 14, 15, 16)
    assert races.hits == 4
    ns.wait_condition("web", "AbleToScale", "True")


@pytest.mark.twin_only
def test_an_overloaded_api_server_is_given_the_time_that_it_asks_for(
    namespace: Namespace, traffic: Traffic, prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    ns = namespace
    operator = make_operator(prometheus)
    start(ns, traffic, "web", rate=40.0, replicas=8)
    twin = ns.cluster.twin
    path = f"/namespaces/{ns.name}/deployments/web"
    busy = twin.inject(method="GET", path=f"{path}$", code=429, retry_after_s=1, times=1)
    eventually(lambda: busy.hits == 1)
    hit = time.monotonic()
    eventually(lambda: later_than(operator, ns, hit_wall=time.time() - (time.monotonic() - hit)))
    assert time.monotonic() - hit >= 0.9
    assert operator.errors() == []


def later_than(operator: OperatorProcess, ns: Namespace, hit_wall: float) -> bool:
    newest = operator.decisions(ns.name, "web")[0]["time"]
    return datetime.fromisoformat(newest).timestamp() > hit_wall + 0.05


@pytest.mark.twin_only
def test_api_errors_on_one_object_do_not_stop_another(
    namespace: Namespace, traffic: Traffic, prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    ns = namespace
    make_operator(prometheus)
    start(ns, traffic, "broken", rate=40.0, replicas=8)
    start(ns, traffic, "sound", rate=40.0, replicas=8)
    ns.cluster.twin.inject(path=f"/namespaces/{ns.name}/deployments/broken", code=500, times=1000)
    ns.wait_condition("broken", "AbleToScale", "False", "FailedGetScale")
    traffic.set(ns.name, "sound", rate=72.0)
    ns.wait_replicas("sound", 14, 15, 16)
    ns.cluster.twin.cluster.faults.clear()
    ns.wait_condition("broken", "AbleToScale", "True")


@pytest.mark.twin_only
def test_an_api_server_that_is_away_for_a_while_is_waited_for(
    namespace: Namespace, traffic: Traffic, prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    ns = namespace
    operator = make_operator(prometheus)
    start(ns, traffic, "web", rate=40.0, replicas=8)
    twin = ns.cluster.twin
    away = twin.inject(path=f"/namespaces/{ns.name}/", code=503, times=1_000_000)
    traffic.set(ns.name, "web", rate=72.0)
    time.sleep(4 * PERIOD_S / TIME_SCALE)
    assert away.hits > 0
    assert http_get(f"{operator.url}/healthz") == (200, "ok")
    twin.cluster.faults.clear()
    ns.wait_replicas("web", 14, 15, 16)
    assert operator.errors() == []


def test_health_telemetry_and_decisions_are_served(
    namespace: Namespace, traffic: Traffic, prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    ns = namespace
    operator = make_operator(prometheus)
    start(ns, traffic, "web", rate=40.0, replicas=8)
    assert http_get(f"{operator.url}/healthz") == (200, "ok")
    assert http_get(f"{operator.url}/readyz") == (200, "ok")
    _, metrics = http_get(f"{operator.url}/metrics")
    labels = f'{{name="web",namespace="{ns.name}"}}'
    assert f"rlscaler_current_replicas{labels} 8.0" in metrics
    assert f"rlscaler_desired_replicas{labels} 8.0" in metrics
    for name in (
        'rlscaler_reconciliations_total{action="none",error="none"}',
        "rlscaler_reconciliation_duration_seconds_count",
        "rlscaler_tick_lag_seconds_count",
        'rlscaler_metric_queries_total{outcome="OK",signal="requestRate"}',
        "rlscaler_policy_inference_seconds_count",
    ):
        assert name in metrics
    decision = operator.decisions(ns.name, "web")[0]
    assert decision["desiredReplicas"] == 8
    assert decision["observation"]["requestRate"] > 30
    assert operator.decisions(ns.name, "nobody") == []
    assert http_get(f"{operator.url}/v1/decisions?limit=0")[0] == 422


def test_a_sigterm_ends_it_soon_and_leaves_replicas_alone(
    namespace: Namespace, traffic: Traffic, prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    ns = namespace
    operator = make_operator(prometheus)
    start(ns, traffic, "web", rate=40.0, replicas=8)
    asked = time.monotonic()
    assert operator.stop() == 0
    assert time.monotonic() - asked < 5
    assert operator.errors() == []
    assert ns.replicas("web") == 8
