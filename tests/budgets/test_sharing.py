"""Members that decide in different ticks share a budget; nobody is raised beyond what is free just then."""

from __future__ import annotations

import logging
import random
from typing import Any

import numpy as np
import pytest

from controller.api.constants import Reason
from controller.api.convert import to_service_spec
from controller.api.validation import parse_spec
from controller.budgets.plan import MOST_MISSED
from controller.budgets.share import Share, explained, share_status
from controller.budgets.sharing import NO_CAP
from controller.core import Engine, HpaPolicy, Samples
from controller.trouble import Trouble
from tests.budgets.world import World
from tests.operator.bodies import hpa


def world(limit: int = 20, **replicas: int) -> World:
    """Members a, b, ... of one budget, everybody read."""
    found = World()
    for name, count in replicas.items():
        found.add(name, count)
    found.budget("shop", maxReplicas=limit)
    found.read()
    return found


def test_the_higher_priority_gets_it_only_after_the_lower_has_given_way() -> None:
    w = World()
    w.add("high", 4, priority=10)
    w.add("low", 14)
    w.budget("shop", maxReplicas=20)
    w.read()
    w.turn(low=14)
    assert w.turn(high=12) == {"high": 6, "low": 14}
    assert w.share("high") == Share(
        "shop",
        6,
        "RLScalerBudget shop (maxReplicas 20) has no more free now: "
        "6 of 12 replicas, 12 once others have given way",
    )
    assert w.turn(low=14) == {"high": 6, "low": 8}
    assert w.share("low") == Share(
        "shop", 8, "RLScalerBudget shop (maxReplicas 20) is exhausted: 8 of 14 replicas, 6 refused"
    )
    assert w.turn(high=12) == {"high": 12, "low": 8}
    assert w.share("high") == Share("shop")


def test_in_one_batch_a_raise_does_not_count_on_what_another_gives_up() -> None:
    w = world(20, a=15, b=5)
    assert w.turn(a=15, b=15) == {"a": 10, "b": 5}
    assert w.turn(a=15, b=15) == {"a": 10, "b": 10}


def test_what_was_let_through_counts_until_the_targets_are_read_again() -> None:
    w = world(20, a=5, b=5)
    assert w.decide({"a": 12}) == {"a": 12}
    assert w.decide({"b": 12}) == {"b": 8}
    w.read("a")  # its write has failed
    assert w.decide({"b": 12}) == {"b": 10}


def test_a_write_that_is_not_complete_may_yet_take_effect() -> None:
    w = world(20, a=5, b=5)
    w.decide({"a": 12})
    w.sharing.scaled(w.entry("a"), w._case("a").targets, complete=False)
    assert w.decide({"b": 12}) == {"b": 8}


def test_equal_members_come_to_equal_shares_from_wherever_they_start() -> None:
    """Wishes here are held back by rate rules, at twice the replicas: an uneven start must not last."""
    w = world(24, a=18, b=4, c=2)
    for _ in range(12):
        w.turn(**{name: min(30, 2 * sum(held)) for name, held in w.replicas.items()})
    assert w.replicas == {"a": [8], "b": [8], "c": [8]}


def test_nothing_moves_while_wishes_stand_still() -> None:
    w = world(17, a=1, b=1, c=1)
    wishes = {"a": 9, "b": 30, "c": 2}
    for _ in range(4):
        w.turn(**wishes)
    settled = dict(w.replicas)
    assert settled == {"a": [8], "b": [7], "c": [2]}
    said = [w.share(name) for name in wishes]
    for _ in range(5):
        for name, wish in wishes.items():
            w.turn(**{name: wish})
        assert w.replicas == settled
        assert [w.share(name) for name in wishes] == said


def test_minimums_are_never_refused() -> None:
    w = World()
    w.add("a", 1, minReplicas=6)
    w.add("b", 9, minReplicas=6)
    w.budget("shop", maxReplicas=10)
    w.read()
    assert w.turn(a=6, b=9) == {"a": 6, "b": 6}
    assert w.turn(a=9, b=9) == {"a": 6, "b": 6}


