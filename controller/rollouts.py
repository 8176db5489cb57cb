"""spec.canary in the operator: what a turn sees of the canary's pool, what follows for replicas and weights.

The turn calls `step` before anything is scaled and `settle` after the routes were written; between them
`controller.case.pools_of` and `shared` carry what was decided into replicas and weights. The state machine is
`controller.core.rollout`; what is to survive the operator is in status.canary.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from controller.actuation.apply import Shared
from controller.actuation.target import Target
from controller.api.decimals import parse_decimal
from controller.api.rollout import Rollout
from controller.api.types import RLScalerSpec
from controller.case import Case
from controller.clock import Clock
from controller.core import Outcome
from controller.core.rollout import (
    PROGRESSING,
    SUCCEEDED,
    RolloutRules,
    RolloutState,
    Sight,
    advance,
)
from controller.errors import KubernetesError, MetricsError
from controller.feeds import pool_queries
from controller.kube import Kube
from controller.logs import about
from controller.metrics import SignalReading
from controller.metrics.source import QuerySet
from controller.registry import Entry
from controller.rolloutplan import Plan, Turn
from controller.rolloutstatus import published, restored

logger = logging.getLogger(__name__)

Json = dict[str, Any]
PAUSE, RESTART, ABORT = "pause", "restart", "rollback"
"""Values of the annotation rlscaler.dev/canary; RESTART may have anything after it."""


@dataclass
class _Memory:
    """One RLScaler's canary through time. carried: its shares in the routes as the turn found them."""

    generation: int
    pool: str
    index: int
    queries: QuerySet
    state: RolloutState | None
    unreadable: str = ""
    """Why the pool has no metrics of its own, in words."""
    template: tuple[tuple[str, str], str] = (("", ""), "")
    carried: list[float] = field(default_factory=list)
    agreed: bool = False
    fresh: bool = False
    """Whether it was read from a status, and the routes have not been looked at since."""


