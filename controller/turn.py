"""The second half of a turn, for a batch of RLScalers: decide (in one call), act and report (concurrently).

The control loop says who has a turn and when, `controller.observing` what was seen. Here an RLScaler's
failure stays its own: whatever goes wrong ends in its `Case`, as a condition, a count and a log line. Most
turns change nothing; they are told by their fingerprint and end without a request, a status or a task.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from controller import standing
from controller.actuation.apply import Actuator, Routed, Shared
from controller.api.constants import Reason
from controller.budgets.share import explained
from controller.budgets.sharing import Sharing
from controller.canaries import Canaries
from controller.case import Case, action, facts_of, pools_of, wanted
from controller.clock import Clock
from controller.core import Decision, Engine
from controller.decisions import DecisionLog, record_of
from controller.errors import KubernetesError, MetricsError, NotFound
from controller.events import EventRecorder
from controller.kube import RLSCALERS, Kube
from controller.logs import about
from controller.measured import measured
from controller.metrics import to_samples
from controller.news import news
from controller.objectseries import told_by
from controller.observing import BREATH, Observer
from controller.outside import Outsiders
from controller.pooldeciding import PoolDecider
from controller.poolweights import PoolWeigher, by_artifact, services_of, weighs_nothing
from controller.registry import Entry, compare_status
from controller.rolloutplan import followed
from controller.rollouts import Rollouts
from controller.routing import Restorer, wishes
from controller.status import (
    Facts,
    Status,
    build,
    difference,
    fingerprint,
    is_minor,
    stabilization_status,
)
from controller.telemetry import Telemetry
from controller.trouble import Trouble
from controller.work import Preparer

logger = logging.getLogger(__name__)

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
        sharing: Sharing,
    ) -> None:
        self._kube = kube
        self._engine: Engine = preparer.engine
        self._actuator = actuator
        self._conflict_of = conflict_of
        self._recorder = recorder
        self._telemetry = telemetry
        self._clock = clock
        self._sharing = sharing
        self.restorer = Restorer(kube, actuator)
        self.pool_weigher = PoolWeigher(clock.scale, clock.now)
        self._outsiders = Outsiders(kube, actuator.scaler, conflict_of, clock)
        self.pool_decider = PoolDecider(self._engine, self.pool_weigher, clock)
        self.observer = Observer(preparer, actuator.scaler, self._outsiders, telemetry, self.pool_decider)
        self.rollouts = Rollouts(kube, clock)
        self._canaries = Canaries(self._engine, clock)
        self.log = DecisionLog()

    # Decide

    def decide(self, cases: Sequence[Case]) -> None:
        """One engine step for all that can be decided for; never raises.

        If it fails, one step for each, so that only the culprit goes without.
        """
        able = [case for case in cases if case.decidable]
        try:
            self._sharing.observe(cases)
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
        self._hear(cases)
        standing.before(self._engine, self._outsiders, self._clock, cases)
        self._canaries.before(cases)
        started = time.perf_counter()
        view = self._engine.observe(self._clock.now(), samples, rows)
        recommended, unfamiliar = self._engine.ask(view)
        steadied = self.pool_decider.ask(cases, view, recommended, unfamiliar)
        decisions = self._engine.conclude(view, recommended, unfamiliar, record=False, steadied=steadied)
        self._telemetry.inference.observe(time.perf_counter() - started)
        for index, case in enumerate(cases):
            case.budget = self._sharing.share_of(case.entry)
            case.decision = explained(decisions[index], case.budget)
        self.pool_decider.settle(cases)
        standing.after(self._engine, cases)
        self._canaries.after(cases, view)

    def _hear(self, cases: Sequence[Case]) -> None:
        """A write whose answer was lost may have been done: then it is ours, and the rate rules know it."""
        for case in cases:
            work = case.work
            if work is None or work.unanswered is None:
                continue
            (before, wish), work.unanswered = work.unanswered, None
            if min(before, wish) <= case.current <= max(before, wish):
                self._engine.record_scale(work.row, self._clock.now(), before, case.current)

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
            self._record(facts, self._measure(case))
            counts[action(case), case.error or "none"] += 1  # last: a failure above is counted elsewhere
            return True
        except Exception:
            logger.exception("%s/%s: not known to be steady", entry.namespace, entry.name, extra=about(entry))
            return False

    async def _conclude(self, case: Case, done: Callable[[Case], None]) -> None:
        try:
            if case.valid:
                await self._act(case)
                self._outsiders.settle(case, wanted(case, case.decision) if case.decision else ())
        except Exception as error:
            self.observer.unexpected(case, error)
        try:
            if case.valid:
                await self._report(case)
        except NotFound:
            pass  # deleted meanwhile; the watch or the next list will say so
        except KubernetesError as error:
            self._telemetry.api_errors.labels(type(error).__name__).inc()
            entry = case.entry
            logger.warning(
                "%s/%s: status not written: %s", entry.namespace, entry.name, error, extra=about(entry)
            )
            case.retry_after_s = max(case.retry_after_s, error.retry_after_s)
        except Exception as error:
            self.observer.unexpected(case, error)
        finally:
            done(case)

    async def _act(self, case: Case) -> None:
        entry, decision = case.entry, case.decision
        if entry.paused and entry.spec is not None:
            case.routed = await self.restorer.paused(entry)
        if decision is None:
            return
        conflict = self._conflict_of(entry)
        if conflict is not None:
            case.trouble, case.error = Trouble(Reason.CONFLICTING_AUTOSCALER, conflict), "conflict"
        acting = entry.mode == "Active" and conflict is None
        if entry.spec is not None and entry.spec.canary is not None:
            decision = case.decision = await self._roll_out(case, decision, acting)
        else:
            self.rollouts.forget(entry.uid)
        if acting:
            await self._scale(case, decision)
        if entry.spec is not None and entry.spec.routes:
            await self._route(case, acting)
            case.canary = self.rollouts.settle(case)

    async def _roll_out(self, case: Case, decision: Decision, acting: bool) -> Decision:
        """The decision with the replicas of the canary of spec.canary."""
        assert case.entry.service is not None
        cap = case.budget.cap if case.budget is not None else None
        most = case.entry.service.max_replicas
        case.rollout = await self.rollouts.step(case, acting, most if cap is None else min(most, cap))
        return decision if case.rollout is None else followed(decision, case.rollout)

    async def _scale(self, case: Case, decision: Decision) -> None:
        assert case.work is not None
        before, wishes = case.current, wanted(case, decision)
        case.scaled = await self._actuator.scale(case.targets, wishes)
        after = sum(target.replicas for target in case.scaled.targets)
        now = [target.replicas for target in case.scaled.targets]
        self.pool_decider.scaled(case, [target.replicas for target in case.targets], now)
        self._sharing.scaled(case.entry, case.scaled.targets, complete=case.scaled.trouble is None)
        if after != before:
            self._engine.record_scale(case.work.row, self._clock.now(), before, after)
        if case.scaled.trouble is not None:
            case.work.unanswered = (after, sum(wishes))
            case.trouble, case.error = case.scaled.trouble, "kubernetes"
            case.retry_after_s = case.scaled.retry_after_s

    async def _route(self, case: Case, acting: bool) -> None:
        entry = case.entry
        assert entry.spec is not None
        ready = [target.ready or 0 for target in case.targets]
        assert case.work is not None
        trouble, ask = weighs_nothing(case), None
        if trouble is None:
            capacity_rps = float(self._engine.capacity_rps(np.array([case.work.row]))[0])
            try:
                ask = await self.pool_weigher.ask(case, capacity_rps)
            except MetricsError as error:
                words = f"the pools' own metrics, which spec.routing needs: {error}"
                trouble = Trouble(Reason.INVALID_SPEC, words)
        if trouble is not None and case.rollout is None:
            case.routed = Routed(trouble=trouble)
            return
        if trouble is not None:  # a canary may have to go back, the others stay as they are
            ask = _stay
        shared = Shared(services_of(entry.spec), pools_of(case), ready, ask)
        if case.rollout is not None:
            factor = self.pool_weigher.factor(entry.uid, case.rollout.index)
            shared = self.rollouts.shared(case, shared, factor)
        case.routed = await self._actuator.sync_routes(
            entry.namespace, entry.name, wishes(entry.spec), shared, acting
        )
        case.routed.trouble = trouble or case.routed.trouble
        if ask is not None or by_artifact(case):
            case.routed.note = self.pool_weigher.note(case)
        self.pool_decider.routed(case, acting)
        if case.rollout is not None:
            case.routed.note = self.rollouts.note(entry, case.routed.note)

    async def _report(self, case: Case) -> None:
        entry = case.entry
        self._telemetry.reconciliations.labels(action(case), case.error or "none").inc()
        facts = facts_of(case)
        mark = fingerprint(facts)
        now_unix_s = self._measure(case)
        self._record(facts, now_unix_s)
        previous = entry.status
        status = build(facts, previous, now_unix_s)
        self._telemetry.objects.tell(entry.namespace, entry.name, told_by(status))
        held = previous if entry.held is None else entry.held
        patch = difference(held, status)
        recent = self._clock.now() - entry.written_s < MINOR_EVERY_S
        if patch is not None and recent and entry.held is None and is_minor(previous, status):
            return
        if status.get("lastDecision") is not previous.get("lastDecision"):
            status["stabilization"] = self._stabilization(case)
            patch = difference(held, status)
        if patch is not None:
            await self._write(entry, patch, status)
        entry.published = None if facts.scaled or entry.held is not None else mark
        for item in news(previous, status, case.decision, case.scaled, case.routed):
            await self._recorder.emit(entry.involved, item.kind, item.reason, item.message)

    async def _write(self, entry: Entry, patch: Status, status: Status) -> None:
        body: Status = {"status": patch}
        if self._kube.fence_s is not None:  # another leader's later write must not be overwritten
            body["metadata"] = {"resourceVersion": entry.resource_version}
        written = await self._kube.merge_patch(RLSCALERS, entry.namespace, entry.name, body, "status")
        self._telemetry.status_writes.inc()
        entry.status = status
        compare_status(entry, written.get("status") or {})
        entry.resource_version = str(written["metadata"]["resourceVersion"])
        entry.written_s = self._clock.now()

    def _stabilization(self, case: Case) -> Status:
        """status.stabilization; read only where a decision is written, as it takes a while for each row."""
        assert case.work is not None
        state = self._engine.stabilization_state(case.work.row)
        return stabilization_status(state, self._clock.to_unix)

    def _measure(self, case: Case) -> float:
        """The object's own series; returns the Unix time that its record bears."""
        now_unix_s = self._clock.to_unix(self._clock.now())
        self._telemetry.objects.measure(case.entry.namespace, case.entry.name, measured(case, now_unix_s))
        return now_unix_s

    def _record(self, facts: Facts, now_unix_s: float) -> None:
        """Keep the decision, count it and log it; one that changes nothing is logged at debug."""
        if facts.decision is None:
            return
        record = record_of(facts, facts.decision, now_unix_s)
        self.log.add(record)
        self._telemetry.decided(record)
        level = logging.INFO if record.outcome in ("ScaledUp", "ScaledDown") else logging.DEBUG
        if logger.isEnabledFor(level):
            extra = about(record) | {"decision": record.as_json(features=True)}
            logger.log(level, "%s/%s: %s", record.namespace, record.name, record.message, extra=extra)


def _stay(weights: Sequence[int]) -> None:
    """Weights as they are."""
