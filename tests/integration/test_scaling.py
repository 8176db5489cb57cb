"""The loop closed: real Prometheus, the operator as a process, replicas that follow the load."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import pytest

from tests.integration.harness import (
    OBJECTIVE,
    TIME_SCALE,
    Namespace,
    OperatorProcess,
    Traffic,
    eventually,
    service_under_load,
)

DOWN_BY_TWO_A_MINUTE = {
    "scaleDown": {
        "stabilizationWindowSeconds": 60,
        "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}],
    }
}


def start(ns: Namespace, traffic: Traffic, name: str, rate: float, replicas: int, **spec: object) -> None:
    """A service under load with its RLScaler, and the first decision made."""
    service_under_load(ns, traffic, name, rate, replicas, **spec)
    eventually(lambda: ns.status(name).get("lastDecision"))


def test_replicas_rise_with_the_load(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    start(ns, traffic, "rises", rate=10.0, replicas=2)
    ns.wait_condition("rises", "Ready", "True", "Scaling")
    traffic.set(ns.name, "rises", rate=48.0)
    ns.wait_replicas("rises", 9, 10, 11)

    status = eventually(lambda: s if (s := ns.status("rises")).get("desiredReplicas", 0) >= 9 else None)
    assert status["currentReplicas"] == status["desiredReplicas"]
    assert status["policy"] == {"type": "HPA", "name": "hpa"}
    assert status["lastScaleTime"]
    assert eventually(lambda: ns.events("SuccessfulRescale"))


def test_replicas_stop_at_max_replicas_and_the_clamp_is_named(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    start(ns, traffic, "bounded", rate=200.0, replicas=4, maxReplicas=6)
    ns.wait_replicas("bounded", 6)
    limited = ns.wait_condition("bounded", "ScalingLimited", "True", "TooManyReplicas")
    assert "6" in limited["message"]
    assert [clamp["name"] for clamp in ns.status("bounded")["lastDecision"]["clamps"]]


def test_replicas_fall_no_sooner_and_no_faster_than_behavior_says(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    metrics = {"windowSeconds": 60}
    start(ns, traffic, "falls", rate=40.0, replicas=8, behavior=DOWN_BY_TWO_A_MINUTE, metrics=metrics)
    ns.wait_condition("falls", "Ready", "True")
    time.sleep(90 / TIME_SCALE)
    assert ns.replicas("falls") == 8
    dropped_s = time.time() * TIME_SCALE
    traffic.set(ns.name, "falls", rate=9.0)
    ns.wait_replicas("falls", 2, timeout_s=30)

    eventually(lambda: changes(operator, ns, "falls")[-1][2] == 2)
    downs = [change for change in changes(operator, ns, "falls") if change[0] > dropped_s]
    assert [before for _, before, _ in downs] == [8, *(after for *_, after in downs[:-1])], downs
    assert all(after < before for _, before, after in downs), downs
    assert downs[0][0] - dropped_s > 57, (
        "the window of 60 s had not passed since the last high recommendation"
    )
    for at_s, *_ in downs:
        in_a_minute = sum(b - a for t, b, a in downs if at_s - 57 < t <= at_s)
        assert in_a_minute <= 2, downs


def changes(operator: OperatorProcess, ns: Namespace, name: str) -> list[tuple[float, int, int]]:
    """Every change of replicas that the operator made, oldest first: control seconds, before, after."""
    made = [decision for decision in operator.decisions(ns.name, name) if decision["acted"]]
    return [
        (
            datetime.fromisoformat(decision["time"]).timestamp() * TIME_SCALE,
            decision["currentReplicas"],
            decision["desiredReplicas"],
        )
        for decision in reversed(made)
    ]


def test_a_shadow_decides_and_records_and_never_acts(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    start(ns, traffic, "shadow", rate=48.0, replicas=2, mode="Shadow")
    eventually(lambda: ns.status("shadow").get("recommendedReplicas", 0) >= 4)
    ns.wait_condition("shadow", "Ready", "True", "Shadowing")
    assert ns.status("shadow")["desiredReplicas"] > 2
    time.sleep(4 * 15 / TIME_SCALE)
    assert ns.replicas("shadow") == 2
    recorded = operator.decisions(ns.name, "shadow")
    assert len(recorded) >= 4
    assert not any(decision["acted"] for decision in recorded)


Pause = Callable[[Namespace, str, bool], None]


def pause_by_mode(ns: Namespace, name: str, paused: bool) -> None:
    ns.patch_spec(name, mode="Paused" if paused else "Active")


def pause_by_annotation(ns: Namespace, name: str, paused: bool) -> None:
    ns.annotate(name, "rlscaler.dev/paused", "true" if paused else None)


@pytest.mark.parametrize(
    ("name", "pause", "reason"),
    [
        pytest.param("paused-mode", pause_by_mode, "PausedByMode", id="by mode"),
        pytest.param("paused-note", pause_by_annotation, "PausedByAnnotation", id="by annotation"),
    ],
)
def test_a_paused_one_is_left_alone_until_it_is_resumed(
    operator: OperatorProcess,
    shared_namespace: Namespace,
    traffic: Traffic,
    name: str,
    pause: Pause,
    reason: str,
) -> None:
    ns = shared_namespace
    start(ns, traffic, name, rate=10.0, replicas=2)
    pause(ns, name, True)
    ns.wait_condition(name, "Paused", "True", reason)
    decided, left = operator.decisions(ns.name, name)[0]["time"], ns.replicas(name)
    traffic.set(ns.name, name, rate=48.0)
    time.sleep(5 * 15 / TIME_SCALE)
    assert ns.replicas(name) == left
    assert operator.decisions(ns.name, name)[0]["time"] == decided

    pause(ns, name, False)
    ns.wait_replicas(name, 9, 10, 11)
    ns.wait_condition(name, "Paused", "False")
    assert ns.events("Resumed")


def test_a_target_scaled_to_zero_by_hand_is_left_alone(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    start(ns, traffic, "zeroed", rate=20.0, replicas=0)
    ns.wait_condition("zeroed", "ScalingActive", "False", "ScalingDisabled")
    assert ns.replicas("zeroed") == 0


def test_a_changed_spec_counts_at_once(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    start(ns, traffic, "edited", rate=20.0, replicas=4, syncPeriodSeconds=300)
    ns.patch_spec("edited", minReplicas=7)
    ns.wait_replicas("edited", 7, timeout_s=3.0)


def test_a_deleted_rlscaler_leaves_the_replicas_as_they_are(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    start(ns, traffic, "deleted", rate=10.0, replicas=2)
    ns.api.delete(ns.path("/apis/rlscaler.dev/v1alpha1", "rlscalers", "deleted"))
    time.sleep(0.3)  # a turn that was under way ends
    left = ns.replicas("deleted")
    assert left >= 2
    traffic.set(ns.name, "deleted", rate=48.0)
    time.sleep(3 * 15 / TIME_SCALE)
    assert ns.replicas("deleted") == left


def test_the_policy_that_comes_with_the_operator_decides(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    """Whatever it has learned, it is loaded, in charge, inside the bounds, and serves the load."""
    ns = shared_namespace
    learned = {"type": "RL", "artifact": {"builtin": "default"}}
    objective = {**OBJECTIVE, "slo": {"latency": {"percentile": 95, "milliseconds": 250}}, "preference": 80}
    service_under_load(ns, traffic, "learned", rate=20.0, replicas=4, policy=learned, objective=objective)
    loaded = ns.wait_condition("learned", "PolicyReady", "True", "PolicyLoaded")
    ns.wait_condition("learned", "Fallback", "False", "PolicyInCharge")
    policy = ns.status("learned")["policy"]
    assert policy["type"] == "RL"
    assert policy["digest"].startswith("sha256:")
    assert policy["digest"] in loaded["message"]
    traffic.set(ns.name, "learned", rate=95.0)
    eventually(lambda: 10 <= ns.replicas("learned") <= 20)


def test_another_systems_formula_decides_and_status_names_it(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns = shared_namespace
    keda = {"type": "Formula", "formula": {"name": "KEDA", "requestsPerReplica": "4"}}
    start(ns, traffic, "formula", rate=12.0, replicas=3, policy=keda)
    ready = ns.wait_condition("formula", "PolicyReady", "True")
    assert ready["message"] == "KEDA is a formula; there is nothing to load"
    assert ns.status("formula")["policy"] == {"type": "Formula", "name": "KEDA"}
    traffic.set(ns.name, "formula", rate=40.0)
    ns.wait_replicas("formula", 9, 10, 11)
    ns.patch_spec("formula", policy={"type": "HPA", "formula": None})
    eventually(lambda: ns.status("formula")["policy"] == {"type": "HPA", "name": "hpa"})
