"""What an RLScalerBudget's status says: pure, from one plan to a status.

Nothing in it moves while nobody's replicas or wishes do, so that a steady budget costs no writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controller.api.budget import BudgetCondition, BudgetReason
from controller.api.decimals import format_decimal
from controller.budgets.book import COST_UNITS, Budget
from controller.budgets.plan import Plan, current_cost
from controller.budgets.sharing import limit_text
from controller.status import FALSE, TRUE, UNKNOWN, Condition, Status, dated

MOST_NAMED: Final = 10
"""Members that a condition's message names."""


@dataclass(frozen=True)
class Tally:
    """One budget's numbers. `refused`: (member, granted, asked for) of each who gets less than it wants."""

    members: int
    current: int
    demanded: int
    granted: int
    cost: int
    refused: tuple[tuple[str, int, int], ...] = ()
    giving_way: tuple[str, ...] = ()
    minimums: int = 0
    too_large: bool = False
    over: bool = False
    unread: tuple[str, ...] = ()


def tally(budget: Budget, plan: Plan) -> Tally:
    """The numbers of a budget in a plan of its namespace."""
    mine = {plan.index[uid]: member for uid, member in budget.members.items() if uid in plan.index}
    fixed = plan.fixed.get(budget.uid, 0)
    grants, claims = plan.entitled.grants, plan.claims
    current = sum(member.current for member in mine.values()) + fixed
    cost = current_cost(budget, {member.entry.uid: member for member in mine.values()})
    floors = [
        left for (owner, _), left in zip(plan.budgets, plan.entitled.left, strict=True) if owner is budget
    ]
    ranked = sorted(mine, key=lambda who: (-claims[who].priority, claims[who].key))
    return Tally(
        members=len(budget.members),
        current=current,
        demanded=sum(claims[who].wish for who in mine) + fixed,
        granted=sum(grants[who] for who in mine) + fixed,
        cost=cost,
        refused=tuple(
            (mine[who].entry.name, grants[who], claims[who].wish)
            for who in ranked
            if grants[who] < claims[who].wish
        ),
        giving_way=tuple(mine[who].entry.name for who in ranked if grants[who] < mine[who].current),
        minimums=sum(claims[who].floor for who in mine) + fixed,
        too_large=any(left < 0 for left in floors),
        over=(budget.max_replicas is not None and current > budget.max_replicas)
        or (budget.max_cost is not None and cost > budget.max_cost),
        unread=tuple(sorted(m.entry.name for m in budget.members.values() if m.replicas is None)),
    )


def build(budget: Budget, found: Tally, now_unix_s: float) -> Status:
    """The status of a budget; what `budget.status` says already is kept as it is."""
    conditions = [_ready(budget, found), _exhausted(budget, found)]
    return {
        "observedGeneration": budget.generation,
        "members": found.members,
        "currentReplicas": found.current,
        "demandedReplicas": found.demanded,
        "grantedReplicas": found.granted,
        "currentCost": format_decimal(found.cost / COST_UNITS),
        "conditions": dated(conditions, budget.status, budget.generation, now_unix_s, exact=True),
    }


def _ready(budget: Budget, found: Tally) -> Condition:
    kind = BudgetCondition.READY
    if budget.spec is None:
        return Condition(kind, FALSE, BudgetReason.INVALID_SPEC, budget.trouble)
    if not found.members:
        return Condition(kind, TRUE, BudgetReason.NO_MEMBERS, "the selector picks no RLScaler")
    if found.unread:
        waiting = f"nobody gets more before the replicas of {named(found.unread)} have been read"
        return Condition(kind, UNKNOWN, BudgetReason.STARTING, waiting)
    if found.too_large:
        message = (
            f"minReplicas of all members, and what Shadow and paused ones have, come to {found.minimums} "
            f"replicas, more than {limit_text(budget)}"
        )
        return Condition(kind, FALSE, BudgetReason.MINIMUMS_TOO_LARGE, message)
    if found.over:
        message = f"more is in use than {limit_text(budget)}"
        message += f"; to give way: {named(found.giving_way)}" if found.giving_way else ""
        return Condition(kind, FALSE, BudgetReason.GIVING_WAY, message)
    return Condition(kind, TRUE, BudgetReason.SHARED, "the limit is kept")


def _exhausted(budget: Budget, found: Tally) -> Condition:
    kind = BudgetCondition.EXHAUSTED
    if not found.refused:
        return Condition(kind, FALSE, BudgetReason.WITHIN_BUDGET, "everybody gets what is asked for")
    who = named([f"{name} gets {granted} of {wish}" for name, granted, wish in found.refused])
    return Condition(kind, TRUE, BudgetReason.SHORTAGE, f"{limit_text(budget)} is exhausted: {who}")


def named(names: Sequence[str]) -> str:
    """Up to MOST_NAMED of them, and how many more there are."""
    shown = ", ".join(names[:MOST_NAMED])
    more = len(names) - MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def is_exhausted(status: Status) -> bool:
    """What a status says of the condition Exhausted."""
    return any(
        condition["type"] == BudgetCondition.EXHAUSTED and condition["status"] == TRUE
        for condition in status.get("conditions") or []
    )
