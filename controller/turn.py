"""One turn of a batch of RLScalers: observe (concurrently), decide (in one call), act and report
(concurrently).

The control loop says who has a turn and when. Here an RLScaler's failure stays its own: whatever goes wrong
ends in its `Case`, as a condition, a count and a log line.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from controller.actuation.apply import Actuator, Routed, RouteWish, Scaled, pool_steps, scale_trouble
from controller.actuation.scale import Target
from controller.api.constants import Reason
from controller.api.convert import backend_service
from controller.clock import Clock, rfc3339_micro
from controller.core import Decision, Engine, Outcome, Pool
from controller.errors import KubernetesError, NotFound
from controller.events import EventRecorder
from controller.kube import RLSCALERS, Kube
from controller.metrics import SignalReading, load_reading, to_samples
from controller.news import news
from controller.registry import Entry
from controller.status import (
    Facts,
    PoolFacts,
    build,
    clamp_status,
    difference,
    stabilization_status,
)
from controller.telemetry import Telemetry
from controller.trouble import Trouble
from controller.work import Preparer, Work

logger = logging.getLogger(__name__)

REMEMBERED_DECISIONS = 2000

_OBSERVED = {
    "requestRate": "requestRate",
    "latency": "latencyMilliseconds",
    "errorRatio": "errorRatio",
    "cpuUtilization": "cpuUtilization",
    "inFlight": "inFlight",
}


@dataclass
class Case:
    """One RLScaler's turn, filled in step by step."""

    entry: Entry
    generation: int
    work: Work | None = None
    targets: tuple[Target, ...] = ()
    readings: Mapping[str, SignalReading] = field(default_factory=dict)
    trouble: Trouble | None = None
    decision: Decision | None = None
    scaled: Scaled | None = None
    routed: Routed | None = None
    error: str = ""
    retry_after_s: float = 0.0

    @property
    def current(self) -> int:
        return sum(target.replicas for target in self.targets)

    @property
    def ready(self) -> float:
        counts = [target.ready for target in self.targets]
        return math.nan if None in counts else float(sum(count or 0 for count in counts))

    @property
    def valid(self) -> bool:
        """Whether what was observed still speaks of the object as it is now."""
        return self.entry.alive and self.entry.generation == self.generation

    @property
    def decidable(self) -> bool:
        ready = self.work is not None and self.work.restored
        return bool(ready and self.valid and self.targets and not self.entry.paused)


