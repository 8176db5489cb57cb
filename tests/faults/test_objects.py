"""Objects that change under the operator's hands: edits in mid-tick, targets made anew, artifacts, rivals."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator

import pytest

from tests.faults import artifacts
from tests.faults.conftest import RigFactory
from tests.faults.invariants import own_writes
from tests.faults.rig import CAREFUL, EAGER, PATIENCE_REAL_S, PERIOD_S, Rig, control
from tests.integration.harness import APPS, RLSCALERS, eventually

LOW, HIGH = 20.0, 60.0
AT_LOW, AT_HIGH = 4, 12
HOLD_S = 120
NAMES = ("edited", "removed", "remade", "rival", "status", "hpa", "artifact", "paused", "raced")


@pytest.fixture(scope="module")
def rig(make_rig: RigFactory) -> Iterator[Rig]:
    rig = make_rig(RLSCALER_WATCH_TARGETS_FROM="1")
    artifacts.put(rig.ns, "artifact", artifacts.SOUND)
    hold = {"outsideChange": {"holdSeconds": HOLD_S}}
    for name in NAMES:
        behavior = CAREFUL if name == "status" else EAGER
        policy = artifacts.policy_of(name) if name == "artifact" else {"type": "HPA"}
        rig.service(name, rate=LOW, replicas=AT_LOW, behavior=behavior, policy=policy, **hold)
    rig.start()
    for name in NAMES:
        rig.wait_condition(name, "Ready", "True")
    yield rig
    rig.verify()


def in_mid_tick(rig: Rig, name: str, change: Callable[[], None]) -> None:
    """Make a change when the operator has decided about a service and is about to write its replicas."""
    fault = rig.api.inject(path=f"/deployments/{name}/scale$", method="PATCH", times=1, before=change)
    rig.rate(name, HIGH)
    eventually(lambda: fault.hits == 1, timeout_s=PATIENCE_REAL_S)


def test_an_edit_in_mid_tick_counts_from_the_next_turn_on(rig: Rig) -> None:
    in_mid_tick(rig, "edited", lambda: rig.ns.patch_spec("edited", maxReplicas=6))
    rig.ns.wait_replicas("edited", 6, timeout_s=PATIENCE_REAL_S)
    seen = rig.wait_decided("edited", time.time(), times=2)
    assert all(decision["desiredReplicas"] <= 6 for decision in seen)


def test_an_rlscaler_deleted_in_mid_tick_leaves_the_target_alone(rig: Rig) -> None:
    path = rig.ns.path(RLSCALERS, "rlscalers", "removed")
    in_mid_tick(rig, "removed", lambda: rig.ns.api.delete(path))
    time.sleep(control(2 * PERIOD_S))
    before = len(rig.watcher.history.of("removed"))
    rig.rate("removed", 5.0)
    time.sleep(control(4 * PERIOD_S))
    assert len(rig.watcher.history.of("removed")) == before
    rig.rlscaler("removed", behavior=EAGER)
    rig.ns.wait_replicas("removed", 1, timeout_s=PATIENCE_REAL_S)


def test_a_target_that_is_made_anew_is_scaled_like_any_other(rig: Rig) -> None:
    path = rig.ns.path(APPS, "deployments", "remade")
    with rig.excuse("remade"):
        in_mid_tick(rig, "remade", lambda: rig.ns.api.delete(path))
        rig.wait_condition("remade", "AbleToScale", "False", "TargetNotFound")
        rig.ns.deployment("remade", replicas=2)
        rig.wait_condition("remade", "AbleToScale", "True")
    rig.ns.wait_replicas("remade", AT_HIGH, timeout_s=PATIENCE_REAL_S)


def test_replicas_that_somebody_else_has_set_are_left_alone_for_a_while(rig: Rig) -> None:
    rig.ns.set_replicas("rival", 9)
    began = time.time()
    eventually(lambda: rig.ns.status("rival").get("outsideChange"), timeout_s=PATIENCE_REAL_S)
    rig.rate("rival", HIGH)
    assert rig.ns.status("rival")["outsideChange"]["replicas"] == 9
    rig.ns.wait_replicas("rival", AT_HIGH, timeout_s=PATIENCE_REAL_S)
    first = next(w for w in own_writes(rig.evidence()) if w.name == "rival" and w.at > began)
    assert first.at - began >= control(HOLD_S) * 0.9


def test_who_is_quicker_in_mid_tick_is_not_overwritten(rig: Rig) -> None:
    in_mid_tick(rig, "raced", lambda: rig.ns.set_replicas("raced", 7))
    eventually(lambda: rig.ns.status("raced").get("outsideChange"), timeout_s=PATIENCE_REAL_S)
    values = [record.replicas for record in rig.watcher.history.of("raced")]
    assert values[:2] == [AT_LOW, 7]
    rig.ns.wait_replicas("raced", AT_HIGH, timeout_s=PATIENCE_REAL_S)


def test_an_hpa_on_the_target_stops_the_writing_until_it_is_gone(rig: Rig) -> None:
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "hpa"}
    body = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "hpa"},
        "spec": {"scaleTargetRef": ref, "minReplicas": 1, "maxReplicas": 10},
    }
    path = rig.ns.path("/apis/autoscaling/v2", "horizontalpodautoscalers")
    rig.ns.api.create(path, body)
    rig.watcher.history.hpas["hpa"] = [(time.time(), True)]
    rig.wait_condition("hpa", "AbleToScale", "False", "ConflictingAutoscaler")
    rig.rate("hpa", HIGH)
    time.sleep(control(4 * PERIOD_S))
    assert rig.ns.replicas("hpa") == AT_LOW
    rig.watcher.history.hpas["hpa"].append((time.time(), False))
    rig.ns.api.delete(f"{path}/hpa")
    rig.ns.wait_replicas("hpa", AT_HIGH, timeout_s=PATIENCE_REAL_S)


def test_a_status_that_somebody_else_wrote_is_put_right(rig: Rig) -> None:
    rig.overwrite_status("status", {"desiredReplicas": 99, "conditions": [], "stabilization": None})
    rig.rate("status", HIGH)
    rig.ns.wait_replicas("status", AT_HIGH, timeout_s=PATIENCE_REAL_S)
    eventually(lambda: rig.ns.status("status")["desiredReplicas"] == AT_HIGH, timeout_s=PATIENCE_REAL_S)
    rig.wait_condition("status", "Ready", "True")


def test_a_status_is_put_right_even_where_nothing_happens(rig: Rig) -> None:
    eventually(lambda: rig.ns.status("status")["desiredReplicas"] == AT_HIGH, timeout_s=PATIENCE_REAL_S)
    rig.overwrite_status("status", {"desiredReplicas": 99, "conditions": []})
    eventually(lambda: rig.ns.status("status")["desiredReplicas"] == AT_HIGH, timeout_s=PATIENCE_REAL_S)
    rig.wait_condition("status", "Ready", "True")


def test_a_pause_in_mid_tick_holds_from_the_next_turn_on(rig: Rig) -> None:
    in_mid_tick(rig, "paused", lambda: rig.ns.annotate("paused", "rlscaler.dev/paused", "true"))
    rig.wait_condition("paused", "Paused", "True")
    before = rig.ns.replicas("paused")
    rig.rate("paused", 5.0)
    time.sleep(control(4 * PERIOD_S))
    assert rig.ns.replicas("paused") == before
    rig.ns.annotate("paused", "rlscaler.dev/paused", None)
    rig.ns.wait_replicas("paused", 1, timeout_s=PATIENCE_REAL_S)


@pytest.mark.parametrize("what", artifacts.BROKEN)
def test_an_artifact_that_breaks_leaves_the_policy_in_charge_and_says_so(rig: Rig, what: str) -> None:
    data, reason = artifacts.BROKEN[what]
    digest = rig.ns.status("artifact")["policy"]["digest"]
    artifacts.put(rig.ns, "artifact", data)
    read_anew(rig)
    found = rig.wait_condition("artifact", "PolicyReady", "True", "ReloadFailed")
    assert reason in found["message"]
    rig.decisions_go_on("artifact")
    assert rig.ns.status("artifact")["policy"]["digest"] == digest
    artifacts.put(rig.ns, "artifact", artifacts.SOUND)
    read_anew(rig)
    rig.wait_condition("artifact", "PolicyReady", "True", "PolicyLoaded")


def test_a_broken_artifact_at_the_start_is_a_fallback_until_it_is_sound(rig: Rig) -> None:
    data, reason = artifacts.BROKEN["wrong schema"]
    artifacts.put(rig.ns, "artifact", data)
    rig.restart()
    rig.wait_condition("artifact", "PolicyReady", "False", reason)
    rig.wait_condition("artifact", "Fallback", "True", "PolicyUnavailable")
    rig.decisions_go_on("artifact")
    artifacts.put(rig.ns, "artifact", artifacts.SOUND)
    read_anew(rig)
    rig.wait_condition("artifact", "PolicyReady", "True", "PolicyLoaded")
    rig.wait_condition("artifact", "Fallback", "False")


def read_anew(rig: Rig) -> None:
    """An edit, so that the artifact is read now and not at the next look."""
    before = rig.ns.get("artifact")["spec"].get("minReplicas", 1)
    rig.ns.patch_spec("artifact", minReplicas=3 - before)


def test_a_swapped_artifact_is_told_by_its_digest(rig: Rig) -> None:
    artifacts.put(rig.ns, "artifact", artifacts.OTHER)
    read_anew(rig)
    digest = "sha256:" + hashlib.sha256(artifacts.OTHER).hexdigest()
    eventually(lambda: rig.ns.status("artifact")["policy"]["digest"] == digest, timeout_s=PATIENCE_REAL_S)
    assert rig.ns.status("artifact")["policy"]["name"] == "other"


def test_the_same_after_a_restart(rig: Rig) -> None:
    before = {name: rig.ns.status(name).get("policy") for name in NAMES}
    rig.restart()
    rig.decisions_go_on(*NAMES)
    assert {name: rig.ns.status(name).get("policy") for name in NAMES} == before
