"""Finite differences on policies whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from controller.core.observation import COLUMN, OBSERVATION_SCHEMA
from controller.explain.sensitivity import (
    GROUPS,
    LEVELS,
    LOAD_FACTORS,
    SMALL,
    asking,
    sensitivity,
    with_load,
)
from controller.policies import load_policy
from tests.telling.records import Straight, observation

LOAD = 10.0


def named(policy: Straight, **values: float) -> dict[str, float]:
    found = sensitivity(asking(policy, 0), observation(**values), LOAD)
    return dict(found.groups)


def test_every_feature_belongs_to_one_group_or_is_a_level() -> None:
    members = [name for group in GROUPS for name in group.members]
    assert sorted([*members, *LEVELS]) == sorted(OBSERVATION_SCHEMA.names)


def test_what_a_group_adds_is_what_is_gone_without_it() -> None:
    """Ten replicas of load: exp(0.5) of them is 17, so a rise of 0.5 with weight 1 is due for 7."""
    due = named(Straight(0.0, load_change_30s=1.0), load_change_30s=0.5)
    assert due.pop("how the load has moved in the last hour") == math.ceil(LOAD * math.exp(0.5)) - LOAD
    assert set(due.values()) == {0.0}


def test_a_group_may_stand_for_fewer_replicas() -> None:
    due = named(Straight(0.5, season_1h=1.0), season_1h=-0.5, season_1h_known=1.0)
    assert due["the load at this time an hour ago"] == LOAD - math.ceil(LOAD * math.exp(0.5))


def test_groups_are_sorted_by_what_they_change() -> None:
    policy = Straight(0.0, error_ratio=0.2, load_change_60s=1.0, preference=-3.0)
    values = {"error_ratio": 1.0, "load_change_60s": 0.5, "preference": 0.5}
    changes = [abs(due) for _, due in sensitivity(asking(policy, 0), observation(**values), LOAD).groups]
    assert changes == sorted(changes, reverse=True)
    assert changes[0] > changes[1] > 0


def test_features_are_sorted_and_say_what_their_step_changes() -> None:
    policy = Straight(0.0, load_change_30s=1.0, error_ratio=1.0, latency_over_slo=-2.0)
    found = sensitivity(asking(policy, 0), observation(error_ratio=0.5), LOAD)
    first, second = found.features[:2]
    assert (first.name, second.name) == ("latency_over_slo", "load_change_30s")
    assert first.step == pytest.approx(SMALL * 6)
    here = math.ceil(LOAD * math.exp(0.5))
    assert first.below == math.ceil(LOAD * math.exp(0.5 + 0.6)) - here
    assert first.above == math.ceil(LOAD * math.exp(0.5 - 0.6)) - here
    unused = {effect.name for effect in found.features if effect.below == effect.above == 0}
    assert len(unused) == OBSERVATION_SCHEMA.size - 3


def test_a_step_stays_inside_the_range() -> None:
    found = sensitivity(asking(Straight(0.0, error_ratio=1.0), 0), observation(error_ratio=1.0), LOAD)
    effect = next(one for one in found.features if one.name == "error_ratio")
    assert effect.above == 0
    assert effect.below < 0


def test_a_small_step_that_changes_nothing_is_tried_larger() -> None:
    """9.5 replicas are 10, and so are 9.2 and 9.8 (5 % of the range); 20 % of it makes 10.7, so 11."""
    policy = Straight(-0.05, load_change_30s=0.1)
    first = sensitivity(asking(policy, 0), observation(), LOAD).features[0]
    assert (first.name, first.above) == ("load_change_30s", 1)
    assert first.step == pytest.approx(0.2 * 6)


def test_a_policy_in_the_middle_of_its_band_hangs_on_nothing_but_the_order_tells_what_it_leans_on() -> None:
    class Band(Straight):
        def act(self, features):  # type: ignore[no-untyped-def]
            low = super().act(features)[:, 0]
            return np.stack([low - 2.0, low + 2.0], axis=1)

    found = sensitivity(asking(Band(0.0, utilisation=0.3, error_ratio=0.1), 10), observation(), LOAD)
    assert all(effect.below == effect.above == 0 for effect in found.features)
    assert [effect.name for effect in found.features[:2]] == ["utilisation", "error_ratio"]
    assert {due for _, due in found.groups} == {0.0}


def test_the_load_is_moved_with_everything_that_depends_on_it() -> None:
    row = observation(
        provisioned_over_load=0.3,
        ready_over_load=0.2,
        load_change_15s=0.1,
        load_max_60s=0.5,
        season_1d=0.4,
        season_1d_known=1.0,
        season_1h=0.4,
        utilisation=0.5,
    )
    moved = with_load(row, 2.0, LOAD)
    expected = {
        "provisioned_over_load": 0.3 - math.log(2),
        "ready_over_load": 0.2 - math.log(2),
        "load_change_15s": 0.1 + math.log(2),
        "load_max_60s": 0.0,
        "season_1d": 0.4 - math.log(2),
        "season_1h": 0.4,
        "utilisation": 1.0,
        "granularity": 1 / 21,
    }
    for name, value in expected.items():
        assert moved[COLUMN[name]] == pytest.approx(value, abs=1e-6), name


def test_other_loads_scale_the_answer_of_a_policy_that_keeps_a_headroom() -> None:
    found = sensitivity(asking(Straight(0.0), 0), observation(), LOAD)
    assert found.replicas == LOAD
    assert found.loads == tuple((factor, math.ceil(LOAD * factor)) for factor in LOAD_FACTORS)


def test_the_policy_is_asked_once_for_a_bounded_batch() -> None:
    policy = Straight(0.0)
    sensitivity(asking(policy, 0), observation(), LOAD)
    assert policy.asked == [1 + len(GROUPS) + len(LOAD_FACTORS) + 4 * OBSERVATION_SCHEMA.size]


def test_the_built_in_policy_can_be_asked_again() -> None:
    policy = load_policy({"builtin": "default"}, "/nowhere", None)
    row = observation(provisioned_over_load=0.7, ready_over_load=0.7, preference=0.5)
    found = sensitivity(asking(policy, 4), row, 2.0)  # type: ignore[arg-type]
    assert math.isfinite(found.replicas)
    assert len(found.features) == OBSERVATION_SCHEMA.size


def test_an_observation_that_gets_no_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="no number"):
        sensitivity(asking(Straight(math.nan), 0), observation(), LOAD)


def test_an_observation_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        sensitivity(asking(Straight(0.0), 0), np.zeros(3, np.float32), LOAD)
