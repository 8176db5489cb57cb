"""A batch of sets of pools: one call of the artifact, each set's own guard, and nobody pulls others down."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from benchmarks.pooldeciding import PoolWorld
from controller.case import Case, facts_of, wanted
from controller.core.observation import COLUMN
from controller.core.poolfeatures import POOL_COLUMN, SET_SCHEMA
from controller.decisions import record_of
from controller.explain.ends import Past, what_ends
from controller.policies import PoolsPolicy
from tests.policies import pool_models

ANY_NUMBER = [{"type": "Percent", "value": 1000, "periodSeconds": 15}]
FREE = {"scaleUp": {"policies": ANY_NUMBER}, "scaleDown": {"stabilizationWindowSeconds": 0}}


def pool(name: str, cost: str = "1.0", **more: Any) -> dict[str, Any]:
    return {"name": name, "maxReplicas": 20, "costPerReplica": cost, **more}


class Asked(PoolsPolicy):
    """The formula of the tests' artifact, which remembers what it was shown."""

    def __init__(self) -> None:
        made = PoolsPolicy.from_bytes(pool_models.model())
        self.__dict__.update(vars(made))
        self.shown: list[tuple[np.ndarray, np.ndarray]] = []

    def decide(self, pools: np.ndarray, sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.shown.append((pools.copy(), sets.copy()))
        return super().decide(pools, sets)


def world(*backends: list[dict[str, Any]], **spec: Any) -> tuple[PoolWorld, Asked]:
    policy = Asked()
    return PoolWorld(policy, backends, **{"behavior": FREE, **spec}), policy


def desired(case: Case) -> list[int]:
    assert case.decision is not None
    return wanted(case, case.decision)


def test_sets_of_any_size_are_one_call_and_each_gets_what_the_artifact_says() -> None:
    made, policy = world([pool("a")], [pool("a"), pool("b", "0.25")], [pool(name) for name in "abcdefgh"])
    one, two, eight = made.turn()
    assert len(policy.shown) == 1
    assert policy.shown[0][0].shape == (3, 8, 25)
    assert desired(one) == [4], "20 req/s, twice that in replicas of 10"
    assert desired(two) == [2, 7], "80 by 1 / price, which is 1 : 4: 1.6 and 6.4 replicas"
    assert desired(eight) == [4] * 8
    assert two.plan is not None
    assert two.plan.shares == pytest.approx((0.5, 0.5))
    assert two.decision is not None
    assert two.decision.recommended_replicas == 9
    assert "asked for: a 2 (50% of the traffic), b 7" in two.decision.message


def test_moving_between_pools_waits_for_the_windows_of_each() -> None:
    window = {"scaleUp": {"policies": ANY_NUMBER}, "scaleDown": {"stabilizationWindowSeconds": 60}}
    made, _ = world([pool("a"), pool("b", "0.25")], behavior=window)
    seen = [desired(made.turn()[0]) for _ in range(6)]
    assert seen[:4] == [[4, 7]] * 4, "the other pool grows at once, this one keeps what it has"
    assert seen[5] == [2, 7]
    first = world([pool("a"), pool("b", "0.25")], behavior=window)[0].turn()[0].decision
    assert first is not None
    assert [(clamp.name, clamp.before, clamp.after) for clamp in first.clamps] == [("Pools", 9, 11)]
    assert "a 2 -> 4" in first.clamps[0].message


@pytest.mark.parametrize(
    ("spec", "expected", "clamp"),
    [
        ({"limits": {"maxStep": 1}}, [4, 5], "MaxStep"),
        ({"maxReplicas": 8}, [4, 4], "Bounds"),
        (
            {"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]}}},
            None,
            None,
        ),
    ],
    ids=["limits", "bounds of the whole", "rate rules"],
)
def test_what_holds_for_the_whole_set_holds_the_pools(
    spec: dict[str, Any], expected: list[int] | None, clamp: str | None
) -> None:
    made, _ = world([pool("a"), pool("b", "0.25")], **spec)
    made.load_rps = [80.0]
    case = made.turn(act=False)[0]
    assert case.decision is not None
    assert case.decision.recommended_replicas == 17, "of which 4 dear ones"
    total = sum(desired(case))
    assert total == case.decision.desired_replicas, "pools sum to what the guard of the whole left"
    if expected is not None:
        assert desired(case) == expected
        assert clamp in [each.name for each in case.decision.clamps]
    else:
        assert total == 9, "one more than the 8 that there are"


def test_a_pool_with_traffic_whose_rate_is_missing_holds_its_set_and_no_other() -> None:
    two = [pool("a"), pool("b", "0.25")]
    made, _ = world(two, two, metrics={"windowSeconds": 15})
    for case in made.cases():
        made.decider._memory(case).weigh([50, 50], 0.0)
    for _ in range(4):
        made.turn()
    assert made.replicas == [[2, 7], [2, 7]]
    made.load_rps = [4.0, 4.0]
    made.read = [[{**one, "requestRate": 2.0} for one in pools] for pools in made.read]
    del made.read[0][1]["requestRate"]
    for _ in range(8):
        blind, seeing = made.turn()
    assert made.replicas == [[2, 7], [1, 1]]
    assert blind.pool_trouble is not None
    assert blind.pool_trouble.message.startswith("b: requestRate: NoData")
    assert blind.decision is not None
    assert blind.decision.fallback == "MetricsUnavailable"
    assert blind.plan is None
    assert seeing.pool_trouble is None


def test_an_answer_that_is_no_number_is_the_fallbacks_for_that_set_alone() -> None:
    policy = PoolsPolicy.from_bytes(pool_models.dividing())
    risky = pool("b", "0.25", reclaimsPerHour="0.5")
    made = PoolWorld(policy, [[pool("a"), risky], [pool("a"), pool("b", "0.25")]], behavior=FREE)
    bad, good = made.turn()
    assert bad.decision is not None
    assert good.decision is not None
    assert (bad.decision.fallback, good.decision.fallback) == ("InvalidAction", None)
    assert bad.plan is None
    assert desired(good) == [2, 7]


def test_a_policy_that_raises_is_logged_and_leaves_the_fallback(caplog: pytest.LogCaptureFixture) -> None:
    made, policy = world([pool("a"), pool("b")])
    policy.decide = lambda pools, sets: 1 / 0  # type: ignore[assignment,method-assign,return-value]
    with caplog.at_level(logging.ERROR):
        case = made.turn()[0]
    assert case.decision is not None
    assert case.decision.fallback == "InvalidAction"
    assert "tiny-pools failed for 1 sets" in caplog.text


def test_pools_of_unequal_machines_are_seen_as_so_many_plain_ones() -> None:
    made, policy = world([pool("a"), pool("b", "0.25", capacityPerReplica="30")])
    made.replicas = [[3, 2]]
    case = made.turn(act=False)[0]
    of_pools, whole = policy.shown[0]
    load = 40.0 / 10.0
    column = COLUMN["provisioned_over_load"]
    assert whole[0, column] == pytest.approx(np.log((3 + 2 * 3) / load), abs=1e-5)
    most = SET_SCHEMA.names.index("headroom_to_max")
    assert whole[0, most] == pytest.approx(np.log((20 + 20 * 3) / 9), abs=1e-5)
    assert of_pools[0, 1, POOL_COLUMN["replica_size"]] == pytest.approx(np.log(3.0), abs=1e-5)
    assert of_pools[0, :, POOL_COLUMN["price"]] == pytest.approx(
        np.log([0.1 / ((0.1 + 0.25 / 30) / 2), 0.25 / 30 / ((0.1 + 0.25 / 30) / 2)]), abs=1e-4
    )
    assert case.decision is not None
    assert case.decision.current_replicas == 5, "what is told counts real replicas"


def test_what_a_pool_says_of_itself_is_seen() -> None:
    made, policy = world(
        [pool("a", reclaimsPerHour="0.5", startUpSeconds=240, minWeight=10, maxWeight=70), pool("b")]
    )
    case = made.cases()[0]
    made.decider._memory(case).weigh([30, 70], made.now_s - 60.0)
    made.turn(act=False)
    first = policy.shown[0][0][0, 0]
    assert first[POOL_COLUMN["reclaim_risk"]] == pytest.approx(1 - np.exp(-0.5), abs=1e-6)
    assert first[POOL_COLUMN["start_up"]] == pytest.approx(np.log(4.0), abs=1e-6)
    assert first[POOL_COLUMN["weight_asked"]] == pytest.approx(0.3)
    assert first[POOL_COLUMN["weight_room_up"]] == pytest.approx(0.4)
    assert first[POOL_COLUMN["weight_room_down"]] == pytest.approx(0.2)


def test_a_sick_pool_is_ejected_from_the_artifacts_shares() -> None:
    made, _ = world([pool("a"), pool("b")], routing={"ejection": {}})
    made.read[0] = [{**one, "requestRate": 5.0} for one in made.read[0]]
    made.turn()
    made.read[0][1]["errorRatio"] = 0.5
    for _ in range(3):
        case = made.turn()[0]
    assert case.plan is not None
    assert case.plan.shares[1] < 0.1
    assert made.weigher.ejected(case.entry.uid, case.entry.spec) == ["b"]


def test_weights_of_an_earlier_operator_are_in_the_status_and_a_deleted_set_frees_its_place() -> None:
    made, policy = world([pool("a"), pool("b")], [pool("a"), pool("b")])
    made.entries[0].status = {"backends": [{"name": "a", "weight": 20}, {"name": "b", "weight": 80}]}
    made.turn(act=False)
    asked = policy.shown[0][0][:, :, POOL_COLUMN["weight_asked"]]
    assert asked == pytest.approx(np.array([[0.2, 0.8], [0.5, 0.5]]))
    slot = made.decider._memories["set-0"].slot
    made.decider.forget("set-0")
    made.turn(act=False)
    assert made.decider._memories["set-0"].slot == slot


def test_what_the_pools_guards_changed_is_told_with_what_ends_it() -> None:
    window = {"scaleUp": {"policies": ANY_NUMBER}, "scaleDown": {"stabilizationWindowSeconds": 60}}
    made, _ = world([pool("a"), pool("b", "0.25")], behavior=window)
    case = made.turn()[0]
    facts = facts_of(case)
    assert facts.decision is not None
    record = record_of(facts, facts.decision, 0.0)
    told = record.as_json()
    assert [(one["name"], one["askedReplicas"], one["desiredReplicas"]) for one in told["pools"]] == [
        ("a", 2, 4),
        ("b", 7, 7),
    ]
    clamp = told["clamps"][0]
    assert clamp["name"] == "Pools"
    assert case.entry.spec is not None
    assert "each pool's own bounds, windows and rate rules" in what_ends(clamp, case.entry.spec, Past())