def test_a_member_whose_target_was_set_to_zero_by_hand_stays_there() -> None:
    w = World()
    w.add("a", 0, minReplicas=2)
    w.add("b", 5)
    w.budget("shop", maxReplicas=8)
    w.read()
    assert w.turn(a=0, b=9) == {"a": 0, "b": 8}


def test_a_shadow_is_counted_but_never_told() -> None:
    w = World()
    w.add("shadow", 12, mode="Shadow")
    w.add("active", 5)
    w.budget("shop", maxReplicas=20)
    w.read()
    assert w.decide({"shadow": 18, "active": 15}) == {"shadow": 18, "active": 8}
    assert w.share("shadow") == Share("shop")


def test_a_paused_one_counts_with_what_its_target_has() -> None:
    w = World()
    w.add("paused", 12, mode="Paused")
    w.add("active", 5)
    w.budget("shop", maxReplicas=20)
    w.read()
    assert w.turn(active=15) == {"paused": 12, "active": 8}
    w.replicas["paused"] = [3]
    w.read("paused")
    assert w.turn(active=15) == {"paused": 3, "active": 15}


def test_one_paused_in_the_middle_of_a_raise_counts_with_what_it_may_become() -> None:
    w = world(20, a=5, b=5)
    w.decide({"a": 12})
    w.edit("a", mode="Paused")
    assert w.decide({"b": 15}) == {"b": 8}


def test_one_whose_target_an_hpa_scales_is_counted_but_not_told() -> None:
    w = world(20, a=12, b=4)
    w.registry.rivals.apply(_hpas(), hpa("a"))
    assert w.decide({"a": 3, "b": 12}) == {"a": 3, "b": 8}
    assert w.share("a") == Share("shop")


def _hpas() -> Any:
    from controller.kube import HPAS

    return HPAS


def test_a_target_of_an_active_one_and_its_shadow_counts_once() -> None:
    w = World()
    w.add("web", 8)
    w.add("trial", 8, mode="Shadow", scaleTargetRef={"kind": "Deployment", "name": "web"})
    w.budget("shop", maxReplicas=20)
    w.read()
    assert w.turn(web=18) == {"web": 18, "trial": 8}
    w.edit("web", mode="Shadow")
    w.add("other", 1)
    w.replicas["trial"] = [18]
    w.read()
    assert w.decide({"other": 9}) == {"other": 2}


def test_nobody_is_raised_before_everybody_has_been_read() -> None:
    w = World()
    w.add("late", 9)
    w.add("quick", 4)
    w.budget("shop", maxReplicas=20)
    assert w.decide({"quick": 12}) == {"quick": 4}
    w.sharing.read(w.entry("late"), [9])
    assert w.decide({"quick": 12}) == {"quick": 11}


def test_a_target_that_is_gone_has_no_replicas() -> None:
    w = world(20, a=12, b=4)
    gone = w._case("a")
    gone.targets, gone.trouble = (), Trouble(Reason.TARGET_NOT_FOUND, "Deployment shop/a not found")
    w.sharing.observe([gone])
    assert w.decide({"b": 18}) == {"b": 18}


def test_a_wish_counts_until_its_owner_could_not_decide_for_some_turns() -> None:
    w = World()
    w.add("high", 4, priority=10)
    w.add("low", 10)
    w.budget("shop", maxReplicas=20)
    w.read()
    w.decide({"high": 16})
    w.read("high")
    for _ in range(MOST_MISSED):
        assert w.decide({"low": 14}) == {"low": 4}
        unread = w._case("high")
        unread.targets, unread.trouble = (), Trouble(Reason.FAILED_GET_SCALE, "no answer")
        w.sharing.observe([unread])
    assert w.decide({"low": 14}) == {"low": 14}
    assert w.decide({"high": 16}) == {"high": 6}


