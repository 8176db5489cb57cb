"""Whose change of replicas it was: ours, somebody else's, or none that counts."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest

from controller.actuation.apply import Scaled
from controller.actuation.scale import Scaler
from controller.actuation.target import Target, TargetRef
from controller.case import Case
from controller.clock import Clock
from controller.core import Engine, HpaPolicy, Samples
from controller.kube import Kube, Resource
from controller.outside import Hold, Outside, Outsiders, Sight, Writer, judge, remembered, writers_of
from controller.registry import Entry, Registry
from controller.trouble import Trouble
from tests.integration.harness import APPS, Namespace
from tests.operator.bodies import Json, rlscaler

NOW_S = 1_800_000_000.0
DEPLOYMENTS = Resource("apps/v1", "Deployment", "deployments", True, True)
CREATED = "2027-01-15T07:00:00Z"


def target(replicas: int, uid: str = "u1", name: str = "web") -> Target:
    return Target(TargetRef("apps/v1", "Deployment", name, "shop"), DEPLOYMENTS, replicas, replicas, "7", uid)


def sight(*writers: Writer, uid: str = "u1", guessed: bool = False) -> Sight:
    return Sight(target(9), uid, guessed, writers)


KUBECTL = Writer("kubectl", NOW_S - 20, False)
OURS = Writer("rl-scaler", NOW_S - 10, False)


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        pytest.param(sight(KUBECTL), ("kubectl", NOW_S), id="kubectl scale while we run"),
        pytest.param(sight(), ("", NOW_S), id="an API server that notes nobody"),
        pytest.param(sight(OURS), None, id="a write of ours whose answer was lost"),
        pytest.param(sight(KUBECTL, OURS), None, id="somebody who agrees with us"),
        pytest.param(sight(KUBECTL, uid="u0"), None, id="a target made anew"),
        pytest.param(sight(KUBECTL, guessed=True), ("kubectl", NOW_S - 20), id="while we were away"),
        pytest.param(sight(OURS, guessed=True), None, id="our own, of before a restart"),
        pytest.param(sight(guessed=True), None, id="unknown, of before a restart"),
        pytest.param(
            sight(Writer("kubectl", NOW_S + 3600, False), guessed=True),
            ("kubectl", NOW_S),
            id="a clock that is ahead",
        ),
        pytest.param(
            sight(Writer("kubectl-create", NOW_S - 20, True), uid="", guessed=True),
            None,
            id="made anew while we were away",
        ),
        pytest.param(
            sight(Writer("argocd", NOW_S - 500, False), KUBECTL, guessed=True),
            ("kubectl", NOW_S - 20),
            id="the later one of two",
        ),
    ],
)
def test_a_change_is_judged_by_who_made_it(seen: Sight, verdict: tuple[str, float] | None) -> None:
    assert judge(seen, NOW_S) == verdict


def managed(manager: str, seconds: int, subresource: str = "", field: str = "f:replicas") -> Json:
    entry = {
        "manager": manager,
        "time": f"2027-01-15T07:00:{seconds:02}Z",
        "fieldsV1": {"f:spec": {field: {}}},
    }
    return {**entry, "subresource": subresource} if subresource else entry


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([managed("kubectl", 30, "scale")], [("kubectl", False)]),
        ([managed("kubectl-create", 0)], [("kubectl-create", True)]),
        ([managed("argocd", 30), managed("controller", 40, field="f:template")], [("argocd", False)]),
        ([managed("rollouts", 0, "scale", field="f:size")], [("rollouts", False)]),
        ([managed("kubelet", 20, "status", field="f:template")], []),
        ([], []),
    ],
    ids=["kubectl scale", "at its creation", "an update", "a kind of its own", "others' fields", "none"],
)
def test_managed_fields_say_who_set_the_replicas(entries: list[Json], expected: list[Any]) -> None:
    body = {"metadata": {"creationTimestamp": CREATED, "managedFields": entries}}
    assert [(writer.manager, writer.at_creation) for writer in writers_of(body)] == expected
    assert writers_of({"metadata": {"creationTimestamp": CREATED}}) == ()


# What is remembered


def entry_of(status: Json | None = None, **spec: Any) -> Entry:
    body = rlscaler("web", **spec)
    body["status"] = status or {}
    return Registry().apply(body).entry


SETTLED: Json = {"observedGeneration": 1, "desiredReplicas": 4}
HELD: Json = {"replicas": 9, "until": "2027-01-15T08:00:00Z", "by": "kubectl"}
POOLS = [
    {"name": n, "scaleTargetRef": {"kind": "Deployment", "name": n}, "maxReplicas": 3} for n in ("od", "spot")
]


@pytest.mark.parametrize(
    ("status", "spec", "left", "held"),
    [
        pytest.param({}, {}, (), None, id="nothing yet"),
        pytest.param(SETTLED, {}, ((4,),), None, id="what was decided last"),
        pytest.param({**SETTLED, "observedGeneration": 0}, {}, (), None, id="of an older spec"),
        pytest.param(SETTLED, {"mode": "Shadow"}, (), None, id="of a Shadow"),
        pytest.param({**SETTLED, "outsideChange": HELD}, {}, ((4,),), (9, "kubectl"), id="a hold"),
        pytest.param(
            {**SETTLED, "outsideChange": {"replicas": 9, "until": "soon"}}, {}, ((4,),), None, id="unreadable"
        ),
        pytest.param(
            {
                "observedGeneration": 1,
                "desiredReplicas": 3,
                "backends": [{"desiredReplicas": n} for n in (1, 2)],
            },
            {"scaleTargetRef": None, "maxReplicas": None, "backends": POOLS},
            ((1,), (2,)),
            None,
            id="pools",
        ),
    ],
)
def test_a_restarted_operator_remembers_what_the_status_says(
    status: Json, spec: Json, left: tuple[Any, ...], held: tuple[int, str] | None
) -> None:
    outside = entry_of(status, **spec).outside
    assert outside.left == left
    assert outside.guessed is bool(left)
    assert (outside.hold and (outside.hold.replicas, outside.hold.by)) == held


def test_a_hold_reads_back_as_it_was_written() -> None:
    hold = Hold(9, NOW_S, "kubectl", 1)
    written = {**SETTLED, "outsideChange": hold.as_status()}
    assert entry_of(written).outside.hold == hold
    nobody = Hold(9, NOW_S, "", 1)
    assert "by" not in nobody.as_status()
    assert nobody.words == "somebody else has set 9 replicas; left alone until 2027-01-15T08:00:00Z"


class Nobody(Outsiders):
    """For what costs no request."""

    def __init__(self, conflict: str | None = None) -> None:
        super().__init__(None, None, lambda entry: conflict, Clock())  # type: ignore[arg-type]


def left_at(*replicas: int, **spec: Any) -> Entry:
    entry = entry_of(**spec)
    entry.outside = Outside(tuple((count,) for count in replicas), tuple("u1" for _ in replicas))
    return entry


@pytest.mark.parametrize(
    ("spec", "seen", "conflict", "expected"),
    [
        pytest.param({}, 4, None, False, id="as we left it"),
        pytest.param({}, 9, None, True, id="otherwise"),
        pytest.param({"mode": "Shadow"}, 9, None, False, id="in Shadow"),
        pytest.param({"mode": "Paused"}, 9, None, False, id="while paused"),
        pytest.param({"outsideChange": {"holdSeconds": 0}}, 9, None, False, id="turned off"),
        pytest.param({}, 9, "an HPA scales it too", False, id="in a conflict"),
    ],
)
def test_only_other_replicas_than_we_left_are_suspicious(
    spec: Json, seen: int, conflict: str | None, expected: bool
) -> None:
    assert Nobody(conflict).suspects(left_at(4, **spec), [target(seen)]) is expected


def test_a_target_is_not_compared_with_that_of_another_spec() -> None:
    assert not Nobody().suspects(left_at(4, 4), [target(9)])
    assert not Nobody().suspects(entry_of(), [target(9)])


def case(entry: Entry, before: int, after: int | None, trouble: Trouble | None = None) -> Case:
    scaled = None if after is None else Scaled((target(after),), after != before, trouble)
    return Case(entry, entry.generation, targets=(target(before),), scaled=scaled)


def test_after_a_turn_a_target_may_have_what_we_left_it_with() -> None:
    entry = entry_of()
    Nobody().settle(case(entry, 4, 6), [6])
    assert (entry.outside.left, entry.outside.uids) == (((6,),), ("u1",))
    Nobody().settle(case(entry, 6, None), [])
    assert entry.outside.left == ((6,),), "a turn that came to nothing changes nothing"


def test_a_write_that_failed_may_have_been_carried_out_all_the_same() -> None:
    entry = entry_of()
    Nobody().settle(case(entry, 4, 4, Trouble("FailedUpdateScale", "no answer")), [6])
    assert not Nobody().suspects(entry, [target(4)])
    assert not Nobody().suspects(entry, [target(6)])
    assert Nobody().suspects(entry, [target(5)])


@pytest.mark.parametrize("how", ["Shadow", "Paused", "annotation", "conflict"])
def test_whoever_does_not_act_takes_what_is_there_as_given(how: str) -> None:
    entry = left_at(4, mode=how) if how in ("Shadow", "Paused") else left_at(4)
    entry.outside.hold = Hold(9, NOW_S, "", 1)
    entry.paused_by_annotation = how == "annotation"
    turn = case(entry, 4, 4)
    turn.error = "conflict" if how == "conflict" else ""
    Nobody().settle(turn, [4])
    assert entry.outside == Outside()


# What the engine is told


def held_engine(until_s: float, **spec: Any) -> tuple[Engine, Entry]:
    spec["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    entry = entry_of(objective={"capacityPerReplica": "10"}, policy={"type": "HPA"}, **spec)
    assert entry.service is not None
    entry.outside.hold = Hold(9, until_s, "kubectl", entry.generation)
    return Engine(entry.service, HpaPolicy()), entry


def desired(engine: Engine, now_s: float) -> int:
    reading = Samples(request_rate=[40.0], ready=[9], current=[9])
    return int(engine.step(now_s, reading, record=False).desired_replicas[0])


@pytest.mark.parametrize(
    ("left_s", "change", "kept"),
    [
        pytest.param(60.0, {}, True, id="while it lasts"),
        pytest.param(-1.0, {}, False, id="when it is over"),
        pytest.param(60.0, {"generation": 2}, False, id="when the spec has changed"),
        pytest.param(60.0, {"outsideChange": {"holdSeconds": 0}}, False, id="when it was turned off"),
    ],
)
def test_the_engine_holds_until_the_hold_is_over(left_s: float, change: Json, kept: bool) -> None:
    spec = {key: value for key, value in change.items() if key != "generation"}
    now = time.time()
    engine, entry = held_engine(
        now + left_s, behavior={"scaleDown": {"stabilizationWindowSeconds": 0}}, **spec
    )
    entry.generation = change.get("generation", entry.generation)
    Nobody().tell(engine, entry, 0)
    assert (desired(engine, now) == 9) is kept
    assert (entry.outside.hold is not None) is kept


def test_a_hold_that_was_let_go_is_let_go_in_the_engine() -> None:
    now = time.time()
    engine, entry = held_engine(now + 60)
    Nobody().tell(engine, entry, 0)
    assert desired(engine, now) == 9
    entry.generation += 1
    Nobody().tell(engine, entry, 0)
    assert desired(engine, now + 1) == 6
    assert entry.outside.hold is None


# With an API server


class Watched:
    """A Deployment of the API server's, and an entry of the registry that acts on it."""

    def __init__(self, kube: Kube, namespace: Namespace, scale: float = 1.0) -> None:
        self.scaler, self.namespace, self.clock = Scaler(kube), namespace, Clock(scale)
        self.outsiders = Outsiders(kube, self.scaler, lambda entry: None, self.clock)
        namespace.deployment("web", replicas=4)
        body = rlscaler("web")
        body["metadata"]["namespace"] = namespace.name
        self.entry = Registry().apply(body).entry

    async def read(self) -> Target:
        return await self.scaler.fetch(self.entry.targets[0])

    async def ours(self, replicas: int) -> None:
        """A turn of ours that scales."""
        before = await self.read()
        turn = Case(self.entry, 1, targets=(before,))
        turn.scaled = Scaled((await self.scaler.write(before, replicas),), True)
        self.outsiders.settle(turn, [replicas])

    async def look(self) -> Hold | None:
        seen = (await self.read(),)
        if self.outsiders.suspects(self.entry, seen):
            await self.outsiders.look(self.entry, seen)
        return self.entry.outside.hold


