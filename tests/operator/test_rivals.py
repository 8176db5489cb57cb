"""Who else scales a target."""

from __future__ import annotations

import pytest

from controller.actuation.target import TargetRef
from controller.kube import HPAS, Resource
from controller.rivals import SCALED_OBJECTS, Rivals
from tests.operator.bodies import Json, hpa

WEB = TargetRef("apps/v1", "Deployment", "web", "shop").key


def scaled_object(name: str, uid: str, **ref: str) -> Json:
    target = {"name": "web", **ref}
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": uid},
        "spec": {"scaleTargetRef": target},
    }


def test_a_scaled_object_means_a_deployment_unless_it_says_otherwise() -> None:
    rivals = Rivals()
    rivals.apply(SCALED_OBJECTS, scaled_object("a", "1"))
    assert rivals.on(WEB) == "ScaledObject a"
    rivals.apply(SCALED_OBJECTS, scaled_object("a", "1", kind="StatefulSet"))
    assert rivals.on(WEB) is None
    assert rivals.on(TargetRef("apps/v1", "StatefulSet", "web", "shop").key) == "ScaledObject a"


def test_the_scaled_object_is_named_before_the_hpa_that_keda_made_for_it() -> None:
    rivals = Rivals()
    rivals.apply(HPAS, hpa("web", uid="1"))
    rivals.apply(SCALED_OBJECTS, scaled_object("a", "2"))
    assert rivals.on(WEB) == "ScaledObject a"
    rivals.forget(SCALED_OBJECTS, "2")
    assert rivals.on(WEB) == "HorizontalPodAutoscaler hpa-web"
    rivals.forget(HPAS, "1")
    rivals.forget(HPAS, "1")
    assert rivals.on(WEB) is None


@pytest.mark.parametrize("kind", [HPAS, SCALED_OBJECTS], ids=lambda kind: kind.plural)
def test_a_full_list_replaces_what_was_known_of_its_kind_alone(kind: Resource) -> None:
    rivals = Rivals()
    rivals.apply(HPAS, hpa("web", uid="1"))
    rivals.apply(SCALED_OBJECTS, scaled_object("a", "2"))
    rivals.retain(kind, [])
    assert rivals.on(WEB) is not None
    assert kind.kind not in str(rivals.on(WEB))


def test_one_made_anew_under_its_name_is_not_forgotten_with_the_old() -> None:
    rivals = Rivals()
    rivals.apply(HPAS, hpa("web", uid="old"))
    rivals.apply(HPAS, hpa("web", uid="new"))
    rivals.forget(HPAS, "old")
    assert rivals.on(WEB) == "HorizontalPodAutoscaler hpa-web"


def test_one_without_a_target_is_nobodys() -> None:
    rivals = Rivals()
    rivals.apply(SCALED_OBJECTS, {"metadata": {"name": "x", "namespace": "shop", "uid": "1"}})
    assert rivals.on(WEB) is None
