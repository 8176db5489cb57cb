"""Telling the world about budgets: their statuses, their Events, their gauges. Runs beside the control loop.

A status is written when it has changed, and no sooner than some control seconds after the last write unless
its conditions have changed: demand moves in every tick of a busy cluster.
"""

from __future__ import annotations

import logging
import math

from controller.api.constants import EventReason
from controller.budgets.book import Book, Budget
from controller.budgets.sharing import Sharing
from controller.budgets.status import Tally, build, is_exhausted, tally
from controller.clock import Clock
from controller.errors import Conflict, KubernetesError, NotFound
from controller.events import EventRecorder
from controller.kube import RLSCALER_BUDGETS, Kube
from controller.status import Status, difference
from controller.telemetry import Telemetry

logger = logging.getLogger(__name__)

NUMBERS_EVERY_S = 60.0
"""Control seconds between writes of a status in which only numbers have changed."""
AFTER_REFUSAL_S = 300.0


class Reporter:
    """Writes the statuses of the budgets of a `Book`."""

    def __init__(
        self,
        kube: Kube,
        book: Book,
        sharing: Sharing,
        recorder: EventRecorder,
        telemetry: Telemetry,
        clock: Clock,
    ) -> None:
        self._kube, self._book, self._sharing = kube, book, sharing
        self._recorder, self._telemetry, self._clock = recorder, telemetry, clock
        self._written_s: dict[str, float] = {}
        self._not_before_s: dict[str, float] = {}
        self._behind: dict[str, float] = {}
        """Control seconds at which a namespace is to be looked at again though nothing changes."""

    async def report(self) -> None:
        """One round over the namespaces in which something may have changed."""
        now_s = self._clock.now()
        changed, self._sharing.changed = self._sharing.changed, set()
        changed |= {namespace for namespace, due_s in self._behind.items() if due_s <= now_s}
        for namespace in changed:
            self._behind.pop(namespace, None)
            plan = self._sharing.plan(namespace)
            for budget in [b for b in self._book.budgets.values() if b.namespace == namespace]:
                await self._tell(budget, tally(budget, plan))

    def forget(self, budget: Budget) -> None:
        """A budget was deleted."""
        self._written_s.pop(budget.uid, None)
        self._not_before_s.pop(budget.uid, None)
        self._telemetry.forget_budget(budget.namespace, budget.name)

    async def _tell(self, budget: Budget, found: Tally) -> None:
        self._telemetry.budget(
            budget.namespace, budget.name, budget.max_replicas, found.current, found.demanded
        )
        now_s = self._clock.now()
        status = build(budget, found, self._clock.to_unix(now_s))
        patch = difference(budget.status, status)
        if patch is None:
            return
        minor = "conditions" not in patch and "observedGeneration" not in patch
        wait_s = NUMBERS_EVERY_S if minor else 0.0
        earliest_s = max(
            self._written_s.get(budget.uid, -math.inf) + wait_s,
            self._not_before_s.get(budget.uid, -math.inf),
        )
        if now_s < earliest_s:
            self._later(budget, earliest_s)
            return
        await self._write(budget, patch, status, now_s)

    async def _write(self, budget: Budget, patch: Status, status: Status, now_s: float) -> None:
        body: Status = {"status": patch}
        if self._kube.fence_s is not None:  # another leader's later write must not be overwritten
            body["metadata"] = {"resourceVersion": budget.resource_version}
        before = budget.status
        try:
            written = await self._kube.merge_patch(
                RLSCALER_BUDGETS, budget.namespace, budget.name, body, "status"
            )
        except NotFound:
            return  # deleted meanwhile; the watch or the next list will say so
        except KubernetesError as error:
            self._refused(budget, error, now_s)
            return
        budget.status, budget.resource_version = status, str(written["metadata"]["resourceVersion"])
        self._written_s[budget.uid] = now_s
        await self._announce(budget, before, status)

    def _refused(self, budget: Budget, error: KubernetesError, now_s: float) -> None:
        """Not now: the limit is kept all the same. A conflict passes as soon as the watch has caught up."""
        if isinstance(error, Conflict):
            self._later(budget, now_s)
            return
        self._telemetry.api_errors.labels(type(error).__name__).inc()
        logger.warning("RLScalerBudget %s/%s: status not written: %s", budget.namespace, budget.name, error)
        permanent = error.status in (401, 403)
        wait_s = AFTER_REFUSAL_S if permanent else max(error.retry_after_s, 10.0)
        self._not_before_s[budget.uid] = now_s + self._clock.to_control(wait_s)
        self._later(budget, self._not_before_s[budget.uid])

    def _later(self, budget: Budget, due_s: float) -> None:
        self._behind[budget.namespace] = min(due_s, self._behind.get(budget.namespace, math.inf))

    async def _announce(self, budget: Budget, before: Status, after: Status) -> None:
        was, now = is_exhausted(before), is_exhausted(after)
        if was == now:
            return
        message = next(c["message"] for c in after["conditions"] if c["type"] == "Exhausted")
        reason = EventReason.BUDGET_EXHAUSTED if now else EventReason.BUDGET_RELIEVED
        await self._recorder.emit(budget.involved, "Warning" if now else "Normal", reason, message)
