"""Which RLScalers are served, and who else scales the same target."""

from __future__ import annotations

from typing import Any

import pytest

from controller.api.constants import CANARY_ANNOTATION, PAUSED_ANNOTATION, PROMOTE_ANNOTATION
from controller.kube import HPAS
from controller.registry import Registry
from tests.operator.bodies import Json, hpa, rlscaler


def test_a_new_spec_is_a_change_and_a_new_status_is_none() -> None:
    registry = Registry()
    assert registry.apply(rlscaler("web")).added
    again = registry.apply({**rlscaler("web", version="2"), "status": {"currentReplicas": 3}})
    assert (again.added, again.changed) == (False, False)
    edited = registry.apply(rlscaler("web", generation=2, version="3", minReplicas=4))
    assert edited.changed
    assert edited.entry.service is not None
    assert edited.entry.service.min_replicas == 4


def test_the_pause_annotation_is_a_change_without_a_new_generation() -> None:
    registry = Registry()
    entry = registry.apply(rlscaler("web")).entry
    body = rlscaler("web", version="2")
    body["metadata"]["annotations"] = {"rlscaler.dev/paused": "true"}
    assert registry.apply(body).changed
    assert entry.paused
    assert registry.apply(rlscaler("web", version="3")).changed
    assert not entry.paused


def test_a_list_that_a_watch_has_overtaken_changes_nothing() -> None:
    registry = Registry()
    entry = registry.apply(rlscaler("web", generation=3, version="30", minReplicas=3)).entry
    assert not registry.apply(rlscaler("web", generation=2, version="20", minReplicas=2)).changed
    assert entry.generation == 3
    assert entry.service is not None
    assert entry.service.min_replicas == 3


def test_a_version_that_is_known_is_no_news() -> None:
    registry = Registry()
    body = rlscaler("web", version="7")
    assert not registry.shows(body["metadata"])
    entry = registry.apply(body).entry
    assert registry.shows(body["metadata"])
    assert not registry.shows(rlscaler("web", version="8")["metadata"])
    entry.resource_version = "8"  # as after a write of our own
    assert registry.shows(rlscaler("web", version="8")["metadata"])


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param({"generation": 2}, id="the spec"),
        pytest.param({"annotations": {PAUSED_ANNOTATION: "true"}}, id="a pause"),
        pytest.param({"annotations": {PROMOTE_ANNOTATION: "sha256:1"}}, id="a promotion"),
        pytest.param({"annotations": {CANARY_ANNOTATION: "Pause"}}, id="a roll-out"),
        pytest.param({"labels": {"team": "shop"}}, id="labels"),
    ],
)
def test_a_write_of_our_own_on_top_of_an_edit_that_nobody_has_shown_yet_is_news(edit: Json) -> None:
    registry = Registry()
    entry = registry.apply(rlscaler("web", version="7")).entry
    entry.resource_version = "9"  # the edit is version 8
    body = rlscaler("web", version="9")
    body["metadata"] |= edit
    assert not registry.shows(body["metadata"])
    registry.apply(body)
    assert registry.shows(body["metadata"])


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        pytest.param({"minReplicas": 20}, "InvalidSpec", "minReplicas", id="min above max"),
        pytest.param({"mode": "Sleepy"}, "InvalidSpec", "mode", id="unknown mode"),
        pytest.param({"scaleTargetRef": None}, "InvalidSpec", "scaleTargetRef", id="no target"),
    ],
)
def test_a_spec_that_an_older_crd_let_through_is_the_objects_own_trouble(
    spec: dict[str, Any], reason: str, words: str
) -> None:
    registry = Registry()
    entry = registry.apply(rlscaler("web", **spec)).entry
    assert entry.trouble is not None
    assert entry.trouble.reason == reason
    assert words in entry.trouble.message
    assert registry.apply(rlscaler("web", generation=2, version="2")).entry.trouble is None


def test_a_deleted_object_is_no_longer_alive_for_those_who_hold_it() -> None:
    registry = Registry()
    entry = registry.apply(rlscaler("web")).entry
    registry.forget(entry.uid)
    assert not entry.alive
    assert len(registry) == 0