async def test_somebody_elses_scale_is_held_for_so_long_and_named(kube: Kube, namespace: Namespace) -> None:
    web = Watched(kube, namespace)
    await web.ours(6)
    assert await web.look() is None
    namespace.set_replicas("web", 9)
    hold = await web.look()
    assert hold is not None
    assert hold.replicas == 9
    assert hold.by not in ("", "rl-scaler")
    assert hold.until_unix_s == pytest.approx(time.time() + 300, abs=20)
    web.entry.outside.hold = None
    assert await web.look() is None, "it is ours to go on from now"


async def test_in_a_rehearsal_a_hold_lasts_as_long_in_control_time(kube: Kube, namespace: Namespace) -> None:
    web = Watched(kube, namespace, scale=20.0)
    await web.ours(6)
    namespace.set_replicas("web", 9)
    hold = await web.look()
    assert hold is not None
    assert hold.until_unix_s == pytest.approx(time.time() + 15, abs=5)


async def test_our_own_write_is_known_after_a_restart(kube: Kube, namespace: Namespace) -> None:
    web = Watched(kube, namespace)
    await web.ours(6)
    web.entry.outside = Outside(((4,),), guessed=True)
    assert await web.look() is None
    assert web.entry.outside.left == ((6,),)


async def test_a_change_of_while_we_were_away_is_held_for_what_is_left(
    kube: Kube, namespace: Namespace
) -> None:
    web = Watched(kube, namespace)
    await web.ours(6)
    namespace.set_replicas("web", 9)
    web.entry.outside = Outside(((6,),), guessed=True)
    hold = await web.look()
    assert hold is not None
    assert hold.until_unix_s <= time.time() + 300
    web.entry.outside = Outside(((6,),), guessed=True)
    assert web.entry.spec is not None
    short = {"outside_change": web.entry.spec.outside_change.model_copy(update={"hold_seconds": 1})}
    web.entry.spec = web.entry.spec.model_copy(update=short)
    await asyncio.sleep(2.1)
    assert await web.look() is None, "it would have been over by now"


