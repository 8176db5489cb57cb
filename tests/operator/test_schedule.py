"""Turns come at fixed points of each object's own grid."""

from __future__ import annotations

import pytest

from controller.schedule import SLOTS, Schedule, next_due, phase_s

UIDS = [f"uid-{number}" for number in range(200)]


@pytest.mark.parametrize("period_s", [1.0, 15.0, 60.0, 3600.0])
@pytest.mark.parametrize(
    "after_s", [0.0, 14.999, 1.8e9, 1.08e11], ids=["zero", "early", "now", "now in a rehearsal"]
)
def test_the_next_turn_is_the_first_point_of_the_grid_that_is_later(period_s: float, after_s: float) -> None:
    for uid in UIDS[:50]:
        due_s = next_due(uid, period_s, after_s)
        assert after_s < due_s <= after_s + period_s
        assert (due_s - phase_s(uid, period_s)) / period_s == pytest.approx(
            round((due_s - phase_s(uid, period_s)) / period_s), abs=1e-5
        )


def test_turns_never_drift_however_late_each_one_is_taken() -> None:
    due_s = first_s = next_due("uid-1", 15.0, 1000.0)
    for lateness_s in [0.0, 3.0, 14.9, 0.1, 7.0] * 20:
        due_s = next_due("uid-1", 15.0, due_s + lateness_s)
    assert due_s == first_s + 15.0 * 100


def test_a_turn_that_takes_longer_than_the_period_skips_points_and_stays_on_the_grid() -> None:
    due_s = next_due("uid-1", 15.0, 0.0)
    assert next_due("uid-1", 15.0, due_s + 40.0) == due_s + 45.0


def test_the_phase_survives_a_restart_and_spreads_objects_over_the_period() -> None:
    phases = [phase_s(uid, 15.0) for uid in UIDS]
    assert phases == [phase_s(uid, 15.0) for uid in UIDS]
    counts = [phases.count(slot * 15.0 / SLOTS) for slot in range(SLOTS)]
    assert sum(counts) == len(UIDS)
    assert min(counts) > len(UIDS) / SLOTS / 3


def test_those_that_are_due_come_earliest_first_and_once() -> None:
    schedule = Schedule()
    for uid, due_s in [("c", 3.0), ("a", 1.0), ("b", 2.0), ("d", 9.0)]:
        schedule.put(uid, due_s)
    assert [turn.uid for turn in schedule.pop_due(3.0)] == ["a", "b", "c"]
    assert schedule.pop_due(3.0) == []
    assert schedule.next_s() == 9.0


def test_a_later_put_replaces_the_earlier_one() -> None:
    schedule = Schedule()
    schedule.put("a", 5.0)
    schedule.put("a", 2.0)
    schedule.put("a", 7.0)
    assert schedule.next_s() == 7.0
    assert schedule.pop_due(6.0) == []
    assert len(schedule) == 1


def test_a_removed_object_has_no_turn() -> None:
    schedule = Schedule()
    schedule.put("a", 1.0)
    schedule.remove("a")
    assert schedule.next_s() is None
    assert schedule.pop_due(10.0) == []
