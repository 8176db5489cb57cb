"""Budgets as the operator sees them: lists, events and one task beside the control loop.

Without the CustomResourceDefinition, or without the right to list its objects, there are no budgets; that is
said once, and looked at again with every periodic list.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from controller.actuation.scale import Scaler
from controller.budgets.book import Book, Member
from controller.budgets.reporting import Reporter
from controller.budgets.sharing import Sharing
from controller.clock import Clock
from controller.core import Engine
from controller.errors import Forbidden, KubernetesError, NotFound
from controller.events import EventRecorder
from controller.kube import RLSCALER_BUDGETS, Json, Kube
from controller.registry import Entry, Registry
from controller.telemetry import Telemetry

logger = logging.getLogger(__name__)

ROUND_REAL_S = 0.5
UNREAD_REAL_S = 2.0
"""A member whose turn has not come by then is read out of turn: nobody may be raised before that."""
READ_AT_ONCE = 16


class Budgets:
    """Keeps the book, answers the engine, and reports."""

    def __init__(
        self,
        kube: Kube,
        registry: Registry,
        engine: Engine,
        scaler: Scaler,
        recorder: EventRecorder,
        telemetry: Telemetry,
        clock: Clock,
    ) -> None:
        self._kube, self._engine, self._scaler, self._telemetry = kube, engine, scaler, telemetry
        self._book = Book(registry)
        self.sharing = Sharing(self._book, registry.conflict)
        self._reporter = Reporter(kube, self._book, self.sharing, recorder, telemetry, clock)
        self._unread: dict[str, float] = {}
        self.served: bool | None = None
        """Whether the API server lets us list budgets; None before it was asked."""

    def seen(self, body: Json) -> None:
        """A budget was created or changed."""
        budget = self._book.apply(body)
        self._changed(budget.namespace)

    def gone(self, uid: str) -> None:
        """A budget was deleted."""
        budget = self._book.forget(uid)
        if budget is not None:
            self._reporter.forget(budget)
            self._changed(budget.namespace)

    def note(self, entry: Entry) -> None:
        """An RLScaler was created or changed."""
        if self._book.budgets:
            self._book.note(entry)
            self.sharing.changed.add(entry.namespace)

    def drop(self, entry: Entry) -> None:
        """An RLScaler was deleted, or is no longer served here."""
        self._book.drop(entry)
        self.sharing.changed.add(entry.namespace)

    async def list(self, namespaces: Sequence[str | None]) -> None:
        """Take in all budgets there are, and drop those that are no more. Raises KubernetesError."""
        for namespace in namespaces:
            known = set(self._book.budgets)
            try:
                bodies = await self._kube.list_all(RLSCALER_BUDGETS, namespace)
            except (Forbidden, NotFound) as error:
                self._unserved(error)
                return
            self.served = True
            for body in bodies:
                self.seen(body)
            # What a watch has added while the list was under way is not gone.
            kept = {body["metadata"]["uid"] for body in bodies} | (set(self._book.budgets) - known)
            for budget in self._book.retain(kept, namespace):
                self._reporter.forget(budget)
                self._changed(budget.namespace)

    async def run(self) -> None:
        """Report until cancelled; whatever a round raises is logged and counted."""
        while True:
            await asyncio.sleep(ROUND_REAL_S)
            try:
                await self._read_unread()
                await self._reporter.report()
            except Exception:
                logger.exception("unexpected error while reporting budgets")
                self._telemetry.tick_errors.inc()

    def _unserved(self, error: KubernetesError) -> None:
        if self.served is not False:
            logger.warning("RLScalerBudgets cannot be listed, so there are none: %s", error)
        self.served = False
        for uid in list(self._book.budgets):
            self.gone(uid)

    def _changed(self, namespace: str) -> None:
        self.sharing.changed.add(namespace)
        self._engine.budget = self.sharing.caps if self._book.budgets else None

    async def _read_unread(self) -> None:
        """Targets of members that have long been in no turn, such as after a start with long sync periods."""
        waiting = [member for member in self._book.members.values() if member.replicas is None]
        now_s = time.monotonic()
        self._unread = {m.entry.uid: self._unread.get(m.entry.uid, now_s) for m in waiting}
        late = [m for m in waiting if now_s - self._unread[m.entry.uid] > UNREAD_REAL_S]
        await asyncio.gather(*(self._read(member) for member in late[:READ_AT_ONCE]))

    async def _read(self, member: Member) -> None:
        entry = member.entry
        replicas = []
        for ref in entry.targets:
            try:
                replicas.append((await self._scaler.read(ref)).replicas)
            except NotFound:
                replicas.append(0)
            except KubernetesError:
                replicas = _last_known(entry)
                break
        self.sharing.read(entry, replicas)


def _last_known(entry: Entry) -> list[int]:
    """What its status says that the targets have, or were to have; all of it on the first of several."""
    said = max(entry.status.get("currentReplicas") or 0, entry.status.get("desiredReplicas") or 0)
    return [said] + [0] * (len(entry.targets) - 1)
