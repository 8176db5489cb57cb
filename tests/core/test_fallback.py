"""Who decides when the policy cannot, why each of the others did not, and when the policy is back."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from controller.core import (
    Decision,
    Engine,
    Fallback,
    HpaPolicy,
    Samples,
    ScalingPolicy,
    ServiceSpec,
    UnavailablePolicy,
)
from tests.core.worlds import FAST, Says, decide

SPEC = ServiceSpec(min_replicas=2, max_replicas=40, capacity_rps=10.0, slo_latency_ms=100.0, behavior=FAST)
GONE = UnavailablePolicy("ArtifactNotFound", "no file")


def falling_back(behavior: str = "HPA", failures: int = 3, recovery: int = 1) -> ServiceSpec:
    return replace(SPEC, fallback=Fallback(failures, behavior, 15, recovery))  # type: ignore[arg-type]


def told(decision: Decision) -> tuple[str, tuple[tuple[str, str], ...], int]:
    return decision.decided_by, decision.passed_over, decision.desired_replicas


def read_once(engine: Engine) -> Engine:
    """So that the service is known to have request rates."""
    decide(engine, 0.0, 10)
    return engine


# The chain


def test_the_policy_decides_while_it_can() -> None:
    assert told(decide(Engine(SPEC, Says(7)), 0.0, 5)) == ("Policy", (), 7)


@pytest.mark.parametrize(
    ("policy", "reason"), [(GONE, "PolicyUnavailable"), (Says(math.nan), "InvalidAction")]
)
def test_then_the_formula(policy: Says, reason: str) -> None:
    decision = decide(Engine(SPEC, policy), 0.0, 5, rate=70.0)
    assert told(decision) == ("HPA", (("Policy", reason),), 10)
    assert decision.fallback == reason


def test_then_nobody_and_both_have_their_reasons() -> None:
    decision = decide(Engine(SPEC, GONE), 0.0, 5, ready=0.0)
    why = (("Policy", "PolicyUnavailable"), ("HPA", "FormulaUnavailable"))
    assert told(decision) == ("Hold", why, 5)
    assert decision.outcome == "Held"


@pytest.mark.parametrize(("behavior", "by", "desired"), [("Hold", "Hold", 5), ("Static", "Static", 15)])
def test_another_fallback_never_asks_the_formula(behavior: str, by: str, desired: int) -> None:
    decision = decide(Engine(falling_back(behavior), GONE), 0.0, 5, rate=70.0)
    assert told(decision) == (by, (("Policy", "PolicyUnavailable"),), desired)


def test_a_few_failed_readings_are_waited_for() -> None:
    engine = read_once(Engine(SPEC, Says(12)))
    decision = decide(engine, 15.0, 10, rate=math.nan, utilisation=1.4)
    assert told(decision) == ("Hold", (("Policy", "AwaitingMetrics"),), 10)
    assert decision.fallback is None


def test_the_formula_goes_by_the_metrics_that_are_left() -> None:
    engine = read_once(Engine(falling_back(failures=1), Says(12)))
    up = decide(engine, 15.0, 10, rate=math.nan, utilisation=1.4)
    assert told(up) == ("HPA", (("Policy", "MetricsUnavailable"),), 20)
    nothing = decide(engine, 30.0, 20, rate=math.nan)
    assert told(nothing)[1:] == ((("Policy", "MetricsUnavailable"), ("HPA", "FormulaUnavailable")), 20)


def test_a_formula_policy_with_nothing_to_say_holds() -> None:
    decision = decide(Engine(SPEC, HpaPolicy()), 0.0, 5, ready=0.0)
    assert told(decision) == ("Hold", (("Policy", "NothingSaid"),), 5)


# The way back


def outage(recovery: int, rates: list[float], failures: int = 2) -> list[Decision]:
    engine = read_once(Engine(falling_back(failures=failures, recovery=recovery), Says(12)))
    return [decide(engine, 15.0 * (tick + 1), 10, rate=rate) for tick, rate in enumerate(rates)]


BAD, GOOD = math.nan, 70.0


def test_the_policy_is_back_at_the_nth_good_reading() -> None:
    seen = outage(3, [BAD, BAD, GOOD, GOOD, GOOD, GOOD])
    assert [decision.fallback for decision in seen] == [
        None,
        "MetricsUnavailable",
        "Recovering",
        "Recovering",
        None,
        None,
    ]
    assert [decision.recovery_awaited for decision in seen] == [0, 3, 2, 1, 0, 0]
    assert [decision.decided_by for decision in seen] == ["Hold", "Hold", "HPA", "HPA", "Policy", "Policy"]
    assert [decision.desired_replicas for decision in seen] == [10, 10, 10, 10, 12, 12]


def test_the_decision_says_how_many_are_awaited() -> None:
    seen = outage(3, [BAD, BAD, GOOD, GOOD])
    assert seen[2].passed_over == (("Policy", "Recovering"),)
    assert "says decides again after 2 more good readings" in seen[2].message
    assert "says decides again after 1 more good reading" in seen[3].message


def test_a_failed_reading_on_the_way_back_begins_the_count_again() -> None:
    seen = outage(3, [BAD, BAD, GOOD, BAD, GOOD, GOOD, GOOD])
    assert [decision.recovery_awaited for decision in seen] == [0, 3, 2, 3, 2, 1, 0]
    assert seen[3].fallback == "MetricsUnavailable", "no waiting for failureThreshold: it never was over"


def test_one_good_reading_is_enough_by_default() -> None:
    seen = outage(1, [BAD, BAD, GOOD, BAD])
    assert [decision.fallback for decision in seen] == [None, "MetricsUnavailable", None, None]
    assert [decision.recovery_awaited for decision in seen] == [0, 1, 0, 0]


def test_a_gap_that_never_became_a_fallback_needs_no_way_back() -> None:
    seen = outage(3, [BAD, GOOD, BAD, GOOD])
    assert [decision.fallback for decision in seen] == [None] * 4


def test_a_repaired_policy_waits_as_well() -> None:
    engine = Engine(falling_back(recovery=2), GONE)
    assert decide(engine, 0.0, 10).fallback == "PolicyUnavailable"
    engine.update(0, falling_back(recovery=2), Says(12))
    assert decide(engine, 15.0, 10).fallback == "Recovering"
    assert told(decide(engine, 30.0, 10)) == ("Policy", (), 12)


def test_what_stands_in_goes_on_standing_in() -> None:
    engine = read_once(Engine(falling_back("Static", failures=1, recovery=2), Says(4)))
    assert decide(engine, 15.0, 10, rate=BAD).desired_replicas == 15
    recovering = decide(engine, 30.0, 15)
    assert told(recovering) == ("Static", (("Policy", "Recovering"),), 15)
    assert decide(engine, 45.0, 15).desired_replicas == 4


@pytest.mark.parametrize("value", [0, -2])
def test_a_recovery_threshold_below_one_is_refused(value: int) -> None:
    with pytest.raises(
        ValueError, match=f"fallback.recoveryThreshold: {value} is not allowed, must be 1 or more"
    ):
        Fallback(recovery_threshold=value)


# The floor while the objective is in danger


@pytest.mark.parametrize("behavior", ["HPA", "Hold"])
def test_the_floor_holds_in_fallback(behavior: str) -> None:
    decision = decide(Engine(falling_back(behavior), GONE), 0.0, 5, rate=70.0, latency_ms=300.0)
    assert decision.desired_replicas == 10
    assert [clamp.name for clamp in decision.clamps] == ([] if behavior == "HPA" else ["SLOFloor"])


def test_the_floor_holds_while_the_policy_recovers() -> None:
    engine = read_once(Engine(falling_back("Hold", failures=1, recovery=3), Says(4)))
    decide(engine, 15.0, 10, rate=BAD)
    decision = decide(engine, 30.0, 10, rate=140.0, latency_ms=300.0)
    assert (decision.fallback, decision.desired_replicas) == ("Recovering", 20)


def test_the_floor_holds_while_capacity_is_unknown_if_utilisation_is_not() -> None:
    spec = replace(falling_back("Hold"), capacity_rps=math.nan)
    saturated = {"latency_ms": 300.0, "utilisation": 1.05}
    decision = decide(Engine(spec, Says(3)), 0.0, 5, **saturated)
    assert (decision.fallback, decision.desired_replicas) == ("CapacityUnknown", 8)
    assert decide(Engine(spec, Says(3)), 0.0, 5, latency_ms=300.0).desired_replicas == 5


def test_there_is_no_floor_without_the_readings_that_it_stands_on() -> None:
    engine = read_once(Engine(SPEC, Says(4)))
    assert decide(engine, 15.0, 10, rate=BAD, latency_ms=900.0).desired_replicas == 10
    assert decide(engine, 30.0, 10, rate=BAD, utilisation=1.4).desired_replicas == 10


def test_a_lost_request_rate_does_not_take_the_floor_away() -> None:
    engine = read_once(Engine(SPEC, Says(4)))
    decision = decide(engine, 15.0, 10, rate=BAD, latency_ms=900.0, utilisation=1.4)
    assert (decision.decided_by, decision.desired_replicas) == ("Hold", 20)


def test_the_floor_is_reached_no_faster_than_behavior_allows() -> None:
    slow = replace(FAST, scale_up=replace(FAST.scale_up, policies=(ScalingPolicy("Pods", 1, 60),)))
    engine = read_once(Engine(replace(SPEC, behavior=slow), Says(10)))
    decision = decide(engine, 15.0, 10, rate=BAD, latency_ms=900.0, utilisation=1.05)
    assert decision.desired_replicas == 11
    assert [clamp.name for clamp in decision.clamps] == ["SLOFloor", "ScalingPolicies"]


def test_services_of_a_batch_fall_back_and_recover_apart() -> None:
    engine = Engine([falling_back(failures=1, recovery=2)] * 2, Says(12))
    rates = [[50.0, 50.0], [math.nan, 50.0], [50.0, math.nan], [50.0, 50.0], [50.0, 50.0]]
    seen = []
    for tick, pair in enumerate(rates):
        samples = Samples(request_rate=pair, current=[10.0, 10.0], ready=[10.0, 10.0])
        seen.append([decision.fallback for decision in engine.step(15.0 * tick, samples)])
    assert seen == [
        [None, None],
        ["MetricsUnavailable", None],
        ["Recovering", "MetricsUnavailable"],
        [None, "Recovering"],
        [None, None],
    ]
