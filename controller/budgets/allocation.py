"""Who gets what of a limit that is too small for all: pure integer arithmetic, the same answer every time.

`allocate` says what everybody is entitled to: minimums first, then by priority, and within a priority
max-min fair (nobody gets a replica more while somebody with fewer could still have one more). With several
limits this is progressive filling: Bertsekas and Gallager, Data Networks, 2nd edition, section 6.5.2. `admit`
says what of it can be had now. `controller.budgets.sharing` calls both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Cost = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `size` replicas in sum, or `size` units of cost. Below zero: more is used than there is."""

    size: int
    of_cost: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """What one member asks for; `floor` <= `wish`, both in replicas.

    limits: indices of those that it counts against. cost: units of cost of so many replicas. Ties are broken
    by `key`, the lesser first.
    """

    key: tuple[str, ...]
    priority: int
    floor: int
    wish: int
    limits: tuple[int, ...]
    cost: Cost

    def use(self, limit: Limit, replicas: int) -> int:
        """What so many replicas take of a limit."""
        return self.cost(replicas) if limit.of_cost else replicas


class Room:
    """What is left of each limit while replicas are given out."""

    def __init__(self, claims: Sequence[Claim], limits: Sequence[Limit], grants: Sequence[int]) -> None:
        self.claims, self.limits, self.grants = claims, limits, list(grants)
        self.left = [limit.size for limit in limits]
        self.stopped: dict[int, int] = {}
        """Which limit kept whom from more, by claim; filled in by `allocate` and `admit`."""
        for claim, grant in zip(claims, grants, strict=True):
            for index in claim.limits:
                self.left[index] -= claim.use(limits[index], grant)

    def need(self, who: int, replicas: int, index: int) -> int:
        """What limit `index` would have to give for `who` to go from the grant to `replicas`."""
        claim, limit = self.claims[who], self.limits[index]
        return claim.use(limit, replicas) - claim.use(limit, self.grants[who])

    def lacks(self, who: int, replicas: int) -> int | None:
        """The first limit that has no room for `who` to have `replicas`, or None."""
        for index in self.claims[who].limits:
            if self.need(who, replicas, index) > max(self.left[index], 0):
                return index
        return None

    def give(self, who: int, replicas: int) -> None:
        """Set a grant, whether there is room or not."""
        for index in self.claims[who].limits:
            self.left[index] -= self.need(who, replicas, index)
        self.grants[who] = replicas

    def level(self, group: Sequence[int]) -> int:
        """Most replicas up to which the whole group can rise together, each no further than its wish."""
        low = min(self.grants[who] for who in group)
        high = max(self.claims[who].wish for who in group)
        if self.fits(group, high):
            return high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.fits(group, middle) else (low, middle)
        return low

    def fits(self, group: Sequence[int], level: int) -> bool:
        needed = [0] * len(self.limits)
        for who in group:
            target = min(level, self.claims[who].wish)
            if target > self.grants[who]:
                for index in self.claims[who].limits:
                    needed[index] += self.need(who, target, index)
        return all(more <= max(left, 0) for more, left in zip(needed, self.left, strict=True))


def allocate(claims: Sequence[Claim], limits: Sequence[Limit]) -> Room:
    """What everybody is entitled to (`.grants`, replicas by claim), and what is left of each limit.

    Floors are granted even where they alone are more than a limit; beyond them no limit is passed.
    """
    room = Room(claims, limits, [claim.floor for claim in claims])
    if len(claims) and room.fits(range(len(claims)), max(claim.wish for claim in claims)):
        for who, claim in enumerate(claims):
            room.give(who, claim.wish)
        return room
    for priority in sorted({claim.priority for claim in claims}, reverse=True):
        _fill(room, [who for who, claim in enumerate(claims) if claim.priority == priority])
    return room


def _fill(room: Room, group: Sequence[int]) -> None:
    """Raise a group from the lowest up, until each has its wish or no room in one of its limits."""
    while True:
        group = [who for who in group if _may_rise(room, who)]
        if not group:
            return
        lowest = min(room.grants[who] for who in group)
        level = room.level(group)
        if level > lowest:
            for who in group:
                if room.grants[who] < level:
                    room.give(who, min(level, room.claims[who].wish))
            continue
        for who in sorted(group, key=lambda who: room.claims[who].key):  # the rest, one each while it lasts
            if room.grants[who] == lowest and room.lacks(who, lowest + 1) is None:
                room.give(who, lowest + 1)


def _may_rise(room: Room, who: int) -> bool:
    if room.grants[who] >= room.claims[who].wish:
        return False
    scarce = room.lacks(who, room.grants[who] + 1)
    if scarce is not None:
        room.stopped[who] = scarce
    return scarce is None


def admit(room: Room, wanted: dict[int, int]) -> dict[int, int]:
    """Replicas that each may have now, of those that it is entitled to: `wanted` by claim.

    room: what is used now, promises included, as grants. A raise takes only what is free; floors are never
    refused. Higher priorities first, then those with fewest.
    """
    order = sorted(
        wanted, key=lambda who: (-room.claims[who].priority, room.grants[who], room.claims[who].key)
    )
    given = {}
    for who in order:
        low, high = room.grants[who], wanted[who]
        if high > low and room.lacks(who, high) is None:
            low = high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if room.lacks(who, middle) is None else (low, middle)
        given[who] = max(min(low, wanted[who]), room.claims[who].floor)
        room.give(who, max(given[who], room.grants[who]))
        scarce = room.lacks(who, room.grants[who] + 1)
        if scarce is not None:
            room.stopped[who] = scarce
    return given
