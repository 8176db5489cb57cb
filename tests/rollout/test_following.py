"""Replicas, weights and status that follow a roll-out's state: the operator's side, without a cluster."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from controller.actuation.apply import Shared, pool_steps
from controller.actuation.target import Target
from controller.actuation.weights import weigher
from controller.case import Case, pools_of
from controller.clock import Clock
from controller.core import Decision, Outcome
from controller.core.rollout import (
    FAILED,
    PAUSED,
    PROGRESSING,
    SUCCEEDED,
    RolloutRules,
    RolloutState,
)
from controller.kube import Resource
from controller.news import news
from controller.outside import Hold
from controller.registry import Entry, Registry
from controller.rolloutplan import Plan, Turn, followed
from controller.rollouts import Rollouts, _Memory, _queries
from controller.rolloutstatus import published, restored
from tests.api.samples import POOLS, manifest

DEPLOYMENTS = Resource("apps/v1", "Deployment", "deployments", True, True)
CANARY = {"pool": "spot", "maxWeight": 50}
RULES = RolloutRules()
NOW_S = 10_000.0


def entry(**changes: Any) -> Entry:
    """On-demand (2 to 40, at least weight 10) and spot (0 to 60), of which spot is the canary."""
    body = manifest({**POOLS, "canary": CANARY, **changes})
    body["metadata"] |= {"uid": "u", "resourceVersion": "1", "generation": 1}
    return Registry().apply(body).entry


def decision(current: int, desired: int) -> Decision:
    outcome = "ScaledUp" if desired > current else "ScaledDown" if desired < current else "NoChange"
    return Decision(current, desired, desired, desired, outcome, (), "", "HPA", None, Outcome.OK, 1.0)


def case(others: int, own: int, desired: int, of: Entry | None = None, ready: int | None = None) -> Case:
    found = of or entry()
    counts = ((others, others), (own, own if ready is None else ready))
    targets = tuple(
        Target(ref, DEPLOYMENTS, replicas, there, "1")
        for ref, (replicas, there) in zip(found.targets, counts, strict=True)
    )
    return Case(found, 1, targets=targets, decision=decision(others + own, desired))


def state(phase: str, weight: int, since_s: float = 0.0) -> RolloutState:
    return RolloutState(phase, weight, since_s, since_s, since_s, revision="one", mark="m")


def planned(of: Case, now: RolloutState, most: int = 100) -> Turn:
    return Plan(of, 1, RULES, most, NOW_S).turn(now)


def replicas(of: Case, turn: Turn) -> list[int]:
    """(others, canary) after this turn."""
    of.rollout = turn
    assert of.decision is not None
    after = followed(of.decision, turn)
    return pool_steps([t.replicas for t in of.targets], after.desired_replicas, pools_of(of))


@pytest.mark.parametrize(
    ("phase", "weight", "others", "own", "desired", "expected"),
    [
        (PROGRESSING, 0, 10, 0, 10, [10, 1]),
        (PROGRESSING, 10, 10, 1, 10, [10, 2]),
        (PROGRESSING, 40, 10, 4, 10, [10, 5]),
        (PROGRESSING, 10, 10, 2, 20, [20, 4]),
        (PROGRESSING, 10, 10, 2, 6, [6, 2]),
        (PROGRESSING, 10, 10, 2, 12, [10, 2]),
        (PAUSED, 10, 10, 2, 12, [10, 2]),
        (SUCCEEDED, 50, 10, 5, 10, [5, 5]),
        (SUCCEEDED, 50, 10, 5, 20, [10, 10]),
        (FAILED, 0, 10, 5, 15, [10, 0]),
        (FAILED, 0, 5, 5, 10, [5, 0]),
        (FAILED, 0, 5, 0, 10, [10, 0]),
    ],
)
def test_the_canary_is_on_top_until_it_has_succeeded(
    phase: str, weight: int, others: int, own: int, desired: int, expected: Sequence[int]
) -> None:
    of = case(others, own, desired)
    assert replicas(of, planned(of, state(phase, weight))) == expected


def test_after_a_rollback_its_replicas_stay_while_requests_are_on_their_way() -> None:
    of = case(10, 5, 15)
    assert replicas(of, planned(of, state(FAILED, 0, NOW_S - 15.0))) == [10, 5]
    assert replicas(of, planned(of, state(FAILED, 0, NOW_S - 30.0))) == [10, 0]


def test_bounds_and_budgets_stop_its_growth_and_take_nothing_away() -> None:
    plan = Plan(case(10, 1, 10), 1, RULES, 11, NOW_S)
    assert plan.replicas_seen(state(PROGRESSING, 20)) == (3, 1), "it needs three and may have one"
    of = case(10, 3, 10)
    assert replicas(of, planned(of, state(PROGRESSING, 20), most=13)) == [10, 3]


def test_replicas_that_somebody_else_has_set_are_left_alone() -> None:
    of = case(7, 9, 16)
    of.entry.outside.hold = Hold(16, 1e12, "kubectl", 1)
    assert replicas(of, planned(of, state(PROGRESSING, 10))) == [7, 9]


def test_a_canary_of_other_replicas_gets_as_many_as_it_needs_of_them() -> None:
    backends = [dict(POOLS["backends"][0]), {**POOLS["backends"][1], "capacityPerReplica": "5"}]
    found = entry(backends=backends, objective={"capacityPerReplica": "10"})
    of = case(10, 0, 10, found)
    assert replicas(of, planned(of, state(PROGRESSING, 10))) == [10, 4], "half as strong: twice as many"


def test_a_service_at_zero_has_no_canary_either() -> None:
    backends = [{**POOLS["backends"][0], "minReplicas": 0}, POOLS["backends"][1]]
    of = case(0, 0, 0, entry(backends=backends, minReplicas=0))
    assert replicas(of, planned(of, state(PROGRESSING, 0))) == [0, 0]


@pytest.mark.parametrize("seed", range(20))
def test_no_sequence_of_decisions_makes_replicas_run_away(seed: int) -> None:
    """An engine that stays, goes where it is to, or is held back on the way, as guards do."""
    dice = random.Random(seed)
    others, own, found = 10, 0, entry()
    for _ in range(200):
        current, need = others + own, dice.randint(4, 12)
        desired = dice.choice([current, need, max(need, current - 1), min(need, current + 4)])
        phase, weight = dice.choice([(PROGRESSING, 40), (PAUSED, 30), (SUCCEEDED, 50), (FAILED, 0)])
        of = case(others, own, desired, found)
        others, own = replicas(of, planned(of, state(phase, weight)))
        assert 2 <= others <= 12, "what the largest need is"
        assert own <= 10


def weighed(turn: Turn, ready: Sequence[int], now: Sequence[int], max_step: int | None = None) -> list[int]:
    """The route's weights after a turn, through the same guard as all others."""
    of = case(10, 5, 10)
    of.rollout = turn
    rollouts = Rollouts(None, Clock())  # type: ignore[arg-type]
    rollouts._memories["u"] = _Memory(1, "spot", 1, None, None)  # type: ignore[arg-type]
    services = ("web-od", "web-spot")
    shared = rollouts.shared(of, Shared(services, pools_of(of), ready), 1.0)
    weigh = weigher(services, shared.pools, shared.ready, max_step, shared.ask)
    if weigh is None:
        return list(now)
    found = weigh(100, dict(zip(services, now, strict=True)))
    return [found[service] for service in services]


