"""Policies that decide for pools, asked once a batch: replicas of each pool and shares of the traffic.

`controller.turn` calls `PoolDecider`: `ask` between the engine's view and its guard, `settle` after it.
What is asked of a pool goes through its own guard first (`controller.core.poolset`), the sum through the
engine's as every recommendation does, and `controller.case.wanted` holds the pools to what that leaves. A
set whose pools cannot be decided for is left to spec.fallback as one service; nothing of it is scaled down
while a pool's own metrics are missing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from controller.api.constants import Reason
from controller.case import Case, PoolPlan
from controller.clock import Clock
from controller.core import Clamp, Decision, Engine
from controller.core.ejection import with_ejections
from controller.core.observation import COLUMN, OBSERVATION_SCHEMA
from controller.core.poolfeatures import PoolSettings, PoolSights, pool_features, set_features
from controller.core.poolset import PoolsGuard, SetState, asked_replicas, asked_weights
from controller.core.samples import BoolArray, FloatArray, IntArray
from controller.core.view import View
from controller.logs import about
from controller.metrics import SignalReading
from controller.metrics.source import QuerySet, ReadingRound
from controller.policies import PoolsPolicy
from controller.poolsights import (
    PROPAGATION_S,
    PoolMemory,
    SetRow,
    given_of,
    largest_step,
    max_steps,
    services_known,
    settings_of,
    sights_of,
    what_is_missing,
)
from controller.poolweights import PoolWeigher, by_artifact
from controller.trouble import Trouble

logger = logging.getLogger(__name__)

CLAMP = "Pools"
"""The name of what the pools' own guards changed, before the whole set's guard."""


def pools_policy(case: Case) -> PoolsPolicy | None:
    """The policy for pools that decides for a case, if one does and there are pools."""
    policy = case.work.chosen.policy if case.work is not None else None
    has_pools = case.entry.spec is not None and bool(case.entry.spec.backends)
    return policy if isinstance(policy, PoolsPolicy) and has_pools else None


class PoolDecider:
    """Asks pools policies, and remembers what they need of each RLScaler's past."""

    def __init__(self, engine: Engine, weigher: PoolWeigher, clock: Clock) -> None:
        self._engine, self._weigher, self._clock = engine, weigher, clock
        self._guard = PoolsGuard()
        self._memories: dict[str, PoolMemory] = {}
        self._free: list[int] = []

    # What is read

    def queries(self, case: Case) -> list[QuerySet]:
        """Queries of each pool that a turn needs; none where no pools policy decides. Never raises."""
        if pools_policy(case) is None:
            return []
        try:
            return self._weigher.queries(case.entry)
        except Exception as error:
            case.pool_problem = str(error)
            return []

    def take(self, case: Case, together: ReadingRound) -> bool:
        """Fill in what was read together of a case's pools; False where they need requests of their own."""
        queries = self.queries(case)
        found = [together.known(each) for each in queries]
        known: list[Mapping[str, SignalReading]] = [each for each in found if each is not None]
        if len(known) < len(queries):
            return False
        case.pool_readings = known if queries else None
        return True

    def seen(self, case: Case, readings: Sequence[Mapping[str, SignalReading]]) -> None:
        """What was read of a case's pools alone."""
        case.pool_readings = list(readings) if readings else None

    # Decide

    def ask(
        self, cases: Sequence[Case], view: View, recommended: FloatArray, unfamiliar: BoolArray
    ) -> BoolArray:
        """Fill in what pools policies recommend for whole sets, `[N]` each; which of them did, bool `[N]`.

        Marks sets in `view` as not usable whose pools cannot be read. Never raises.
        """
        decided = np.zeros(len(cases), dtype=bool)
        for policy, indices in self._by_policy(cases):
            try:
                rows = list(self._rows(indices, cases, view))
                if rows:
                    self._decide(policy, rows, view, recommended, unfamiliar)
                    decided[[row.index for row in rows]] = True
            except Exception:
                logger.exception("policy %s failed for %d sets of pools", policy.name, len(indices))
                recommended[indices] = np.nan
                for index in indices:
                    cases[index].plan = None
        return decided & np.isfinite(recommended)

    def settle(self, cases: Sequence[Case]) -> None:
        """After the guard: plans that do not count, and what the pools' own guards changed, in words."""
        for case in cases:
            decision, plan = case.decision, case.plan
            if decision is None or plan is None:
                continue
            if decision.fallback is not None or decision.recommended_replicas is None:
                case.plan = None
                continue
            case.decision = _told(decision, plan)

    # What was done

    def scaled(self, case: Case, before: Sequence[int], after: Sequence[int]) -> None:
        """Pools were scaled, whoever decided it."""
        memory = self._memories.get(case.entry.uid)
        if memory is not None and len(before) == len(memory.names) and list(before) != list(after):
            self._guard.record(memory.slot, self._clock.now(), before, after)

    def routed(self, case: Case, acting: bool) -> None:
        """A turn's weights were written, or only looked at."""
        memory, routed, spec = self._memories.get(case.entry.uid), case.routed, case.entry.spec
        if memory is None or routed is None or spec is None:
            return
        now_s = self._clock.now()
        if case.weights_seen is not None:
            memory.weigh(case.weights_seen, now_s)
        written = services_known(spec, routed.weights) if acting and routed.trouble is None else None
        if written is not None:
            memory.weigh(written, now_s)

    def forget(self, uid: str) -> None:
        """The RLScaler is gone."""
        memory = self._memories.pop(uid, None)
        if memory is not None:
            self._free.append(memory.slot)

    # One batch

    def _by_policy(self, cases: Sequence[Case]) -> Iterator[tuple[PoolsPolicy, list[int]]]:
        found: dict[int, tuple[PoolsPolicy, list[int]]] = {}
        for index, case in enumerate(cases):
            policy = pools_policy(case)
            if policy is not None:
                found.setdefault(id(policy), (policy, []))[1].append(index)
        yield from found.values()

    def _rows(self, indices: Sequence[int], cases: Sequence[Case], view: View) -> Iterator[SetRow]:
        """The sets that can be decided for; the others are left to the fallback, and say why."""
        now_s = self._clock.now()
        capacity = self._engine.capacity_rps(view.rows)
        for index in indices:
            case = cases[index]
            try:
                row = self._row(case, index, float(capacity[index]), now_s)
            except Exception:
                entry = case.entry
                logger.exception("%s/%s: pools", entry.namespace, entry.name, extra=about(entry))
                continue
            if case.pool_trouble is not None:
                view.usable[index] = False
                view.failures[index] = max(int(view.failures[index]), self._memory(case).missing)
            elif row is not None and view.usable[index] and view.capacity_known[index]:
                yield row

    def _row(self, case: Case, index: int, capacity_rps: float, now_s: float) -> SetRow | None:
        memory = self._memory(case)
        if case.pool_readings is None:
            if case.pool_problem:
                case.pool_trouble = Trouble(Reason.POOL_METRICS_MISSING, case.pool_problem)
                memory.missing += 1
            return None
        readings = self._weigher.taken(case, case.pool_readings, capacity_rps, memory.asked)
        case.pool_trouble = what_is_missing(case, memory, readings, now_s)
        memory.missing = 0 if case.pool_trouble is None else memory.missing + 1
        return SetRow(case, index, memory, readings)

    def _memory(self, case: Case) -> PoolMemory:
        entry, spec = case.entry, case.entry.spec
        assert spec is not None
        assert entry.service is not None
        known = self._memories.get(entry.uid)
        if known is not None and known.generation == entry.generation:
            return known
        names = tuple(backend.name for backend in spec.backends or ())
        fresh = PoolMemory(entry.generation, -1, names, given_of(spec), largest_step(spec))
        if known is not None and known.names == names:
            fresh.slot, fresh.asked, fresh.before = known.slot, known.asked, known.before
            fresh.changed_s, fresh.missing = known.changed_s, known.missing
            fresh.busy_since_s = known.busy_since_s
        else:
            fresh.slot = self._slot() if known is None else known.slot
            self._guard.reset(fresh.slot)
            fresh.asked = fresh.before = _weights_of(entry.status, names)
        self._guard.configure(fresh.slot, entry.service.behavior, entry.service.sync_period_s)
        self._memories[entry.uid] = fresh
        return fresh

    def _slot(self) -> int:
        if not self._free:
            size = len(self._guard)
            self._guard.grow(max(8, 2 * size))
            self._free = list(range(len(self._guard) - 1, size - 1, -1))
        return self._free.pop()

    def _decide(
        self,
        policy: PoolsPolicy,
        rows: Sequence[SetRow],
        view: View,
        recommended: FloatArray,
        unfamiliar: BoolArray,
    ) -> None:
        now_s = self._clock.now()
        index = np.array([row.index for row in rows])
        part = view.take(index)
        static = settings_of(rows, part.start_up_s)
        shown = sights_of(rows, static, now_s)
        unit_rps, steps = part.capacity_rps, max_steps(rows)
        load_rps = part.load * unit_rps
        pools = pool_features(shown, static, load_rps, unit_rps, part.slo_latency_ms)
        service = self._as_one_service(part, shown, static, unit_rps)
        sets = set_features(service, static.present, np.full(len(rows), PROPAGATION_S), steps)
        capacity, share = policy.decide(pools, sets)
        strange = policy.strange(pools, sets)
        share = self._ejected(rows, share)
        weights = self._weights(rows, share, shown, static, steps)
        asked = asked_replicas(capacity, load_rps, static.capacity_rps, shown.current)
        state = SetState(
            slots=np.array([row.memory.slot for row in rows]),
            now_s=np.full(len(rows), now_s),
            usable=part.usable,
            unfamiliar=strange,
            held=np.array([row.case.entry.outside.hold is not None for row in rows]),
            slo_ms=part.slo_latency_ms,
            target=part.target_utilisation,
        )
        guarded = self._guard.guarded(state, asked, weights, shown, static)
        said = np.where(static.present, np.isfinite(asked), True).all(axis=1)
        recommended[index] = np.where(said, guarded.sum(axis=1), np.nan)
        unfamiliar[index] |= strange
        for place in np.flatnonzero(said).tolist():
            row, count = rows[place], rows[place].pools
            row.case.plan = PoolPlan(
                names=row.memory.names,
                asked=tuple(int(n) for n in asked[place, :count]),
                guarded=tuple(guarded[place, :count].tolist()),
                shares=tuple(share[place, :count].tolist()),
                price=tuple(static.price[place, :count].tolist()),
            )

    def _as_one_service(
        self, part: View, shown: PoolSights, static: PoolSettings, unit_rps: FloatArray
    ) -> FloatArray:
        """The Autoscale observation `[N, F]` with replicas, and their bounds, counted as plain machines."""
        size = np.where(static.present, static.capacity_rps, 0.0) / unit_rps[:, None]
        if np.all((size == 1.0) | ~static.present):
            return part.features
        current = np.rint((shown.current * size).sum(axis=1))
        seen = self._engine.counted_otherwise(part, (shown.ready * size).sum(axis=1), current)
        features = seen.features.copy()
        now = np.maximum(current, 1.0)
        least, most = ((n * size).sum(axis=1) for n in (static.min_replicas, static.max_replicas))
        for name, values in (
            ("headroom_to_max", np.log(np.maximum(most, 1.0) / now)),
            ("headroom_to_min", np.log(now / np.maximum(least, 1.0))),
        ):
            column = OBSERVATION_SCHEMA.features[COLUMN[name]]
            features[:, COLUMN[name]] = np.clip(values, column.low, column.high)
        return features

    def _ejected(self, rows: Sequence[SetRow], share: FloatArray) -> FloatArray:
        """Shares after outlier detection, where spec.routing has it and the artifact weighs."""
        result = share.copy()
        for place, row in enumerate(rows):
            spec = row.case.entry.spec
            assert spec is not None
            if spec.routing is None or spec.routing.ejection is None or not by_artifact(row.case):
                continue
            factors = self._weigher.judged(row.case, row.readings)
            result[place, : row.pools] = with_ejections(share[place : place + 1, : row.pools], factors)[0]
        return result

    def _weights(
        self,
        rows: Sequence[SetRow],
        share: FloatArray,
        shown: PoolSights,
        static: PoolSettings,
        steps: IntArray,
    ) -> IntArray:
        """Weights to come: what the shares come to, or those of now where something else weighs."""
        weighed = [bool(r.case.entry.spec and r.case.entry.spec.routes) and by_artifact(r.case) for r in rows]
        asked = asked_weights(share, shown, static, steps)
        return np.where(np.array(weighed)[:, None], asked, np.asarray(shown.weights_asked, dtype=np.int64))


