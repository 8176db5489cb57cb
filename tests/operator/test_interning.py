"""What thousands of RLScalers say alike is held once, and means the same as if it were not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from controller.api.convert import to_service_spec
from controller.api.validation import parse_spec
from controller.errors import SpecError
from controller.interning import interned, read_spec
from tests.operator.bodies import rlscaler


def raw(name: str, **spec: Any) -> dict[str, Any]:
    """A spec as the API server gives it, for a target of this name."""
    found = copy.deepcopy(rlscaler(name, **spec)["spec"])
    found["scaleTargetRef"]["name"] = name
    return dict(found)


def test_specs_that_differ_in_the_targets_name_share_all_else_and_are_what_parsing_each_gives() -> None:
    (first, service), (second, same) = read_spec(raw("web")), read_spec(raw("shop"))
    assert same is service
    assert second.objective is first.objective
    assert second.scale_target_ref is not None
    assert second.scale_target_ref.name == "shop"
    assert second == parse_spec(raw("shop"))
    assert same == to_service_spec(parse_spec(raw("shop")))
    assert first == parse_spec(raw("web"))


def test_specs_that_differ_elsewhere_are_told_apart() -> None:
    low, high = read_spec(raw("web", maxReplicas=10)), read_spec(raw("web", maxReplicas=11))
    assert (low[0].max_replicas, high[0].max_replicas) == (10, 11)
    assert (low[1].max_replicas, high[1].max_replicas) == (10, 11)


@pytest.mark.parametrize("name", ["", 7, None], ids=["empty", "a number", "absent"])
def test_a_targets_name_that_is_not_allowed_is_refused_however_often_the_rest_was_read(name: Any) -> None:
    read_spec(raw("web"))
    bad = raw("web")
    bad["scaleTargetRef"]["name"] = name
    with pytest.raises(SpecError, match="scaleTargetRef"):
        read_spec(bad)


def test_equal_labels_of_two_objects_are_the_same_strings_and_nothing_is_lost() -> None:
    raw_labels = [{"".join(["te", "am"]): "".join(["sh", "op"])} for _ in range(2)]
    one, other = (interned(labels) for labels in raw_labels)
    assert one == other == {"team": "shop"}
    assert one["team"] is other["team"]
    assert next(iter(one)) is next(iter(other))
