"""Routes of every kind on an API server: written, remembered, restored, disputed, taken back."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest

from controller.actuation.apply import Actuator, RouteWish, Shared
from controller.actuation.routes.base import effective_weights, our_groups
from controller.actuation.routes.dispute import ROUNDS, WINDOW_S
from controller.actuation.routes.keeper import RouteKeeper, RouteRef
from controller.actuation.routes.snapshot import ANNOTATION
from controller.core import Pool
from controller.errors import Conflict
from controller.kube import Kube
from tests.integration.harness import Namespace
from tests.routes.tables import OURS, TABLES, Json, Table

every_kind = pytest.mark.parametrize("table", [pytest.param(each, id=each.provider.kind) for each in TABLES])
HTTP = TABLES[0]


class Clock:
    """Control seconds that a test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keeper(kube: Kube, clock: Clock) -> RouteKeeper:
    return RouteKeeper(kube, clock)


def path_of(ns: Namespace, table: Table) -> str:
    return ns.path(table.path, table.plural, "web")


def make(ns: Namespace, table: Table) -> Json:
    if not ns.cluster.serves(table.path.removeprefix("/apis/")):
        pytest.skip(f"the cluster serves no {table.provider.kind}")
    for name in (*OURS, "foreign"):
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}}
        ns.api.create(ns.path("/api/v1", "services"), service | {"spec": {"ports": [{"port": 80}]}})
    body = json.loads(json.dumps(table.body).replace("{namespace}", ns.name))
    ns.api.create(ns.path(table.path, table.plural), body)
    return stored(ns, table)


def stored(ns: Namespace, table: Table) -> Json:
    found: Json = ns.api.get(path_of(ns, table))
    return found


def weights(ns: Namespace, table: Table) -> dict[str, int]:
    group = our_groups(table.provider, stored(ns, table), table.rule, OURS)[0]
    return effective_weights(group, OURS)


def ref(ns: Namespace, table: Table) -> RouteRef:
    return RouteRef(ns.name, "web", table.provider.kind, "web", table.rule)


def share(od: float) -> Any:
    def weigh(total: int, now: Mapping[str, int]) -> Mapping[str, int]:
        return {"web-od": round(total * od), "web-spot": total - round(total * od)}

    return weigh


def plain(body: Json) -> Json:
    """Without what the API server keeps itself."""
    result = copy.deepcopy(body)
    for field in ("resourceVersion", "generation", "managedFields"):
        result["metadata"].pop(field, None)
    result.pop("status", None)
    return result


@every_kind
async def test_weights_are_written_and_what_was_before_is_restored(
    keeper: RouteKeeper, namespace: Namespace, table: Table
) -> None:
    before = make(namespace, table)
    kept = await keeper.sync(ref(namespace, table), OURS, share(0.5), act=True)
    half = table.shared // 2
    assert weights(namespace, table) == {"web-od": half, "web-spot": half} == kept.weights
    assert kept.changes
    assert ANNOTATION in stored(namespace, table)["metadata"]["annotations"]
    assert (await keeper.sync(ref(namespace, table), OURS, share(0.5), act=True)).changes == ()

    assert await keeper.restore(ref(namespace, table))
    assert plain(stored(namespace, table)) == plain(before)
    assert await keeper.restore(ref(namespace, table)) == ()