def test_a_changed_label_lets_one_out_of_the_budget_and_another_in() -> None:
    w = World()
    w.add("a", 10, labels={"team": "x"})
    w.add("b", 5, labels={"team": "x"})
    w.budget("shop", {"matchLabels": {"team": "x"}}, maxReplicas=16)
    w.read()
    assert w.decide({"b": 12}) == {"b": 6}
    w.edit("a", labels={"team": "y"})
    assert w.share("a") is None
    assert w.decide({"b": 12, "a": 30}) == {"b": 12, "a": 30}
    w.edit("a", labels={"team": "x"})
    assert w.decide({"a": 30, "b": 12}) == {"a": 8, "b": 6}


def test_a_smaller_budget_takes_effect_at_the_next_turns_and_a_deleted_one_at_once() -> None:
    w = world(20, a=10, b=10)
    w.turn(a=10, b=10)
    w.budget("shop", generation=2, maxReplicas=12)
    assert w.turn(a=10) == {"a": 6, "b": 10}
    assert w.turn(b=10) == {"a": 6, "b": 6}
    w.book.forget("uid-shop")
    assert w.share("a") is None
    assert w.turn(a=10, b=10) == {"a": 10, "b": 10}


def test_a_deleted_rlscaler_leaves_its_share_to_the_others() -> None:
    w = world(20, a=12, b=5)
    assert w.decide({"b": 14}) == {"b": 8}
    entry = w.registry.forget("uid-a")
    assert entry is not None
    w.book.drop(entry)
    assert w.decide({"b": 14}) == {"b": 14}


def test_an_old_event_does_not_bring_an_old_limit_back() -> None:
    w = world(20, a=5)
    w.budget("shop", generation=3, maxReplicas=6)
    w.budget("shop", generation=2, maxReplicas=50)
    assert w.decide({"a": 20}) == {"a": 6}


def test_of_several_budgets_the_smallest_decides_and_is_named() -> None:
    w = World()
    w.add("a", 2, labels={"team": "x", "tier": "front"})
    w.add("b", 2, labels={"team": "x"})
    w.budget("all", {"matchLabels": {"team": "x"}}, maxReplicas=20)
    w.budget("front", {"matchLabels": {"tier": "front"}}, maxReplicas=5)
    w.read()
    assert w.turn(a=12, b=30) == {"a": 5, "b": 15}
    assert (w.share("a") or Share("")).name == "front"
    assert (w.share("b") or Share("")).name == "all"


POOLS: dict[str, Any] = {
    "scaleTargetRef": None,
    "maxReplicas": None,
    "backends": [
        {
            "name": "od",
            "scaleTargetRef": {"kind": "Deployment", "name": "od"},
            "minReplicas": 2,
            "maxReplicas": 40,
            "costPerReplica": "1.0",
        },
        {
            "name": "spot",
            "scaleTargetRef": {"kind": "Deployment", "name": "spot"},
            "maxReplicas": 60,
            "costPerReplica": "0.3",
            "maxWeight": 80,
        },
    ],
}


def test_pools_cost_what_the_next_step_would_really_cost() -> None:
    """2 on demand and 8 spot cost 4.4; with 20 % on demand, 15 cost 3 + 12 * 0.3 = 6.6 and 16 cost 7.6."""
    w = World()
    w.add("pools", [2, 8], **POOLS)
    w.budget("money", maxCost="6.6")
    w.read()
    assert w.decide({"pools": 30}) == {"pools": 15}
    w.budget("money", generation=2, maxCost="6.59")
    assert w.decide({"pools": 30}) == {"pools": 14}


