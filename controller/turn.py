"""The second half of a turn, for a batch of RLScalers: decide (in one call), act and report (concurrently).

The control loop says who has a turn and when, `controller.observing` what was seen. Here an RLScaler's
failure stays its own: whatever goes wrong ends in its `Case`, as a condition, a count and a log line. Most
turns change nothing; they are told by their fingerprint and end without a request, a status or a task.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from controller.actuation.apply import Actuator, RouteWish
from controller.api.constants import Reason
from controller.api.convert import backend_service
from controller.case import Case, action, facts_of, pools_of, wanted
from controller.clock import Clock, rfc3339_micro
from controller.core import Decision, Engine
from controller.errors import KubernetesError, NotFound
from controller.events import EventRecorder
from controller.kube import RLSCALERS, Kube
from controller.metrics import to_samples
from controller.news import news
from controller.observing import BREATH, Observer
from controller.registry import Entry
from controller.status import (
    Facts,
    Status,
    build,
    clamp_status,
    difference,
    fingerprint,
    is_minor,
    stabilization_status,
)
from controller.telemetry import Telemetry
from controller.trouble import Trouble
from controller.work import Preparer

logger = logging.getLogger(__name__)

REMEMBERED_DECISIONS = 2000
AT_A_TIME = 128
MINOR_EVERY_S = 60.0
"""Control seconds between writes of a status in which only thoughts have changed, not what was done."""


class Reconciler:
    """The stages of a turn after `observer`'s."""

    def __init__(
        self,
        kube: Kube,
        preparer: Preparer,
        actuator: Actuator,
        conflict_of: Callable[[Entry], str | None],
        recorder: EventRecorder,
        telemetry: Telemetry,
        clock: Clock,
    ) -> None:
        self._kube = kube
        self._engine: Engine = preparer.engine
        self._actuator = actuator
        self._conflict_of = conflict_of
        self._recorder = recorder
        self._telemetry = telemetry
        self._clock = clock
        self.observer = Observer(preparer, actuator.scaler, telemetry)
        self.recent: deque[dict[str, Any]] = deque(maxlen=REMEMBERED_DECISIONS)

    # Decide

    def decide(self, cases: Sequence[Case]) -> None:
        """One engine step for all that can be decided for; never raises.

        If it fails, one step for each, so that only the culprit goes without.
        """
        able = [case for case in cases if case.decidable]
        try:
            self._step(able)
        except Exception as error:
            if len(able) == 1:
                self.observer.unexpected(able[0], error)
                return
            logger.exception("a batch of %d could not be decided at once; one by one", len(able))
            for case in able:
                self.decide([case])

    def _step(self, cases: Sequence[Case]) -> None:
        if not cases:
            return
        rows = np.array([case.work.row for case in cases if case.work is not None])
        samples = to_samples(
            [case.readings for case in cases],
            [case.ready for case in cases],
            [case.current for case in cases],
        )
        started = time.perf_counter()
        decisions = self._engine.step(self._clock.now(), samples, rows, record=False)
        self._telemetry.inference.observe(time.perf_counter() - started)
        for index, case in enumerate(cases):
            case.decision = decisions[index]

    # Act and report

    async def conclude(self, cases: Sequence[Case], done: Callable[[Case], None]) -> None:
        """Carry the decisions out and tell the world; `done` hears of each case that is over."""
        busy = []
        steady: Counter[tuple[str, str]] = Counter()
        for number, case in enumerate(cases, start=1):
            if self._steady(case, steady):
                done(case)
            else:
                busy.append(case)
            if number % BREATH == 0:
                await asyncio.sleep(0)
        for labels, count in steady.items():
            self._telemetry.reconciliations.labels(*labels).inc(count)
        await self._conclude_some(busy, done)

    async def _conclude_some(self, cases: Sequence[Case], done: Callable[[Case], None]) -> None:
        """So many at a time: a task for each of thousands would take memory and gain nothing."""
        waiting = iter(cases)

        async def work() -> None:
            for case in waiting:
                await self._conclude(case, done)

        await asyncio.gather(*(work() for _ in range(min(AT_A_TIME, len(cases)))))

    def _steady(self, case: Case, counts: Counter[tuple[str, str]]) -> bool:
        """Whether there is nothing to do and nothing new to say; if so, it is done with."""
        entry, decision = case.entry, case.decision
        try:
            if not case.valid or entry.published is None or (entry.spec and entry.spec.routes):
                return False
            if decision is not None:
                if self._conflict_of(entry) is not None:
                    return False
                now = [target.replicas for target in case.targets]
                if entry.mode == "Active" and wanted(case, decision) != now:
                    return False
            facts = facts_of(case)
            if fingerprint(facts) != entry.published:
                return False
            counts[action(case), case.error or "none"] += 1
            self._measure(case)
            self._record(case, facts, self._clock.to_unix(self._clock.now()))
            return True
        except Exception:
            logger.exception("%s/%s: not known to be steady", entry.namespace, entry.name)
            return False

    async def _conclude(self, case: Case, done: Callable[[Case], None]) -> None:
        try:
            if case.valid:
                await self._act(case)
        except Exception as error:
            self.observer.unexpected(case, error)
        try:
            if case.valid:
                await self._report(case)
        except NotFound:
            pass  # deleted meanwhile; the watch or the next list will say so
        except KubernetesError as error:
            self._telemetry.api_errors.labels(type(error).__name__).inc()
            logger.warning("%s/%s: status not written: %s", case.entry.namespace, case.entry.name, error)
            case.retry_after_s = max(case.retry_after_s, error.retry_after_s)
        except Exception as error:
            self.observer.unexpected(case, error)
        finally:
            done(case)

    async def _act(self, case: Case) -> None:
        entry, decision = case.entry, case.decision
        if decision is None:
            return
        conflict = self._conflict_of(entry)
        if conflict is not None:
            case.trouble, case.error = Trouble(Reason.CONFLICTING_AUTOSCALER, conflict), "conflict"
        acting = entry.mode == "Active" and conflict is None
        if acting:
            await self._scale(case, decision)
        if entry.spec is not None and entry.spec.routes:
            await self._route(case, acting)

    async def _scale(self, case: Case, decision: Decision) -> None:
        assert case.work is not None
        before = case.current
        case.scaled = await self._actuator.scale(case.targets, wanted(case, decision))
        after = sum(target.replicas for target in case.scaled.targets)
        if after != before:
            self._engine.record_scale(case.work.row, self._clock.now(), before, after)
        if case.scaled.trouble is not None:
            case.trouble, case.error = case.scaled.trouble, "kubernetes"
            case.retry_after_s = case.scaled.retry_after_s

    async def _route(self, case: Case, acting: bool) -> None:
        spec = case.entry.spec
        assert spec is not None
        wishes = [RouteWish(route.kind, route.name, route.rule) for route in spec.routes or ()]
        services = [backend_service(backend) for backend in spec.backends or ()]
        ready = [target.ready or 0 for target in case.targets]
        case.routed = await self._actuator.sync_routes(
            case.entry.namespace, wishes, services, pools_of(case), ready, acting
        )

    async def _report(self, case: Case) -> None:
        entry = case.entry
        self._telemetry.reconciliations.labels(action(case), case.error or "none").inc()
        self._measure(case)
        facts = facts_of(case)
        mark = fingerprint(facts)
        now_unix_s = self._clock.to_unix(self._clock.now())
        self._record(case, facts, now_unix_s)
        previous = entry.status
        status = build(self._with_stabilization(case, facts), previous, now_unix_s)
        patch = difference(previous, status)
        recent = self._clock.now() - entry.written_s < MINOR_EVERY_S
        if patch is not None and recent and is_minor(previous, status):
            return
        if patch is not None:
            await self._write(entry, patch, status)
        entry.published = None if facts.scaled else mark
        for item in news(previous, status, case.decision, case.scaled, case.routed):
            await self._recorder.emit(entry.involved, item.kind, item.reason, item.message)

    async def _write(self, entry: Entry, patch: Status, status: Status) -> None:
        body: Status = {"status": patch}
        if self._kube.fence_s is not None:  # another leader's later write must not be overwritten
            body["metadata"] = {"resourceVersion": entry.resource_version}
        written = await self._kube.merge_patch(RLSCALERS, entry.namespace, entry.name, body, "status")
        entry.status = status
        entry.resource_version = str(written["metadata"]["resourceVersion"])
        entry.written_s = self._clock.now()

    def _with_stabilization(self, case: Case, facts: Facts) -> Facts:
        if case.work is None or case.decision is None:
            return facts
        state = self._engine.stabilization_state(case.work.row)
        return replace(facts, stabilization=stabilization_status(state, self._clock.to_unix))

    def _measure(self, case: Case) -> None:
        """The object's gauges, where they have changed."""
        entry, decision = case.entry, case.decision
        current = float(case.current) if case.targets else None
        wished: tuple[float, ...] | None = None
        if decision is not None:
            recommended = decision.recommended_replicas
            wished = (
                float(decision.desired_replicas),
                math.nan if recommended is None else float(recommended),
                float(decision.fallback is not None),
                float(decision.unfamiliar),
            )
        shown = (current, wished)
        if shown == entry.shown:
            return
        entry.shown = shown
        labels = (entry.namespace, entry.name)
        if current is not None:
            self._telemetry.current.labels(*labels).set(current)
        if wished is not None:
            told = self._telemetry
            gauges = (told.desired, told.recommended, told.fallback, told.unfamiliar)
            for gauge, value in zip(gauges, wished, strict=True):
                gauge.labels(*labels).set(value)

    def _record(self, case: Case, facts: Facts, now_unix_s: float) -> None:
        """Keep the decision for /v1/decisions and log it; one that changes nothing is logged at debug."""
        decision = case.decision
        if decision is None:
            return
        record = {
            "time": rfc3339_micro(now_unix_s),
            "namespace": case.entry.namespace,
            "name": case.entry.name,
            "mode": case.entry.mode,
            "policy": decision.policy,
            "observation": {key: value for key, value in facts.observed.items() if math.isfinite(value)},
            "currentReplicas": decision.current_replicas,
            "recommendedReplicas": decision.recommended_replicas,
            "hpaReplicas": decision.hpa_replicas,
            "desiredReplicas": decision.desired_replicas,
            "clamps": [clamp_status(clamp) for clamp in decision.clamps],
            "fallback": decision.fallback,
            "outOfDistribution": decision.unfamiliar,
            "metrics": decision.metrics_outcome.reason,
            "outcome": decision.outcome,
            "acted": bool(case.scaled and case.scaled.changed),
            "error": case.trouble.message if case.trouble else None,
        }
        self.recent.appendleft(record)
        level = logging.INFO if decision.outcome in ("ScaledUp", "ScaledDown") else logging.DEBUG
        if logger.isEnabledFor(level):
            extra = {"decision": record}
            logger.log(level, "%s/%s: %s", record["namespace"], record["name"], decision.message, extra=extra)
