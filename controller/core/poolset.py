"""The decision for pools behind one route: what a policy asks of each pool, behind the guard. Pure.

A policy gives a capacity over the load of the whole set and a share of the traffic for each pool.
`asked_replicas` makes replicas of it, `PoolsGuard` guards every pool as a service of its own, and `fitted`
holds the pools to the total that the engine's guard leaves for the whole set. `sim.envs.pool_batch` does the
same to the same action up to and including `PoolsGuard` (tests/core/test_poolset.py holds them together). The
operator is stricter in what comes after: the rate rules, limits, budget and floors of the whole set, no
scale-down of any pool for an observation unlike any in training, and none while its own metrics are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controller.core.behavior import BehaviorState
from controller.core.guard import GuardInputs, guard
from controller.core.hpa import hpa_replicas
from controller.core.poolfeatures import PoolSettings, PoolSights
from controller.core.pools import WEIGHT_TOTAL, guard_weights, largest_remainder
from controller.core.samples import BoolArray, FloatArray, IntArray
from controller.core.spec import Behavior

TOLERANCE = 0.1
"""Replicas asked for within this share of the current ones change nothing, as with the HPA's tolerance."""
MAX_POOLS = 8
"""Most pools of a set; each set has so many rows in the guard's memory."""


def asked_replicas(
    capacity: FloatArray, load_rps: FloatArray, capacity_rps: FloatArray, current: FloatArray
) -> FloatArray:
    """Replicas float `[N, P]` for capacities over the set's load `[N, P]`; NaN where either is not known.

    load_rps: requests/s of the whole set `[N]`; capacity_rps: what a replica serves; current: replicas.
    """
    wanted = np.ceil(capacity * load_rps[:, None] / capacity_rps - 1e-9)
    near = (np.abs(wanted - current) <= TOLERANCE * current) & (wanted > 0)
    return np.asarray(np.where(near, current, wanted))


def asked_weights(share: FloatArray, shown: PoolSights, static: PoolSettings, max_step: IntArray) -> IntArray:
    """Integer weights `[N, P]` for shares `[N, P]`, after minWeight, maxWeight and the largest step `[N]`."""
    return guard_weights(
        np.where(static.present, share, 0.0),
        np.asarray(shown.weights_asked, dtype=np.int64),
        shown.ready,
        static.min_weight,
        static.max_weight,
        max_step,
    )


def by_ready_capacity(ready: FloatArray, capacity_rps: FloatArray) -> IntArray:
    """Weights `[N, P]` of pools that nobody weighs: in proportion to ready capacity, as endpoints share; 0
    everywhere where nothing is ready."""
    served = np.nan_to_num(ready * capacity_rps)
    rows = [
        largest_remainder(row, WEIGHT_TOTAL) if sum(row) > 0 else [0] * len(row) for row in served.tolist()
    ]
    return np.array(rows, dtype=np.int64).reshape(served.shape)


@dataclass(frozen=True, slots=True)
class SetState:
    """What the guard of pools goes by, beside what is asked: `[N]` each.

    slots: rows of `PoolsGuard`. now_s: seconds. usable: whether the load is known. unfamiliar: an observation
    unlike any in training. held: replicas were set by somebody else. slo_ms: the objective, NaN none. target:
    utilisation that the HPA's formula aims at.
    """

    slots: IntArray
    now_s: FloatArray
    usable: BoolArray
    unfamiliar: BoolArray
    held: BoolArray
    slo_ms: FloatArray
    target: FloatArray