def test_a_bug_of_ours_raises_nobody_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    w = world(20, a=5)
    w.add("free", 3)
    w.book.drop(w.entry("free"))
    monkeypatch.setattr(w.sharing, "_share_out", lambda *_: 1 / 0)
    with caplog.at_level(logging.ERROR):
        rows = np.array([w.entry(name).work.row for name in ("a", "free")])  # type: ignore[union-attr]
        caps = w.sharing.caps(rows, np.array([9, 9]), np.array([5, 3]))
    assert caps.tolist() == [5, NO_CAP]
    assert "budgets could not be shared out" in caplog.text


@pytest.mark.parametrize("seed", range(20))
def test_a_random_history_never_raises_the_sum_above_the_budget(seed: int) -> None:
    """Wishes, turns in any order and batch, lost writes, edits of the budget and of priorities, at random.

    Invariants: no turn takes the sum above the limit, except to a minimum; nobody falls below the minimum.
    """
    dice = random.Random(seed)
    w = World()
    names = [f"m{number}" for number in range(dice.randint(2, 7))]
    least = {name: dice.randint(0, 3) for name in names}
    for name in names:
        w.add(name, least[name] + dice.randint(0, 5), minReplicas=least[name], priority=dice.randint(-1, 1))
    limit, generation = max(w.total(), sum(least.values()) + 3), 1
    w.budget("shop", maxReplicas=limit)
    w.read()
    wishes = {name: sum(w.replicas[name]) for name in names}
    for _ in range(150):
        if dice.random() < 0.1:
            generation += 1
            limit = sum(least.values()) + dice.randint(0, 25)
            w.budget("shop", generation=generation, maxReplicas=limit)
        if dice.random() < 0.05:
            name = dice.choice(names)
            w.edit(name, minReplicas=least[name], priority=dice.randint(-1, 1))
        w.clock.now_s += 5.0
        batch = dice.sample(names, dice.randint(1, len(names)))
        for name in batch:
            if dice.random() < 0.5:
                wishes[name] = max(least[name], dice.randint(0, 20))
        before = w.total()
        for name, replicas in w.decide({name: wishes[name] for name in batch}).items():
            assert replicas >= min(least[name], wishes[name])
            if dice.random() < 0.9:  # else the write is lost
                w.write(name, replicas)
        assert w.total() <= max(limit, before), f"seed {seed}"
    for _ in range(3):
        w.turn(**wishes)
    assert w.total() == min(max(limit, sum(least.values())), sum(wishes.values()))


def test_the_engine_clamps_to_the_share_and_the_decision_names_budget_and_shortage() -> None:
    w = World()
    w.add("web", 4)
    w.budget("shop", maxReplicas=6)
    w.read()
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 20}
    spec |= {"policy": {"type": "HPA"}, "objective": {"capacityPerReplica": "10", "targetUtilization": 50}}
    engine = Engine(to_service_spec(parse_spec(spec)), HpaPolicy())
    engine.budget = w.sharing.caps
    decision = engine.step(1000.0, Samples(request_rate=[40.0], ready=[4], current=[4]))[0]
    told = explained(decision, w.share("web"))
    assert told.desired_replicas == 6
    (clamp,) = [one for one in told.clamps if one.name == "Budget"]
    assert (clamp.reason, clamp.before, clamp.after) == ("BudgetExhausted", 8, 6)
    said = "RLScalerBudget shop (maxReplicas 6) is exhausted: 6 of 8 replicas, 2 refused"
    assert clamp.message == f"8 -> 6: {said}"
    assert said in told.message
    assert explained(decision, None) is decision


def test_a_status_keeps_what_differs_only_in_the_digits_of_its_message() -> None:
    old = share_status(Share("shop", 5, "5 of 9 replicas, 4 refused"), None)
    assert old == {"name": "shop", "cap": 5, "message": "5 of 9 replicas, 4 refused"}
    assert share_status(Share("shop", 5, "5 of 8 replicas, 3 refused"), old) == old
    assert share_status(Share("shop", 6, "6 of 8 replicas, 2 refused"), old)["cap"] == 6
    assert share_status(Share("shop"), old) == {"name": "shop"}
