"""A canary's scores against numbers that were worked out by hand."""

from __future__ import annotations

import math

import pytest

from controller.scores import Lane, Scores, Violations


def test_replicas_are_summed_and_turns_of_direction_counted() -> None:
    lane = Lane()
    #               up       up       down     down     up
    for replicas in (4, 6, 6, 8, 8, 5, 5, 4, 4, 9):
        lane.take(replicas)
    assert (lane.replicas, lane.flaps) == (59, 2)


def scored(loads: list[float], canary: list[int | None], active: list[int], lead_s: float = 30.0) -> Scores:
    """A decision every 15 s, each preceded by the judging of the load that was read with it."""
    scores = Scores()
    for index, load in enumerate(loads):
        scores.judge(15.0 * index, load)
        scores.take(15.0 * index, 15.0, 15.0, lead_s, canary[index], active[index])
    return scores


def test_scores_are_those_of_a_hand_worked_history() -> None:
    """Start-up takes 30 s, so each decision meets the load of two decisions later.

    loads:   4    4    6    9    5   7.5
    canary:  5    5    6    6    5    5     the decisions of 0, 15, 30 and 45 s meet 6, 9, 5 and 7.5:
    active:  8    8    8   10   10    6       short: canary at 6, 9 and 7.5; active at 9 alone
    """
    scores = scored([4, 4, 6, 9, 5, 7.5], [5, 5, 6, 6, 5, 5], [8, 8, 8, 10, 10, 6])
    assert (scores.decisions, scores.seconds, scores.judged) == (6, 90.0, 4)
    assert scores.cost_ratio == pytest.approx(32 / 50)
    assert scores.shortfall == 3 / 4
    assert scores.active_shortfall == 1 / 4
    assert (scores.canary.flaps, scores.active.flaps) == (1, 1)
    assert scores.flap_ratio == 1.0


def test_a_load_that_is_just_served_is_no_shortfall() -> None:
    assert scored([5, 5, 5.0], [5, 5, 5], [5, 5, 5]).shortfall == 0.0
    assert scored([5, 5, 5.001], [5, 5, 5], [5, 5, 5]).shortfall == 1.0


def test_a_canary_that_says_nothing_costs_the_same_and_is_always_short() -> None:
    scores = scored([1] * 6, [None] * 6, [8] * 6)
    assert (scores.cost_ratio, scores.shortfall, scores.active_shortfall) == (1.0, 1.0, 0.0)


def test_a_load_that_comes_too_late_judges_nothing() -> None:
    scores = Scores()
    scores.take(0.0, 15.0, 15.0, 30.0, 1, 1)
    scores.take(15.0, 15.0, 15.0, 30.0, 1, 1)
    scores.judge(70.0, 9.0)  # two sync periods after 30 s are 60 s, and after 45 s they are 75 s
    assert (scores.judged, scores.canary.short) == (1, 1)


def test_a_load_that_is_not_known_judges_nothing() -> None:
    scores = scored([math.nan] * 6, [1] * 6, [1] * 6)
    assert scores.judged == 0
    assert math.isnan(scores.shortfall)


def test_without_a_flap_of_either_the_ratio_is_one_and_one_flap_is_two() -> None:
    assert scored([1] * 3, [2, 2, 2], [2, 2, 2]).flap_ratio == 1.0
    assert scored([1] * 3, [2, 3, 2], [2, 2, 2]).flap_ratio == 2.0


def test_a_status_gives_the_scores_back() -> None:
    scores = scored([4, 4, 6, 9, 5, 7.5] * 7, [5, 5, 6, 6, 5, 5] * 7, [8, 8, 8, 10, 10, 6] * 7)
    held = scores.as_status()
    assert held == {
        "decisions": 42,
        "scoredSeconds": 630,
        "judged": 40,
        "replicas": "5.333",
        "activeReplicas": "8.333",
        "costRatio": "0.64",
        "shortfall": "0.525",
        "activeShortfall": "0.175",
        "flaps": 13,
        "activeFlaps": 13,
        "flapRatio": "1",
    }
    back = Scores.from_status(held)
    assert (back.decisions, back.seconds, back.judged) == (42, 630.0, 40)
    assert back.cost_ratio == pytest.approx(scores.cost_ratio, rel=1e-3)
    assert (back.canary.short, back.active.short) == (scores.canary.short, scores.active.short)
    assert (back.canary.flaps, back.active.flaps) == (13, 13)
    assert back.as_status() == held


@pytest.mark.parametrize("held", [{}, {"decisions": "many"}, {"decisions": 3, "replicas": "a lot"}])
def test_a_status_that_cannot_be_read_is_a_beginning(held: dict[str, object]) -> None:
    assert Scores.from_status(held) == Scores()


def test_violations_are_a_share_of_the_whole_window_and_leave_it_again() -> None:
    over = Violations(600.0)
    for time_s in (0.0, 15.0, 30.0):
        over.note(time_s, 15.0)
    over.note(45.0, 0.0)
    assert over.ratio(45.0) == 45.0 / 600.0
    assert over.ratio(600.0) == 30.0 / 600.0
    assert over.ratio(629.9) == 15.0 / 600.0
    assert over.ratio(630.0) == 0.0


def test_a_window_is_never_more_than_full() -> None:
    over = Violations(60.0)
    over.note(0.0, 400.0)
    assert over.ratio(0.0) == 1.0
    over.clear()
    assert over.ratio(0.0) == 0.0
