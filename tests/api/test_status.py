"""What the operator writes into status is what the schema has: nothing would be pruned, nothing refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from controller.api.constants import ConditionType, EventReason, Reason
from controller.api.convert import to_service_spec
from controller.api.types import RLScalerStatus
from controller.api.validation import parse_spec
from controller.budgets.share import Share
from controller.core import Decision, Engine, HpaPolicy, Samples
from controller.core.decision import FALLBACKS
from controller.outside import Hold
from controller.status import Facts, PolicyFacts, PoolFacts, build, stabilization_status
from controller.trouble import Trouble
from tests.api import apiserver
from tests.api.apiserver import CustomResource
from tests.api.samples import SMALLEST

NOW_S = 1_800_000_000.0


def decided() -> tuple[Decision, dict[str, Any]]:
    """A decision that the guard has changed, and what a restart must not forget."""
    spec = {**SMALLEST, "policy": {"type": "HPA"}, "objective": {"capacityPerReplica": "10"}}
    engine = Engine(to_service_spec(parse_spec(spec)), HpaPolicy())
    for turn in range(4):
        rate, current = ([400.0, 400.0, 20.0, 400.0][turn], [2, 6, 10, 8][turn])
        samples = Samples(request_rate=[rate], ready=[current], current=[current])
        decisions = engine.step(NOW_S + 15 * turn, samples)
        if decisions[0].desired_replicas != current:
            engine.record_scale(0, NOW_S + 15 * turn, current, decisions[0].desired_replicas)
    return decisions[0], stabilization_status(engine.stabilization_state(0), lambda seconds: seconds)


def full_status() -> dict[str, Any]:
    decision, stabilization = decided()
    facts = Facts(
        generation=3,
        mode="Active",
        target="Deployment/web",
        policy=PolicyFacts("RL", "default 1.0", "sha256:" + "0" * 64, "v1"),
        decision=decision,
        observed={"requestRate": 400.0, "latencyMilliseconds": 12.3456789},
        current_replicas=10,
        desired_replicas=decision.desired_replicas,
        scaled=True,
        has_routes=True,
        weights_message="weights follow the ready replicas of the pools",
        pools=(PoolFacts("spot", 4, 6, 60), PoolFacts("on-demand", 2, 4, None)),
        outside=Hold(10, NOW_S + 300, "kubectl", 3),
        start_up_seconds=42,
        budget=Share("shop", 12, "12 of 40 are left"),
        rollout={"pool": "spot", "phase": "Progressing", "weight": 20, "message": "weight 10 -> 20"},
    )
    return build(facts, {}, NOW_S) | {"stabilization": stabilization}


def troubled_status() -> dict[str, Any]:
    facts = Facts(
        generation=1,
        mode="Paused",
        target_trouble=Trouble(Reason.TARGET_NOT_FOUND, "Deployment shop/web not found"),
        metrics_trouble=Trouble("PrometheusUnreachable", "requestRate: connection refused", unknown=True),
        policy_trouble=Trouble(Reason.ARTIFACT_NOT_FOUND, "no such file"),
    )
    return build(facts, {}, NOW_S)


@pytest.mark.parametrize("status", [full_status(), troubled_status()], ids=["full", "troubled"])
def test_the_api_server_keeps_every_field_of_a_status(
    resource: CustomResource, status: dict[str, Any]
) -> None:
    schema = resource.schema["properties"]["status"]
    kept = copy.deepcopy(status)
    apiserver.prune(kept, schema)
    assert kept == status
    assert apiserver.schema_problems(status, schema) == []
    RLScalerStatus.model_validate(status)


def test_the_full_status_fills_every_field_that_the_schema_has(resource: CustomResource) -> None:
    status = full_status()
    assert status["lastDecision"]["clamps"], "the sample decision is one that the guard has changed"
    assert status["stabilization"]["recommendations"]
    assert status["stabilization"]["scaleEvents"]
    assert status.keys() == resource.schema["properties"]["status"]["properties"].keys()


def test_conditions_have_the_types_of_the_design() -> None:
    known = set(ConditionType)
    assert {item["type"] for item in full_status()["conditions"]} <= known
    assert known == {
        "Ready",
        "AbleToScale",
        "ScalingActive",
        "ScalingLimited",
        "MetricsAvailable",
        "PolicyReady",
        "RoutesSynced",
        "CanarySucceeded",
        "Fallback",
        "Paused",
    }


def test_every_fallback_of_the_core_has_a_reason() -> None:
    assert set(FALLBACKS) - {""} <= set(Reason)


def test_reasons_are_single_camel_case_words() -> None:
    assert [word for word in [*Reason, *EventReason] if not word.isalnum() or not word[0].isupper()] == []
