"""The roll-out: every way from one state to the next, and what no sequence of turns may do."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from typing import Any

import pytest

from controller.core.rollout import (
    BREACHED,
    FAILED,
    FEW,
    HOLDS,
    MISSING,
    PAUSED,
    PROGRESSING,
    SUCCEEDED,
    RolloutRules,
    RolloutState,
    Sight,
    advance,
    judge,
    next_weight,
    replicas_for,
)

RULES = RolloutRules(max_latency_ms=250.0)
PERIOD_S = 15.0
WELL: dict[str, Any] = {
    "revision": "one",
    "needed": 2,
    "asked": 2,
    "ready": 5,
    "requests": 1000.0,
    "due": 1000.0,
    "error_ratio": 0.001,
    "latency_ms": 120.0,
    "mark": "r",
}


def sight(now_s: float, **changes: Any) -> Sight:
    return Sight(now_s=now_s, **{**WELL, **changes})


def state(weight: int, phase: str = PROGRESSING, **changes: Any) -> RolloutState:
    """One that has had its interval at a weight."""
    made = RolloutState(phase, weight, 0.0, 0.0, 0.0, revision="one", mark="r")
    return replace(made, **changes)


def after(now: RolloutState, now_s: float = 600.0, rules: RolloutRules = RULES, **seen: Any) -> RolloutState:
    return advance(now, rules, sight(now_s, **seen))


def test_it_goes_up_by_steps_each_after_its_interval_and_ends_at_its_most() -> None:
    now, weights, phases = None, [], []
    for turn in range(40):
        had = now is not None and now.weight > 0
        now = advance(now, RULES, sight(turn * PERIOD_S, requests=1000.0 if had else math.nan))
        weights.append(now.weight)
        phases.append(now.phase)
    assert weights[:2] == [0, 10]
    ups = [turn for turn in range(1, 40) if weights[turn] > weights[turn - 1]]
    assert [weights[turn] for turn in ups] == [10, 20, 30, 40, 50]
    assert {b - a for a, b in itertools.pairwise(ups[1:])} == {4}, "an interval is four sync periods"
    assert phases[-1] == SUCCEEDED
    assert phases.index(SUCCEEDED) - ups[-1] == 4, "the last weight has its interval too"


def test_a_step_that_does_not_divide_the_most_ends_there_all_the_same() -> None:
    assert after(state(44), rules=replace(RULES, step_weight=11)).weight == 50
    assert after(state(0), rules=replace(RULES, step_weight=80)).weight == 50


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"ready": 1}, "1 of 2 replicas ready"),
        ({"ready": 1, "asked": 1}, "may have only 1"),
        ({"ready": 0, "needed": 0}, "no replica"),
        ({"carried": False}, "do not carry it"),
        ({"others": False}, "no other pool"),
        ({"objective": False}, "misses its objective"),
        ({"revision": ""}, "revision"),
        ({"obstacle": "mode Shadow steps nothing"}, "mode Shadow"),
        ({"requests": 50.0, "due": 50.0}, "50 requests"),
        ({"requests": math.nan}, "could not be read"),
        ({"error_ratio": math.nan}, "error ratio could not be read"),
        ({"latency_ms": math.nan}, "latency could not be read"),
    ],
)
def test_it_stays_where_it_is_and_says_why(seen: dict[str, Any], said: str) -> None:
    now = after(state(20), **seen)
    assert (now.phase, now.weight) == (PROGRESSING, 20)
    assert said in now.message


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"error_ratio": 0.02}, "error ratio 0.02, at most 0.01"),
        ({"latency_ms": 251.0}, "latency 251 ms, at most 250 ms"),
        ({"requests": 5.0, "due": 5.0, "error_ratio": 1.0}, "error ratio 1"),
        ({"abort": True}, "by annotation"),
        ({"error_ratio": 0.02, "latency_ms": math.nan}, "error ratio 0.02"),
    ],
)
@pytest.mark.parametrize("phase", [PROGRESSING, PAUSED, SUCCEEDED])
def test_a_breach_takes_all_weight_at_once_in_every_phase(
    phase: str, seen: dict[str, Any], said: str
) -> None:
    now = after(state(50, phase), paused=phase == PAUSED, **seen)
    assert (now.phase, now.weight, now.since_s) == (FAILED, 0, 600.0)
    assert said in now.message


def test_a_few_errors_among_few_requests_are_no_breach_yet() -> None:
    verdict, _ = judge(state(10), RULES, sight(600.0, requests=20.0, due=20.0, error_ratio=0.05))
    assert verdict == FEW, "one of 20: with 80 good ones more it would be within the limit"
    verdict, _ = judge(state(10), RULES, sight(600.0, requests=20.0, due=20.0, error_ratio=0.10))
    assert verdict == BREACHED, "two of 20 are too many for 100 as well"


def test_a_higher_threshold_waits_for_so_many_checks_in_a_row() -> None:
    rules = replace(RULES, failure_threshold=3)
    now = state(30)
    for bad in (True, True, False, True, True):
        now = after(now, rules=rules, carried=False, error_ratio=0.5 if bad else 0.0)
    assert (now.phase, now.weight, now.failed) == (PROGRESSING, 30, 2)
    assert after(now, rules=rules, error_ratio=0.5).phase == FAILED


def test_missing_metrics_hold_and_after_so_many_checks_roll_back() -> None:
    now = state(30)
    for _ in range(RULES.missing_threshold - 1):
        now = after(now, requests=math.nan)
        assert (now.phase, now.weight) == (PROGRESSING, 30)
    now = after(now, requests=math.nan)
    assert (now.phase, now.weight) == (FAILED, 0)
    assert "after 5 checks in a row" in now.message


def test_one_good_check_ends_a_row_of_missing_ones() -> None:
    now = state(30, missing=4)
    assert after(now, carried=False).missing == 0


def test_once_it_has_succeeded_missing_metrics_alone_do_not_take_half_of_the_traffic_away() -> None:
    now = state(50, SUCCEEDED)
    for _ in range(20):
        now = after(now, requests=math.nan)
    assert (now.phase, now.weight) == (SUCCEEDED, 50)
    assert "could not be read" in now.message


def test_no_requests_where_many_are_due_is_a_fault_and_a_lull_is_none() -> None:
    lull = sight(600.0, requests=3.0, due=4.0)
    fault = sight(600.0, requests=3.0, due=900.0)
    assert judge(state(10), RULES, lull)[0] == FEW
    assert judge(state(10), RULES, fault)[0] == MISSING
    assert judge(state(10, stepped_s=590.0), RULES, fault)[0] == FEW, "metrics lag a step by their window"
    assert judge(state(0), RULES, fault)[0] == HOLDS, "without weight there is nothing to see"


def test_a_pool_whose_replicas_are_gone_cannot_be_checked() -> None:
    assert judge(state(10), RULES, sight(600.0, ready=0))[0] == MISSING


def test_without_a_latency_limit_only_errors_count() -> None:
    rules = replace(RULES, max_latency_ms=math.nan)
    assert judge(state(10), rules, sight(600.0, latency_ms=9000.0))[0] == HOLDS
    assert judge(state(10), rules, sight(600.0, latency_ms=math.nan))[0] == HOLDS


def test_replicas_that_never_become_ready_end_it() -> None:
    now, began_s = state(20), 600.0
    for turn in range(100):
        now = after(now, began_s + turn * PERIOD_S, ready=1)
        if now.phase == FAILED:
            break
    assert now.since_s - began_s == RULES.deadline_s
    assert "1 of 2 replicas ready" in now.message


def test_replicas_that_it_may_not_have_are_waited_for_without_end() -> None:
    now = state(20)
    for turn in range(200):
        now = after(now, 600.0 + turn * PERIOD_S, ready=1, asked=1)
    assert (now.phase, now.weight) == (PROGRESSING, 20)


def test_a_pause_holds_checks_on_and_gives_the_interval_anew() -> None:
    paused = after(state(20), 600.0, paused=True)
    assert (paused.phase, paused.weight, paused.since_s) == (PAUSED, 20, 600.0)
    later = after(paused, 5000.0, paused=True)
    assert later.weight == 20
    resumed = after(later, 5015.0)
    assert (resumed.phase, resumed.weight) == (PROGRESSING, 20)
    assert after(resumed, 5030.0).weight == 20
    assert after(resumed, 5015.0 + RULES.interval_s).weight == 30


@pytest.mark.parametrize("phase", [PROGRESSING, PAUSED, SUCCEEDED, FAILED])
def test_another_revision_begins_anew_from_nothing(phase: str) -> None:
    now = after(state(40, phase, failed=2, missing=3), revision="two", paused=phase == PAUSED)
    assert (now.phase, now.weight, now.failed, now.missing) == (PROGRESSING, 0, 0, 0)
    assert now.revision == "two"


def test_a_revision_that_cannot_be_read_is_not_another_one() -> None:
    assert after(state(50, SUCCEEDED), revision="").phase == SUCCEEDED
    assert after(state(40, FAILED, revision=""), revision="one").phase == FAILED


def test_a_failure_stays_until_somebody_does_something() -> None:
    failed = state(0, FAILED)
    assert after(failed, 1e6).phase == FAILED
    assert after(failed, restart="restart").phase == PROGRESSING
    assert after(failed, mark="other").phase == PROGRESSING


def test_requests_of_the_version_before_are_not_held_against_the_new_one() -> None:
    now = after(state(40, FAILED), revision="two", error_ratio=1.0)
    for turn in range(1, 5):
        now = after(now, 600.0 + turn * PERIOD_S, revision="two", error_ratio=1.0)
        assert (now.phase, now.weight) == (PROGRESSING, 0), now
    assert "from before" in now.message
    assert after(now, 675.0, revision="two", requests=0.0, error_ratio=math.nan).weight == 10
    assert after(now, 720.0, revision="two", error_ratio=1.0).weight == 10, "others may send it requests"


def test_the_word_restart_begins_anew_once() -> None:
    now = after(state(40, SUCCEEDED), restart="restart")
    assert (now.phase, now.weight) == (PROGRESSING, 0)
    now = after(now, 615.0, restart="restart", requests=0.0)
    assert now.weight == 10, "it goes on, and is not begun in each turn"
    assert after(now, 630.0, restart="restart-2").weight == 0
    gone = after(now, 630.0)
    assert (gone.weight, gone.restart) == (10, "")
    assert after(gone, 645.0, restart="restart").weight == 0, "set again after it was removed"


def test_other_rules_do_not_disturb_one_that_is_under_way() -> None:
    assert advance(state(20), RULES, sight(600.0, mark="other", carried=False)).weight == 20


def test_a_lower_most_lowers_it_and_a_higher_one_lets_it_go_on() -> None:
    assert after(state(50, SUCCEEDED), rules=replace(RULES, max_weight=20)).weight == 20
    now = after(state(50, SUCCEEDED), rules=replace(RULES, max_weight=80))
    assert now.phase == PROGRESSING
    assert now.weight == 50, "after another interval"


def test_weights_that_routes_carry_late_have_their_interval_from_then_on() -> None:
    now = state(20)
    for turn in range(8):
        now = after(now, 600.0 + turn * PERIOD_S, carried=False)
    carried_s = 600.0 + 7 * PERIOD_S
    assert after(now, carried_s + RULES.interval_s - 1.0).weight == 20
    assert after(now, carried_s + RULES.interval_s).weight == 30


@pytest.mark.parametrize(
    ("weight", "desired", "ratio", "replicas"),
    [(10, 10, 1.0, 1), (11, 10, 1.0, 2), (50, 7, 1.0, 4), (0, 50, 1.0, 0), (20, 10, 2.0, 4), (30, 0, 1.0, 0)],
)
def test_replicas_are_the_weights_part_of_the_whole(
    weight: int, desired: int, ratio: float, replicas: int
) -> None:
    assert replicas_for(weight, desired, ratio) == replicas


def random_sight(dice: random.Random, now_s: float) -> Sight:
    """Anything that a turn may see; well more often than not, so that roll-outs get somewhere."""
    well = dice.random() < 0.8
    return sight(
        now_s,
        revision=dice.choice(["one"] * 60 + ["two", ""]),
        needed=dice.randint(0, 4),
        asked=dice.randint(0, 4),
        ready=4 if well else dice.randint(0, 4),
        requests=1000.0 if well else dice.choice([0.0, 10.0, 100.0, math.nan]),
        due=dice.choice([0.0, 1000.0, math.nan]),
        error_ratio=0.0 if well else dice.choice([0.0, 0.009, 0.02, 1.0, math.nan]),
        latency_ms=100.0 if well else dice.choice([100.0, 249.0, 400.0, math.nan]),
        carried=dice.random() < 0.95,
        objective=dice.random() < 0.95,
        others=dice.random() < 0.98,
        paused=dice.random() < 0.1,
        abort=dice.random() < 0.01,
        restart=dice.choice([""] * 50 + ["restart"]),
        mark=dice.choice(["r"] * 30 + ["s"]),
    )


def random_rules(dice: random.Random) -> RolloutRules:
    return RolloutRules(
        max_weight=dice.randint(1, 100),
        step_weight=dice.randint(1, 60),
        interval_s=dice.choice([1.0, 15.0, 60.0]),
        max_latency_ms=dice.choice([250.0, math.nan]),
        min_requests=dice.choice([1.0, 100.0]),
        failure_threshold=dice.choice([1, 1, 2]),
        missing_threshold=dice.choice([1, 5]),
        deadline_s=dice.choice([30.0, 600.0]),
        window_s=dice.choice([15.0, 60.0]),
    )


def reached(seed: int) -> set[str]:
    """The phases of a random life, all of whose turns keep the rules."""
    dice, phases = random.Random(seed), set()
    rules, before, now_s = random_rules(dice), None, 0.0
    for _ in range(300):
        now_s += PERIOD_S * dice.choice([0.5, 1.0, 1.0, 3.0])
        seen = random_sight(dice, now_s)
        now = advance(before, rules, seen)
        phases.add(now.phase)
        assert 0 <= now.weight <= rules.max_weight
        assert now.phase != FAILED or now.weight == 0
        assert now.phase != SUCCEEDED or now.weight == rules.max_weight
        if before is not None:
            _keeps_the_rules(before, now, rules, seen)
        before = now
    return phases


def _keeps_the_rules(before: RolloutState, now: RolloutState, rules: RolloutRules, seen: Sight) -> None:
    verdict, _ = judge(before, rules, seen)
    if now.weight > before.weight:
        assert verdict == HOLDS, "never up on bad or missing data"
        assert now.weight == next_weight(before, rules)
        assert seen.ready >= max(seen.needed, 1)
        assert seen.carried
        assert seen.others
        assert before.under_way
        assert not seen.paused
    if verdict == BREACHED and rules.failure_threshold == 1:
        assert now.weight == 0, "back within the turn that sees it"
    if before.phase == FAILED and now.phase != FAILED:
        assert now.weight == 0
        assert now.message.startswith("begun anew")
    if 0 < now.weight < before.weight:
        raise AssertionError("down is down to nothing")


def test_random_lives_keep_the_rules_and_reach_every_phase() -> None:
    found = [reached(seed) for seed in range(200)]
    for phase in (PROGRESSING, PAUSED, SUCCEEDED, FAILED):
        assert sum(phase in phases for phases in found) >= 20, phase
