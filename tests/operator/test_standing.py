"""Words for clamps, and start-up times that are said when they have moved."""

from __future__ import annotations

import math

import pytest

from controller.clamps import worded
from controller.core import Clamp, Engine, HpaPolicy, Samples, ServiceSpec
from controller.standing import start_up_shown
from tests.operator.test_outside import entry_of


def test_a_clamp_is_said_in_the_words_that_are_known_in_the_message_too() -> None:
    engine = Engine(ServiceSpec(1, 20, capacity_rps=10.0, target_utilisation=0.5), HpaPolicy())
    engine.set_floor(0, 12)
    decision = engine.step(0.0, Samples(request_rate=[400.0], ready=[10], current=[10]))[0]
    low = engine.step(15.0, Samples(request_rate=[1.0], ready=[10], current=[10]))[0]
    assert worded(decision, {"Schedule": "schedule office asks for at least 12"}) is decision
    said = worded(low, {"Schedule": "schedule office asks for at least 12"})
    (clamp,) = [clamp for clamp in said.clamps if clamp.name == "Schedule"]
    assert clamp == Clamp(
        "Schedule", "ScheduledFloor", 1, 12, "1 -> 12: schedule office asks for at least 12"
    )
    assert "Schedule (1 -> 12: schedule office asks for at least 12)" in said.message
    assert [one for one in said.clamps if one.name != "Schedule"] == [
        one for one in low.clamps if one.name != "Schedule"
    ]


@pytest.mark.parametrize(
    ("shown", "learned", "expected"),
    [
        (None, math.nan, None),
        (None, 41.6, 42),
        (42, math.nan, 42),
        (42, 46.0, 42),
        (42, 38.0, 42),
        (42, 46.5, 46),
        (42, 30.2, 30),
        (2, 2.4, 2),
        (2, 2.6, 3),
    ],
    ids=str,
)
def test_a_start_up_time_is_said_anew_only_when_it_has_moved_by_a_tenth(
    shown: int | None, learned: float, expected: int | None
) -> None:
    entry = entry_of({} if shown is None else {"startUpSeconds": shown})
    assert start_up_shown(entry, learned) == expected
