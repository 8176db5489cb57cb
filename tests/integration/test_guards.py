"""What binds a service beside its load: schedules, limits, zero, other hands, modes, start-up times.

The Deployments and their loads are made once for the module, so that the tests need not wait for Prometheus.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from controller.rivals import SCALED_OBJECTS
from tests.conftest import OperatorFactory
from tests.integration.harness import (
    APPS,
    OBJECTIVE,
    SETTLED_REAL_S,
    TIME_SCALE,
    ApiError,
    Cluster,
    Json,
    Namespace,
    OperatorProcess,
    Prometheus,
    Traffic,
    eventually,
)

PERIOD_S = 15
QUICK_DOWN = {"scaleDown": {"stabilizationWindowSeconds": 0}}
LOADS = {
    "floored": 10.0,
    "floored-pools": 10.0,
    "misspelt": 10.0,
    "sleeper": 30.0,
    "stepwise": 10.0,
    "petty": 40.0,
    "flapping": 40.0,
    "scaled-by-hand": 20.0,
    "edited": 20.0,
    "overruled": 20.0,
    "moded": 10.0,
    "twice-paused": 10.0,
    "recovering": 20.0,
}
SPECS: dict[str, Json] = {
    "sleeper": {
        "minReplicas": 0,
        "scaleToZero": {"activationRequestsPerSecond": "8", "cooldownSeconds": 90},
    },
    "stepwise": {"limits": {"maxStep": 2}},
    "petty": {"limits": {"minStep": 4}, "behavior": {**QUICK_DOWN, "scaleUp": {"tolerance": "0"}}},
    "flapping": {"limits": {"changesPerHour": 1}},
    "scaled-by-hand": {"outsideChange": {"holdSeconds": 200}},
    "edited": {"outsideChange": {"holdSeconds": 3600}},
    "overruled": {"outsideChange": {"holdSeconds": 0}},
    "moded": {},
    "twice-paused": {"mode": "Shadow"},
    "recovering": {"fallback": {"failureThreshold": 1, "recoveryThreshold": 4}},
}


@pytest.fixture(scope="module")
def stage(shared_namespace: Namespace, traffic: Traffic, operator: OperatorProcess) -> Iterator[Namespace]:
    """Deployments under loads that Prometheus knows; one replica for every five requests/s."""
    ns = shared_namespace
    for name, rate in LOADS.items():
        traffic.set(ns.name, name, rate=rate)
        ns.deployment(name, replicas=round(rate / 5))
    time.sleep(SETTLED_REAL_S)
    for name, spec in SPECS.items():
        ns.rlscaler(name, objective=OBJECTIVE, **{"behavior": QUICK_DOWN, **spec})
    for name in SPECS:
        ns.wait_condition(name, "Ready", "True")
    # what takes its time begins now, and is looked at when its test comes
    traffic.set(ns.name, "sleeper", rate=5.0)
    traffic.set(ns.name, "flapping", rate=60.0)
    ns.set_replicas("edited", 9)
    ns.set_replicas("overruled", 9)
    yield ns
    for name in LOADS:
        traffic.drop(ns.name, name)


def decided(ns: Namespace, name: str, **spec: Any) -> None:
    """An RLScaler, and its first decision made."""
    ns.rlscaler(name, **{"objective": OBJECTIVE, "behavior": QUICK_DOWN, **spec})
    eventually(lambda: ns.status(name).get("lastDecision"))


def clamps(ns: Namespace, name: str) -> dict[str, str]:
    """Clamps of the last decision that status shows: name and message."""
    found = ns.status(name)["lastDecision"].get("clamps") or []
    return {clamp["name"]: clamp["message"] for clamp in found}


def periods(count: float) -> None:
    time.sleep(count * PERIOD_S / TIME_SCALE)


def around_now(minutes: int, replicas: int, name: str) -> Json:
    """A schedule in force from so many minutes ago on; from so many minutes to come on where negative."""
    start, end = (datetime.now(UTC) + timedelta(minutes=m) for m in (-minutes, -minutes + 180))
    times = {"start": f"{start:%-M %-H} * * *", "end": f"{end:%-M %-H} * * *"}
    return {"name": name, **times, "timezone": "Etc/UTC", "minReplicas": replicas}


# Schedules


def test_the_largest_floor_in_force_is_kept_and_named_until_it_ends(stage: Namespace) -> None:
    ns, name = stage, "floored"
    floors = [around_now(60, 6, "low"), around_now(90, 8, "office"), around_now(-60, 15, "tonight")]
    decided(ns, name, schedules=floors)
    ns.wait_replicas(name, 8)
    limited = ns.wait_condition(name, "ScalingLimited", "True", "ScheduledFloor")
    assert "schedule office asks for at least 8" in limited["message"]
    assert "schedule office" in clamps(ns, name)["Schedule"]
    ns.patch_spec(name, schedules=[around_now(-60, 15, "tonight")])
    ns.wait_replicas(name, 2, 3)


def test_with_pools_the_floor_is_of_the_total(stage: Namespace) -> None:
    ns, name = stage, "floored-pools"
    for pool in ("spot", "od"):
        ns.deployment(f"{name}-{pool}", replicas=1)
    pools = [
        {"name": pool, "scaleTargetRef": {"kind": "Deployment", "name": f"{name}-{pool}"}, "maxReplicas": 10}
        for pool in ("spot", "od")
    ]
    decided(
        ns,
        name,
        scaleTargetRef=None,
        maxReplicas=None,
        backends=pools,
        metrics={"service": name},
        schedules=[around_now(60, 9, "office")],
    )
    eventually(lambda: sum(ns.replicas(f"{name}-{pool}") for pool in ("spot", "od")) == 9)


def test_a_schedule_that_cannot_be_read_is_named_and_nothing_changes(
    stage: Namespace, traffic: Traffic
) -> None:
    ns, name = stage, "misspelt"
    wrong = {"start": "0 25 * * *", "end": "0 18 * * *", "timezone": "Europe/Pari", "minReplicas": 9}
    ns.rlscaler(name, objective=OBJECTIVE, schedules=[wrong])
    found = ns.wait_condition(name, "Ready", "False", "InvalidSpec")
    assert 'spec.schedules[0].start: Invalid value: "0 25 * * *"' in found["message"]
    assert 'spec.schedules[0].timezone: Invalid value: "Europe/Pari"' in found["message"]
    assert eventually(lambda: ns.events("InvalidSpec"))
    assert ns.replicas(name) == 2
    ns.patch_spec(name, schedules=[around_now(60, 9, "office")])
    ns.wait_replicas(name, 9)
    ns.wait_condition(name, "Ready", "True")


# Zero


def test_a_service_goes_to_zero_after_the_cooldown_and_wakes_above_the_threshold(
    stage: Namespace, traffic: Traffic, operator: OperatorProcess
) -> None:
    ns, name = stage, "sleeper"
    eventually(lambda: ns.replicas(name) == 0, timeout_s=25)
    made = list(reversed(operator.decisions(ns.name, name)))
    zero = next(index for index, each in enumerate(made) if each["desiredReplicas"] == 0)
    busy = max(i for i, each in enumerate(made[:zero]) if each["observation"].get("requestRate", 0) > 8)
    times = [datetime.fromisoformat(made[index]["time"]).timestamp() for index in (busy, zero)]
    # told some milliseconds after its readings, seconds at this time scale; a turn too early would be 15
    assert (times[1] - times[0]) * TIME_SCALE >= 90 - 7.5
    assert min(each["desiredReplicas"] for each in made[:zero]) >= 1

    periods(5)
    assert ns.replicas(name) == 0, "at or below the threshold nothing wakes it"
    assert operator.decisions(ns.name, name)[0]["observation"]["requestRate"] > 0
    traffic.set(ns.name, name, rate=30.0)
    ns.wait_replicas(name, 5, 6, 7)


# Limits


def test_no_decision_moves_by_more_than_the_largest_step(
    stage: Namespace, traffic: Traffic, operator: OperatorProcess
) -> None:
    ns, name = stage, "stepwise"
    traffic.set(ns.name, name, rate=90.0)
    eventually(lambda: ns.replicas(name) >= 7)
    made = operator.decisions(ns.name, name)
    steps = {each["desiredReplicas"] - each["currentReplicas"] for each in made}
    assert 2 in steps
    assert max(map(abs, steps)) == 2
    assert any(clamp["name"] == "MaxStep" for each in made for clamp in each["clamps"])


def test_petty_changes_are_not_made(stage: Namespace, traffic: Traffic, operator: OperatorProcess) -> None:
    ns, name = stage, "petty"
    traffic.set(ns.name, name, rate=48.0)
    ns.wait_condition(name, "ScalingLimited", "True", "StepTooSmall")
    assert ns.replicas(name) == 8
    traffic.set(ns.name, name, rate=90.0)
    eventually(lambda: ns.replicas(name) >= 15)
    made = operator.decisions(ns.name, name)
    assert {abs(each["desiredReplicas"] - each["currentReplicas"]) for each in made} & {1, 2, 3} == set()


def test_a_used_up_flap_budget_is_said_once_and_refuses_only_scale_downs(
    stage: Namespace, traffic: Traffic
) -> None:
    ns, name = stage, "flapping"
    eventually(lambda: ns.replicas(name) >= 10)
    traffic.set(ns.name, name, rate=9.0)
    limited = ns.wait_condition(name, "ScalingLimited", "True", "FlapBudgetUsedUp")
    assert "changesPerHour" in limited["message"]
    high = ns.replicas(name)
    eventually(partial(unchanged_for, ns, name, 5), timeout_s=40)
    assert ns.replicas(name) == high
    told = {event["reason"] for event in all_events(ns, name)} - OF_METRICS
    assert told == {"SuccessfulRescale"}, "a clamp is no Event"
    traffic.set(ns.name, name, rate=90.0)
    eventually(lambda: ns.replicas(name) > high)


OF_METRICS = {"MetricsUnavailable", "MetricsRecovered", "FallbackStarted", "FallbackEnded"}
"""Events that a busy machine's lost scrapes may bring at any time."""


