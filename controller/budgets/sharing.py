"""The engine's last question in each batch: how many replicas may each of these have now?

`caps` is `Engine.budget`. Members decide in different ticks, so two numbers are kept apart: what a member is
entitled to (its cap where that is less than it has: it gives way at once), and what is free (a raise takes no
more than that, and waits until others have given way). What was let through counts as used from then on,
until the member's targets are read again: the sum of actual replicas never rises above a budget by a raise.

`controller.turn` reports what it reads and writes (`observe`, `scaled`) and asks what to say (`share_of`).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from controller.actuation.target import Target
from controller.api.constants import Reason
from controller.budgets.allocation import admit
from controller.budgets.book import Book, Budget, Member
from controller.budgets.plan import Plan, Question, acts, make_plan
from controller.budgets.share import Share
from controller.core.samples import IntArray
from controller.registry import Entry

if TYPE_CHECKING:
    from controller.case import Case

logger = logging.getLogger(__name__)

NO_CAP: Final = 2**31 - 1
_GONE: Final = (Reason.TARGET_NOT_FOUND, Reason.KIND_NOT_FOUND)


class Sharing:
    """Shares the budgets of a `Book` out, batch by batch. All in one event loop; nothing here waits."""

    def __init__(self, book: Book, conflict_of: Callable[[Entry], str | None]) -> None:
        self._book = book
        self._conflict_of = conflict_of
        self._answered: dict[str, Question] = {}
        self.changed: set[str] = set()
        """Namespaces whose members' numbers may have changed, for whoever reports and clears it."""

    def plan(self, namespace: str) -> Plan:
        """What everybody in a namespace is entitled to, and uses, now."""
        return make_plan(self._book, namespace, self._conflict_of, self._answered)

    def observe(self, cases: Sequence[Case]) -> None:
        """Take in the targets that these turns have read; a target that is gone has no replicas.

        Whoever goes on to decide is told more by `share_of` than what is noted in the case here.
        """
        for case in cases if self._book.members else ():
            member = self._book.members.get(case.entry.uid)
            if member is None or not case.valid:
                continue
            case.budget = _unlimited(member)
            member.missed += not case.decidable
            if len(case.targets) == len(case.entry.targets):
                self._take(member, tuple(target.replicas for target in case.targets))
            elif case.trouble is not None and case.trouble.reason in _GONE:
                self._take(member, (0,) * len(case.entry.targets))

    def scaled(self, entry: Entry, targets: Sequence[Target], complete: bool) -> None:
        """Take in what a write has made of the targets; one that is not complete may yet take effect."""
        member = self._book.members.get(entry.uid)
        if member is not None and len(targets) == len(entry.targets):
            promised = 0 if complete else member.promised
            self._take(member, tuple(target.replicas for target in targets))
            member.promised = promised

    def read(self, entry: Entry, replicas: Sequence[int]) -> None:
        """Take in targets that were read out of turn, for a member of whom nothing was known."""
        member = self._book.members.get(entry.uid)
        if member is not None and member.replicas is None and len(replicas) == len(entry.targets):
            self._take(member, tuple(replicas))

    def _take(self, member: Member, replicas: tuple[int, ...]) -> None:
        if replicas != member.replicas or member.promised:
            self.changed.add(member.entry.namespace)
        member.replicas, member.promised = replicas, 0

    def share_of(self, entry: Entry) -> Share | None:
        """What to say of a member's budget; None for an RLScaler that is in none."""
        member = self._book.members.get(entry.uid)
        if member is None:
            return None
        told = member.share if acts(entry, self._conflict_of) else None
        return told or _unlimited(member)

    def caps(self, rows: IntArray, wishes: IntArray, current: IntArray) -> IntArray:
        """Most replicas for each row of a batch, int `[N]`; NO_CAP where no budget limits it.

        wishes: what the guard would do; current: replicas that there are. Never raises: by a bug of ours
        nobody in a budget is raised.
        """
        members = {m.entry.work.row: m for m in self._book.members.values() if m.entry.work is not None}
        try:
            return self._caps(members, rows, wishes)
        except Exception:
            logger.exception("budgets could not be shared out: no member of one gets more")
            limited = np.array([row in members for row in rows.tolist()], dtype=bool)
            return np.where(limited, current, NO_CAP)

    def _caps(self, members: dict[int, Member], rows: IntArray, wishes: IntArray) -> IntArray:
        result = np.full(len(rows), NO_CAP, dtype=np.int64)
        due: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for place, row in enumerate(rows.tolist()):
            member = members.get(row)
            if member is not None:
                self._wish(member, int(wishes[place]))
                due[member.entry.namespace][member.entry.uid] = place
        for namespace, places in due.items():
            for uid, cap in self._share_out(self.plan(namespace), places).items():
                result[places[uid]] = cap
        return result

    def _wish(self, member: Member, wish: int) -> None:
        if wish != member.wish:
            self.changed.add(member.entry.namespace)
        member.wish, member.missed = wish, 0

    def _share_out(self, plan: Plan, places: dict[str, int]) -> dict[str, int]:
        """Caps of those in `places` that are limited, by uid; all of them are told by their `share`."""
        due = {plan.index[uid]: self._book.members[uid] for uid in places if uid in plan.index}
        for uid in places.keys() - plan.index.keys():
            self._book.members[uid].share = None  # decides, but does not act: it is never told
        given = admit(plan.now, {who: plan.entitled.grants[who] for who in due})
        caps = {}
        for who, cap in given.items():
            member, claim = due[who], plan.claims[who]
            raised = min(claim.wish, cap)
            member.promised = raised if raised > member.current else 0
            member.share = self._share(plan, who, cap) if cap < claim.wish else None
            if cap < claim.wish:
                caps[member.entry.uid] = cap
        return caps

    def _share(self, plan: Plan, who: int, cap: int) -> Share:
        wish, entitled = plan.claims[who].wish, plan.entitled.grants[who]
        waits = cap < entitled
        budget = plan.scarce(who, plan.now if waits else plan.entitled)
        if waits:
            said = f"{limit_text(budget)} has no more free now: {cap} of {wish} replicas"
            return Share(budget.name, cap, f"{said}, {entitled} once others have given way")
        refused = wish - entitled
        return Share(
            budget.name,
            cap,
            f"{limit_text(budget)} is exhausted: {cap} of {wish} replicas, {refused} refused",
        )


def _unlimited(member: Member) -> Share:
    return Share(", ".join(budget.name for budget in member.budgets))


def limit_text(budget: Budget) -> str:
    """A budget and its limits: RLScalerBudget shop (maxReplicas 20)."""
    spec = budget.spec
    limits = [
        f"maxReplicas {spec.max_replicas}" if spec is not None and spec.max_replicas is not None else "",
        f"maxCost {spec.max_cost}" if spec is not None and spec.max_cost is not None else "",
    ]
    return f"RLScalerBudget {budget.name} ({', '.join(filter(None, limits))})"
