"""HTTPRoutes: which weights are patched, and what is said of a route's health."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from typing import Any

import jsonpatch
import pytest

from controller.actuation.routes import HttpRoutes
from controller.actuation.routes import plan_weights as plan_of

Json = dict[str, Any]
OURS = ["web-od", "web-spot"]
HTTP = HttpRoutes()


def plan_weights(body: Json, rule: str | None, services: list[str], weigh: Any) -> Any:
    return plan_of(HTTP, body, rule, services, weigh)


def route(*refs: Json, name: str | None = "main", **metadata: Any) -> Json:
    rule: Json = {
        "matches": [{"path": {"value": "/"}}],
        "filters": [{"type": "X"}],
        "backendRefs": list(refs),
    }
    if name is not None:
        rule["name"] = name
    return {
        "metadata": {
            "namespace": "shop",
            "name": "web",
            "resourceVersion": "41",
            "generation": 2,
            **metadata,
        },
        "spec": {"parentRefs": [{"name": "public"}], "rules": [rule]},
    }


def ref(name: str, weight: int | None = None, **more: Any) -> Json:
    return {"name": name, "port": 80, **({} if weight is None else {"weight": weight}), **more}


def share(od: int, spot: int) -> Any:
    """Weights in the ratio od : spot."""

    def weigh(total: int, now: Mapping[str, int]) -> Mapping[str, int]:
        first = round(total * od / (od + spot))
        return {"web-od": first, "web-spot": total - first}

    return weigh


def patched(body: Json, plan: Any) -> Json:
    return jsonpatch.apply_patch(copy.deepcopy(body), [dict(op) for op in plan.operations])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("refs", "expected"),
    [
        pytest.param([ref("web-od", 50), ref("web-spot", 50)], [75, 25], id="both ours"),
        pytest.param([ref("web-od"), ref("web-spot")], [75, 25], id="no weights yet"),
        pytest.param([ref("web-spot", 1), ref("web-od", 1)], [25, 75], id="in another order"),
        pytest.param(
            [ref("web-od", 40), ref("x", 20), ref("web-spot", 40)], [60, 20, 20], id="a foreign one"
        ),
        pytest.param(
            [ref("web-od", 40), ref("x"), ref("web-spot", 40)], [60, None, 20], id="a foreign one, unset"
        ),
        pytest.param([ref("web-od", 0), ref("x", 9), ref("web-spot", 0)], [0, 9, 0], id="drained by hand"),
        pytest.param([ref("web-od", 0), ref("web-spot", 0)], [75, 25], id="never zero everywhere"),
        pytest.param(
            [ref("web-od", 40), ref("web-spot", 40), ref("web-od", 5, namespace="elsewhere")],
            [60, 20, 5],
            id="a namesake in another namespace",
        ),
        pytest.param(
            [ref("web-od", 40), ref("web-spot", 40), ref("web-od", 5, kind="ServiceImport", group="x.io")],
            [60, 20, 5],
            id="a namesake of another kind",
        ),
    ],
)
def test_our_weights_alone_are_changed(refs: list[Json], expected: list[int | None]) -> None:
    body = route(*refs)
    result = patched(body, plan_weights(body, "main", OURS, share(3, 1)))
    assert [r.get("weight") for r in result["spec"]["rules"][0]["backendRefs"]] == expected
    for r in (result, body):
        for item in r["spec"]["rules"][0]["backendRefs"]:
            item.pop("weight", None)
    assert result == body


def test_weights_that_are_right_need_no_patch() -> None:
    plan = plan_weights(route(ref("web-od", 75), ref("web-spot", 25)), "main", OURS, share(3, 1))
    assert plan.operations == ()
    assert dict(plan.weights) == {"web-od": 75, "web-spot": 25}


def test_a_patch_fails_when_the_route_has_changed_since_it_was_read() -> None:
    body = route(ref("web-od", 50), ref("web-spot", 50))
    plan = plan_weights(body, "main", OURS, share(3, 1))
    swapped = route(ref("web-spot", 50), ref("web-od", 50))
    newer = route(ref("web-od", 50), ref("web-spot", 50), resourceVersion="42")
    for other in (swapped, newer):
        with pytest.raises(jsonpatch.JsonPatchTestFailed):
            patched(other, plan)


def test_without_a_rule_name_every_rule_that_has_our_services_is_kept_in_step() -> None:
    body = route(ref("web-od", 50), ref("web-spot", 50))
    body["spec"]["rules"].append({"backendRefs": [ref("foreign")]})
    body["spec"]["rules"].append({"backendRefs": [ref("web-od", 1), ref("web-spot", 1)]})
    result = patched(body, plan_weights(body, None, OURS, share(3, 1)))
    found = [[r.get("weight") for r in rule["backendRefs"]] for rule in result["spec"]["rules"]]
    assert found == [[75, 25], [None], [75, 25]]


@pytest.mark.parametrize(
    ("refs", "rule", "reason", "words"),
    [
        pytest.param(
            [ref("web-od"), ref("web-spot")], "nonsense", "RuleNotFound", "'nonsense'", id="no rule"
        ),
        pytest.param([ref("web-od")], "main", "BackendNotInRoute", "web-spot", id="one is missing"),
        pytest.param([ref("x")], "main", "BackendNotInRoute", "web-od, web-spot", id="both are missing"),
        pytest.param(
            [ref("web-od"), ref("web-od"), ref("web-spot")], None, "BackendTwiceInRoute", "web-od", id="twice"
        ),
    ],
)
def test_a_route_that_does_not_fit_is_left_alone(
    refs: list[Json], rule: str | None, reason: str, words: str
) -> None:
    plan = plan_weights(route(*refs), rule, OURS, share(3, 1))
    assert plan.problem is not None
    assert plan.problem.reason == reason
    assert words in plan.problem.message
    assert plan.operations == ()


def test_random_routes_keep_foreign_shares_and_totals() -> None:
    source = random.Random(3)
    for _ in range(300):
        refs = [
            ref(name, source.choice([None, 0, 1, 7, 50, 400])) for name in ["web-od", "web-spot", "x", "y"]
        ]
        source.shuffle(refs)
        body = route(*refs)
        od, spot = source.randint(0, 9), source.randint(1, 9)
        result = patched(body, plan_weights(body, "main", OURS, share(od, spot)))
        before, after = body["spec"]["rules"][0]["backendRefs"], result["spec"]["rules"][0]["backendRefs"]
        assert [r for r in before if r["name"] in "xy"] == [r for r in after if r["name"] in "xy"]
        assert sum(r.get("weight", 1) for r in before) == sum(r.get("weight", 1) for r in after)


def parent(accepted: str = "True", resolved: str = "True", generation: int = 2) -> Json:
    return {
        "parentRef": {"name": "public"},
        "conditions": [
            {
                "type": kind,
                "status": state,
                "reason": "Why",
                "message": "because",
                "observedGeneration": generation,
            }
            for kind, state in (("Accepted", accepted), ("ResolvedRefs", resolved))
        ],
    }


@pytest.mark.parametrize(
    ("parents", "expected"),
    [
        pytest.param([parent()], None, id="accepted"),
        pytest.param([parent("False")], ("RouteNotAccepted", False), id="not accepted"),
        pytest.param(
            [parent("True", "False")], ("RouteRefsNotResolved", False), id="references not resolved"
        ),
        pytest.param([], ("RouteNotReported", True), id="no gateway has spoken"),
        pytest.param([parent(generation=1)], ("RouteNotReported", True), id="of an older generation"),
        pytest.param([parent(), parent("False")], ("RouteNotAccepted", False), id="one of two refuses"),
        pytest.param(
            [parent(generation=1), parent("False")], ("RouteNotAccepted", False), id="a refusal comes first"
        ),
        pytest.param([{"parentRef": {"name": "public"}}], ("RouteNotReported", True), id="no conditions"),
    ],
)
def test_a_routes_health_is_what_its_gateways_say_of_this_generation(
    parents: list[Json], expected: tuple[str, bool] | None
) -> None:
    found = HTTP.health({**route(), "status": {"parents": parents}})
    assert (None if found is None else (found.reason, found.unknown)) == expected
