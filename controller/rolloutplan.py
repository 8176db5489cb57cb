"""Replicas and bounds that follow a roll-out's state: the canary on top of the others, who can take all back.

Pure. `controller.rollouts` asks in each turn; `controller.case.pools_of` hands the pools on to what splits
replicas and weighs routes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from controller.api.decimals import parse_decimal
from controller.api.types import RLScalerSpec
from controller.case import Case
from controller.core import Decision, Pool
from controller.core.decision import Clamp
from controller.core.rollout import (
    FAILED,
    SUCCEEDED,
    RolloutRules,
    RolloutState,
    next_weight,
    replicas_for,
)

CLAMP = "Canary"
"""Name of the last stage that changes a decision."""
DRAIN_PERIODS = 2.0
"""Sync periods for which a canary that was rolled back keeps its replicas: requests are on their way."""


@dataclass(frozen=True)
class Turn:
    """What one turn does about a canary. index: of its pool. weight: its part of 100. pools: as replicas and
    weights are to follow them. total: replicas of all pools together; own: of these the canary's."""

    index: int
    weight: int
    pools: tuple[Pool, ...]
    total: int
    own: int


class Plan:
    """Replicas and bounds of one turn, by a state.

    Until it has succeeded the canary's replicas come on top of the others', so that these can take all of the
    traffic back at once. What the engine decides counts the canary's in: only its wish for more, or for less
    than the others have, is about the others; a wish to stay is not, or each turn would add to the last.
    """

    def __init__(self, case: Case, index: int, rules: RolloutRules, most: int, now_s: float) -> None:
        assert case.decision is not None
        assert case.entry.service is not None
        assert case.entry.spec is not None
        self._pools, self._index, self._rules = case.entry.service.pools, index, rules
        self._desired, self._have = case.decision.desired_replicas, case.targets[index].replicas
        self._most = max(most, self._desired)
        self._held = case.entry.outside.hold is not None
        self._others = self._wanted_of_others(case.current)
        self._ratio = _ratio(case.entry.spec, index)
        self._drained_s = now_s - DRAIN_PERIODS * case.entry.period_s

    def _wanted_of_others(self, current: int) -> int:
        now, desired = current - self._have, self._desired
        if desired == current or self._held:
            return now
        return max(now, desired) if desired > current else min(now, desired)

    def replicas_seen(self, state: RolloutState) -> tuple[int, int]:
        """Replicas for the next weight, and those of them that it may have."""
        needed = self._needed(state)
        return needed, min(needed, self._own(state))

    def turn(self, state: RolloutState) -> Turn:
        own = self._own(state)
        total = self._desired if state.phase == SUCCEEDED else min(self._others + own, self._most)
        pools = [self._pool(i, pool, own, state.weight) for i, pool in enumerate(self._pools)]
        return Turn(self._index, state.weight, tuple(pools), max(total, own), own)

    def _needed(self, state: RolloutState) -> int:
        whole = self._desired if state.phase == SUCCEEDED else self._others
        needed = replicas_for(next_weight(state, self._rules), whole, self._ratio)
        return max(needed, 1) if state.under_way and whole > 0 else needed

    def _own(self, state: RolloutState) -> int:
        """Replicas of the canary: inside its bounds, and while it grows inside what is left over."""
        pool, own = self._pools[self._index], self._needed(state)
        if state.phase == FAILED:
            own = self._have if state.stepped_s > self._drained_s else 0
        elif state.under_way:
            own = min(own, max(self._most - self._others, self._have))
        if self._held:
            own = self._have
        return min(max(own, pool.min_replicas), pool.max_replicas)

    def _pool(self, i: int, pool: Pool, own: int, weight: int) -> Pool:
        if i == self._index:
            return replace(pool, min_replicas=own, max_replicas=own, min_weight=0, max_weight=weight)
        others = sum(p.max_weight for j, p in enumerate(self._pools) if j != self._index)
        return pool if others + weight >= 100 else replace(pool, max_weight=100)


def followed(decision: Decision, turn: Turn) -> Decision:
    """The decision with the replicas that the canary has on top; a clamp says so."""
    total, current = turn.total, decision.current_replicas
    if total == decision.desired_replicas:
        return decision
    before = decision.desired_replicas
    words = f"{before} -> {total}: {turn.own} of the canary's pool beside what the others need"
    clamp = Clamp(CLAMP, "CanaryReplicas", before, total, words)
    outcome = decision.outcome
    if total != current or outcome != "Held":
        outcome = "ScaledUp" if total > current else "ScaledDown" if total < current else "NoChange"
    moved = f"stays at {current} replicas" if total == current else f"{current} -> {total} replicas"
    return replace(
        decision,
        desired_replicas=total,
        outcome=outcome,
        clamps=(*decision.clamps, clamp),
        message=f"{moved}; {CLAMP} {words}",
    )


def _ratio(spec: RLScalerSpec, index: int) -> float:
    """Requests/s of a replica of the whole service over one of the canary, where the spec says both."""
    own = (spec.backends or [])[index].capacity_per_replica
    whole = spec.objective.capacity_per_replica
    return parse_decimal(whole) / parse_decimal(own) if own is not None and whole is not None else 1.0
