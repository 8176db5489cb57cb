"""Weights by what each pool's own metrics say: the operator's side of `controller.core.weighing`.

The turn asks before it writes routes. Only RLScalers with `spec.routing` cost queries here; all others share
by ready replicas. While no pool can be read, weights are held: missing is never zero, and no verdict either.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from controller.api.constants import Reason
from controller.api.convert import backend_service
from controller.api.decimals import parse_decimal
from controller.api.routing import Ejection
from controller.api.types import Backend, RLScalerSpec
from controller.case import Case
from controller.core import UnavailablePolicy
from controller.core.ejection import EjectionRules, Ejector, Unejected, with_ejections
from controller.core.weighing import WEIGHINGS, PoolReadings, Smoother
from controller.feeds import pool_queries
from controller.metrics import SignalReading
from controller.metrics.source import QuerySet
from controller.policies import PoolsPolicy
from controller.registry import Entry
from controller.trouble import Trouble

Ask = Callable[[Sequence[int]], list[float] | None]
"""Shares of the pools from their current weights; None to leave these as they are."""


BY_ARTIFACT = "Policy"
"""spec.routing.policy of weights by the artifact of spec.policy."""
UNABLE = ("PolicyUnavailable", "InvalidAction", "CapacityUnknown")
"""Fallbacks that may last until somebody mends the policy; weights then follow ready replicas."""


@dataclass
class _Memory:
    """One RLScaler's pools through time."""

    generation: int
    queries: list[QuerySet]
    smoother: Smoother
    ejector: Ejector
    unejected: Unejected
    seen_s: float


class PoolWeigher:
    """Asks for shares by the policy of `spec.routing`. now_s: control seconds."""

    def __init__(self, time_scale: float, now_s: Callable[[], float]) -> None:
        self._time_scale, self._now_s = time_scale, now_s
        self._memories: dict[str, _Memory] = {}

    async def ask(self, case: Case, capacity_rps: float) -> Ask | None:
        """How the case's pools are to share their traffic; None: by ready replicas.

        capacity_rps: what a replica is believed to serve where the spec does not say, NaN unknown.
        """
        spec = case.entry.spec
        if spec is None or case.work is None or case.work.feed is None:
            return None
        if by_artifact(case):
            return _asking_plan(case)
        if spec.routing is None:
            return None
        memory = self._memory(case.entry)
        read: Sequence[Mapping[str, SignalReading]] | None = case.pool_readings
        if read is None:
            source = case.work.feed.source
            read = await asyncio.gather(*(source.read(queries) for queries in memory.queries))
        readings = self.taken(case, read, capacity_rps)
        if not np.isfinite(readings.request_rate).any():
            memory.seen_s = self._now_s()
            return lambda weights: None
        factors = self.judged(case, readings)
        return _asking(weighing_of(case), readings, memory, factors)

    def queries(self, entry: Entry) -> list[QuerySet]:
        """What is asked about each pool. Raises MetricsError."""
        return self._memory(entry).queries

    def taken(
        self,
        case: Case,
        read: Sequence[Mapping[str, SignalReading]],
        capacity_rps: float,
        weights: Sequence[int] | None = None,
    ) -> PoolReadings:
        """What was read of a case's pools, `[1, P]`. weights: those in force, 0 where not known."""
        assert case.entry.spec is not None
        found = _readings(case, case.entry.spec, read, capacity_rps)
        return found if weights is None else replace(found, weights=np.array([weights], dtype=np.int64))

    def judged(self, case: Case, readings: PoolReadings) -> np.ndarray:
        """Remember these readings; what outlier detection leaves each pool of its share, `[1, P]`."""
        spec = case.entry.spec
        assert spec is not None
        memory, now_s = self._memory(case.entry), self._now_s()
        elapsed_s = np.array([min(max(now_s - memory.seen_s, 0.0), 4 * case.entry.period_s)])
        memory.seen_s = now_s
        memory.smoother.forget_latency(memory.unejected.held)
        memory.smoother.update(readings, elapsed_s)
        if spec.routing is None or spec.routing.ejection is None:
            return np.ones_like(readings.ready)
        return memory.ejector.update(np.array([now_s]), elapsed_s, readings, _slo_ms(spec))

    def ejected(self, uid: str, spec: RLScalerSpec) -> list[str]:
        """Names of the pools that are out."""
        memory = self._memories.get(uid)
        if memory is None:
            return []
        return [
            pool.name for pool, out in zip(spec.backends or (), memory.ejector.out[0], strict=True) if out
        ]

    def factor(self, uid: str, index: int) -> float:
        """What outlier detection leaves a pool of its share; 1 for a healthy one."""
        memory = self._memories.get(uid)
        return 1.0 if memory is None else float(memory.ejector.factors[0][index])

    def note(self, case: Case) -> str:
        """By what a case's weights are decided, and who is out, in words."""
        spec = case.entry.spec
        assert spec is not None
        fallback = case.decision.fallback if case.decision is not None else None
        if by_artifact(case) and case.plan is None:
            if fallback in UNABLE:
                return f"weights follow the ready replicas of the pools: {fallback}"
            return "weights are held: " + _why_held(case)
        name = case.work.chosen.policy.name if by_artifact(case) and case.work else weighing_of(case)
        out = self.ejected(case.entry.uid, spec)
        return f"weights follow {name}" + (f"; out: {', '.join(out)}" if out else "")

    def forget(self, uid: str) -> None:
        """The RLScaler is gone."""
        self._memories.pop(uid, None)

    def _memory(self, entry: Entry) -> _Memory:
        spec = entry.spec
        assert spec is not None
        known = self._memories.get(entry.uid)
        if known is None or known.generation != entry.generation:
            pools = len(spec.backends or ())
            ejector = Ejector(1, pools, _rules(spec))
            queries = pool_queries(entry, self._time_scale)
            known = self._memories[entry.uid] = _Memory(
                generation=entry.generation,
                queries=queries,
                smoother=Smoother(1, pools),
                ejector=ejector,
                unejected=Unejected.new(1, pools),
                seen_s=self._now_s(),
            )
        return known


