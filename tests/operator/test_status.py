"""What a turn's facts become in status, and that steadiness costs no writes."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from controller.api.types import RLScalerStatus
from controller.core import Clamp, Decision, Outcome
from controller.outside import Hold
from controller.status import (
    Facts,
    PolicyFacts,
    PoolFacts,
    Status,
    Trouble,
    build,
    difference,
    fingerprint,
    stabilization_state,
    stabilization_status,
)

NOW = 1_800_000_000.0
LATER = NOW + 60.0
HOLD = Hold(9, NOW + 300, "kubectl", 1)
POLICY = PolicyFacts("RL", "default", "sha256:00", "v1")


def decision(**changes: Any) -> Decision:
    base = Decision(
        current_replicas=4,
        recommended_replicas=4,
        hpa_replicas=5,
        desired_replicas=4,
        outcome="NoChange",
        clamps=(),
        message="stays at 4: default recommended 4",
        policy="default",
        fallback=None,
        metrics_outcome=Outcome.OK,
        load=2.0,
    )
    return dataclasses.replace(base, **changes)


def facts(**changes: Any) -> Facts:
    base = Facts(
        generation=3,
        mode="Active",
        target="Deployment/web",
        policy=POLICY,
        decision=decision(),
        observed={"requestRate": 20.0},
        current_replicas=4,
        desired_replicas=4,
    )
    return dataclasses.replace(base, **changes)


def conditions(status: Status) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}


UP_TO_BOUND = decision(
    recommended_replicas=12,
    desired_replicas=10,
    outcome="ScaledUp",
    clamps=(Clamp("maxReplicas", "TooManyReplicas", 12, 10, "12 -> 10: maxReplicas"),),
)
LOST = decision(
    recommended_replicas=None, outcome="Held", fallback="MetricsUnavailable", metrics_outcome=Outcome.SLOW
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {},
            {
                "Ready": ("True", "Scaling"),
                "AbleToScale": ("True", "ReadyForNewScale"),
                "ScalingActive": ("True", "Decided"),
                "ScalingLimited": ("False", "DesiredWithinRange"),
                "MetricsAvailable": ("True", "MetricsRead"),
                "PolicyReady": ("True", "PolicyLoaded"),
                "Fallback": ("False", "PolicyInCharge"),
                "Paused": ("False", "NotPaused"),
            },
            id="all is well",
        ),
        pytest.param(
            {"mode": "Shadow"},
            {
                "Ready": ("True", "Shadowing"),
                "AbleToScale": ("True", "ShadowMode"),
                "ScalingActive": ("True", "Decided"),
            },
            id="shadow",
        ),
        pytest.param(
            {"mode": "Paused", "decision": None, "policy": None},
            {
                "Ready": ("False", "PausedByMode"),
                "ScalingActive": ("False", "PausedByMode"),
                "Paused": ("True", "PausedByMode"),
            },
            id="paused by mode",
        ),
        pytest.param(
            {"paused_by_annotation": True, "decision": None},
            {"Ready": ("False", "PausedByAnnotation"), "Paused": ("True", "PausedByAnnotation")},
            id="paused by annotation",
        ),
        pytest.param(
            {"decision": UP_TO_BOUND, "desired_replicas": 10},
            {"ScalingLimited": ("True", "TooManyReplicas"), "Ready": ("True", "Scaling")},
            id="limited",
        ),
        pytest.param(
            {"target_trouble": Trouble("TargetNotFound", "gone"), "decision": None, "current_replicas": None},
            {
                "AbleToScale": ("False", "TargetNotFound"),
                "ScalingActive": ("False", "NoDecision"),
                "Ready": ("False", "TargetNotFound"),
            },
            id="no target",
        ),
        pytest.param(
            {"metrics_trouble": Trouble("PrometheusSlow", "requestRate: no answer"), "decision": LOST},
            {
                "MetricsAvailable": ("False", "PrometheusSlow"),
                "Fallback": ("True", "MetricsUnavailable"),
                "ScalingActive": ("False", "NoDecision"),
                "Ready": ("False", "PrometheusSlow"),
            },
            id="no metrics",
        ),
        pytest.param(
            {"metrics_note": "cpuUtilization: NoData: no series"},
            {"MetricsAvailable": ("True", "SignalsMissing"), "Ready": ("True", "Scaling")},
            id="a lesser signal is missing",
        ),
        pytest.param(
            {
                "policy_trouble": Trouble("ArtifactNotFound", "no such file"),
                "decision": decision(fallback="PolicyUnavailable"),
            },
            {
                "PolicyReady": ("False", "ArtifactNotFound"),
                "Fallback": ("True", "PolicyUnavailable"),
                "Ready": ("False", "ArtifactNotFound"),
            },
            id="no policy",
        ),
        pytest.param(
            {"decision": decision(fallback="CapacityUnknown")},
            {"Fallback": ("True", "CapacityUnknown"), "Ready": ("False", "InFallback")},
            id="capacity is not known yet",
        ),
        pytest.param(
            {"policy": PolicyFacts("HPA", "hpa")},
            {"PolicyReady": ("True", "Formula")},
            id="a formula is no artifact",
        ),
        pytest.param(
            {
                "spec_trouble": Trouble("InvalidSpec", "spec.mode: no"),
                "decision": None,
                "current_replicas": None,
            },
            {"Ready": ("False", "InvalidSpec"), "ScalingActive": ("False", "InvalidSpec")},
            id="a spec that cannot be served",
        ),
        pytest.param(
            {"has_routes": True, "route_trouble": Trouble("RouteNotFound", "gone")},
            {"RoutesSynced": ("False", "RouteNotFound"), "Ready": ("False", "RouteNotFound")},
            id="no route",
        ),
        pytest.param(
            {"has_routes": True, "route_trouble": Trouble("RouteNotReported", "not yet", unknown=True)},
            {"RoutesSynced": ("Unknown", "RouteNotReported"), "Ready": ("True", "Scaling")},
            id="a route that no gateway has reported on",
        ),
        pytest.param(
            {"decision": decision(current_replicas=0, desired_replicas=0, outcome="Held")},
            {"ScalingActive": ("False", "ScalingDisabled")},
            id="at zero by hand",
        ),
    ],
)
def test_facts_become_conditions(changes: dict[str, Any], expected: dict[str, tuple[str, str]]) -> None:
    status = build(facts(**changes), {}, NOW)
    assert conditions(status) == conditions(status) | expected
    RLScalerStatus.model_validate(status)


def test_a_decision_is_recorded_with_its_observation_and_clamps() -> None:
    status = build(
        facts(decision=UP_TO_BOUND, desired_replicas=10, scaled=True, current_replicas=10), {}, NOW
    )
    assert status["lastDecision"] == {
        "time": "2027-01-15T08:00:00Z",
        "outcome": "ScaledUp",
        "message": UP_TO_BOUND.message,
        "mode": "Active",
        "metrics": "OK",
        "observation": {"requestRate": "20"},
        "currentReplicas": 4,
        "recommendedReplicas": 12,
        "hpaReplicas": 5,
        "desiredReplicas": 10,
        "clamps": [
            {
                "name": "maxReplicas",
                "reason": "TooManyReplicas",
                "before": 12,
                "after": 10,
                "message": "12 -> 10: maxReplicas",
            }
        ],
    }
    assert status["lastScaleTime"] == "2027-01-15T08:00:00Z"
    assert (status["currentReplicas"], status["desiredReplicas"], status["recommendedReplicas"]) == (
        10,
        10,
        12,
    )


MEANINGLESS = [
    pytest.param({}, id="nothing"),
    pytest.param({"observed": {"requestRate": 20.7}}, id="what was read"),
    pytest.param({"decision": decision(hpa_replicas=6)}, id="what an HPA would do"),
    pytest.param({"decision": decision(load=2.1)}, id="the load"),
]


@pytest.mark.parametrize("changes", MEANINGLESS)
def test_what_moves_without_meaning_is_not_written(changes: dict[str, Any]) -> None:
    before = build(facts(), {}, NOW)
    assert difference(before, build(facts(**changes), before, LATER)) is None


def test_numbers_inside_messages_do_not_cause_writes() -> None:
    def lost(seconds: float) -> Facts:
        return facts(
            metrics_trouble=Trouble("PrometheusSlow", f"no answer within {seconds} s"), decision=LOST
        )

    before = build(lost(3.01), {}, NOW)
    assert difference(before, build(lost(2.7), before, LATER)) is None


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        pytest.param(
            {"decision": decision(recommended_replicas=6, outcome="Held")}, {"lastDecision"}, id="advice"
        ),
        pytest.param({"current_replicas": 5}, {"currentReplicas", "lastDecision"}, id="replicas"),
        pytest.param({"generation": 4}, {"observedGeneration", "conditions"}, id="the spec"),
        pytest.param({"mode": "Shadow"}, {"conditions"}, id="the mode"),
        pytest.param(
            {"policy": PolicyFacts("RL", "default", "sha256:01", "v1")}, {"policy"}, id="the policy"
        ),
        pytest.param({"scaled": True}, {"lastScaleTime"}, id="a scale event"),
    ],
)
def test_what_matters_is_written(changes: dict[str, Any], keys: set[str]) -> None:
    before = build(facts(), {}, NOW)
    patch = difference(before, build(facts(**changes), before, LATER))
    assert patch is not None
    assert keys <= set(patch)


def test_a_transition_time_moves_with_the_status_and_not_with_the_reason() -> None:
    first = build(facts(metrics_trouble=Trouble("NoData", "none"), decision=LOST), {}, NOW)
    other = build(facts(metrics_trouble=Trouble("PrometheusSlow", "slow"), decision=LOST), first, LATER)
    back = build(facts(), other, LATER + 60)
    times = [
        next(c["lastTransitionTime"] for c in status["conditions"] if c["type"] == "MetricsAvailable")
        for status in (first, other, back)
    ]
    assert times[0] == times[1] != times[2]


def test_a_decision_stays_on_record_while_none_can_be_made() -> None:
    before = build(facts(), {}, NOW)
    paused = build(facts(mode="Paused", decision=None), before, LATER)
    assert paused["lastDecision"] == before["lastDecision"]
    assert paused["desiredReplicas"] == 4


def apply_merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386, as the API server applies it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = apply_merge_patch(result.get(key), value)
    return result


def random_facts(source: random.Random) -> Facts:
    trouble = Trouble("NoData", "none")
    chosen = source.choice([decision(), UP_TO_BOUND, LOST, None, decision(fallback="InvalidAction")])
    return facts(
        decision=chosen,
        mode=source.choice(["Active", "Shadow", "Paused"]),
        metrics_trouble=source.choice([None, trouble]),
        target_trouble=source.choice([None, None, trouble]),
        policy=source.choice([POLICY, PolicyFacts("HPA", "hpa"), None]),
        observed=source.choice([{"requestRate": 1.0}, {"latencyMilliseconds": 2.0}]),
        pools=source.choice([(), (PoolFacts("a", 1, 2, 30), PoolFacts("b", 3, 3))]),
        scaled=source.random() < 0.3,
        outside=source.choice([None, None, HOLD]),
        start_up_seconds=source.choice([None, 42, 60]),
    )


def test_somebody_elses_change_is_in_the_status_while_it_is_respected() -> None:
    quiet = build(facts(), {}, NOW)
    held = build(facts(outside=HOLD), quiet, LATER)
    assert held["outsideChange"] == HOLD.as_status()
    (able,) = [one for one in held["conditions"] if one["type"] == "AbleToScale"]
    assert (able["status"], able["reason"], able["message"]) == ("True", "OutsideChange", HOLD.words)
    assert difference(held, build(facts(outside=HOLD), held, LATER + 60)) is None
    assert fingerprint(facts(outside=HOLD)) != fingerprint(facts())
    again = build(facts(outside=dataclasses.replace(HOLD, replicas=7)), held, LATER + 60)
    assert "has set 7 replicas" in str(again["conditions"]), "other numbers are another change"
    over = build(facts(), held, LATER + 300)
    assert difference(held, over) is not None
    assert "outsideChange" not in over


def test_a_start_up_time_that_was_learned_is_in_the_status() -> None:
    assert build(facts(start_up_seconds=42), {}, NOW)["startUpSeconds"] == 42
    assert "startUpSeconds" not in build(facts(), {}, NOW)
    assert fingerprint(facts(start_up_seconds=42)) != fingerprint(facts())


def test_patches_take_the_server_from_any_status_to_the_next() -> None:
    source = random.Random(7)
    held: Status = {}
    for step in range(500):
        built = build(random_facts(source), held, NOW + step)
        patch = difference(held, built)
        held = apply_merge_patch(held, patch) if patch is not None else held
        assert held == built


def test_the_memory_of_behavior_comes_back_from_status() -> None:
    state = {"recommendations": [(NOW * 60 - 90.0, 7), (NOW * 60, 4)], "scaleEvents": [(NOW * 60 - 30.0, -2)]}
    status = {"stabilization": stabilization_status(state, lambda control: control / 60)}
    RLScalerStatus.model_validate(status)
    back = stabilization_state(status, lambda unix: unix * 60)
    for name, pairs in state.items():
        assert [value for _, value in back[name]] == [value for _, value in pairs]
        assert [time for time, _ in back[name]] == pytest.approx([time for time, _ in pairs], abs=0.01)


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"stabilization": None},
        {"stabilization": {"recommendations": [{"time": "yesterday", "replicas": 1}, {"replicas": 1}, {}]}},
    ],
    ids=["none", "null", "unreadable"],
)
def test_a_memory_that_cannot_be_read_is_no_memory(status: Status) -> None:
    assert stabilization_state(status, float) == {"recommendations": [], "scaleEvents": []}


def test_an_observation_unlike_any_in_training_is_told_by_the_policys_condition() -> None:
    strange = facts(decision=decision(unfamiliar=True))
    (found,) = [one for one in build(strange, {}, NOW)["conditions"] if one["type"] == "PolicyReady"]
    assert (found["status"], found["reason"]) == ("True", "OutOfDistribution")
    assert "sha256:00" in found["message"]
    (usual,) = [one for one in build(facts(), {}, NOW)["conditions"] if one["type"] == "PolicyReady"]
    assert usual["reason"] == "PolicyLoaded"
    assert fingerprint(strange) != fingerprint(facts())