def unchanged_for(ns: Namespace, name: str, count: float) -> bool:
    """Whether so many turns pass without a write to the object."""
    before = ns.get(name)["metadata"]["resourceVersion"]
    periods(count)
    return bool(ns.get(name)["metadata"]["resourceVersion"] == before)


def all_events(ns: Namespace, name: str) -> list[Json]:
    items = ns.api.get(ns.path("/api/v1", "events"))["items"]
    return [item for item in items if item["involvedObject"]["name"] == name]


# Other hands


def test_what_somebody_else_sets_is_left_alone_for_a_while_and_said_once(
    stage: Namespace, operator: OperatorProcess
) -> None:
    ns, name = stage, "scaled-by-hand"
    done = ns.cluster.kubectl("scale", "deployment", name, "--replicas=9", "-n", ns.name)
    assert done.returncode == 0, done.stderr
    able = ns.wait_condition(name, "AbleToScale", "True", "OutsideChange")
    assert able["message"].startswith("kubectl has set 9 replicas; left alone until 2")
    held = ns.status(name)["outsideChange"]
    assert (held["replicas"], held["by"]) == (9, "kubectl")
    assert ns.replicas(name) == 9
    assert "kubectl" in eventually(lambda: clamps(ns, name)["OutsideChange"])
    until = datetime.fromisoformat(held["until"]).timestamp()
    while time.time() < until - 1.0:
        assert ns.replicas(name) == 9
        time.sleep(0.1)
    ns.wait_replicas(name, 4, 5)
    assert "outsideChange" not in eventually(
        lambda: s if "outsideChange" not in (s := ns.status(name)) else None
    )
    ns.wait_condition(name, "AbleToScale", "True", "ReadyForNewScale")
    (event,) = [event for event in all_events(ns, name) if event["reason"] == "OutsideChange"]
    assert event.get("count", 1) == 1
    assert event["type"] == "Warning"