class Rollouts:
    """Takes the canaries of spec.canary through their turns."""

    def __init__(self, kube: Kube, clock: Clock) -> None:
        self._kube, self._clock = kube, clock
        self._memories: dict[str, _Memory] = {}

    async def step(self, case: Case, acting: bool, most: int) -> Turn | None:
        """Judge the canary of a case that was decided, and say what follows; None where it has none.

        acting: whether this turn writes replicas and weights. most: replicas of all pools that bounds and
        budget leave.
        """
        entry, spec = case.entry, case.entry.spec
        if spec is None or spec.canary is None or case.decision is None or not case.targets:
            return None
        memory = self._memory(entry, spec.canary)
        rules = rules_of(spec)
        target = case.targets[memory.index]
        readings = await self._read(case, memory)
        revision = await self._revision(memory, target, entry)
        now_s = self._clock.now()
        seen = Sight(
            now_s=now_s,
            revision=revision,
            ready=target.ready or 0,
            requests=_value(readings, "requestRate") * spec.metrics.window_seconds,
            error_ratio=_value(readings, "errorRatio"),
            latency_ms=_value(readings, "latency"),
            carried=memory.agreed,
            objective=not _over_objective(case),
            others=any((t.ready or 0) > 0 for i, t in enumerate(case.targets) if i != memory.index),
            mark=_hash(spec.canary),
            obstacle=memory.unreadable or _obstacle(entry, acting),
            **_wishes(entry.rollout),
        )
        plan = Plan(case, memory.index, rules, most, now_s)
        if memory.state is not None:
            needed, asked = plan.replicas_seen(memory.state)
            due = _due(case, spec, memory.state) if memory.agreed else math.nan
            # replicas that nobody was asked for are not awaited
            seen = replace(seen, needed=needed, asked=asked if acting else 0, due=due)
        memory.state = advance(memory.state, rules, seen)
        memory.carried = []
        return plan.turn(memory.state)

    def shared(self, case: Case, shared: Shared, factor: float) -> Shared:
        """The pools as routes are to weigh them: the canary gets its weight, the others the rest by `ask`.

        factor: what outlier detection leaves the canary of its share. A canary without weight counts as one
        without replicas, which no limit of steps delays; where no other pool is ready, weights stay.
        """
        turn, memory = case.rollout, self._memories.get(case.entry.uid)
        if turn is None or memory is None:
            return shared
        ready = [0 if i == turn.index and not turn.weight else n for i, n in enumerate(shared.ready)]
        if not any(n for i, n in enumerate(ready) if i != turn.index):
            ready = [0] * len(ready)
        wanted = turn.weight / 100.0 * factor

        def ask(weights: Sequence[int]) -> Sequence[float] | None:
            total = sum(weights)
            memory.carried.append(weights[turn.index] / total if total else 0.0)
            own = min(wanted, memory.carried[-1]) if memory.fresh else wanted
            others = _others(shared.ask, weights, ready, turn.index)
            return [own if i == turn.index else (1.0 - own) * part for i, part in enumerate(others)]

        return replace(shared, ready=ready, pools=turn.pools, ask=ask)

    def settle(self, case: Case) -> Json | None:
        """After the routes: what status.canary is to say, if the case has a canary."""
        memory, turn = self._memories.get(case.entry.uid), case.rollout
        spec = case.entry.spec
        if memory is None or memory.state is None or turn is None or spec is None or spec.canary is None:
            return None
        failed = case.routed is None or case.routed.trouble is not None
        aim = memory.state.weight
        close = all(abs(100.0 * share - aim) < 1.0 for share in memory.carried)
        memory.agreed = bool(memory.carried) and close and not failed
        if memory.fresh and memory.carried and not failed:
            memory.state = _not_above(memory.state, min(memory.carried), self._clock.now())
            memory.fresh = False
        old = case.entry.status.get("canary")
        return published(memory.state, spec.canary.pool, self._clock, old)

    def note(self, entry: Entry, otherwise: str) -> str:
        """By what the weights are decided, in words. otherwise: the same without the canary."""
        assert entry.spec is not None
        assert entry.spec.canary is not None
        rest = otherwise or "weights follow the ready replicas of the pools"
        return f"{rest}; pool {entry.spec.canary.pool} gets what spec.canary has come to"

    def forget(self, uid: str) -> None:
        """The RLScaler is gone."""
        self._memories.pop(uid, None)

    def _memory(self, entry: Entry, canary: Rollout) -> _Memory:
        known = self._memories.get(entry.uid)
        if known is not None and known.generation == entry.generation:
            return known
        assert entry.spec is not None
        index = [pool.name for pool in entry.spec.backends or ()].index(canary.pool)
        queries, unreadable = _queries(entry, index, self._clock.scale)
        if known is not None and known.pool == canary.pool:
            known.generation, known.index = entry.generation, index
            known.queries, known.unreadable = queries, unreadable
            return known
        state = restored(entry.status.get("canary"), canary.pool, self._clock) if known is None else None
        fresh = _Memory(
            entry.generation, canary.pool, index, queries, state, unreadable, fresh=state is not None
        )
        self._memories[entry.uid] = fresh
        return fresh

    async def _read(self, case: Case, memory: _Memory) -> dict[str, SignalReading]:
        assert case.work is not None
        if case.work.feed is None:
            return {}
        return dict(await case.work.feed.source.read(memory.queries))

    async def _revision(self, memory: _Memory, target: Target, entry: Entry) -> str:
        """The digest of the target's pod template; "" where that cannot be read now.

        Read again only once the target's resource version is another one.
        """
        mark, ref = (target.uid, target.resource_version), target.ref
        if memory.template[0] == mark and memory.template[1]:
            return memory.template[1]
        try:
            body = await self._kube.get(target.resource, ref.namespace, ref.name)
        except KubernetesError as error:
            logger.warning("%s/%s: %s: %s", entry.namespace, entry.name, ref, error, extra=about(entry))
            return ""
        memory.template = (mark, _digest((body.get("spec") or {}).get("template")))
        return memory.template[1]


