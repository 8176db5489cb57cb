"""One RLScaler's turn: what was observed, decided and done, and what follows for its status. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from controller.actuation.apply import Routed, Scaled, pool_steps
from controller.actuation.target import Target
from controller.api.convert import backend_service
from controller.budgets.share import Share
from controller.core import Decision, Outcome, Pool
from controller.core.poolset import fitted
from controller.metrics import SignalReading, load_reading
from controller.metrics.source import ReadingRound
from controller.registry import Entry
from controller.standing import start_up_shown
from controller.status import Facts, PoolFacts
from controller.trouble import Trouble
from controller.work import Work

if TYPE_CHECKING:
    from controller.rolloutplan import Turn

_OBSERVED = {
    "requestRate": "requestRate",
    "latency": "latencyMilliseconds",
    "errorRatio": "errorRatio",
    "cpuUtilization": "cpuUtilization",
    "inFlight": "inFlight",
}


@dataclass(frozen=True)
class PoolPlan:
    """What a pools policy decided, a value each pool: replicas that it asked for, those that the pool's own
    guard left, its share of the traffic (0..1) and its relative price."""

    names: tuple[str, ...]
    asked: tuple[int, ...]
    guarded: tuple[int, ...]
    shares: tuple[float, ...]
    price: tuple[float, ...]

    def wanted(self, current: Sequence[int], total: int, pools: Sequence[Pool]) -> list[int]:
        """Replicas of each pool, so that they sum to what the whole set's guard left."""
        lowest, highest = [pool.min_replicas for pool in pools], [pool.max_replicas for pool in pools]
        return fitted(self.guarded, current, total, lowest, highest, self.price)


@dataclass
class Case:
    """One RLScaler's turn, filled in step by step."""

    entry: Entry
    generation: int
    due_s: float = 0.0
    work: Work | None = None
    targets: tuple[Target, ...] = ()
    readings: Mapping[str, SignalReading] = field(default_factory=dict)
    trouble: Trouble | None = None
    decision: Decision | None = None
    budget: Share | None = None
    scaled: Scaled | None = None
    routed: Routed | None = None
    rollout: Turn | None = None
    canary: Mapping[str, Any] | None = None
    """status.canary after this turn."""
    round: ReadingRound | None = None
    pool_readings: list[Mapping[str, SignalReading]] | None = None
    """What was read of each pool, where a policy that decides for pools needs it."""
    pool_trouble: Trouble | None = None
    pool_problem: str = ""
    """Why the pools cannot be read at all."""
    plan: PoolPlan | None = None
    weights_seen: list[int] | None = None
    """Weights of the route before this turn, in the order of the pools."""
    start_up_s: float = math.nan
    """What was learned of it, NaN for nothing."""
    error: str = ""
    retry_after_s: float = 0.0

    def release(self) -> None:
        """Let go of what the turn knew, once it is over: its batch lives until the last of thousands is."""
        vars(self).update(vars(Case(self.entry, self.generation, self.due_s)))

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


def wanted(case: Case, decision: Decision) -> list[int]:
    """Replicas for each target."""
    pools = pools_of(case)
    if not pools:
        return [decision.desired_replicas]
    current = [target.replicas for target in case.targets]
    if case.plan is not None:
        return case.plan.wanted(current, decision.desired_replicas, pools)
    return pool_steps(current, decision.desired_replicas, pools)


def pools_of(case: Case) -> tuple[Pool, ...]:
    """The pools of its spec, as the canary of spec.canary leaves them."""
    if case.rollout is not None:
        return case.rollout.pools
    return case.entry.service.pools if case.entry.service is not None else ()


def _pool_facts(case: Case) -> tuple[PoolFacts, ...]:
    pools = pools_of(case)
    if not pools or case.decision is None:
        return ()
    targets = case.scaled.targets if case.scaled is not None else case.targets
    desired = wanted(case, case.decision)
    assert case.entry.spec is not None
    weights = case.routed.weights if case.routed is not None else {}
    services = [backend_service(backend) for backend in case.entry.spec.backends or ()]
    return tuple(
        PoolFacts(pool.name, target.replicas, replicas, weights.get(service))
        for pool, target, replicas, service in zip(pools, targets, desired, services, strict=True)
    )


def _weights_message(routed: Routed | None) -> str:
    if routed is None or routed.trouble is not None:
        return ""
    if routed.restored:
        return "the weights of before are back while it is paused"
    if not routed.weights:
        return "no pool has a ready replica; weights are left as they are"
    return routed.note or "weights follow the ready replicas of the pools"


def _metrics_trouble(case: Case) -> Trouble | None:
    if case.work is None:
        return None
    if case.work.feed_trouble is not None:
        return case.work.feed_trouble
    reading = load_reading(case.readings)
    if reading.outcome is Outcome.OK:
        return case.pool_trouble
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


def observed(case: Case) -> dict[str, float]:
    """Readings and replicas under the names of status.lastDecision.observation."""
    found = {_OBSERVED[name]: reading.value for name, reading in case.readings.items() if name in _OBSERVED}
    found["readyReplicas"] = case.ready
    if case.decision is not None:
        found["loadReplicas"] = case.decision.load
    return found


def _rollout_shown(case: Case) -> Mapping[str, Any] | None:
    """status.canary; as it was where this turn did not look at it."""
    spec = case.entry.spec
    if spec is not None and spec.canary is None:
        return None
    return case.canary or case.entry.status.get("canary")


def action(case: Case) -> str:
    """What was done, as telemetry names it."""
    if case.decision is None:
        return "none"
    if case.entry.mode == "Shadow":
        return "shadow"
    if case.scaled is None or not case.scaled.changed:
        return "none"
    return "scale_up" if case.decision.outcome == "ScaledUp" else "scale_down"


def facts_of(case: Case) -> Facts:
    """What the turn found out and did."""
    entry, work, decision = case.entry, case.work or case.entry.work, case.decision
    targets = case.scaled.targets if case.scaled is not None else case.targets
    routed = case.routed
    return Facts(
        generation=entry.generation,
        mode=entry.mode,
        namespace=entry.namespace,
        name=entry.name,
        uid=entry.uid,
        target=entry.label,
        paused_by_annotation=entry.paused_by_annotation,
        spec_trouble=entry.trouble,
        target_trouble=case.trouble,
        metrics_trouble=_metrics_trouble(case),
        metrics_note=_metrics_note(case.readings),
        policy_trouble=work.chosen.trouble if work else None,
        policy_note=work.chosen.note if work else None,
        canary=work.canary.published if work and work.canary else None,
        rollout=_rollout_shown(case),
        route_trouble=routed.trouble if routed else None,
        has_routes=bool(entry.spec and entry.spec.routes),
        policy=work.chosen.facts if work else None,
        decision=decision,
        budget=case.budget,
        observed=observed(case),
        readings=case.readings,
        current_replicas=sum(target.replicas for target in targets) if targets else None,
        desired_replicas=decision.desired_replicas if decision else None,
        scaled=bool(case.scaled and case.scaled.changed),
        weights_message=_weights_message(routed),
        pools=_pool_facts(case),
        plan=case.plan,
        outside=entry.outside.hold,
        start_up_seconds=start_up_shown(entry, case.start_up_s),
    )