def _weights_of(status: Mapping[str, object], names: Sequence[str]) -> list[int] | None:
    """Weights that an earlier operator wrote down; None unless there is one for each pool."""
    held = status.get("backends")
    known = {pool.get("name"): pool.get("weight") for pool in held} if isinstance(held, list) else {}
    weights = [known.get(name) for name in names]
    found = [weight for weight in weights if isinstance(weight, int)]
    return found if len(found) == len(names) and sum(found) > 0 else None


def _told(decision: Decision, plan: PoolPlan) -> Decision:
    """The decision with what the policy asked of each pool, and what the pools' own guards made of it."""
    asked, guarded = sum(plan.asked), sum(plan.guarded)
    moved = [
        f"{name} {before} -> {after}"
        for name, before, after in zip(plan.names, plan.asked, plan.guarded, strict=True)
        if before != after
    ]
    words = ", ".join(
        f"{name} {replicas} ({share:.0%} of the traffic)"
        for name, replicas, share in zip(plan.names, plan.asked, plan.shares, strict=True)
    )
    clamps = decision.clamps
    if moved:
        why = f"{asked} -> {guarded}: each pool's own bounds, behavior and objective: {', '.join(moved)}"
        clamps = (Clamp(CLAMP, "PoolsGuarded", asked, guarded, why), *clamps)
    return replace(
        decision, clamps=clamps, recommended_replicas=asked, message=f"{decision.message}; asked for: {words}"
    )
