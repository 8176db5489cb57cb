"""Takes canaries through each batch of decisions: who is in charge before it, how the others did after it.

`controller.turn` calls `Canaries.before` and `Canaries.after`. One call asks a canary's policy for all
RLScalers that have it, so that a canary for thousands of them costs what a second policy costs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import numpy as np

from controller.api.constants import PROMOTE_ANNOTATION
from controller.canary import PROMOTED, ROLLED_BACK, SHADOW, Canary
from controller.clock import Clock
from controller.core import Decision, Engine, Policy
from controller.core.samples import BoolArray, FloatArray
from controller.core.view import View
from controller.logs import about
from controller.registry import Entry
from controller.work import Work

if TYPE_CHECKING:
    from controller.case import Case

logger = logging.getLogger(__name__)


class _Heard:
    """A policy that remembers what it last said, so that silence can be told from a wish to stay."""

    def __init__(self, policy: Policy) -> None:
        self.name, self.type = policy.name, policy.type
        self.digest, self.schema = policy.digest, policy.schema
        self._policy = policy
        self.said: FloatArray = np.zeros(0)
        needs = getattr(policy, "needs_capacity", None)
        if needs is not None:
            self.needs_capacity = needs

    def recommend(self, view: View) -> FloatArray:
        self.said = np.full(len(view), np.nan)
        self.said = np.asarray(self._policy.recommend(view), dtype=np.float64)
        return self.said

    def unfamiliar(self, view: View) -> BoolArray:
        judge = getattr(self._policy, "unfamiliar", None)
        return np.zeros(len(view), dtype=bool) if judge is None else judge(view)


class Canaries:
    """Before and after each decision of the RLScalers that have a canary."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._heard: WeakValueDictionary[int, _Heard] = WeakValueDictionary()

    def before(self, cases: Sequence[Case]) -> None:
        """Promote and take back, so that this decision is already the right policy's; never raises."""
        for case in cases:
            work = case.work
            if work is None or work.canary is None or case.entry.service is None:
                continue
            try:
                self._settle(case.entry, work, work.canary, case)
            except Exception:
                entry = case.entry
                logger.exception("%s/%s: canary", entry.namespace, entry.name, extra=about(entry))

    def _settle(self, entry: Entry, work: Work, canary: Canary, case: Case) -> None:
        assert entry.service is not None
        now_s = self._clock.now()
        elapsed_s = canary.elapsed(now_s, entry.period_s)
        if canary.phase in (SHADOW, PROMOTED):
            canary.violations.note(now_s, elapsed_s if _over_objective(case) else 0.0)
        if canary.phase == SHADOW and canary.usable:
            if canary.wanted_by(entry.promote):
                canary.promote(now_s, f"promoted by {PROMOTE_ANNOTATION}: {entry.promote}")
            elif canary.spec.promotion == "Automatic" and not canary.unmet():
                canary.promote(now_s, "promoted: the gate is met")
        elif canary.phase == PROMOTED and canary.usable:
            reason = canary.breach(now_s, entry.service.fallback.failure_threshold)
            if reason:
                canary.enter(ROLLED_BACK, now_s, f"{reason}; not promoted again until it changes")
        chosen = canary.in_charge
        if chosen is not work.chosen:
            work.chosen = chosen
            self._engine.update(work.row, entry.service, chosen.policy)
        canary.stepped_s = elapsed_s

    def after(self, cases: Sequence[Case], view: View) -> None:
        """Ask the canaries about the same view, and score them; never raises."""
        asked: dict[int, list[int]] = {}
        for index, case in enumerate(cases):
            canary = case.work.canary if case.work is not None else None
            if canary is None or not canary.usable:
                continue
            if canary.phase == PROMOTED and case.decision is not None:
                canary.silent = canary.silent + 1 if case.decision.fallback == "InvalidAction" else 0
            if canary.phase == SHADOW:
                heard = self._hear(canary)
                asked.setdefault(id(heard), []).append(index)
        for indices in asked.values():
            try:
                self._score(indices, cases, view)
            except Exception:
                logger.exception("a canary could not be scored for %d RLScalers", len(indices))
        self._publish(cases)

    def _hear(self, canary: Canary) -> _Heard:
        """One for each policy: the engine tells by it whether somebody else is asked."""
        policy = canary.candidate.policy
        heard = self._heard.get(id(policy))
        if heard is None:
            heard = self._heard[id(policy)] = _Heard(policy)
        canary.heard = heard
        return heard

    def _publish(self, cases: Sequence[Case]) -> None:
        now_s = self._clock.now()
        for case in cases:
            if case.work is not None and case.work.canary is not None:
                try:
                    case.work.canary.publish(self._clock, now_s, case.entry.promote)
                except Exception:
                    entry = case.entry
                    logger.exception("%s/%s: canary", entry.namespace, entry.name, extra=about(entry))

    def _score(self, indices: list[int], cases: Sequence[Case], view: View) -> None:
        work = cases[indices[0]].work
        assert work is not None
        assert work.canary is not None
        heard = work.canary.heard
        assert isinstance(heard, _Heard)
        wished = self._engine.shadow(view.rows[indices], heard, view)
        for index, replicas, said in zip(indices, wished.tolist(), heard.said.tolist(), strict=True):
            self._score_one(cases[index], index, replicas if said == said else None, view)

    def _score_one(self, case: Case, index: int, replicas: int | None, view: View) -> None:
        """replicas: None where the canary said nothing."""
        decision, work = case.decision, case.work
        if not view.usable[index] or work is None or work.canary is None:
            return
        scores, now_s = work.canary.scores, float(view.now_s[index])
        scores.judge(now_s, float(view.load[index]))
        if decision is None or not _decided(decision):
            return
        scores.take(
            now_s,
            work.canary.stepped_s,
            case.entry.period_s,
            self._engine.start_up_s(work.row),
            replicas,
            decision.desired_replicas,
        )


def _decided(decision: Decision) -> bool:
    """Whether the active policy did, and not something in its place."""
    return decision.fallback is None and decision.recommended_replicas is not None


def _over_objective(case: Case) -> bool:
    """Whether the latency that was just read is over the objective; unknown is not over."""
    reading = case.readings.get("latency")
    service = case.entry.service
    return reading is not None and service is not None and reading.value > service.slo_latency_ms