class Reconciler:
    """The stages of a turn."""

    def __init__(
        self,
        kube: Kube,
        preparer: Preparer,
        conflict_of: Callable[[Entry], str | None],
        recorder: EventRecorder,
        telemetry: Telemetry,
        clock: Clock,
    ) -> None:
        self._kube = kube
        self._preparer = preparer
        self._engine: Engine = preparer.engine
        self._actuator = Actuator(kube)
        self._conflict_of = conflict_of
        self._recorder = recorder
        self._telemetry = telemetry
        self._clock = clock
        self.recent: deque[dict[str, Any]] = deque(maxlen=REMEMBERED_DECISIONS)

    # Observe

    async def observe(self, case: Case) -> None:
        """Read the case's targets and signals; never raises."""
        try:
            await self._observe(case)
        except KubernetesError as error:
            self._api_error(error)
            case.trouble = scale_trouble(error, Reason.FAILED_GET_SCALE)
            case.error, case.retry_after_s = "kubernetes", error.retry_after_s
        except Exception as error:
            self._unexpected(case, error)

    async def _observe(self, case: Case) -> None:
        entry = case.entry
        if entry.trouble is not None or entry.spec is None:
            return
        if entry.paused:
            if entry.work is not None:
                entry.work.restored = False
            case.targets = await self._read_targets(entry)
            return
        work = await self._preparer.prepare(entry)
        if work is None:
            return
        case.work = work
        signals = asyncio.ensure_future(self._read_signals(work))
        try:
            case.targets = await self._read_targets(entry)
        finally:
            case.readings = await signals
        if not work.restored:
            await self._preparer.restore(entry, work, case.current)
        elif not work.backfilled and load_reading(case.readings).outcome is Outcome.OK:
            await self._preparer.backfill(entry, work)

    async def _read_targets(self, entry: Entry) -> tuple[Target, ...]:
        return tuple(await asyncio.gather(*(self._actuator.scaler.read(ref) for ref in entry.targets)))

    async def _read_signals(self, work: Work) -> Mapping[str, SignalReading]:
        if work.feed is None:
            return {}
        readings = await work.feed.source.read(work.feed.queries)
        for signal, reading in readings.items():
            self._telemetry.queries.labels(signal, reading.outcome.reason).inc()
        return readings

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
                self._unexpected(able[0], error)
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

    async def conclude(self, case: Case) -> None:
        """Carry the decision out and tell the world; never raises."""
        try:
            if case.valid:
                await self._act(case)
        except Exception as error:
            self._unexpected(case, error)
        try:
            if case.valid:
                await self._report(case)
        except NotFound:
            pass  # deleted meanwhile; the watch or the next list will say so
        except KubernetesError as error:
            self._api_error(error)
            logger.warning("%s/%s: status not written: %s", case.entry.namespace, case.entry.name, error)
            case.retry_after_s = max(case.retry_after_s, error.retry_after_s)
        except Exception as error:
            self._unexpected(case, error)

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
        case.scaled = await self._actuator.scale(case.targets, _wanted(case, decision))
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
            case.entry.namespace, wishes, services, _pools(case), ready, acting
        )

    async def _report(self, case: Case) -> None:
        entry = case.entry
        self._measure(case)
        previous = entry.status
        facts = self._facts(case)
        now_unix_s = self._clock.to_unix(self._clock.now())
        status = build(facts, previous, now_unix_s)
        self._record(case, facts, now_unix_s)
        patch = difference(previous, status)
        if patch is not None:
            body = {"status": patch}
            await self._kube.merge_patch(RLSCALERS, entry.namespace, entry.name, body, "status")
            entry.status = status
        for item in news(previous, status, case.decision, case.scaled, case.routed):
            await self._recorder.emit(entry.involved, item.kind, item.reason, item.message)

    def _facts(self, case: Case) -> Facts:
        entry, work, decision = case.entry, case.work or case.entry.work, case.decision
        targets = case.scaled.targets if case.scaled is not None else case.targets
        routed = case.routed
        return Facts(
            generation=entry.generation,
            mode=entry.mode,
            target=entry.label,
            paused_by_annotation=entry.paused_by_annotation,
            spec_trouble=entry.trouble,
            target_trouble=case.trouble,
            metrics_trouble=_metrics_trouble(case),
            metrics_note=_metrics_note(case.readings),
            policy_trouble=work.chosen.trouble if work else None,
            route_trouble=routed.trouble if routed else None,
            has_routes=bool(entry.spec and entry.spec.routes),
            policy=work.chosen.facts if work else None,
            decision=decision,
            observed=_observed(case),
            current_replicas=sum(target.replicas for target in targets) if targets else None,
            desired_replicas=decision.desired_replicas if decision else None,
            scaled=bool(case.scaled and case.scaled.changed),
            weights_message=_weights_message(routed),
            pools=_pool_facts(case),
            stabilization=self._stabilization(case),
        )

    def _stabilization(self, case: Case) -> Mapping[str, Any] | None:
        if case.work is None or case.decision is None:
            return None
        return stabilization_status(self._engine.stabilization_state(case.work.row), self._clock.to_unix)

    def _measure(self, case: Case) -> None:
        entry, decision = case.entry, case.decision
        labels = (entry.namespace, entry.name)
        self._telemetry.reconciliations.labels(_action(case), case.error or "none").inc()
        if case.targets:
            self._telemetry.current.labels(*labels).set(case.current)
        if decision is not None:
            self._telemetry.desired.labels(*labels).set(decision.desired_replicas)
            recommended = decision.recommended_replicas
            self._telemetry.recommended.labels(*labels).set(math.nan if recommended is None else recommended)
            self._telemetry.fallback.labels(*labels).set(decision.fallback is not None)

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
            "metrics": decision.metrics_outcome.reason,
            "outcome": decision.outcome,
            "acted": bool(case.scaled and case.scaled.changed),
            "error": case.trouble.message if case.trouble else None,
        }
        self.recent.appendleft(record)
        level = logging.INFO if decision.outcome in ("ScaledUp", "ScaledDown") else logging.DEBUG
        logger.log(
            level,
            "%s/%s: %s",
            case.entry.namespace,
            case.entry.name,
            decision.message,
            extra={"decision": record},
        )

    def _unexpected(self, case: Case, error: Exception) -> None:
        """A bug of ours: said in the object's status and in the log, and survived."""
        entry = case.entry
        logger.error("%s/%s: unexpected error", entry.namespace, entry.name, exc_info=error)
        self._telemetry.tick_errors.inc()
        case.trouble = Trouble(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
        case.error = "internal"

    def _api_error(self, error: KubernetesError) -> None:
        self._telemetry.api_errors.labels(type(error).__name__).inc()


def _wanted(case: Case, decision: Decision) -> list[int]:
    """Replicas for each target."""
    pools = _pools(case)
    if not pools:
        return [decision.desired_replicas]
    return pool_steps([target.replicas for target in case.targets], decision.desired_replicas, pools)


def _pools(case: Case) -> tuple[Pool, ...]:
    return case.entry.service.pools if case.entry.service is not None else ()


def _pool_facts(case: Case) -> tuple[PoolFacts, ...]:
    pools = _pools(case)
    if not pools or case.decision is None:
        return ()
    targets = case.scaled.targets if case.scaled is not None else case.targets
    wanted = _wanted(case, case.decision)
    assert case.entry.spec is not None
    weights = case.routed.weights if case.routed is not None else {}
    services = [backend_service(backend) for backend in case.entry.spec.backends or ()]
    return tuple(
        PoolFacts(pool.name, target.replicas, replicas, weights.get(service))
        for pool, target, replicas, service in zip(pools, targets, wanted, services, strict=True)
    )


def _weights_message(routed: Routed | None) -> str:
    if routed is None or routed.trouble is not None:
        return ""
    if not routed.weights:
        return "no pool has a ready replica; weights are left as they are"
    return "weights follow the ready replicas of the pools"


def _metrics_trouble(case: Case) -> Trouble | None:
    if case.work is None:
        return None
    if case.work.feed_trouble is not None:
        return case.work.feed_trouble
    reading = load_reading(case.readings)
    if reading.outcome is Outcome.OK:
        return None
    signal = next((name for name, other in case.readings.items() if other is reading), "")
    return Trouble(reading.outcome.reason, f"{signal}: {reading.message}" if signal else reading.message)


def _metrics_note(readings: Mapping[str, SignalReading]) -> str:
    """Signals that could not be read though the load could; NaN is what a quantile of no requests is."""
    fine = (Outcome.OK, Outcome.NAN)
    notes = [
        f"{name}: {reading.outcome.reason}: {reading.message}"
        for name, reading in sorted(readings.items())
        if reading.outcome not in fine
    ]
    return "; ".join(notes)


def _observed(case: Case) -> dict[str, float]:
    found = {_OBSERVED[name]: reading.value for name, reading in case.readings.items() if name in _OBSERVED}
    found["readyReplicas"] = case.ready
    if case.decision is not None:
        found["loadReplicas"] = case.decision.load
    return found


def _action(case: Case) -> str:
    if case.decision is None:
        return "none"
    if case.entry.mode == "Shadow":
        return "shadow"
    if case.scaled is None or not case.scaled.changed:
        return "none"
    return "scale_up" if case.decision.outcome == "ScaledUp" else "scale_down"