def test_a_full_list_drops_what_is_gone_from_its_namespace_only() -> None:
    registry = Registry()
    for name in ("a", "b"):
        registry.apply(rlscaler(name))
    other = rlscaler("c")
    other["metadata"]["namespace"] = "elsewhere"
    registry.apply(other)
    assert [entry.name for entry in registry.retain({"uid-a"}, "shop")] == ["b"]
    assert sorted(entry.name for entry in registry) == ["a", "c"]


def rival(name: str, created: str, **spec: Any) -> Json:
    body = rlscaler(name, **spec)
    body["metadata"]["creationTimestamp"] = created
    return body


WEB = {"kind": "Deployment", "name": "web"}
POOLS = [
    {"name": n, "scaleTargetRef": {"kind": "Deployment", "name": n}, "maxReplicas": 3}
    for n in ("web", "spot")
]


@pytest.mark.parametrize(
    ("mine", "others", "hpas", "expected"),
    [
        pytest.param({}, [], [], None, id="alone"),
        pytest.param({}, [], [hpa("web")], "HorizontalPodAutoscaler hpa-web", id="an HPA"),
        pytest.param(
            {}, [], [hpa("web", version="apps/v1beta2")], "HorizontalPodAutoscaler", id="in another version"
        ),
        pytest.param({}, [], [hpa("web", kind="StatefulSet")], None, id="an HPA on another kind"),
        pytest.param({}, [], [hpa("other")], None, id="an HPA on another name"),
        pytest.param({"mode": "Shadow"}, [], [hpa("web")], None, id="a Shadow beside an HPA"),
        pytest.param({}, [{"mode": "Active"}], [], "RLScaler older", id="an older RLScaler"),
        pytest.param({}, [{"mode": "Shadow"}], [], None, id="an older Shadow"),
        pytest.param({}, [{"mode": "Paused"}], [], None, id="an older one that is paused"),
        pytest.param(
            {},
            [{"scaleTargetRef": None, "maxReplicas": None, "backends": POOLS}],
            [],
            "RLScaler older",
            id="a pool of an older one",
        ),
    ],
)
def test_only_writers_conflict_and_the_older_one_acts(
    mine: dict[str, Any], others: list[dict[str, Any]], hpas: list[Json], expected: str | None
) -> None:
    registry = Registry()
    entry = registry.apply(rival("web", "2026-01-02T00:00:00Z", **mine)).entry
    for spec in others:
        older = rival("older", "2026-01-01T00:00:00Z", **{"scaleTargetRef": WEB, **spec})
        assert registry.conflict(registry.apply(older).entry) is None
    for body in hpas:
        registry.rivals.apply(HPAS, body)
    found = registry.conflict(entry)
    assert (found is None) == (expected is None)
    assert expected is None or expected in str(found)


def test_a_conflict_ends_with_the_other_writer() -> None:
    registry = Registry()
    entry = registry.apply(rival("web", "2026-01-02T00:00:00Z")).entry
    older = registry.apply(rival("older", "2026-01-01T00:00:00Z", scaleTargetRef=WEB)).entry
    registry.rivals.apply(HPAS, hpa("web", uid="one"))
    registry.rivals.apply(HPAS, hpa("web", uid="two"))
    assert registry.conflict(entry)
    registry.forget(older.uid)
    registry.rivals.forget(HPAS, "one")
    assert "HorizontalPodAutoscaler" in str(registry.conflict(entry))
    registry.rivals.forget(HPAS, "two")
    assert registry.conflict(entry) is None


def test_an_rlscaler_that_is_pointed_elsewhere_lets_the_old_target_go() -> None:
    registry = Registry()
    older = rival("older", "2026-01-01T00:00:00Z", scaleTargetRef=WEB)
    registry.apply(older)
    entry = registry.apply(rival("web", "2026-01-02T00:00:00Z")).entry
    assert registry.conflict(entry)
    moved = rival("older", "2026-01-01T00:00:00Z", scaleTargetRef={"kind": "Deployment", "name": "api"})
    moved["metadata"] |= {"generation": 2, "resourceVersion": "2"}
    registry.apply(moved)
    assert registry.conflict(entry) is None
