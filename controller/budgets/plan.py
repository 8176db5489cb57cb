"""From the members of a namespace's budgets to what each is entitled to now: the bridge to `allocation`.

Who is in charge of its target (Active, not paused, not in conflict, read without trouble) has a claim; all
others count with the replicas that their targets have, and no target counts twice. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from controller.actuation.apply import pool_steps
from controller.budgets.allocation import Claim, Cost, Limit, Room, allocate
from controller.budgets.book import COST_UNITS, Book, Budget, Member, cost_units
from controller.registry import Entry

MOST_MISSED = 3
"""Turns without a decision after which a wish no longer counts; the replicas that it has still do."""


@dataclass
class Plan:
    """One namespace's budgets at one moment. `index`: a member's place among claims, by its uid."""

    budgets: list[tuple[Budget, Limit]]
    claims: list[Claim]
    index: dict[str, int]
    entitled: Room
    """What everybody gets once everybody has given way."""
    now: Room
    """What everybody uses at present."""
    fixed: dict[str, int] = field(default_factory=dict)
    """Replicas of members without a claim, by the budget's uid."""

    def scarce(self, who: int, room: Room) -> Budget:
        """The budget that kept a claim from more; its first where that cannot be told (costs of pools)."""
        return self.budgets[room.stopped.get(who, self.claims[who].limits[0])][0]


@dataclass(frozen=True)
class Question:
    """What `allocate` was asked, and its answer, which holds for an equal question."""

    claims: list[Claim]
    limits: list[Limit]
    answer: Room


def make_plan(
    book: Book,
    namespace: str,
    conflict_of: Callable[[Entry], str | None],
    answered: dict[str, Question] | None = None,
) -> Plan:
    """The plan for a namespace.

    answered: the last question by namespace, asked again only if it has changed; the new one is put there.
    """
    members = book.of_namespace(namespace)
    acting = {m.entry.uid: m for m in members if acts(m.entry, conflict_of)}
    budgets = _limits({b.uid: b for m in members for b in m.budgets}.values(), acting)
    places = tuple(budget.uid for budget, _ in budgets)
    ordered = sorted(acting.values(), key=lambda m: (m.entry.created, m.entry.name))
    claims = [_claim(member, places) for member in ordered]
    limits = [limit for _, limit in budgets]
    answered = {} if answered is None else answered
    known = answered.get(namespace)
    if known is None or known.claims != claims or known.limits != limits:
        known = Question(claims, limits, allocate(claims, limits))
    answered[namespace] = known
    return Plan(
        budgets=budgets,
        claims=claims,
        index={member.entry.uid: place for place, member in enumerate(ordered)},
        entitled=known.answer,
        now=Room(claims, _held(budgets), [member.used for member in ordered]),
        fixed={budget.uid: sum(n for _, n in _fixed(budget, acting)) for budget, _ in budgets},
    )


def acts(entry: Entry, conflict_of: Callable[[Entry], str | None]) -> bool:
    """Whether the operator sets the replicas of this RLScaler's targets."""
    return (
        entry.mode == "Active"
        and not entry.paused
        and entry.trouble is None
        and entry.service is not None
        and conflict_of(entry) is None
    )


def wish_of(member: Member) -> int:
    """What it would have without the budget; what it has, while nothing is known of that."""
    known = member.wish is not None and member.missed < MOST_MISSED
    return member.wish if known and member.wish is not None else member.current


def cost_of(member: Member) -> Cost:
    """What so many replicas of a member would cost, in units of cost, given what it has now."""
    entry = member.entry
    pools = entry.service.pools if entry.service is not None else ()
    prices = _prices(entry)
    if not pools:
        return lambda replicas: prices[0] * replicas
    if member.replicas is None:
        return lambda replicas: max(prices) * replicas
    now, known = member.replicas, {sum(member.replicas): _sum(prices, member.replicas)}

    def cost(replicas: int) -> int:
        if replicas not in known:
            known[replicas] = _sum(prices, pool_steps(now, replicas, pools))
        return known[replicas]

    return cost


def current_cost(budget: Budget, acting: Iterable[str]) -> int:
    """What a budget's members cost now, in units of cost; promises are not counted."""
    claimed = {uid: budget.members[uid] for uid in acting if uid in budget.members}
    own = sum(cost_of(member)(member.current) for member in claimed.values())
    return own + sum(price * n for price, n in _fixed(budget, claimed))


def _limits(found: Iterable[Budget], acting: dict[str, Member]) -> list[tuple[Budget, Limit]]:
    """Every limit of every budget, less what members without a claim take of it."""
    limits: list[tuple[Budget, Limit]] = []
    for budget in sorted(found, key=lambda budget: budget.name):
        taken = _fixed(budget, acting)
        if budget.max_replicas is not None:
            size = budget.max_replicas - sum(replicas for _, replicas in taken)
            limits.append((budget, Limit(size)))
        if budget.max_cost is not None:
            size = budget.max_cost - sum(price * replicas for price, replicas in taken)
            limits.append((budget, Limit(size, of_cost=True)))
    return limits


def _held(budgets: Sequence[tuple[Budget, Limit]]) -> list[Limit]:
    """The limits for raises of now: none while a member's replicas have not been read yet."""
    unread = {budget.uid for budget, _ in budgets if any(m.replicas is None for m in budget.members.values())}
    return [
        Limit(min(limit.size, 0), limit.of_cost) if budget.uid in unread else limit
        for budget, limit in budgets
    ]


def _fixed(budget: Budget, acting: dict[str, Member]) -> list[tuple[int, int]]:
    """(price, replicas) of each target of members without a claim, unless somebody with one has it."""
    others = [(m, m.replicas) for uid, m in budget.members.items() if uid not in acting]
    if not others:
        return []
    counted = {ref.key for uid in budget.members if uid in acting for ref in acting[uid].entry.targets}
    taken: list[tuple[int, int]] = []
    for member, held in others:
        prices = _prices(member.entry)
        for ref, price, replicas in zip(member.entry.targets, prices, held or (), strict=held is not None):
            if ref.key not in counted:
                counted.add(ref.key)
                taken.append((price, replicas))
        left = member.promised - member.current  # paused in the middle of a raise
        if left > 0 and member.entry.targets:
            taken.append((max(prices), left))
    return taken


def _claim(member: Member, places: tuple[str, ...]) -> Claim:
    entry = member.entry
    assert entry.service is not None
    assert entry.spec is not None
    wish = wish_of(member)
    pooled = member.replicas if entry.service.pools else None
    mark = (entry.generation, wish, pooled, places)
    if member.claim is not None and member.claim[0] == mark:
        return member.claim[1]
    mine = {budget.uid for budget in member.budgets}
    claim = Claim(
        key=(entry.created, entry.name),
        priority=entry.spec.priority,
        floor=min(entry.service.min_replicas, wish),
        wish=wish,
        limits=tuple(place for place, uid in enumerate(places) if uid in mine),
        cost=cost_of(member),
    )
    member.claim = (mark, claim)
    return claim


def _prices(entry: Entry) -> tuple[int, ...]:
    """Units of cost of one replica, by target."""
    if entry.spec is not None and entry.spec.backends:
        return tuple(cost_units(backend.cost_per_replica) for backend in entry.spec.backends)
    own = entry.spec.cost_per_replica if entry.spec is not None else None
    return (cost_units(own) if own is not None else COST_UNITS,)


def _sum(prices: Sequence[int], replicas: Sequence[int]) -> int:
    return sum(price * n for price, n in zip(prices, replicas, strict=True))
