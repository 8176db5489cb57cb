"""What a budget's status says of members that have, ask for and get replicas."""

from __future__ import annotations

from typing import Any

import pytest

from controller.api.budget import RLScalerBudgetStatus
from controller.api.crd import BUDGET, build_crd
from controller.budgets.status import MOST_NAMED, build, is_exhausted, named, tally
from controller.status import difference
from tests.api import apiserver
from tests.budgets.world import World, budget_body

NOW = 1_800_000_000.0
SCHEMA = build_crd(BUDGET)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]


def status_of(w: World, name: str = "shop", now: float = NOW) -> dict[str, Any]:
    budget = w.book.budgets[f"uid-{name}"]
    return build(budget, tally(budget, w.plan()), now)


def condition(status: dict[str, Any], kind: str) -> tuple[str, str, str]:
    (found,) = [one for one in status["conditions"] if one["type"] == kind]
    return found["status"], found["reason"], found["message"]


def short(limit: int = 20, **limits: Any) -> World:
    """high has 8 and wants 12, low has 9 and wants 15, a Shadow has 3."""
    w = World()
    w.add("high", 8, priority=10)
    w.add("low", 9)
    w.add("shadow", 3, mode="Shadow")
    w.budget("shop", maxReplicas=limit, **limits)
    w.read()
    w.decide({"high": 12, "low": 15})
    w.read()
    return w


def test_a_shortage_is_told_with_numbers_and_names() -> None:
    status = status_of(short())
    assert {key: value for key, value in status.items() if key != "conditions"} == {
        "observedGeneration": 1,
        "members": 3,
        "currentReplicas": 20,
        "demandedReplicas": 30,
        "grantedReplicas": 20,
        "currentCost": "20",
    }
    assert condition(status, "Ready") == ("True", "Shared", "the limit is kept")
    said = "RLScalerBudget shop (maxReplicas 20) is exhausted: low gets 5 of 15"
    assert condition(status, "Exhausted") == ("True", "Shortage", said)
    assert is_exhausted(status)


def test_whoever_is_to_give_way_is_named_while_more_is_in_use_than_allowed() -> None:
    w = short()
    w.budget("shop", generation=2, maxReplicas=18)
    said = "more is in use than RLScalerBudget shop (maxReplicas 18); to give way: low"
    assert condition(status_of(w), "Ready") == ("False", "GivingWay", said)


def test_minimums_and_untouchable_replicas_that_do_not_fit_are_named() -> None:
    w = short()
    w.budget("shop", generation=2, maxReplicas=4)
    status, reason, message = condition(status_of(w), "Ready")
    assert (status, reason) == ("False", "MinimumsTooLarge")
    assert "come to 5 replicas, more than RLScalerBudget shop (maxReplicas 4)" in message


def test_with_room_for_all_nothing_is_refused() -> None:
    status = status_of(short(limit=40))
    assert condition(status, "Exhausted") == ("False", "WithinBudget", "everybody gets what is asked for")
    assert status["grantedReplicas"] == status["demandedReplicas"] == 30


def test_a_selector_that_picks_nobody_is_said() -> None:
    w = World()
    w.budget("shop", {"matchLabels": {"team": "x"}}, maxReplicas=4)
    assert condition(status_of(w), "Ready") == ("True", "NoMembers", "the selector picks no RLScaler")


def test_until_everybody_has_been_read_nothing_is_claimed() -> None:
    w = World()
    w.add("a", 3)
    w.budget("shop", maxReplicas=4)
    status, reason, message = condition(status_of(w), "Ready")
    assert (status, reason) == ("Unknown", "Starting")
    assert "of a have been read" in message


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"selector": {"matchLabels": {"a b": "c"}}, "maxReplicas": 3}, "spec.selector: unreadable"),
        ({"selector": {}, "maxReplicas": 0}, "spec.maxReplicas: Invalid value: 0"),
    ],
)
def test_what_the_api_server_let_through_but_cannot_be_read_is_said(
    spec: dict[str, Any], problem: str
) -> None:
    w = World()
    w.add("a", 3)
    w.book.apply({**budget_body("shop"), "spec": spec})
    status, reason, message = condition(status_of(w), "Ready")
    assert (status, reason) == ("False", "InvalidSpec")
    assert problem in message
    assert w.share("a") is None


def test_costs_are_decimals() -> None:
    w = World()
    w.add("a", 3, costPerReplica="0.35")
    w.add("b", 2)
    w.budget("shop", maxCost="4")
    w.read()
    assert status_of(w)["currentCost"] == "3.05"


def test_a_status_moves_only_with_what_it_speaks_of() -> None:
    w = short()
    w.book.budgets["uid-shop"].status = first = status_of(w)
    assert difference(first, status_of(w, now=NOW + 100)) is None
    w.decide({"low": 16})
    second = status_of(w, now=NOW + 100)
    assert second["demandedReplicas"] == 31
    (was,) = [one for one in first["conditions"] if one["type"] == "Exhausted"]
    (now,) = [one for one in second["conditions"] if one["type"] == "Exhausted"]
    assert now["message"] != was["message"]
    assert now["lastTransitionTime"] == was["lastTransitionTime"]


def test_the_api_server_keeps_every_field() -> None:
    status = status_of(short())
    kept = {**status, "conditions": [dict(one) for one in status["conditions"]]}
    apiserver.prune(kept, SCHEMA)
    assert kept == status
    assert apiserver.schema_problems(status, SCHEMA) == []
    RLScalerBudgetStatus.model_validate(status)
    assert status.keys() == SCHEMA["properties"].keys()


def test_long_lists_of_names_end_with_how_many_more_there_are() -> None:
    assert named(["a", "b"]) == "a, b"
    assert named([f"m{number}" for number in range(MOST_NAMED + 3)]).endswith("m9 and 3 more")
