"""The guard's stages that are off by default: schedule, least and largest step, flap budget, outside change,
and the budget of a group."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controller.core import Behavior, Decision, Engine, Limits, Samples, ServiceSpec, SpecError
from tests.core.worlds import FAST, Says, decide

SPEC = ServiceSpec(min_replicas=2, max_replicas=40, capacity_rps=10.0, slo_latency_ms=100.0, behavior=FAST)


def limited(**limits: int) -> ServiceSpec:
    return replace(SPEC, limits=Limits(**limits))


def names(decision: Decision) -> list[str]:
    return [clamp.name for clamp in decision.clamps]


# Schedule


def test_a_floor_raises_and_leaves_its_name() -> None:
    engine = Engine(SPEC, Says(4))
    engine.set_floor(0, 12)
    decision = decide(engine, 0.0, 4)
    assert decision.desired_replicas == 12
    assert [(clamp.name, clamp.reason) for clamp in decision.clamps] == [("Schedule", "ScheduledFloor")]


def test_a_floor_that_is_over_is_gone() -> None:
    engine = Engine(SPEC, Says(4))
    engine.set_floor(0, 12)
    decide(engine, 0.0, 4)
    engine.set_floor(0, 0)
    assert decide(engine, 15.0, 12).desired_replicas == 4


def test_a_floor_is_reached_as_fast_as_behavior_allows() -> None:
    engine = Engine(replace(SPEC, behavior=Behavior()), Says(4))
    engine.set_floor(0, 30)
    decision = decide(engine, 0.0, 4)
    assert decision.desired_replicas == 8
    assert names(decision) == ["Schedule", "ScalingPolicies"]


def test_a_floor_holds_where_metrics_are_missing_and_is_no_faster_then() -> None:
    engine = Engine(replace(SPEC, behavior=Behavior()), Says(4))
    engine.set_floor(0, 30)
    assert decide(engine, 0.0, 4, rate=np.nan).desired_replicas == 8


def test_a_floor_never_exceeds_max_replicas() -> None:
    engine = Engine(SPEC, Says(4))
    engine.set_floor(0, 400)
    assert decide(engine, 0.0, 4).desired_replicas == 40


def test_a_floor_keeps_a_service_awake_and_wakes_it() -> None:
    engine = Engine(replace(SPEC, min_replicas=0, idle_after_s=0.0), Says(0))
    engine.set_floor(0, 3)
    assert decide(engine, 0.0, 5, rate=0.0).desired_replicas == 3
    assert decide(engine, 15.0, 0, rate=0.0).desired_replicas == 3
    engine.set_floor(0, 0)
    assert decide(engine, 30.0, 3, rate=0.0).desired_replicas == 0


def test_a_new_service_in_an_old_row_has_no_floor_and_no_hold() -> None:
    engine = Engine(SPEC, Says(4))
    engine.set_floor(0, 12)
    engine.hold(0, 1e9)
    engine.remove(0)
    assert engine.add(SPEC, Says(4)) == 0
    assert decide(engine, 0.0, 6).desired_replicas == 4


# Steps


@pytest.mark.parametrize(
    ("says", "desired", "clamps"),
    [
        pytest.param(12, 10, ["MinStep"], id="two up is too little"),
        pytest.param(8, 10, ["MinStep"], id="two down as well"),
        pytest.param(13, 13, [], id="three is enough"),
        pytest.param(7, 7, [], id="and down"),
        pytest.param(10, 10, [], id="no change is no small change"),
    ],
)
def test_small_steps_are_not_made(says: float, desired: int, clamps: list[str]) -> None:
    decision = decide(Engine(limited(min_step=3), Says(says)), 0.0, 10)
    assert (decision.desired_replicas, names(decision)) == (desired, clamps)


def test_a_small_step_that_the_window_hands_out_is_not_made_either() -> None:
    spec = replace(limited(min_step=3), behavior=replace(FAST, scale_down=Behavior().scale_down))
    policy = Says(9)
    engine = Engine(spec, policy)
    seen = [decide(engine, 15.0 * tick, 10) for tick in range(2)]
    policy.replicas = 4
    seen += [decide(engine, 15.0 * tick, 10) for tick in range(2, 25)]
    assert {decision.desired_replicas for decision in seen} == {10, 4}
    assert "MinStep" in [name for decision in seen for name in names(decision)]


def test_floors_and_an_objective_in_danger_make_small_steps() -> None:
    engine = Engine(limited(min_step=3), Says(10))
    danger = decide(engine, 0.0, 10, latency_ms=300.0, utilisation=0.78)
    assert danger.desired_replicas == 12
    engine.set_floor(0, 11)
    assert decide(engine, 15.0, 10).desired_replicas == 11


def test_danger_is_no_reason_for_a_small_step_down() -> None:
    engine = Engine(limited(min_step=3), Says(9))
    decision = decide(engine, 0.0, 10, rate=1.0, latency_ms=300.0)
    assert decision.desired_replicas == 10


def test_bounds_make_small_steps() -> None:
    assert decide(Engine(limited(min_step=3), Says(1)), 0.0, 1).desired_replicas == 2
    assert decide(Engine(limited(min_step=3), Says(60)), 0.0, 41).desired_replicas == 40


def test_to_and_from_zero_is_no_question_of_size() -> None:
    spec = replace(limited(min_step=3), min_replicas=0, idle_after_s=0.0)
    assert decide(Engine(spec, Says(0)), 0.0, 2, rate=0.0).desired_replicas == 0
    assert decide(Engine(spec, Says(0)), 0.0, 0, rate=5.0).desired_replicas == 1


@pytest.mark.parametrize(("says", "desired"), [(30, 14), (2, 6), (13, 13)])
def test_one_decision_moves_at_most_max_step(says: float, desired: int) -> None:
    decision = decide(Engine(limited(max_step=4), Says(says)), 0.0, 10)
    assert decision.desired_replicas == desired
    assert names(decision) == ([] if says == desired else ["MaxStep"])


def test_bounds_do_not_wait_for_max_step() -> None:
    assert decide(Engine(limited(max_step=4), Says(60)), 0.0, 60).desired_replicas == 40


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"changes_per_hour": 0}, "limits.changesPerHour: 0 is not allowed, must be 1 or more"),
        ({"max_step": -1}, "limits.maxStep: -1 is not allowed, must be 1 or more"),
        ({"min_step": 5, "max_step": 4}, r"limits.minStep: 5 is not allowed, must be in 1..maxStep \(4\)"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, int], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Limits(**limits)


# Flap budget


def flapping(engine: Engine, policy: Says, ticks: int, current: int = 10) -> list[int]:
    """Replicas under a policy that changes its mind at every tick of five minutes."""
    seen = []
    for tick in range(ticks):
        policy.replicas = 20 if tick % 2 == 0 else 10
        current = decide(engine, 300.0 * tick, current).desired_replicas
        seen.append(current)
    return seen


def test_after_so_many_changes_an_hour_nothing_goes_down() -> None:
    policy = Says(0)
    seen = flapping(Engine(limited(changes_per_hour=4), policy), policy, 25)
    # four changes within 900 s; the first is an hour old at 3600 s, and the down of tick 13 may be made
    assert seen[:4] == [20, 10, 20, 10]
    assert seen[4:13] == [20] * 9
    assert seen[13] == 10
    assert seen[14] == 20


def test_up_goes_on_when_the_budget_is_used_up() -> None:
    policy = Says(0)
    engine = Engine(limited(changes_per_hour=1), policy)
    current, seen = 5, []
    for tick, wish in enumerate([8, 6, 12, 9, 30, 3]):
        policy.replicas = wish
        decision = decide(engine, 15.0 * tick, current)
        current = decision.desired_replicas
        seen.append((current, names(decision)))
    assert seen == [
        (8, []),
        (8, ["FlapBudget"]),
        (12, []),
        (12, ["FlapBudget"]),
        (30, []),
        (30, ["FlapBudget"]),
    ]


def test_bounds_are_kept_with_a_used_up_budget() -> None:
    policy = Says(30)
    engine = Engine(limited(changes_per_hour=1), policy)
    decide(engine, 0.0, 10)
    engine.update(0, replace(limited(changes_per_hour=1), max_replicas=15))
    assert decide(engine, 15.0, 30).desired_replicas == 15


def test_a_restart_keeps_the_flap_budget() -> None:
    policy, spec = Says(0), limited(changes_per_hour=4)
    through = flapping(Engine(spec, policy), policy, 25)
    engine = Engine(spec, policy)
    begun = flapping(engine, policy, 6)
    again = Engine(spec, policy)
    again.restore(0, 1500.0, engine.stabilization_state(0), begun[-1])
    current, rest = begun[-1], []
    for tick in range(6, 25):
        policy.replicas = 20 if tick % 2 == 0 else 10
        current = decide(again, 300.0 * tick, current).desired_replicas
        rest.append(current)
    assert begun + rest == through


def test_events_of_an_hour_are_written_down_only_for_a_budget() -> None:
    for spec, kept in ((limited(changes_per_hour=4), 3), (SPEC, 0)):
        engine = Engine(spec, Says(10))
        for at_s in (0.0, 600.0, 1200.0):
            engine.record_scale(0, at_s, 10, 12)
        decide(engine, 3000.0, 10)
        assert len(engine.stabilization_state(0)["scaleEvents"]) == kept


# Outside changes


def test_replicas_that_somebody_has_set_are_left_alone_until_then() -> None:
    engine = Engine(SPEC, Says(4))
    engine.hold(0, 300.0)
    held = decide(engine, 285.0, 17)
    assert (held.desired_replicas, names(held)) == (17, ["OutsideChange"])
    assert held.outcome == "Held"
    assert decide(engine, 300.0, 17).desired_replicas == 4


@pytest.mark.parametrize(("current", "desired"), [(60, 40), (1, 2)])
def test_a_hold_stays_inside_the_bounds(current: int, desired: int) -> None:
    engine = Engine(SPEC, Says(4))
    engine.hold(0, 300.0)
    assert decide(engine, 0.0, current).desired_replicas == desired


def test_a_hold_goes_before_floors() -> None:
    engine = Engine(SPEC, Says(4))
    engine.hold(0, 300.0)
    engine.set_floor(0, 12)
    assert decide(engine, 0.0, 5, latency_ms=900.0, utilisation=1.0).desired_replicas == 5


def test_last_desired_is_what_was_decided_or_restored() -> None:
    engine = Engine(SPEC, Says(4))
    assert engine.last_desired(0) == -1
    decide(engine, 0.0, 10)
    assert engine.last_desired(0) == 4
    engine.restore(0, 15.0, {}, 9)
    assert engine.last_desired(0) == 9


# The budget of a group


def test_a_group_gets_no_more_than_its_budget_leaves() -> None:
    asked = []

    def share(rows: np.ndarray, wishes: np.ndarray, current: np.ndarray) -> np.ndarray:
        asked.append((rows.tolist(), wishes.tolist(), current.tolist()))
        return np.array([8, 100, 1])

    engine = Engine([SPEC] * 3, [Says(20), Says(30), Says(20)])
    engine.budget = share
    decided = engine.step(0.0, Samples(request_rate=[50.0] * 3, current=[10.0] * 3, ready=[10.0] * 3))
    assert asked == [([0, 1, 2], [20, 30, 20], [10, 10, 10])]
    assert decided.desired_replicas.tolist() == [8, 30, 2], "never below minReplicas"
    assert names(decided[0]) == ["Budget"]
    assert decided[0].clamps[0].reason == "BudgetExhausted"
    assert engine.last_desired(0) == 8


def test_a_budget_leaves_a_target_at_zero_alone() -> None:
    engine = Engine(SPEC, Says(20))
    engine.budget = lambda rows, wishes, current: np.array([5])
    assert decide(engine, 0.0, 0).desired_replicas == 0


# The order


def test_stages_come_in_their_order() -> None:
    spec = replace(
        SPEC,
        behavior=Behavior(),
        limits=Limits(changes_per_hour=1, max_step=3, min_step=2),
    )
    engine = Engine(spec, Says(2))
    engine.set_floor(0, 30)
    engine.budget = lambda rows, wishes, current: np.array([11])
    decision = decide(engine, 0.0, 10, latency_ms=300.0, utilisation=1.0)
    assert names(decision) == ["SLOFloor", "Schedule", "ScalingPolicies", "MaxStep", "Budget"]
    assert [(clamp.before, clamp.after) for clamp in decision.clamps] == [
        (2, 15),
        (15, 30),
        (30, 20),
        (20, 13),
        (13, 11),
    ]


def test_a_batch_of_which_one_has_limits_leaves_the_others_alone() -> None:
    engine = Engine([SPEC, limited(max_step=1, min_step=1, changes_per_hour=1), SPEC], Says(20))
    engine.hold(2, 1e9)
    samples = Samples(request_rate=[50.0] * 3, current=[10.0] * 3, ready=[10.0] * 3)
    assert engine.step(0.0, samples).desired_replicas.tolist() == [20, 11, 10]
    assert decide(Engine(SPEC, Says(20)), 0.0, 10).clamps == ()