async def test_a_target_that_was_made_anew_is_taken_as_it_is(kube: Kube, namespace: Namespace) -> None:
    web = Watched(kube, namespace)
    await web.ours(6)
    namespace.api.delete(namespace.path(APPS, "deployments", "web"))
    namespace.deployment("web", replicas=3)
    assert await web.look() is None
    assert web.entry.outside.left == ((3,),)
    await web.ours(6)
    namespace.api.delete(namespace.path(APPS, "deployments", "web"))
    namespace.deployment("web", replicas=3)
    web.entry.outside = Outside(((6,),), guessed=True)
    assert await web.look() is None, "nor after a restart"


async def test_a_watch_that_is_behind_is_no_change(kube: Kube, namespace: Namespace) -> None:
    web = Watched(kube, namespace)
    stale = (await web.read(),)
    await web.ours(6)
    assert web.outsiders.suspects(web.entry, stale)
    (fresh,) = await web.outsiders.look(web.entry, stale)
    assert fresh.replicas == 6
    assert web.entry.outside.hold is None


def test_unknown_times_are_the_oldest() -> None:
    body = {"metadata": {"managedFields": [{"manager": "x", "subresource": "scale"}]}}
    assert writers_of(body) == (Writer("x", -math.inf, False),)


def test_remembering_needs_no_status() -> None:
    assert remembered(entry_of()) == Outside()
