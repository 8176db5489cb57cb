"""What one turn gives for an RLScaler's own series in telemetry. Pure; `controller.turn` calls it in every
turn, steady ones included.
"""

from __future__ import annotations

import math

from controller.case import Case, pools_of
from controller.core import Outcome
from controller.objectseries import NAN, Measured

DIGEST_SHOWN = 19
"""`sha256:` and twelve hex digits: enough to tell artifacts apart in a label."""


def measured(case: Case, now_unix_s: float) -> Measured:
    """The numbers of this turn; NaN for what it did not find out."""
    found = Measured(paused=float(case.entry.paused), sync_period_s=float(case.entry.period_s))
    targets = case.scaled.targets if case.scaled is not None else case.targets
    if targets:
        replicas = [target.replicas for target in targets]
        found.current, found.ready_replicas = float(sum(replicas)), case.ready
        prices = [pool.cost_per_replica for pool in pools_of(case)] or [1.0] * len(replicas)
        found.cost = sum(price * count for price, count in zip(prices, replicas, strict=True))
    _decided(found, case, now_unix_s)
    _objective(found, case)
    work = case.work or case.entry.work
    if work is not None:
        policy = work.chosen.policy
        found.policy = (case.entry.mode, policy.type, policy.name, policy.digest[:DIGEST_SHOWN])
    return found


def _decided(found: Measured, case: Case, now_unix_s: float) -> None:
    decision = case.decision
    if decision is None:
        return
    found.decided_s = now_unix_s
    found.desired = float(decision.desired_replicas)
    found.recommended = _replicas(decision.recommended_replicas)
    found.hpa = _replicas(decision.hpa_replicas)
    found.fallback = float(decision.fallback is not None)
    found.unfamiliar = float(decision.unfamiliar)
    found.clamps = tuple((clamp.name, clamp.reason) for clamp in decision.clamps)


def _objective(found: Measured, case: Case) -> None:
    latency, service = case.readings.get("latency"), case.entry.service
    if latency is None or latency.outcome is not Outcome.OK or service is None:
        return
    if math.isfinite(service.slo_latency_ms):
        found.slo_latency_ratio = latency.value / service.slo_latency_ms
        found.slo_in_danger = float(found.slo_latency_ratio > 1.0)


def _replicas(count: int | None) -> float:
    return NAN if count is None else float(count)