def rules_of(spec: RLScalerSpec) -> RolloutRules:
    """What the roll-out of a spec keeps to; latency by default to the objective."""
    canary = spec.canary
    assert canary is not None
    analysis, slo = canary.analysis, spec.objective.slo
    latency = analysis.max_latency_milliseconds or (slo.latency.milliseconds if slo else None)
    return RolloutRules(
        max_weight=canary.max_weight,
        step_weight=canary.step_weight,
        interval_s=float(canary.interval_seconds),
        max_error_ratio=parse_decimal(analysis.max_error_ratio),
        max_latency_ms=math.nan if latency is None else float(latency),
        min_requests=float(analysis.min_requests),
        failure_threshold=analysis.failure_threshold,
        missing_threshold=analysis.missing_threshold,
        deadline_s=float(canary.progress_deadline_seconds),
        window_s=float(spec.metrics.window_seconds),
    )


def _others(
    ask: Callable[[Sequence[int]], Sequence[float] | None] | None,
    weights: Sequence[int],
    ready: Sequence[int],
    index: int,
) -> list[float]:
    """Shares of the other pools that sum to 1: as they are asked for, else as they are, else by replicas."""
    asked = (ask(weights) if ask is not None else None) or (weights if ask is not None else ready)
    for given in (asked, ready):
        found = [0.0 if i == index or not ready[i] else float(v) for i, v in enumerate(given)]
        if sum(found) > 0:
            return [value / sum(found) for value in found]
    return [0.0] * len(ready)


def _queries(entry: Entry, index: int, time_scale: float) -> tuple[QuerySet, str]:
    """The canary's queries, and what is wrong with them."""
    try:
        queries = pool_queries(entry, time_scale)[index]
    except MetricsError as error:
        how = "queries count for pools where they name {{service}} or {{workload}}"
        return QuerySet({}), f"its pool's metrics cannot be asked for ({how}): {error}"
    lacking = [signal for signal in ("requestRate", "errorRatio") if signal not in queries]
    if lacking:
        return queries, f"spec.metrics has no query of {' and '.join(lacking)} that names {{{{service}}}}"
    return queries, ""


def _not_above(state: RolloutState, share: float, now_s: float) -> RolloutState:
    """What an earlier operator may have done after its last status counts: it may have rolled back."""
    weight = math.floor(100.0 * share + 0.5)
    if weight >= state.weight:
        return state
    phase = PROGRESSING if state.phase == SUCCEEDED else state.phase
    words = f"goes on from weight {weight}, which the routes had when the operator started"
    return replace(state, phase=phase, weight=weight, stepped_s=now_s, carried_s=now_s, message=words)


def _obstacle(entry: Entry, acting: bool) -> str:
    if acting:
        return ""
    return "mode Shadow steps nothing" if entry.mode == "Shadow" else "another autoscaler has its target"


def _wishes(annotation: str) -> dict[str, Any]:
    word = annotation.lower()
    return {
        "paused": word == PAUSE,
        "abort": word == ABORT,
        "restart": annotation if word.startswith(RESTART) else "",
    }


def _value(readings: dict[str, SignalReading], signal: str) -> float:
    reading = readings.get(signal)
    return reading.value if reading is not None and reading.outcome is Outcome.OK else math.nan


def _due(case: Case, spec: RLScalerSpec, state: RolloutState) -> float:
    """Requests that the canary's weight gives it of the whole load within the window."""
    load = case.readings.get("requestRate")
    if load is None or load.outcome is not Outcome.OK:
        return math.nan
    return load.value * state.weight / 100.0 * spec.metrics.window_seconds


def _over_objective(case: Case) -> bool:
    latency, service = case.readings.get("latency"), case.entry.service
    known = latency is not None and latency.outcome is Outcome.OK and service is not None
    return bool(known and latency and service and latency.value > service.slo_latency_ms)


def _digest(template: Any) -> str:
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _hash(canary: Rollout) -> str:
    """Without defaults: an operator that knows more fields finds the same."""
    return hashlib.sha256(canary.model_dump_json(exclude_defaults=True).encode()).hexdigest()[:12]
