"""The guard, rule by rule: what each does to a number, and the name that it leaves behind."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from controller.core import (
    Behavior,
    Engine,
    Fallback,
    HpaPolicy,
    Outcome,
    Samples,
    ScalingPolicy,
    ScalingRules,
    ServiceSpec,
    UnavailablePolicy,
    View,
)

FAST = Behavior(
    ScalingRules(0, "Max", (ScalingPolicy("Percent", 1000, 15), ScalingPolicy("Pods", 1000, 15))),
    ScalingRules(0, "Max", (ScalingPolicy("Percent", 100, 15),)),
)
SPEC = ServiceSpec(min_replicas=2, max_replicas=20, capacity_rps=10.0, slo_latency_ms=100.0, behavior=FAST)


class Says:
    """A policy that recommends what it was told."""

    name, type, digest, schema = "says", "RL", "", ""

    def __init__(self, replicas: float) -> None:
        self.replicas = replicas

    def recommend(self, view: View) -> np.ndarray:
        return np.full(len(view), self.replicas)


def sample(current: float, rate: float = 50.0, **others: float) -> Samples:
    return Samples(request_rate=[rate], current=[current], ready=[others.pop("ready", current)], **others)


def one(spec: ServiceSpec, says: float, current: float, **others: float):
    return Engine(spec, Says(says)).step(1000.0, sample(current, **others))[0]


@pytest.mark.parametrize(
    ("says", "current", "others", "desired", "clamps"),
    [
        pytest.param(7, 5, {}, 7, [], id="an allowed number passes untouched"),
        pytest.param(50, 5, {}, 20, ["Bounds"], id="maxReplicas"),
        pytest.param(0, 5, {}, 2, ["Bounds"], id="minReplicas"),
        pytest.param(3, 30, {}, 20, ["Bounds"], id="above maxReplicas comes down to it at once"),
        pytest.param(9, 1, {}, 2, ["Bounds"], id="below minReplicas comes up to it first"),
        pytest.param(9, 0, {}, 0, ["Bounds"], id="a target scaled to 0 by hand is left alone"),
        pytest.param(
            3, 5, {"latency_ms": 300.0}, 8, ["SLOFloor"], id="the HPA formula is the floor in danger"
        ),
        pytest.param(9, 5, {"latency_ms": 300.0}, 9, [], id="the floor never lowers"),
        pytest.param(3, 5, {"latency_ms": 50.0}, 3, [], id="no floor while the objective holds"),
    ],
)
def test_each_clamp_is_named(
    says: float, current: float, others: dict, desired: int, clamps: list[str]
) -> None:
    decision = one(SPEC, says, current, **others)
    assert decision.desired_replicas == desired
    assert [clamp.name for clamp in decision.clamps] == clamps


@pytest.mark.parametrize(
    "rate",
    [
        pytest.param(math.nan, id="missing"),
        pytest.param(-1.0, id="negative"),
        pytest.param(math.inf, id="infinite"),
    ],
)
def test_a_bad_reading_never_scales_down(rate: float) -> None:
    engine = Engine(SPEC, Says(2))
    engine.step(1000.0, sample(10))
    for tick in range(1, 8):
        decision = engine.step(1000.0 + 15 * tick, sample(10, rate=rate))[0]
        assert decision.desired_replicas == 10
        assert decision.metrics_outcome is not Outcome.OK


def test_outcomes_of_bad_readings_are_distinct() -> None:
    specs = [SPEC] * 4
    samples = Samples(
        request_rate=[math.nan, -1.0, math.inf, math.nan],
        current=[4] * 4,
        outcome=[Outcome.STALE, Outcome.OK, Outcome.OK, Outcome.OK],
    )
    outcomes = [decision.metrics_outcome for decision in Engine(specs, Says(3)).step(0.0, samples)]
    assert outcomes == [Outcome.STALE, Outcome.NEGATIVE, Outcome.NAN, Outcome.MISSING]


@pytest.mark.parametrize(
    ("fallback", "utilisation", "expected"),
    [
        pytest.param(
            Fallback(3, "HPA"), math.nan, [10, 10, 10, 10], id="HPA holds when nothing is left to read"
        ),
        pytest.param(
            Fallback(3, "HPA"), 1.4, [10, 10, 20, 20], id="HPA goes up on the utilisation that is left"
        ),
        pytest.param(
            Fallback(3, "HPA"), 0.1, [10, 10, 10, 10], id="but never down while the rate is missing"
        ),
        pytest.param(Fallback(2, "Hold"), 1.4, [10, 10, 10, 10], id="Hold holds"),
        pytest.param(
            Fallback(2, "Static", 15), math.nan, [10, 15, 15, 15], id="Static goes up to its replicas"
        ),
        pytest.param(Fallback(2, "Static", 5), math.nan, [10, 10, 10, 10], id="Static never goes down"),
    ],
)
def test_fallback_after_the_failure_threshold(
    fallback: Fallback, utilisation: float, expected: list[int]
) -> None:
    engine = Engine(replace(SPEC, fallback=fallback), Says(4))
    engine.backfill(np.array([970.0, 985.0]), np.array([[50.0], [50.0]]))
    desired = []
    for tick in range(4):
        decision = engine.step(1000.0 + 15 * tick, sample(10, rate=math.nan, utilisation=[utilisation]))[0]
        desired.append(decision.desired_replicas)
        begun = tick + 1 >= fallback.failure_threshold
        assert decision.fallback == ("MetricsUnavailable" if begun else None)
    assert desired == expected


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        pytest.param(Says(math.nan), "InvalidAction", id="a policy that returns NaN"),
        pytest.param(Says(math.inf), "InvalidAction", id="a policy that returns infinity"),
        pytest.param(UnavailablePolicy("ArtifactNotFound", "no file"), "PolicyUnavailable", id="no policy"),
    ],
)
def test_a_broken_policy_is_a_fallback_to_the_formula(policy: object, reason: str) -> None:
    decision = Engine(SPEC, policy).step(0.0, sample(5, rate=70.0))[0]  # type: ignore[arg-type]
    assert (decision.fallback, decision.desired_replicas) == (reason, 10)


def test_unknown_capacity_holds_until_it_can_be_estimated() -> None:
    engine = Engine(replace(SPEC, capacity_rps=math.nan), Says(3))
    assert engine.step(0.0, sample(5))[0].fallback == "CapacityUnknown"
    decision = engine.step(15.0, sample(5, utilisation=[0.5]))[0]
    assert decision.fallback is None
    assert engine.capacity_rps().tolist() == [20.0]


def test_scale_down_waits_for_the_window_and_takes_the_highest_in_it() -> None:
    spec = replace(SPEC, behavior=Behavior())
    policy = Says(10)
    engine = Engine(spec, policy)
    current, seen = 10, []
    for tick in range(30):
        policy.replicas = 10 if tick < 2 else 4
        current = engine.step(15.0 * tick, sample(current))[0].desired_replicas
        seen.append(current)
    assert seen[:21] == [10] * 21
    assert seen[21] == 4


def test_scale_up_rate_is_the_larger_of_four_pods_and_double() -> None:
    engine = Engine(replace(SPEC, max_replicas=200, behavior=Behavior()), Says(150))
    current, seen = 3, []
    for tick in range(5):
        decision = engine.step(15.0 * tick, sample(current))[0]
        assert [clamp.reason for clamp in decision.clamps] == (["ScaleUpLimit"] if tick < 5 else [])
        current = decision.desired_replicas
        seen.append(current)
    assert seen == [7, 14, 28, 56, 112]


def test_zero_is_reached_only_after_an_idle_window_and_left_at_the_first_request() -> None:
    engine = Engine(replace(SPEC, min_replicas=0), Says(0))
    current, seen = 3, []
    for tick in range(25):
        current = engine.step(15.0 * tick, sample(current, rate=0.0))[0].desired_replicas
        seen.append(current)
    assert seen[0] == 1
    assert 0 not in seen[:20]
    assert seen[-1] == 0
    assert engine.step(400.0, sample(0, rate=30.0))[0].desired_replicas == 5


def test_the_message_says_who_wanted_what_and_what_came_of_it() -> None:
    message = one(SPEC, 50, 5).message
    assert message == "5 -> 20: says recommended 50; Bounds (50 -> 20: minReplicas and maxReplicas)"


def test_hpa_counterfactual_stands_beside_every_decision() -> None:
    decision = one(SPEC, 7, 5, rate=70.0)
    assert (decision.recommended_replicas, decision.hpa_replicas) == (7, 10)


def test_formula_policy_has_no_fallback_of_its_own() -> None:
    decision = Engine(SPEC, HpaPolicy()).step(0.0, sample(5, ready=0.0))[0]
    assert (decision.fallback, decision.outcome, decision.desired_replicas) == (None, "Held", 5)


class Doubtful(Says):
    """A policy that calls every observation unlike its training."""

    def unfamiliar(self, view: View) -> np.ndarray:
        return np.ones(len(view), dtype=bool)


@pytest.mark.parametrize(
    ("says", "rate", "desired"),
    [
        pytest.param(3, 20.0, 5, id="no scale-down"),
        pytest.param(3, 70.0, 10, id="the HPA formula is the floor"),
        pytest.param(12, 70.0, 12, id="up is allowed"),
    ],
)
def test_out_of_distribution_never_scales_down(says: float, rate: float, desired: int) -> None:
    decision = Engine(SPEC, Doubtful(says)).step(0.0, sample(5, rate=rate))[0]
    assert decision.desired_replicas == desired
    assert [c.name for c in decision.clamps] == (["OutOfDistribution"] if desired != says else [])
    assert decision.unfamiliar
    assert "the observation is unlike any in training" in decision.message


def test_out_of_distribution_without_a_formula_never_scales_down() -> None:
    decision = Engine(SPEC, Doubtful(1)).step(0.0, sample(5, rate=20.0, ready=0.0))[0]
    assert decision.hpa_replicas is None
    assert decision.desired_replicas == 5


def test_a_familiar_observation_is_not_called_anything_else() -> None:
    decision = Engine(SPEC, Says(6)).step(0.0, sample(5, rate=50.0))[0]
    assert not decision.unfamiliar
    assert "training" not in decision.message


class Breaks(Says):
    """A policy with a bug."""

    def recommend(self, view: View) -> np.ndarray:
        raise ZeroDivisionError


def test_a_policy_that_raises_is_an_invalid_action_and_leaves_the_others_alone() -> None:
    engine = Engine([SPEC, SPEC], [Breaks(1), Says(7)])
    samples = Samples(request_rate=[70.0, 70.0], current=[5.0, 5.0])
    broken, sound = engine.step(0.0, samples)
    assert (broken.fallback, broken.desired_replicas) == ("InvalidAction", 10)
    assert (sound.fallback, sound.desired_replicas) == (None, 7)


def test_a_service_that_was_idle_for_its_cooldown_goes_to_zero_whatever_its_policy_says() -> None:
    """As KEDA does: at or below the threshold is idle, however few requests there still are."""
    spec = replace(
        SPEC, min_replicas=0, idle_after_s=60.0, activation_rps=5.0, behavior=Behavior(scale_down=slow_down())
    )
    engine = Engine(spec, Says(2))
    current, seen = 4, []
    for tick, rate in enumerate([20.0] * 3 + [5.0] * 7 + [5.1]):
        current = engine.step(15.0 * tick, sample(current, rate=rate))[0].desired_replicas
        seen.append(current)
    assert seen == [4, 4, 4, 4, 4, 4, 0, 0, 0, 0, 1]


def test_a_service_in_doubt_or_without_metrics_does_not_go_to_sleep() -> None:
    spec = replace(SPEC, min_replicas=0, idle_after_s=0.0, activation_rps=5.0)
    assert Engine(spec, Doubtful(1)).step(0.0, sample(2, rate=1.0))[0].desired_replicas == 2
    assert Engine(spec, Says(1)).step(0.0, sample(2, rate=np.nan))[0].desired_replicas == 2


def slow_down() -> ScalingRules:
    return ScalingRules(300, "Max", (ScalingPolicy("Percent", 100, 15),))
