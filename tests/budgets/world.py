"""A namespace of members without any cluster: the book, the sharing, and turns that do what they may."""

from __future__ import annotations

from typing import Any

import numpy as np

from controller.actuation.target import Target
from controller.budgets.book import Book, Budget
from controller.budgets.plan import Plan
from controller.budgets.share import Share
from controller.budgets.sharing import Sharing
from controller.case import Case
from controller.clock import Clock
from controller.core import HpaPolicy
from controller.kube import Resource
from controller.policybook import Chosen
from controller.registry import Entry, Registry
from controller.work import Work
from tests.operator.bodies import rlscaler

Json = dict[str, Any]

DEPLOYMENTS = Resource("apps/v1", "Deployment", "deployments", True, True)


class HandClock(Clock):
    """Control seconds that the test sets."""

    now_s = 1000.0

    def now(self) -> float:
        return self.now_s


def budget_body(name: str, selector: Json | None = None, generation: int = 1, **limits: Any) -> Json:
    """An RLScalerBudget as the API server shows it; without a selector for everybody."""
    metadata = {
        "name": name,
        "namespace": "shop",
        "uid": f"uid-{name}",
        "generation": generation,
        "resourceVersion": str(100 + generation),
    }
    return {"metadata": metadata, "spec": {"selector": selector or {}, **limits}}


class World:
    """RLScalers with targets whose replicas are in `replicas`; `turn` lets some decide and act."""

    def __init__(self) -> None:
        self.registry, self.clock = Registry(), HandClock()
        self.book = Book(self.registry)
        self.sharing = Sharing(self.book, self.registry.conflict)
        self.replicas: dict[str, list[int]] = {}
        self._versions = 1

    def add(
        self, name: str, replicas: int | list[int], labels: dict[str, str] | None = None, **spec: Any
    ) -> Entry:
        """An RLScaler whose targets have so many replicas, which nobody has read yet."""
        self.replicas[name] = [replicas] if isinstance(replicas, int) else replicas
        return self.edit(name, labels, **spec)

    def edit(self, name: str, labels: dict[str, str] | None = None, **spec: Any) -> Entry:
        self._versions += 1
        body = rlscaler(
            name, generation=self._versions, version=str(self._versions), **{"maxReplicas": 100, **spec}
        )
        body["metadata"]["labels"] = labels or {}
        entry = self.registry.apply(body).entry
        if entry.work is None:
            row = len(self.registry) - 1
            entry.work = Work(1, row, Chosen(HpaPolicy()), None, None, renew_at_s=0.0, restored=True)
        self.book.note(entry)
        return entry

    def budget(self, name: str, selector: Json | None = None, generation: int = 1, **limits: Any) -> Budget:
        return self.book.apply(budget_body(name, selector, generation, **limits))

    def entry(self, name: str) -> Entry:
        return self.registry.entries[f"uid-{name}"]

    def read(self, *names: str) -> list[Case]:
        """The first half of a turn: what the targets have."""
        cases = [self._case(name) for name in names or self.replicas]
        self.sharing.observe(cases)
        return cases

    def decide(self, wishes: dict[str, int]) -> dict[str, int]:
        """A turn up to its decisions: replicas that each may have, of what it wishes."""
        entries = [self.entry(name) for name in wishes]
        self.read(*wishes)
        rows = np.array([entry.work.row for entry in entries if entry.work is not None])
        asked = np.array(list(wishes.values()))
        current = np.array([sum(self.replicas[name]) for name in wishes])
        caps = self.sharing.caps(rows, asked, current)
        return {name: int(min(wish, cap)) for (name, wish), cap in zip(wishes.items(), caps, strict=True)}

    def turn(self, **wishes: int) -> dict[str, int]:
        """A whole turn, written at once, for RLScalers of one target; returns all replicas after it."""
        for name, replicas in self.decide(wishes).items():
            entry = self.entry(name)
            if entry.mode == "Active" and not entry.paused:
                self.write(name, replicas)
        return {name: sum(held) for name, held in self.replicas.items()}

    def write(self, name: str, replicas: int) -> None:
        self.replicas[name] = [replicas]
        self.sharing.scaled(self.entry(name), self._case(name).targets, complete=True)

    def share(self, name: str) -> Share | None:
        return self.sharing.share_of(self.entry(name))

    def plan(self) -> Plan:
        return self.sharing.plan("shop")

    def total(self) -> int:
        return sum(sum(held) for held in self.replicas.values())

    def _case(self, name: str) -> Case:
        entry = self.entry(name)
        held = self.replicas[name]
        targets = tuple(
            Target(ref, DEPLOYMENTS, replicas, replicas, "1")
            for ref, replicas in zip(entry.targets, held, strict=True)
        )
        return Case(entry, entry.generation, work=entry.work, targets=targets)
