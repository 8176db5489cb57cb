"""Who gets what of a limit: examples by hand, and what must hold for any claims and limits."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.budgets.allocation import Claim, Limit, Room, admit, allocate


def claim(
    wish: int, floor: int = 0, priority: int = 0, name: str = "", price: int = 1, limits: Sequence[int] = (0,)
) -> Claim:
    return Claim(("2026-01-01", name or f"{wish}"), priority, floor, wish, tuple(limits), lambda n: price * n)


def grants(size: int, *claims: Claim, of_cost: bool = False) -> list[int]:
    return allocate(claims, [Limit(size, of_cost)]).grants


def test_what_fits_is_granted_as_asked() -> None:
    assert grants(20, claim(5), claim(9), claim(6)) == [5, 9, 6]


def test_the_higher_priority_is_served_first_and_the_minimums_before_it() -> None:
    assert grants(20, claim(12, 2, priority=10), claim(12, 2), claim(12, 4, priority=-5)) == [12, 4, 4]


def test_within_a_priority_small_wishes_are_met_and_the_large_share_evenly() -> None:
    assert grants(20, claim(3, name="a"), claim(30, name="b"), claim(9, name="c")) == [3, 9, 8]


def test_what_cannot_be_divided_goes_to_the_oldest() -> None:
    assert grants(11, claim(9, name="b"), claim(9, name="a"), claim(9, name="c")) == [4, 4, 3]


def test_a_minimum_above_the_even_share_is_kept() -> None:
    assert grants(12, claim(9, 8, name="a"), claim(9, name="b"), claim(9, name="c")) == [8, 2, 2]


def test_minimums_that_do_not_fit_are_granted_all_the_same_and_nothing_else() -> None:
    room = allocate([claim(9, 6), claim(9, 6, priority=9)], [Limit(10)])
    assert room.grants == [6, 6]
    assert room.left == [-2]


def test_a_budget_of_cost_counts_what_replicas_cost() -> None:
    dear, cheap = claim(9, name="dear", price=10), claim(9, name="cheap", price=1)
    assert grants(58, dear, cheap, of_cost=True) == [5, 8]


def test_what_is_too_little_for_the_dear_goes_to_the_cheap_of_a_lower_priority() -> None:
    dear, cheap = claim(9, name="dear", price=10, priority=1), claim(9, name="cheap", price=1)
    assert grants(15, dear, cheap, of_cost=True) == [1, 5]


def test_with_several_budgets_the_smallest_decides_and_the_others_lose_nothing_by_it() -> None:
    both, one, two = claim(10, limits=(0, 1)), claim(10, limits=(0,)), claim(10, limits=(1,))
    assert allocate([both, one, two], [Limit(16), Limit(4)]).grants == [2, 10, 2]


def test_a_budget_of_replicas_and_of_cost_keeps_both() -> None:
    dear = claim(10, name="a", price=4, limits=(0, 1))
    cheap = claim(10, name="b", price=1, limits=(0, 1))
    assert allocate([dear, cheap], [Limit(10), Limit(23, of_cost=True)]).grants == [4, 6]


def test_a_raise_takes_what_is_free_now_and_the_rest_when_others_have_given_way() -> None:
    high, low = claim(12, priority=5), claim(15)
    limits = [Limit(20)]
    entitled = allocate([high, low], limits)
    assert entitled.grants == [12, 8]
    assert admit(Room([high, low], limits, [4, 14]), {0: 12, 1: 8}) == {0: 6, 1: 8}
    assert admit(Room([high, low], limits, [6, 8]), {0: 12}) == {0: 12}


def test_nothing_is_raised_while_more_is_used_than_there_is_but_to_its_minimum() -> None:
    claims, limits = [claim(9, 3), claim(30)], [Limit(20)]
    assert admit(Room(claims, limits, [1, 25]), {0: 9}) == {0: 3}
    assert admit(Room(claims, limits, [5, 25]), {0: 9}) == {0: 5}


PRICES = st.sampled_from([1, 3, 10, 250])


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Claim], list[Limit]]:
    """Up to eight members of up to three limits, each a member of at least one."""
    limits = draw(st.lists(st.builds(Limit, st.integers(0, 120), st.booleans()), min_size=1, max_size=3))
    claims = []
    for number in range(draw(st.integers(1, 8))):
        floor = draw(st.integers(0, 6))
        mine = draw(st.sets(st.integers(0, len(limits) - 1), min_size=1))
        wish = floor + draw(st.integers(0, 30))
        priority = draw(st.integers(-1, 1))
        claims.append(claim(wish, floor, priority, f"{number}", draw(PRICES), sorted(mine)))
    return claims, limits


def used(claims: Sequence[Claim], limit: Limit, index: int, replicas: Sequence[int]) -> int:
    return sum(c.use(limit, n) for c, n in zip(claims, replicas, strict=True) if index in c.limits)


@settings(max_examples=300, deadline=None)
@given(problem=problems())
def test_no_limit_is_passed_unless_the_minimums_alone_pass_it(
    problem: tuple[list[Claim], list[Limit]],
) -> None:
    claims, limits = problem
    room = allocate(claims, limits)
    for index, limit in enumerate(limits):
        least = used(claims, limit, index, [c.floor for c in claims])
        total = used(claims, limit, index, room.grants)
        assert total <= max(limit.size, least)
        assert room.left[index] == limit.size - total


@settings(max_examples=300, deadline=None)
@given(problem=problems())
def test_nobody_gets_less_than_the_minimum_or_more_than_the_wish(
    problem: tuple[list[Claim], list[Limit]],
) -> None:
    claims, limits = problem
    for one, granted in zip(claims, allocate(claims, limits).grants, strict=True):
        assert one.floor <= granted <= one.wish


@settings(max_examples=300, deadline=None)
@given(problem=problems())
def test_nothing_is_wasted(problem: tuple[list[Claim], list[Limit]]) -> None:
    """Whoever is short could not have one replica more: one of the limits has no room for it."""
    claims, limits = problem
    room = allocate(claims, limits)
    for who, one in enumerate(claims):
        if room.grants[who] < one.wish:
            assert any(
                used(claims, limits[index], index, plus_one(room.grants, who)) > limits[index].size
                for index in one.limits
            )


def plus_one(grants: Sequence[int], who: int) -> list[int]:
    return [n + (place == who) for place, n in enumerate(grants)]


@settings(max_examples=300, deadline=None)
@given(problem=problems(), who=st.integers(0, 7), more=st.integers(1, 30))
def test_what_lower_priorities_ask_for_changes_nothing_for_the_higher(
    problem: tuple[list[Claim], list[Limit]], who: int, more: int
) -> None:
    claims, limits = problem
    who %= len(claims)
    low = claims[who]
    greedy = Claim(low.key, low.priority, low.floor, low.wish + more, low.limits, low.cost)
    before = allocate(claims, limits).grants
    after = allocate([*claims[:who], greedy, *claims[who + 1 :]], limits).grants
    for other, one in enumerate(claims):
        if one.priority > low.priority:
            assert after[other] == before[other]


@settings(max_examples=300, deadline=None)
@given(problem=problems())
def test_within_a_priority_nobody_is_short_beside_one_who_has_two_more_above_the_minimum(
    problem: tuple[list[Claim], list[Limit]],
) -> None:
    """Max-min fairness in integers, where both take the same of the same limits."""
    claims, limits = problem
    prices = [one.cost(1) for one in claims]
    granted = allocate(claims, limits).grants
    for short, one in enumerate(claims):
        for other, rich in enumerate(claims):
            alike = one.limits == rich.limits and one.priority == rich.priority
            alike = alike and prices[short] == prices[other]
            if alike and granted[short] < one.wish and granted[other] > rich.floor:
                assert granted[other] <= granted[short] + 1


@settings(max_examples=300, deadline=None)
@given(problem=problems(), order=st.randoms(use_true_random=False))
def test_the_answer_does_not_depend_on_the_order_of_the_claims(
    problem: tuple[list[Claim], list[Limit]], order: object
) -> None:
    claims, limits = problem
    places = list(range(len(claims)))
    order.shuffle(places)  # type: ignore[attr-defined]
    shuffled = allocate([claims[place] for place in places], limits).grants
    assert shuffled == [allocate(claims, limits).grants[place] for place in places]


@settings(max_examples=300, deadline=None)
@given(problem=problems(), data=st.data())
def test_members_that_decide_one_after_another_never_use_more_than_there_is_and_end_where_they_should(
    problem: tuple[list[Claim], list[Limit]], data: st.DataObject
) -> None:
    """Any starting point at or above the minimums, any order of turns; wishes stand still."""
    claims, limits = problem
    entitled = allocate(claims, limits).grants
    have = [data.draw(st.integers(one.floor, one.wish)) for one in claims]
    most = [max(limit.size, used(claims, limit, i, have)) for i, limit in enumerate(limits)]
    turns = data.draw(st.lists(st.sets(st.integers(0, len(claims) - 1), min_size=1), max_size=12))
    everybody = set(range(len(claims)))
    for turn in [*turns, everybody, everybody]:
        given = admit(Room(claims, limits, have), {who: entitled[who] for who in turn})
        for who, cap in given.items():
            have[who] = min(cap, claims[who].wish)
        for index, limit in enumerate(limits):
            assert used(claims, limit, index, have) <= most[index]
    assert have == entitled


@pytest.mark.parametrize("members", [200])
def test_the_answer_is_the_same_every_time(members: int) -> None:
    claims = [claim(7 + n % 40, n % 3, n % 5, f"{n:04}", 1 + n % 4) for n in range(members)]
    first = grants(1000, *claims, of_cost=True)
    assert all(grants(1000, *claims, of_cost=True) == first for _ in range(5))