class PoolsGuard:
    """Every pool of N sets behind the guard of a service: bounds, `behavior`, the floor in danger, no
    scale-down without metrics. A pool that has, had or is to get traffic keeps a replica."""

    def __init__(self, sets: int = 0, pools: int = MAX_POOLS) -> None:
        self._pools = pools
        self._behavior = BehaviorState(sets * pools)
        self._sets = sets

    def __len__(self) -> int:
        return self._sets

    def grow(self, sets: int) -> None:
        """Make room for `sets` sets."""
        if sets > self._sets:
            self._behavior.grow(sets * self._pools)
            self._sets = sets

    def configure(self, slot: int, behavior: Behavior, sync_period_s: float) -> None:
        """Take over one set's rules; its past stays."""
        for row in self._rows(np.array([slot])).reshape(-1).tolist():
            self._behavior.configure(row, behavior.scale_up, behavior.scale_down, sync_period_s)

    def reset(self, slot: int) -> None:
        """Forget a set's past. Its pools then start from the replicas that they have, and keep these for a
        stabilisation window, as a restarted HPA does."""
        self._behavior.reset(self._rows(np.array([slot])).reshape(-1))

    def guarded(
        self,
        state: SetState,
        asked: FloatArray,
        weights: IntArray,
        shown: PoolSights,
        static: PoolSettings,
    ) -> IntArray:
        """Replicas int `[N, P]` for those asked for, float `[N, P]` (NaN: hold); 0 for an absent pool.

        weights: those that are to be asked for now.
        """
        pools = asked.shape[1]
        used = (weights > 0) | (np.asarray(shown.weights_asked) > 0) | (np.asarray(shown.weights) > 0)
        with np.errstate(invalid="ignore"):
            danger = shown.latency_ms > state.slo_ms[:, None]
            ratio = shown.utilisation / state.target[:, None]
        there = np.flatnonzero(static.present.reshape(-1))
        rows = self._rows(state.slots)[:, :pools].reshape(-1)[there]

        def flat(values: FloatArray | IntArray | BoolArray) -> np.ndarray:
            return np.broadcast_to(values, asked.shape).reshape(-1)[there]

        current = flat(shown.current).astype(np.int64)
        ready = np.minimum(flat(shown.ready), flat(shown.current)).astype(np.int64)
        tolerance = self._behavior.down.tolerance[rows], self._behavior.up.tolerance[rows]
        recommended = flat(asked)
        inputs = GuardInputs(
            rows=rows,
            now_s=flat(state.now_s[:, None]),
            current=current,
            hpa_replicas=hpa_replicas(current, ready, flat(ratio), *tolerance),
            usable=flat(state.usable[:, None]),
            slo_in_danger=flat(danger),
            unfamiliar=flat(state.unfamiliar[:, None]),
            idle=~flat(used),
            wake_replicas=np.nan_to_num(recommended).astype(np.int64),
            min_replicas=flat(static.min_replicas).astype(np.int64),
            max_replicas=flat(static.max_replicas).astype(np.int64),
            held=flat(state.held[:, None]),
        )
        desired = np.zeros(asked.size, dtype=np.int64)
        desired[there] = guard(inputs, recommended, self._behavior).desired
        return desired.reshape(asked.shape)

    def record(self, slot: int, now_s: float, before: Sequence[int], after: Sequence[int]) -> None:
        """Pools of a set were scaled, int `[P]` each."""
        rows = self._rows(np.array([slot]))[0, : len(before)]
        self._behavior.record(rows, np.full(len(rows), now_s), np.asarray(before), np.asarray(after))

    def _rows(self, slots: IntArray) -> IntArray:
        return np.asarray(slots)[:, None] * self._pools + np.arange(self._pools)


def fitted(
    guarded: Sequence[int],
    current: Sequence[int],
    total: int,
    lowest: Sequence[int],
    highest: Sequence[int],
    price: Sequence[float],
) -> list[int]:
    """Replicas of each pool that sum to `total` and are as near as may be to what their own guards left.

    More than they sum to: those that were to be lowered keep what they have, then the cheapest pools grow.
    Fewer: those that were to be raised stay as they are, the dearest first, then the dearest pools shrink.
    lowest, highest: bounds of each pool, which come before the total.
    """
    result = [min(max(n, low), high) for n, low, high in zip(guarded, lowest, highest, strict=True)]
    sign = 1 if total > sum(result) else -1
    order = sorted(range(len(result)), key=lambda i: (sign * price[i], i))
    ends = highest if sign > 0 else lowest
    for stage in (current, ends):
        for i in order:
            end = min(max(stage[i], lowest[i]), highest[i])
            left = sign * (total - sum(result))
            result[i] += sign * max(0, min(left, sign * (end - result[i])))
    return result