def test_a_change_of_the_spec_ends_the_wait(stage: Namespace) -> None:
    ns, name = stage, "edited"
    ns.wait_condition(name, "AbleToScale", "True", "OutsideChange")
    ns.patch_spec(name, objective={"preference": 60})
    ns.wait_replicas(name, 4, 5)
    eventually(lambda: "outsideChange" not in ns.status(name))


def test_with_no_hold_replicas_are_set_again_at_once(stage: Namespace) -> None:
    ns, name = stage, "overruled"
    ns.wait_replicas(name, 4, 5)
    assert [event for event in all_events(ns, name) if event["reason"] == "OutsideChange"] == []


@pytest.mark.twin_only
def test_a_restart_forgets_no_hold_and_no_start_up_time_and_takes_no_own_write_for_anothers(
    namespace: Namespace, traffic: Traffic, prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    ns, twin = namespace, namespace.cluster.twin
    names = ("held", "unwritten", "raced", "anew")
    for name in names:
        traffic.set(ns.name, name, rate=20.0)
        ns.deployment(name, replicas=4)
    time.sleep(SETTLED_REAL_S)
    operator = make_operator(prometheus)
    for name in names:
        ns.rlscaler(name, objective=OBJECTIVE, behavior=QUICK_DOWN, outsideChange={"holdSeconds": 36000})
    for name in names:
        ns.wait_condition(name, "Ready", "True")
    assert "startUpSeconds" not in ns.status("raced")
    ns.set_replicas("held", 9)
    ns.wait_condition("held", "AbleToScale", "True", "OutsideChange")
    held = ns.status("held")["outsideChange"]

    # scaled, but the operator dies before it can say so
    status = f"/{ns.name}/rlscalers/unwritten/status"
    blocked = twin.inject(method="PATCH", path=status, code=500, times=1000)
    # pods that became ready between the read and the write
    twin.inject(method="PATCH", path=f"/{ns.name}/deployments/raced/scale", code=409, times=1)
    traffic.set(ns.name, "unwritten", rate=60.0)
    traffic.set(ns.name, "raced", rate=60.0)
    ns.api.delete(ns.path(APPS, "deployments", "anew"))
    ns.deployment("anew", replicas=2)
    for name, least in (("unwritten", 8), ("raced", 11), ("anew", 4)):
        eventually(partial(at_least, ns, name, least), timeout_s=25)
    learned = eventually(lambda: ns.status("raced").get("startUpSeconds"), timeout_s=25)
    assert 5 <= learned < 60, "the twin's pods take 10 s, and are looked at every 15 s"
    assert ns.status("unwritten")["desiredReplicas"] < 8
    operator.kill()
    blocked.times = 0
    operator.start()
    eventually(lambda: ns.status("unwritten")["desiredReplicas"] >= 8)
    eventually(lambda: operator.decisions(ns.name, "held"))
    assert ns.replicas("held") == 9
    assert ns.status("held")["outsideChange"] == held
    assert ns.status("raced")["startUpSeconds"] == pytest.approx(learned, rel=0.4)
    assert [event["involvedObject"]["name"] for event in ns.events("OutsideChange")] == ["held"]
    ns.patch_spec("held", objective={"preference": 60})
    ns.wait_replicas("held", 4, 5)
    assert operator.errors() == []


def at_least(ns: Namespace, name: str, replicas: int) -> bool:
    return ns.replicas(name) >= replicas


KEDA_CRD: Json = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "scaledobjects.keda.sh"},
    "spec": {
        "group": "keda.sh",
        "scope": "Namespaced",
        "names": {"kind": "ScaledObject", "plural": "scaledobjects"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                },
            }
        ],
    },
}


