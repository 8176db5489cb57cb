"""Every kind of route by its table: weights are read, ours alone are written, and the rest stays as it is."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Mapping
from typing import Any

import jsonpatch
import pytest

from controller.actuation.routes.base import effective_weights, our_groups, plan_weights
from controller.actuation.routes.snapshot import ANNOTATION, remembering, restoring, snapshots
from tests.routes.tables import OURS, TABLES, Json, Table

every_kind = pytest.mark.parametrize("table", [pytest.param(each, id=each.provider.kind) for each in TABLES])


def stored(table: Table, body: Json | None = None) -> Json:
    """As an API server holds it."""
    text = json.dumps(body or table.body).replace("{namespace}", "shop")
    result: Json = json.loads(text)
    result["metadata"] |= {"namespace": "shop", "resourceVersion": "41", "generation": 2}
    return result


def share(od: float) -> Any:
    def weigh(total: int, now: Mapping[str, int]) -> Mapping[str, int]:
        first = round(total * od)
        return {"web-od": first, "web-spot": total - first}

    return weigh


def patched(body: Json, operations: Any) -> Json:
    result: Json = jsonpatch.apply_patch(copy.deepcopy(body), list(operations))
    return result


def now(table: Table, body: Json) -> dict[str, int]:
    return effective_weights(our_groups(table.provider, body, table.rule, OURS)[0], OURS)


def without_ours(table: Table, body: Json) -> Json:
    """The object with every weight of ours taken out."""
    result = copy.deepcopy(body)
    for group in our_groups(table.provider, result, table.rule, OURS):
        held = [slot for slot in group.slots if slot.service in OURS and slot.weight is not None]
        result = patched(result, [{"op": "remove", "path": slot.pointer} for slot in held])
    return result


@every_kind
def test_weights_are_read_as_they_are_written(table: Table) -> None:
    assert now(table, stored(table)) == table.weights


@every_kind
def test_a_plan_changes_our_weights_and_nothing_else(table: Table) -> None:
    body = stored(table)
    plan = plan_weights(table.provider, body, table.rule, OURS, share(0.5))
    result = patched(body, plan.operations)
    first = round(table.shared * 0.5)
    assert now(table, result) == {"web-od": first, "web-spot": table.shared - first}
    assert without_ours(table, result) == without_ours(table, body)
    assert plan.changes


@every_kind
def test_weights_that_are_right_need_no_patch(table: Table) -> None:
    body = stored(table)
    od = table.weights["web-od"] / table.shared
    plan = plan_weights(table.provider, body, table.rule, OURS, share(od))
    assert plan.operations == ()
    assert dict(plan.weights) == table.weights


@every_kind
def test_a_patch_fails_over_a_route_that_has_changed(table: Table) -> None:
    body = stored(table)
    plan = plan_weights(table.provider, body, table.rule, OURS, share(0.1))
    newer = stored(table)
    newer["metadata"]["resourceVersion"] = "42"
    with pytest.raises(jsonpatch.JsonPatchTestFailed):
        patched(newer, plan.operations)
    for operation in plan.operations:
        if operation["op"] == "test" and "resourceVersion" not in operation["path"]:
            other = patched(body, [{**operation, "op": "replace", "value": "another"}])
            with pytest.raises(jsonpatch.JsonPatchTestFailed):
                patched(other, plan.operations)


@every_kind
def test_what_was_there_before_comes_back_to_the_letter(table: Table) -> None:
    body = stored(table)
    groups = our_groups(table.provider, body, table.rule, OURS)
    kept = remembering(body, "web", groups, OURS)
    plan = plan_weights(table.provider, body, table.rule, OURS, share(0.9))
    changed = patched(body, [*kept, *plan.operations])
    assert list(snapshots(changed)) == ["web"]

    again = our_groups(table.provider, changed, table.rule, OURS)
    assert remembering(changed, "web", again, OURS) == (), "the first weights count"
    assert patched(changed, restoring(table.provider, changed, "web").operations) == body
    assert restoring(table.provider, changed, "another").operations == ()


@every_kind
def test_two_owners_of_one_route_restore_their_own(table: Table) -> None:
    body = stored(table)
    groups = our_groups(table.provider, body, table.rule, OURS)
    both = patched(body, remembering(body, "a", groups, OURS))
    both = patched(both, remembering(both, "b", groups, OURS))
    left = patched(both, restoring(table.provider, both, "a").operations)
    assert list(snapshots(left)) == ["b"]


@every_kind
def test_routes_that_do_not_fit_are_left_alone_and_said(table: Table) -> None:
    for body, reason in table.unfit:
        plan = plan_weights(table.provider, stored(table, body), table.rule, OURS, share(0.5))
        assert plan.problem is not None
        assert (plan.problem.reason, plan.operations) == (reason, ())
    other = plan_weights(table.provider, stored(table), "nonsense", OURS, share(0.5))
    assert other.problem is not None
    assert other.problem.reason == "RuleNotFound"
    assert "'nonsense'" in other.problem.message


@every_kind
def test_random_weights_keep_the_total_and_strangers(table: Table) -> None:
    source = random.Random(7)
    body = stored(table)
    for _ in range(100):
        plan = plan_weights(table.provider, body, table.rule, OURS, share(source.random()))
        result = patched(body, plan.operations)
        assert sum(now(table, result).values()) == table.shared
        assert without_ours(table, result) == without_ours(table, body)
        body = result


def test_a_snapshot_that_somebody_has_spoilt_is_no_snapshot() -> None:
    table = TABLES[0]
    for text in ("{", "[]", '{"web": 3}', '{"web": {"main": {"web-od": "x"}}}'):
        body = stored(table)
        body["metadata"]["annotations"][ANNOTATION] = text
        assert snapshots(body) == {}


def test_an_ingress_has_two_pools() -> None:
    ingress = TABLES[-1]
    plan = plan_weights(ingress.provider, stored(ingress), None, (*OURS, "third"), share(0.5))
    assert plan.problem is not None
    assert "two pools" in plan.problem.message