def weighing_of(case: Case) -> str:
    """The rule of spec.routing.policy; by default the artifact's, where it decides for pools, else Ready."""
    spec = case.entry.spec
    given = spec.routing.policy if spec is not None and spec.routing is not None else None
    return given or (BY_ARTIFACT if _of_pools(case) else "Ready")


def by_artifact(case: Case) -> bool:
    """Whether the artifact of spec.policy weighs the pools."""
    return weighing_of(case) == BY_ARTIFACT


def weighs_nothing(case: Case) -> Trouble | None:
    """Why routing.policy Policy cannot be: what decides has no shares for pools."""
    if not by_artifact(case) or case.work is None or _of_pools(case):
        return None
    policy = case.work.chosen.policy
    if isinstance(policy, UnavailablePolicy):
        return None
    words = f"spec.routing.policy is {BY_ARTIFACT}, but {policy.name} decides for one service, not for pools"
    return Trouble(Reason.POLICY_WEIGHS_NOTHING, words)


def _of_pools(case: Case) -> bool:
    return case.work is not None and isinstance(case.work.chosen.policy, PoolsPolicy)


def _asking_plan(case: Case) -> Ask | None:
    """Shares of a policy for pools; held while metrics are missing, by ready replicas while it is unable."""
    plan = case.plan
    fallback = case.decision.fallback if case.decision is not None else None
    if plan is None and fallback in UNABLE:
        return None

    def ask(weights: Sequence[int]) -> list[float] | None:
        case.weights_seen = list(weights)
        return None if plan is None else list(plan.shares)

    return ask


def _why_held(case: Case) -> str:
    return case.pool_trouble.message if case.pool_trouble is not None else "the policy does not decide now"


def _asking(policy: str, readings: PoolReadings, memory: _Memory, factors: np.ndarray) -> Ask:
    before = memory.unejected  # the same for each route of the turn

    def ask(weights: Sequence[int]) -> list[float] | None:
        present = np.array([weights])
        whole = replace(readings, weights=before.weights(present))
        memory.unejected = before.after(present, factors)
        shares = with_ejections(WEIGHINGS[policy](whole, memory.smoother), factors)
        return [float(share) for share in shares[0]]

    return ask


def _readings(
    case: Case, spec: RLScalerSpec, read: Sequence[Mapping[str, SignalReading]], capacity_rps: float
) -> PoolReadings:
    backends = spec.backends or []

    def column(signal: str) -> np.ndarray:
        return np.array([[each[signal].value if signal in each else math.nan for each in read]])

    rates = column("requestRate")
    capacity = np.array([[_capacity(pool, spec, capacity_rps) for pool in backends]])
    capacity = np.where(np.isfinite(capacity), capacity, 1.0)
    costs = np.array([[_number(pool.cost_per_replica) for pool in backends]])
    ready = np.array([[float(target.ready or 0) for target in case.targets]])
    utilisation = column("cpuUtilization")
    in_flight = column("inFlight")
    with np.errstate(invalid="ignore", divide="ignore"):
        # without CPU, what the pool should be busy with (Little's law over its ready replicas is not known)
        believed = rates / (ready * capacity)
    return PoolReadings(
        ready=ready,
        capacity_rps=capacity,
        request_rate=rates,
        latency_ms=column("latency"),
        error_ratio=column("errorRatio"),
        utilisation=np.where(np.isfinite(utilisation), utilisation, believed),
        in_flight=in_flight,
        price=costs / capacity,
        max_replicas=np.array([[pool.max_replicas for pool in backends]]),
        weights=np.zeros((1, len(backends)), dtype=np.int64),
        load_rps=np.array([float(np.nansum(rates))]),
    )


def _capacity(pool: Backend, spec: RLScalerSpec, otherwise: float) -> float:
    given = pool.capacity_per_replica or spec.objective.capacity_per_replica
    return _number(given) if given is not None else otherwise


_number = lru_cache(4096)(parse_decimal)


def _slo_ms(spec: RLScalerSpec) -> np.ndarray:
    slo = spec.objective.slo
    return np.array([float(slo.latency.milliseconds) if slo else math.nan])


def _rules(spec: RLScalerSpec) -> EjectionRules:
    given = (spec.routing.ejection if spec.routing else None) or Ejection()
    return EjectionRules(
        latency_ratio=parse_decimal(given.latency_ratio),
        error_ratio=parse_decimal(given.error_ratio),
        base_s=float(given.base_seconds),
        recovery_s=float(given.recovery_seconds),
    )


def services_of(spec: RLScalerSpec) -> list[str]:
    """The Services that routes weigh, a pool each."""
    return [backend_service(backend) for backend in spec.backends or ()]
