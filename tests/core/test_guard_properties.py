"""What must hold of every stage of the guard and of the fallback chain, for any service and any history.

Hundreds of random services live through random histories in one engine, and every decision is looked at;
hypothesis plays single services besides, so that a failure comes back small.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core import (
    Behavior,
    Decision,
    Engine,
    Fallback,
    Limits,
    Samples,
    ScalingPolicy,
    ScalingRules,
    ServiceSpec,
    View,
)
from tests.core.test_properties import play, specs, tick

STAGES = (
    "SLOFloor",
    "OutOfDistribution",
    "MissingMetrics",
    "Schedule",
    "Activation",
    "StabilizationWindow",
    "MinStep",
    "ScalingPolicies",
    "MaxStep",
    "FlapBudget",
    "OutsideChange",
    "Bounds",
    "Budget",
)
SERVICES, TICKS = 300, 40
Rng = np.random.Generator


@dataclass
class Moment:
    """One service at one tick: what it was given, and what was decided."""

    spec: ServiceSpec
    now_s: float
    given: dict
    changes: list[float]
    decision: Decision

    def passed(self, stage: str) -> int:
        """Replicas as they left a stage."""
        later = STAGES[STAGES.index(stage) + 1 :]
        after = [clamp.before for clamp in self.decision.clamps if clamp.name in later]
        return after[0] if after else self.decision.desired_replicas

    def unreadable(self) -> bool:
        values = (self.given["rate"], self.given["utilisation"])
        return not any(math.isfinite(value) and value >= 0 for value in values)


# What must hold


def bounds_hold(moment: Moment) -> None:
    spec, current = moment.spec, moment.given["current"]
    by_hand = current == 0 and spec.min_replicas > 0
    desired = moment.decision.desired_replicas
    assert desired == 0 if by_hand else spec.min_replicas <= desired <= spec.max_replicas


def nothing_goes_down_unseen(moment: Moment) -> None:
    if moment.unreadable():
        assert moment.passed("OutsideChange") >= moment.given["current"]


def stages_come_in_their_order(moment: Moment) -> None:
    clamps = moment.decision.clamps
    places = [STAGES.index(clamp.name) for clamp in clamps]
    assert places == sorted(set(places))
    assert all(one.after == other.before for one, other in pairwise(clamps))
    assert not clamps or clamps[-1].after == moment.decision.desired_replicas


def up_is_never_refused_by_the_flap_budget(moment: Moment) -> None:
    for clamp in moment.decision.clamps:
        if clamp.name == "FlapBudget":
            assert clamp.before < clamp.after == moment.decision.current_replicas


def nothing_goes_down_beyond_the_flap_budget(moment: Moment) -> None:
    counted = moment.spec.limits.changes_per_hour
    recent = sum(moment.now_s - at_s < 3600.0 for at_s in moment.changes)
    if counted is not None and recent >= counted:
        assert moment.passed("FlapBudget") >= moment.given["current"]
    else:
        assert "FlapBudget" not in [clamp.name for clamp in moment.decision.clamps]


def a_hold_holds(moment: Moment) -> None:
    if moment.given["held"]:
        assert moment.passed("OutsideChange") == moment.given["current"]


def the_budget_holds(moment: Moment) -> None:
    most = moment.given["budget"]
    if most is not None:
        assert moment.decision.desired_replicas <= max(most, moment.spec.min_replicas)


def steps_are_no_larger_than_allowed(moment: Moment) -> None:
    if moment.spec.limits.max_step is not None:
        assert abs(moment.passed("MaxStep") - moment.given["current"]) <= moment.spec.limits.max_step


def steps_are_no_smaller_than_allowed(moment: Moment) -> None:
    spec, given_, after = moment.spec, moment.given, moment.passed("MinStep")
    before = given_["current"]
    inside = max(spec.min_replicas, 1) <= before <= spec.max_replicas
    danger = given_["latency"] > spec.slo_latency_ms
    urgent = danger or given_["floor"] > before or moment.decision.unfamiliar
    if spec.limits.min_step is not None and inside and after not in (before, 0):
        assert abs(after - before) >= spec.limits.min_step or (urgent and after > before)


def a_floor_is_wished_for(moment: Moment) -> None:
    if not (moment.given["current"] == 0 and moment.spec.min_replicas > 0):
        assert moment.passed("Schedule") >= moment.given["floor"]


def somebody_decides_and_the_others_have_reasons(moment: Moment) -> None:
    decision = moment.decision
    links = [link for link, _ in decision.passed_over]
    if decision.decided_by == "Policy":
        assert (links, decision.fallback) == ([], None)
    else:
        assert links[0] == "Policy"
        assert all(reason for _, reason in decision.passed_over)
        assert (decision.recommended_replicas is None) == (decision.decided_by == "Hold")
    assert (decision.recovery_awaited > 0) == (decision.fallback is not None)
    assert decision.recovery_awaited <= moment.spec.fallback.recovery_threshold


PROPERTIES = (
    bounds_hold,
    nothing_goes_down_unseen,
    stages_come_in_their_order,
    up_is_never_refused_by_the_flap_budget,
    nothing_goes_down_beyond_the_flap_budget,
    a_hold_holds,
    the_budget_holds,
    steps_are_no_larger_than_allowed,
    steps_are_no_smaller_than_allowed,
    a_floor_is_wished_for,
    somebody_decides_and_the_others_have_reasons,
)


# Random services


def random_spec(rng: Rng) -> ServiceSpec:
    def rules() -> ScalingRules:
        kinds = ("Pods", "Percent")
        policies = tuple(
            ScalingPolicy(kinds[rng.integers(2)], int(rng.integers(1, 300)), int(rng.choice([15, 60, 1800])))
            for _ in range(rng.integers(1, 4))
        )
        select = str(rng.choice(["Max", "Max", "Max", "Min", "Disabled"]))
        return ScalingRules(int(rng.choice([0, 0, 15, 60, 300])), select, policies)  # type: ignore[arg-type]

    def maybe() -> int | None:
        return None if rng.random() < 0.4 else int(rng.integers(1, 10))

    low = int(rng.choice([0, 0, 1, 5, 30]))
    small, large = maybe(), maybe()
    if small is not None and large is not None:
        small, large = min(small, large), max(small, large)
    kind = str(rng.choice(["HPA", "Hold", "Static"]))
    return ServiceSpec(
        min_replicas=low,
        max_replicas=int(rng.integers(max(low, 1), 90)),
        slo_latency_ms=float(rng.choice([math.nan, 50.0, 500.0])),
        capacity_rps=float(rng.choice([math.nan, 0.5, 20.0, 5000.0])),
        start_up_s=float(rng.choice([math.nan, 5.0, 60.0])),
        idle_after_s=float(rng.choice([0.0, 60.0])),
        behavior=Behavior(rules(), rules()),
        fallback=Fallback(int(rng.integers(1, 4)), kind, 20, int(rng.integers(1, 5))),  # type: ignore[arg-type]
        limits=Limits(maybe(), large, small),
    )


class Erratic:
    """Says anything, now and then nothing, and calls some moments unlike any in training."""

    name, type, digest, schema = "erratic", "RL", "", ""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng

    def recommend(self, view: View) -> np.ndarray:
        near = view.current + self.rng.integers(-6, 7, len(view))
        far = self.rng.choice([math.nan, math.inf, -3.0, 0.0, 17.5, 1e12], len(view))
        return np.where(self.rng.random(len(view)) < 0.25, far, near)

    def unfamiliar(self, view: View) -> np.ndarray:
        return self.rng.random(len(view)) < 0.1


def random_given(rng: Rng, current: int) -> dict:
    broken = [math.nan, math.inf, -1.0]
    return {
        "rate": float(rng.choice([*broken, 0.0, rng.lognormal(3, 2)], p=[0.1, 0.03, 0.02, 0.15, 0.7])),
        "latency": float(rng.choice([math.nan, 20.0, 200.0, 900.0])),
        "utilisation": float(rng.choice([*broken, rng.uniform(0, 1.5)], p=[0.2, 0.05, 0.05, 0.7])),
        "ready": float(rng.choice([math.nan, current, rng.integers(0, current + 1)])),
        "current": current,
        "floor": int(rng.choice([0, 0, 0, 5, 60])),
        "held": bool(rng.random() < 0.1),
        "budget": int(rng.choice([0, 7, 25, 500])) if rng.random() < 0.3 else None,
    }


def lives(seed: int) -> Iterator[Moment]:
    """Every decision for SERVICES services over TICKS ticks of up to 10 min."""
    rng = np.random.default_rng(seed)
    many = [random_spec(rng) for _ in range(SERVICES)]
    engine = Engine(many, Erratic(rng))
    changes: list[list[float]] = [[] for _ in many]
    current, now = rng.integers(0, 60, SERVICES).tolist(), 1000.0
    for _ in range(TICKS):
        now += float(rng.choice([15.0, 15.0, 60.0, 600.0]))
        given_ = [random_given(rng, int(replicas)) for replicas in current]
        for row, one in enumerate(given_):
            engine.set_floor(row, one["floor"])
            engine.hold(row, now + 1.0 if one["held"] else now)
        most = np.array([10**6 if one["budget"] is None else one["budget"] for one in given_])
        engine.budget = lambda rows, wishes, current, most=most: most[rows]
        names = {
            "request_rate": "rate", "latency_ms": "latency", "utilisation": "utilisation",
            "ready": "ready", "current": "current",
        }  # fmt: skip
        samples = Samples(**{name: [one[key] for one in given_] for name, key in names.items()})
        for row, decision in enumerate(engine.step(now, samples)):
            yield Moment(many[row], now, given_[row], list(changes[row]), decision)
            if decision.desired_replicas != current[row]:
                changes[row].append(now)
            jumped = rng.random() < 0.05
            current[row] = int(rng.integers(0, 80)) if jumped else decision.desired_replicas


@pytest.fixture(scope="module", params=[11, 12])
def moments(request: pytest.FixtureRequest) -> list[Moment]:
    """Every decision of one random world."""
    return list(lives(request.param))


@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_it_holds_in_a_random_world(holds, moments: list[Moment]) -> None:
    for moment in moments:
        holds(moment)


def test_every_stage_has_had_its_say(moments: list[Moment]) -> None:
    """Without this the others could hold for want of anything to hold."""
    seen = [clamp.name for moment in moments for clamp in moment.decision.clamps]
    assert {name: seen.count(name) for name in STAGES if seen.count(name) < 20} == {}
    assert {moment.decision.decided_by for moment in moments} == {"Policy", "HPA", "Static", "Hold"}
    reasons = {reason for moment in moments for _, reason in moment.decision.passed_over}
    assert reasons >= {
        "AwaitingMetrics",
        "MetricsUnavailable",
        "InvalidAction",
        "CapacityUnknown",
        "Recovering",
        "FormulaUnavailable",
    }


@settings(max_examples=40)
@given(specs(), st.lists(tick, min_size=1, max_size=10))
def test_it_holds_for_one_service(spec: ServiceSpec, history: list[dict]) -> None:
    changes: list[float] = []
    for index, (given_, decision) in enumerate(play(spec, history)):
        moment = Moment(spec, spec.sync_period_s * index, given_, list(changes), decision)
        for holds in PROPERTIES:
            holds(moment)
        if decision.desired_replicas != given_["current"]:
            changes.append(moment.now_s)


@pytest.mark.parametrize("seed", range(25))
def test_a_restart_keeps_the_flap_budget(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counted = int(rng.integers(1, 6))
    spec = ServiceSpec(1, 90, capacity_rps=10.0, limits=Limits(changes_per_hour=counted))
    engine, now, current = Engine(spec, Erratic(rng)), 0.0, 10
    for _ in range(20):
        now += float(rng.choice([15.0, 300.0, 1500.0]))
        current = engine.step(now, Samples(request_rate=[50.0], current=[current]))[0].desired_replicas
    again = Engine(spec, Erratic(rng))
    again.restore(0, now, json.loads(json.dumps(engine.stabilization_state(0))), current)
    for later_s in (0.0, 600.0, 1200.0, 2400.0, 3599.0, 3601.0):
        asked = [
            one._memory.flaps.used_up(np.array([0]), np.array([now + later_s]), np.array([counted])).item()
            for one in (engine, again)
        ]
        assert asked[0] == asked[1], later_s