def test_weights_are_those_of_the_state_up_by_steps_and_to_nothing_at_once() -> None:
    up = planned(case(10, 5, 10), state(PROGRESSING, 30))
    assert weighed(up, (10, 5), (80, 20)) == [70, 30]
    assert weighed(up, (10, 5), (80, 20), max_step=4) == [76, 24]
    back = planned(case(10, 5, 10), state(FAILED, 0))
    assert weighed(back, (10, 5), (50, 50), max_step=1) == [100, 0]


def test_without_another_ready_pool_weights_stay_and_without_replicas_it_gets_nothing() -> None:
    up = planned(case(10, 5, 10), state(PROGRESSING, 30))
    assert weighed(up, (0, 5), (80, 20)) == [80, 20]
    assert weighed(up, (10, 0), (80, 20), max_step=1) == [100, 0]


def test_a_pool_beside_it_may_take_all_the_rest_though_its_most_is_less() -> None:
    backends = [{**POOLS["backends"][0], "maxWeight": 60}, POOLS["backends"][1]]
    of = case(10, 5, 10, entry(backends=backends))
    turn = planned(of, state(PROGRESSING, 10))
    assert weighed(turn, (10, 5), (60, 40)) == [90, 10]


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"preset": "envoy"}, ""),
        ({"preset": "custom", "queries": {"requestRate": "sum(x)"}}, "where they name {{service}}"),
        ({"preset": "envoy", "queries": {"errorRatio": ""}}, "errorRatio"),
    ],
)
def test_a_pool_without_metrics_of_its_own_is_told_and_never_stepped(
    metrics: dict[str, Any], said: str
) -> None:
    _, unreadable = _queries(entry(metrics=metrics), 1, 1.0)
    assert bool(unreadable) == bool(said)
    assert said in unreadable


