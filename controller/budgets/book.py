"""The RLScalerBudgets, and which RLScalers are members of which. No I/O in here.

kopf's handlers and the periodic lists call `apply`, `forget`, `note` and `drop`, as they do with the
registry; all runs in one event loop, so nothing is locked.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from controller.api.budget import KIND, LabelSelector, RLScalerBudgetSpec
from controller.api.constants import API_VERSION
from controller.api.validation import parse
from controller.budgets.allocation import Claim
from controller.budgets.share import Share
from controller.errors import SpecError
from controller.events import Involved
from controller.kube import Json
from controller.registry import Entry, Registry, is_older
from controller.selector import Matches, parse_selector
from controller.status import Status

logger = logging.getLogger(__name__)

COST_UNITS = 10**9
"""Costs are counted in whole billionths, so that sums are exact: limits rounded down, costs up."""


@dataclass
class Budget:
    """One RLScalerBudget: what the API server says of it, and who shares it."""

    uid: str
    namespace: str
    name: str
    generation: int
    resource_version: str
    status: Status
    spec: RLScalerBudgetSpec | None = None
    matches: Matches | None = None
    trouble: str = ""
    members: dict[str, Member] = field(default_factory=dict)

    @property
    def involved(self) -> Involved:
        return Involved(API_VERSION, KIND, self.namespace, self.name, self.uid)

    @property
    def max_replicas(self) -> int | None:
        return self.spec.max_replicas if self.spec is not None else None

    @property
    def max_cost(self) -> int | None:
        """In units of cost."""
        text = self.spec.max_cost if self.spec is not None else None
        return None if text is None else cost_units(text, ROUND_FLOOR)

    def picks(self, entry: Entry) -> bool:
        return self.matches is not None and entry.namespace == self.namespace and self.matches(entry.labels)


@dataclass
class Member:
    """One RLScaler in at least one budget. Replicas are by target, in the order of `entry.targets`."""

    entry: Entry
    budgets: tuple[Budget, ...]
    replicas: tuple[int, ...] | None = None
    """As last read; None: not yet."""
    targets: tuple[object, ...] = ()
    promised: int = 0
    """What it was let have when it last decided: counts as used until its targets are read again."""
    wish: int | None = None
    missed: int = 0
    """Turns in a row in which it could not decide, and so not repeat its wish."""
    share: Share | None = None
    claim: tuple[Hashable, Claim] | None = None
    """The last claim, kept while it would be the same: thousands are made in every batch else."""

    @property
    def current(self) -> int:
        return sum(self.replicas or ())

    @property
    def used(self) -> int:
        """What it counts as now: what it has, or may have in a moment."""
        return max(self.current, self.promised)


class Book:
    """Budgets by uid, members by the uid of their RLScaler."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.budgets: dict[str, Budget] = {}
        self.members: dict[str, Member] = {}
        self._by_namespace: defaultdict[str, list[Budget]] = defaultdict(list)

    def apply(self, body: Json) -> Budget:
        """Take in an RLScalerBudget as the API server shows it; what is older than known is left out."""
        metadata = body["metadata"]
        version, generation = str(metadata.get("resourceVersion", "")), int(metadata.get("generation", 0))
        known = self.budgets.get(metadata["uid"])
        if known is None:
            known = Budget(
                metadata["uid"], metadata["namespace"], metadata["name"], -1, "", body.get("status") or {}
            )
            self.budgets[known.uid] = known
            self._by_namespace[known.namespace].append(known)
        elif is_older(version, known.resource_version):
            return known
        known.resource_version = version
        if generation != known.generation:
            known.generation = generation
            _read_spec(known, body)
            self._match_again(known.namespace)
        return known

    def forget(self, uid: str) -> Budget | None:
        """Drop a deleted budget; its members are free of it at once."""
        gone = self.budgets.pop(uid, None)
        if gone is not None:
            self._by_namespace[gone.namespace].remove(gone)
            for member in list(gone.members.values()):
                self.note(member.entry)
        return gone

    def retain(self, uids: Iterable[str], namespace: str | None = None) -> list[Budget]:
        """Drop what a full list (of a namespace, or of all) no longer holds; returns what was dropped."""
        kept = set(uids)
        gone = [b for b in self.budgets.values() if b.uid not in kept and namespace in (None, b.namespace)]
        for budget in gone:
            self.forget(budget.uid)
        return gone

    def note(self, entry: Entry) -> None:
        """An RLScaler is new, or its labels or its spec may have changed."""
        budgets = tuple(b for b in self._by_namespace.get(entry.namespace, ()) if b.picks(entry))
        member = self.members.get(entry.uid)
        if not budgets or not entry.alive:
            self.drop(entry)
            return
        if member is None:
            member = self.members[entry.uid] = Member(entry, ())
        if member.targets != entry.targets:
            member.targets, member.replicas, member.promised, member.wish = entry.targets, None, 0, None
        for budget in member.budgets:
            budget.members.pop(entry.uid, None)
        member.claim = None
        member.budgets = tuple(sorted(budgets, key=lambda budget: budget.name))
        for budget in budgets:
            budget.members[entry.uid] = member

    def drop(self, entry: Entry) -> None:
        """An RLScaler was deleted, or is served by somebody else now."""
        member = self.members.pop(entry.uid, None)
        for budget in member.budgets if member is not None else ():
            budget.members.pop(entry.uid, None)

    def of_namespace(self, namespace: str) -> list[Member]:
        """Everybody who is in a budget of the namespace, each once."""
        found: dict[str, Member] = {}
        for budget in self._by_namespace.get(namespace, ()):
            found |= budget.members
        return list(found.values())

    def _match_again(self, namespace: str) -> None:
        for entry in self._registry:
            if entry.namespace == namespace:
                self.note(entry)


def selector_text(selector: LabelSelector) -> str:
    """The selector as the API server takes it in a list: `team=web,tier in (a,b),!old`."""
    parts = [f"{key}={value}" for key, value in sorted((selector.match_labels or {}).items())]
    for one in selector.match_expressions or ():
        values = ",".join(one.values or ())
        parts.append(
            {
                "In": f"{one.key} in ({values})",
                "NotIn": f"{one.key} notin ({values})",
                "Exists": one.key,
                "DoesNotExist": f"!{one.key}",
            }[one.operator]
        )
    return ",".join(parts)


def cost_units(text: str, rounding: str = ROUND_CEILING) -> int:
    """A decimal of the API, such as "0.3" or "500m", in whole units of cost."""
    number = Decimal(text.removesuffix("m")) * COST_UNITS
    return int((number / 1000 if text.endswith("m") else number).to_integral_value(rounding))


def _read_spec(budget: Budget, body: Json) -> None:
    """The spec as types; what the API server let through but cannot be read is the budget's trouble."""
    try:
        budget.spec = parse(RLScalerBudgetSpec, dict(body.get("spec") or {}))
        budget.matches = parse_selector(selector_text(budget.spec.selector))
        budget.trouble = ""
    except (SpecError, ValueError) as error:
        budget.spec, budget.matches = None, None
        selector = "" if isinstance(error, SpecError) else "spec.selector: "
        budget.trouble = f"{selector}{error}"
        logger.warning("RLScalerBudget %s/%s: %s", budget.namespace, budget.name, budget.trouble)