@pytest.fixture
def keda(cluster: Cluster) -> Iterator[None]:
    """KEDA's kind is served, where it is not already."""
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    try:
        cluster.api.get(f"{crds}/scaledobjects.keda.sh")
        yield
        return
    except ApiError:
        cluster.api.create(crds, KEDA_CRD)
    eventually(lambda: cluster.serves("keda.sh/v1alpha1"))
    yield
    cluster.api.delete(f"{crds}/scaledobjects.keda.sh")


@pytest.mark.usefixtures("keda")
def test_a_scaled_object_of_kedas_on_the_same_target_is_a_conflict_until_it_is_gone(
    namespace: Namespace, traffic: Traffic, prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    ns, path = namespace, SCALED_OBJECTS.path(namespace.name)
    traffic.set(ns.name, "contested", rate=40.0)
    ns.deployment("contested", replicas=4)
    time.sleep(SETTLED_REAL_S)
    operator = make_operator(prometheus)
    body = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "rival"}}
    ns.api.create(path, {**body, "spec": {"scaleTargetRef": {"name": "contested"}}})
    decided(ns, "contested")
    found = ns.wait_condition("contested", "AbleToScale", "False", "ConflictingAutoscaler")
    assert found["message"].startswith("ScaledObject rival scales Deployment ")
    assert eventually(lambda: ns.events("ConflictingAutoscaler"))
    assert ns.replicas("contested") == 4
    ns.set_replicas("contested", 5)
    periods(3)
    assert ns.replicas("contested") == 5
    assert ns.events("OutsideChange") == [], "what a known rival does is a conflict"
    ns.api.delete(f"{path}/rival")
    ns.wait_replicas("contested", 7, 8, 9)
    assert operator.errors() == []


