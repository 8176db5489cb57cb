"""The judges themselves: each rule finds the history that breaks it, and lets the one pass that does not."""

from __future__ import annotations

from typing import Any

from tests.faults import invariants
from tests.faults.apiproxy import Delivery, Exchange
from tests.faults.history import History, Replicas, Spec, between
from tests.faults.invariants import Evidence, Interval
from tests.integration.harness import Json

SCALE = 60.0
BORN = 1000.0
SLOW_DOWN: Json = {
    "scaleDown": {
        "stabilizationWindowSeconds": 600,
        "policies": [{"type": "Pods", "value": 2, "periodSeconds": 120}],
    }
}

PODS_ONLY: Json = {
    "scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]},
    "scaleDown": {"stabilizationWindowSeconds": 0},
}


def run_of(*replicas: tuple[float, int], pid: int = 7, behavior: Json | None = None, **more: Any) -> Evidence:
    """A run in which the operator wrote these replicas, after those that were there at first."""
    spec: Json = {"minReplicas": 2, "maxReplicas": 10} | ({"behavior": behavior} if behavior else {})
    history = History()
    history.specs["web"] = [Spec(BORN, "web", "u", 1, spec)]
    history.replicas["web"] = [
        Replicas(at, "web", "d", str(number), count) for number, (at, count) in enumerate(replicas)
    ]
    given = {"decisions": [], "exchanges": [], **more}
    exchanges = given.pop("exchanges") or [
        patch(at, number, pid) for number, (at, _) in enumerate(replicas) if number
    ]
    shown = [Delivery(BORN, "web", "u", 1)]
    return Evidence(history, exchanges, shown, given.pop("decisions"), SCALE, 15.0, **given)


def patch(at: float, version: int, pid: int) -> Exchange:
    answer = {"metadata": {"resourceVersion": str(version)}}
    path = "/apis/apps/v1/namespaces/n/deployments/web/scale"
    agent = f"rl-scaler/0 (host; pid {pid})"
    return Exchange(at, "PATCH", path, "", agent, b"", 200, 200, answer)


def decided(at: float, recommended: int) -> Json:
    return {"name": "web", "at": at, "recommendedReplicas": recommended}


def rules(evidence: Evidence, now: float = BORN) -> set[str]:
    return {violation.rule for violation in invariants.check(evidence, now)}


def test_replicas_outside_of_the_bounds_are_found() -> None:
    assert rules(run_of((1010.0, 5), (1100.0, 6))) == set()
    assert rules(run_of((1010.0, 5), (1100.0, 1))) == {"bounds"}
    assert rules(run_of((1010.0, 8), (1100.0, 11))) == {"bounds"}


def test_bounds_that_the_operator_could_not_know_yet_do_not_count() -> None:
    evidence = run_of((1010.0, 5), (1100.0, 9))
    narrow = {"minReplicas": 2, "maxReplicas": 6}
    evidence.history.specs["web"].append(Spec(1099.0, "web", "u", 2, narrow))
    assert rules(evidence) == set()
    evidence = run_of((1010.0, 5), (1200.0, 9))
    evidence.history.specs["web"].append(Spec(1099.0, "web", "u", 2, narrow))
    evidence.deliveries = [*evidence.deliveries, Delivery(1099.5, "web", "u", 2)]
    assert rules(evidence) == {"bounds"}


def test_a_scale_down_that_is_faster_than_its_rules_is_found() -> None:
    # 120 control seconds are two real ones
    assert rules(run_of((1010.0, 9), (1100.0, 7), (1102.0, 5), behavior=SLOW_DOWN)) == set()
    assert rules(run_of((1010.0, 9), (1100.0, 6), behavior=SLOW_DOWN)) == {"rate"}
    assert rules(run_of((1010.0, 9), (1100.0, 7), (1101.0, 5), behavior=SLOW_DOWN)) == {"rate"}


def test_a_restart_is_no_way_round_the_rate_rules() -> None:
    evidence = run_of((1010.0, 9), (1100.0, 7), (1101.0, 5), behavior=SLOW_DOWN, restarts=(1100.5,))
    assert rules(evidence) == {"rate"}


def test_what_others_did_counts_as_its_own_for_an_operator_that_has_only_just_looked() -> None:
    def run(*decisions: Json) -> set[str]:
        exchanges = [patch(1100.0, 1, 7), patch(1110.0, 3, 8)]
        replicas = ((1010.0, 4), (1100.0, 8), (1109.0, 2), (1110.0, 9))
        given = {"excused": {"": [(BORN, 1200.0)]}, "restarts": (1104.0,), "decisions": list(decisions)}
        return rules(run_of(*replicas, exchanges=exchanges, **given))

    assert run() == set()
    assert run(decided(1110.0, 9)) == set()
    assert run(decided(1105.0, 9)) == {"rate"}