@every_kind
async def test_without_acting_nothing_is_written(
    keeper: RouteKeeper, namespace: Namespace, table: Table
) -> None:
    before = make(namespace, table)
    kept = await keeper.sync(ref(namespace, table), OURS, share(0.5), act=False)
    assert kept.weights == {"web-od": table.shared // 2, "web-spot": table.shared // 2}
    assert await keeper.sync(ref(namespace, table), OURS, None, act=True)
    assert stored(namespace, table)["spec"] == before["spec"]
    assert stored(namespace, table)["metadata"]["annotations"] == before["metadata"]["annotations"]


def revert(ns: Namespace, table: Table, before: Json) -> None:
    """What a GitOps tool does: the weights of its repository, and nothing else."""
    annotations = before["metadata"]["annotations"]
    ns.api.patch(path_of(ns, table), {"spec": before["spec"], "metadata": {"annotations": annotations}})


@every_kind
async def test_a_route_that_somebody_keeps_reverting_is_contested_and_left_alone(
    keeper: RouteKeeper, namespace: Namespace, clock: Clock, table: Table
) -> None:
    before = make(namespace, table)
    for _ in range(ROUNDS):
        kept = await keeper.sync(ref(namespace, table), OURS, share(0.5), act=True)
        assert kept.trouble is None or kept.trouble.unknown
        revert(namespace, table, before)
        clock.now_s += 60.0
    kept = await keeper.sync(ref(namespace, table), OURS, share(0.5), act=True)
    assert kept.trouble is not None
    assert kept.trouble.reason == "Contested"
    assert weights(namespace, table) == table.weights == kept.weights

    clock.now_s += WINDOW_S + 1
    assert (await keeper.sync(ref(namespace, table), OURS, share(0.5), act=True)).changes


async def test_one_change_by_hand_is_no_dispute(
    keeper: RouteKeeper, namespace: Namespace, clock: Clock
) -> None:
    before = make(namespace, HTTP)
    await keeper.sync(ref(namespace, HTTP), OURS, share(0.5), act=True)
    revert(namespace, HTTP, before)
    for _ in range(5):
        clock.now_s += 15.0
        kept = await keeper.sync(ref(namespace, HTTP), OURS, share(0.5), act=True)
        assert kept.trouble is None or kept.trouble.unknown
    assert weights(namespace, HTTP) == {"web-od": 40, "web-spot": 40}


async def test_weights_that_the_gateway_rejects_are_taken_back(
    kube: Kube, namespace: Namespace, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(namespace, HTTP)
    keeper = RouteKeeper(kube, clock)
    provider = HTTP.provider
    verdicts = iter(
        [None, _trouble("RouteNotReported", True), _trouble("RouteNotAccepted"), _trouble("RouteNotAccepted")]
    )
    monkeypatch.setattr(type(provider), "health", lambda self, route: next(verdicts, None))
    assert (await keeper.sync(ref(namespace, HTTP), OURS, share(0.5), act=True)).changes
    assert (await keeper.sync(ref(namespace, HTTP), OURS, share(0.5), act=True)).trouble is not None
    kept = await keeper.sync(ref(namespace, HTTP), OURS, share(0.5), act=True)
    assert kept.trouble is not None
    assert kept.trouble.reason == "RouteRejected"
    assert weights(namespace, HTTP) == HTTP.weights
    kept = await keeper.sync(ref(namespace, HTTP), OURS, share(0.5), act=True)
    assert kept.trouble is not None
    assert kept.trouble.reason == "RouteRejected"
    assert weights(namespace, HTTP) == HTTP.weights
    clock.now_s += 3600.0
    assert (await keeper.sync(ref(namespace, HTTP), OURS, share(0.5), act=True)).changes


def _trouble(reason: str, unknown: bool = False) -> Any:
    from controller.trouble import Trouble

    return Trouble(reason, "the gateway says so", unknown)


async def test_a_route_that_changes_between_read_and_write_is_not_written(
    kube: Kube, namespace: Namespace, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(namespace, HTTP)
    keeper = RouteKeeper(kube, clock)
    read = keeper.read

    async def slow(each: RouteRef) -> Json:
        route = await read(each)
        namespace.api.patch(path_of(namespace, HTTP), {"metadata": {"labels": {"team": "other"}}})
        return route

    monkeypatch.setattr(keeper, "read", slow)
    with pytest.raises(Conflict):
        await keeper.sync(ref(namespace, HTTP), OURS, share(0.5), act=True)
    assert weights(namespace, HTTP) == HTTP.weights


async def test_a_step_limits_how_far_weights_move_but_not_from_a_pool_that_is_gone(
    kube: Kube, namespace: Namespace, clock: Clock
) -> None:
    make(namespace, HTTP)
    actuator = Actuator(kube, now_s=clock)
    pools = [Pool("od", max_replicas=20), Pool("spot", max_replicas=20)]
    wish = [RouteWish("HTTPRoute", "web", "main", max_step=5)]

    async def turn(*ready: int) -> dict[str, int]:
        await actuator.sync_routes(namespace.name, "web", wish, Shared(OURS, pools, ready), True)
        return weights(namespace, HTTP)

    before = weights(namespace, HTTP)["web-od"]
    for _ in range(3):
        now = (await turn(2, 8))["web-od"]
        assert 0 <= before - now <= 80 * 0.06
        before = now
    assert before < 50
    for _ in range(20):
        last = await turn(2, 8)
    assert last == {"web-od": 16, "web-spot": 64}
    assert await turn(2, 0) == {"web-od": 80, "web-spot": 0}


async def test_a_route_that_leaves_the_spec_gets_its_weights_back(
    kube: Kube, namespace: Namespace, clock: Clock
) -> None:
    before = make(namespace, HTTP)
    actuator = Actuator(kube, now_s=clock)
    pools = [Pool("od"), Pool("spot")]
    await actuator.sync_routes(
        namespace.name, "web", [RouteWish("HTTPRoute", "web", "main")], Shared(OURS, pools, (1, 1)), True
    )
    assert weights(namespace, HTTP) == {"web-od": 40, "web-spot": 40}
    await actuator.sync_routes(namespace.name, "web", [], Shared(OURS, pools, (1, 1)), True)
    assert plain(stored(namespace, HTTP)) == plain(before)