# Modes


def test_from_active_to_shadow_and_back_only_active_writes(
    stage: Namespace, traffic: Traffic, operator: OperatorProcess
) -> None:
    ns, name = stage, "moded"
    ns.patch_spec(name, mode="Shadow")
    ns.wait_condition(name, "Ready", "True", "Shadowing")
    left = ns.replicas(name)
    traffic.set(ns.name, name, rate=45.0)
    eventually(lambda: ns.status(name).get("recommendedReplicas", 0) >= 8)
    assert ns.replicas(name) == left
    ns.set_replicas(name, left + 1)
    eventually(lambda: ns.status(name)["currentReplicas"] == left + 1)
    assert "outsideChange" not in ns.status(name), "a Shadow has nothing to give way with"
    ns.patch_spec(name, mode="Active")
    ns.wait_replicas(name, 8, 9, 10)
    acted = [each["mode"] for each in operator.decisions(ns.name, name) if each["acted"]]
    assert set(acted) == {"Active"}


def test_two_ways_of_pausing_add_up_and_a_paused_shadow_decides_nothing(
    stage: Namespace, traffic: Traffic, operator: OperatorProcess
) -> None:
    ns, name, note = stage, "twice-paused", "rlscaler.dev/paused"
    ns.annotate(name, note, "true")
    ns.wait_condition(name, "Paused", "True", "PausedByAnnotation")
    ns.patch_spec(name, mode="Paused")
    ns.wait_condition(name, "Paused", "True", "PausedByMode")
    ns.annotate(name, note, None)
    periods(2)
    ns.wait_condition(name, "Paused", "True", "PausedByMode")
    ns.annotate(name, note, "true")
    ns.patch_spec(name, mode="Active")
    ns.wait_condition(name, "Paused", "True", "PausedByAnnotation")
    made, left = len(operator.decisions(ns.name, name)), ns.replicas(name)
    traffic.set(ns.name, name, rate=45.0)
    periods(4)
    assert len(operator.decisions(ns.name, name)) == made
    assert ns.replicas(name) == left
    ns.annotate(name, note, "false")
    ns.wait_replicas(name, 8, 9, 10)
    ns.wait_condition(name, "Paused", "False")


# Fallback and start-up times


def test_after_a_fallback_the_policy_decides_at_the_so_manieth_good_reading(
    stage: Namespace, traffic: Traffic, operator: OperatorProcess
) -> None:
    ns, name = stage, "recovering"
    traffic.drop(ns.name, name)
    ns.wait_condition(name, "Fallback", "True", "MetricsUnavailable")
    traffic.set(ns.name, name, rate=20.0)
    ns.wait_condition(name, "Fallback", "False", "PolicyInCharge")
    chain = [each["fallback"] for each in reversed(operator.decisions(ns.name, name))]
    last = len(chain) - 1 - chain[::-1].index("MetricsUnavailable")
    after = chain[last + 1 :]
    assert after[:4] == ["Recovering"] * 3 + [None]