def test_a_scale_up_that_is_faster_than_the_defaults_is_found() -> None:
    assert rules(run_of((1010.0, 2), (1100.0, 6))) == set()
    assert rules(run_of((1010.0, 2), (1100.0, 7))) == {"rate"}


def test_a_change_as_old_as_the_period_counts_or_does_not_whichever_allows_more() -> None:
    # the default's 15 control seconds are 0.25 real ones
    assert rules(run_of((1010.0, 9), (1100.0, 5), (1100.26, 10), behavior=PODS_ONLY)) == set()
    assert rules(run_of((1010.0, 9), (1100.0, 5), (1100.35, 10), behavior=PODS_ONLY)) == {"rate"}
    assert rules(run_of((1010.0, 4), (1100.0, 8), (1100.24, 10), behavior=PODS_ONLY)) == set()
    assert rules(run_of((1010.0, 4), (1100.0, 8), (1100.15, 10), behavior=PODS_ONLY)) == {"rate"}


def test_a_scale_down_below_what_was_recommended_within_the_window_is_found() -> None:
    # 600 control seconds are ten real ones
    for at, found in ((1085.0, set()), (1095.0, {"stabilisation"})):
        said = {"decisions": [decided(at, 9)], "excused": {"": [(BORN, 1200.0)]}}
        assert rules(run_of((1010.0, 9), (1100.0, 7), behavior=SLOW_DOWN, **said)) == found


def test_a_scale_down_on_missing_data_is_found() -> None:
    def blind(start: float, end: float) -> dict[str, list[Interval]]:
        return {"web": [(start, end)]}

    assert rules(run_of((1010.0, 9), (1100.0, 7), blind=blind(1090.0, 1110.0))) == {"missing data"}
    assert rules(run_of((1010.0, 9), (1100.0, 7), blind=blind(1090.0, 1095.0))) == set()
    assert rules(run_of((1010.0, 7), (1100.0, 9), blind=blind(1090.0, 1110.0))) == set()


def test_a_process_that_writes_after_its_successor_is_found() -> None:
    exchanges = [patch(1100.0, 1, 7), patch(1200.0, 2, 8), patch(1300.0, 3, 7)]
    evidence = run_of((1010.0, 5), (1100.0, 6), (1200.0, 7), (1300.0, 8), exchanges=exchanges)
    assert rules(evidence) == {"one writer"}
    assert rules(run_of((1010.0, 5), (1100.0, 6), (1200.0, 7), exchanges=exchanges[:2])) == set()


def test_a_write_beside_an_hpa_is_found() -> None:
    evidence = run_of((1010.0, 5), (1100.0, 6))
    evidence.history.hpas["web"] = [(1090.0, True), (1110.0, False)]
    assert rules(evidence) == {"one writer"}


def test_a_loop_that_has_stopped_is_found_unless_it_is_excused() -> None:
    said = [decided(1001.0, 5), decided(1002.0, 5)]
    assert rules(run_of((1000.0, 5), decisions=said), now=1005.0) == set()
    assert rules(run_of((1000.0, 5), decisions=said), now=1009.0) == {"liveness"}
    assert rules(run_of((1000.0, 5), decisions=said, excused={"": [(1002.0, 1009.0)]}), now=1009.0) == set()


def test_in_a_crowd_a_loop_may_take_longer_but_not_for_ever() -> None:
    evidence = run_of((1000.0, 5), decisions=[decided(1001.0, 5), decided(1002.0, 5)])
    assert invariants.check(evidence, 1009.0, crowd=2.0) == []
    assert invariants.check(evidence, 1015.0, crowd=2.0) != []


def test_a_field_of_the_status_that_the_crd_does_not_know_is_found() -> None:
    schema = {"properties": {"pools": {"items": {"properties": {"name": {}}}}, "open": {"type": "object"}}}
    path = "/apis/rlscaler.dev/v1alpha1/namespaces/n/rlscalers/web/status"

    def sent(body: bytes, status: int = 200) -> Exchange:
        return Exchange(BORN, "PATCH", path, "", "", body, status, status, {})

    fine = sent(b'{"status": {"pools": [{"name": "a"}], "open": {"any": 1}}}')
    strange = sent(b'{"status": {"pools": [{"nome": "a"}]}}')
    assert invariants.unknown_fields([fine], schema) == []
    assert "status.pools[].nome" in str(invariants.unknown_fields([strange], schema)[0])
    assert invariants.unknown_fields([sent(b'{"status": {}}', 422)], schema)


def test_overlapping_intervals_count_once() -> None:
    assert between([(0.0, 4.0), (2.0, 6.0), (9.0, 20.0)], 1.0, 10.0) == 6.0