def test_a_status_is_the_state_and_back() -> None:
    clock = Clock(20.0)
    before = RolloutState(
        PROGRESSING, 30, clock.to_control(1000.0), clock.to_control(2000.5), 0.0, "abc", 1, 2,
        clock.to_control(2100.25), "restart-2", "mark", "at weight 30: its metrics are awaited",
    )  # fmt: skip
    held = published(before, "spot", clock, None)
    after = restored(held, "spot", clock)
    assert after is not None
    assert published(after, "spot", clock, None) == held
    assert (after.weight, after.failed, after.missing, after.restart) == (30, 1, 2, "restart-2")
    assert after.stepped_s == pytest.approx(before.stepped_s)
    assert after.waiting_s == pytest.approx(before.waiting_s)
    assert restored(held, "another", clock) is None
    assert restored({**held, "phase": "Unheard"}, "spot", clock) is None


def test_a_status_that_differs_in_digits_alone_is_not_written_again() -> None:
    clock, before = Clock(), state(PROGRESSING, 10)
    old = published(before, "spot", clock, None) | {"message": "at weight 10: 4 requests"}
    fresh = RolloutState(**{**_fields(before), "message": "at weight 10: 7 requests"})
    assert published(fresh, "spot", clock, old) == old
    assert published(state(PROGRESSING, 20), "spot", clock, old) != old


def _fields(of: RolloutState) -> dict[str, Any]:
    return {name: getattr(of, name) for name in RolloutState.__slots__}


def test_every_phase_and_every_step_is_an_event_once() -> None:
    story = [("Progressing", 0), ("Progressing", 10), ("Progressing", 10), ("Paused", 10), ("Failed", 0)]
    told: list[str] = []
    before: dict[str, Any] = {}
    for phase, weight in story:
        after = {"canary": {"pool": "spot", "phase": phase, "weight": weight, "message": "m"}}
        told += [item.reason for item in news(before, after, None, None, None)]
        before = after
    assert told == ["CanaryProgressing", "CanaryStepped", "CanaryPaused", "CanaryFailed"]


def test_the_decision_says_what_is_on_top() -> None:
    after = followed(decision(10, 10), Turn(1, 10, (), 12, 2))
    assert (after.desired_replicas, after.outcome, after.clamps[-1].name) == (12, "ScaledUp", "Canary")
    same = followed(decision(12, 10), Turn(1, 10, (), 12, 2))
    assert same.outcome == "NoChange"
    assert followed(decision(10, 10), Turn(1, 0, (), 10, 0)) == decision(10, 10)
