"""The engine: N services, their histories and their guard, driven by anybody with readings.

The operator's loop, the simulators' environments and replays drive this same object; it knows
nothing of clusters, clocks or randomness. Rows are services; every call may name the rows that are due.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controller.core import observation as obs
from controller.core.action import ACTION_SCHEMAS
from controller.core.behavior import BehaviorState
from controller.core.capacity import CapacityEstimator
from controller.core.decision import (
    CAPACITY_UNKNOWN,
    INVALID_ACTION,
    METRICS_UNAVAILABLE,
    POLICY_UNAVAILABLE,
    Decisions,
)
from controller.core.guard import GuardInputs, guard
from controller.core.history import History
from controller.core.hpa import MAX_REPLICAS, hpa_replicas
from controller.core.policy import Policy, UnavailablePolicy, ask
from controller.core.samples import BoolArray, FloatArray, IntArray, Samples, reject_impossible
from controller.core.spec import DEFAULT_ACTIVATION_RPS, DEFAULT_IDLE_AFTER_S, ServiceSpec
from controller.core.view import MakeFeatures, MakeLoads, MakeSetting, View

VIOLATION_MEMORY_S = 300.0
MAX_ELAPSED_PERIODS = 4.0
SEASON_BINS = 17
MOST_SPARE_ROWS = 1024
"""Rows that are made ahead of need: histories take some 9 kB a row."""

_FALLBACK_HPA, _FALLBACK_HOLD, _FALLBACK_STATIC = range(3)
_FALLBACK_CODES = {"HPA": _FALLBACK_HPA, "Hold": _FALLBACK_HOLD, "Static": _FALLBACK_STATIC}


@dataclass
class _Table:
    """Settings and memory of N services that fit in one column each."""

    min_replicas: IntArray
    max_replicas: IntArray
    sync_period_s: FloatArray
    slo_latency_ms: FloatArray
    slo_percentile: FloatArray
    preference: FloatArray
    start_up_s: FloatArray
    target_utilisation: FloatArray
    idle_after_s: FloatArray
    activation_rps: FloatArray
    failure_threshold: IntArray
    fallback_code: IntArray
    fallback_replicas: IntArray
    failures: IntArray
    last_seen_s: FloatArray
    last_desired: IntArray
    has_rate: BoolArray
    busy_until_s: FloatArray
    violation: FloatArray
    last_up_s: FloatArray
    last_down_s: FloatArray
    day_moves: FloatArray
    day_bucket: FloatArray
    policy: IntArray
    alive: BoolArray

    @classmethod
    def empty(cls, services: int) -> _Table:
        def zeros(dtype: type = np.int64) -> Any:
            return np.zeros(services, dtype=dtype)

        def filled(value: float) -> FloatArray:
            return np.full(services, value)

        return cls(
            min_replicas=zeros(),
            max_replicas=zeros(),
            sync_period_s=filled(15.0),
            slo_latency_ms=filled(np.nan),
            slo_percentile=filled(95.0),
            preference=filled(50.0),
            start_up_s=filled(60.0),
            target_utilisation=filled(0.7),
            idle_after_s=filled(DEFAULT_IDLE_AFTER_S),
            activation_rps=filled(DEFAULT_ACTIVATION_RPS),
            failure_threshold=zeros(),
            fallback_code=zeros(),
            fallback_replicas=zeros(),
            failures=zeros(),
            last_seen_s=filled(-np.inf),
            last_desired=np.full(services, -1, dtype=np.int64),
            has_rate=zeros(bool),
            busy_until_s=filled(np.inf),
            violation=filled(0.0),
            last_up_s=filled(-np.inf),
            last_down_s=filled(-np.inf),
            day_moves=np.full((services, len(obs.DAY_MOVE_QUANTILES)), np.nan),
            day_bucket=filled(np.nan),
            policy=zeros(),
            alive=zeros(bool),
        )

    def grow(self, services: int) -> None:
        fresh = _Table.empty(services - len(self.alive))
        for name in vars(self):
            setattr(self, name, np.concatenate([getattr(self, name), getattr(fresh, name)]))

    def forget(self, rows: IntArray) -> None:
        """Memory back to its beginning; settings stay."""
        fresh = _Table.empty(1)
        for name in _MEMORY:
            getattr(self, name)[rows] = getattr(fresh, name)[0]


_MEMORY = (
    "failures",
    "last_seen_s",
    "last_desired",
    "has_rate",
    "busy_until_s",
    "violation",
    "last_up_s",
    "last_down_s",
    "day_moves",
    "day_bucket",
)


class Engine:
    """Decides for N services at once: `step(now_s, samples)` -> `Decisions`.

    specs: one ServiceSpec or a list of N. policy: one policy for all, or a list of N.
    """

    def __init__(
        self, specs: ServiceSpec | Sequence[ServiceSpec] = (), policy: Policy | Sequence[Policy] = ()
    ) -> None:
        listed = [specs] if isinstance(specs, ServiceSpec) else list(specs)
        policies = list(policy) if isinstance(policy, Sequence) else [policy] * len(listed)
        if len(policies) != len(listed):
            raise ValueError(
                f"policy: {len(policies)} given, must be one, or one for each of {len(listed)} specs"
            )
        self.specs: list[ServiceSpec | None] = []
        self._policies: list[Policy] = []
        self._table = _Table.empty(0)
        self._fine = History(0, obs.FINE_STEP_S, obs.FINE_SLOTS)
        self._coarse = History(0, obs.COARSE_STEP_S, obs.COARSE_SLOTS)
        self._capacity = CapacityEstimator(0)
        self._behavior = BehaviorState(0)
        self._grow(len(listed))
        for spec, one in zip(listed, policies, strict=True):
            self.add(spec, one)

    def __len__(self) -> int:
        return int(self._table.alive.sum())

    def add(self, spec: ServiceSpec, policy: Policy) -> int:
        """Take on a service; returns its row."""
        free = np.flatnonzero(~self._table.alive)
        if len(free) == 0:
            self._grow(len(self._table.alive) + min(max(8, len(self._table.alive)), MOST_SPARE_ROWS))
            free = np.flatnonzero(~self._table.alive)
        row = int(free[0])
        self._table.alive[row] = True
        self.reset(np.array([row]))
        self.update(row, spec, policy)
        return row

    def update(self, row: int, spec: ServiceSpec, policy: Policy | None = None) -> None:
        """New settings, or a new policy, for a service; its history stays."""
        table = self._table
        self.specs[row] = spec
        for name in (
            "min_replicas",
            "max_replicas",
            "sync_period_s",
            "slo_latency_ms",
            "slo_percentile",
            "preference",
            "start_up_s",
            "target_utilisation",
            "idle_after_s",
            "activation_rps",
        ):
            getattr(table, name)[row] = getattr(spec, name)
        table.failure_threshold[row] = spec.fallback.failure_threshold
        table.fallback_code[row] = _FALLBACK_CODES[spec.fallback.behavior]
        table.fallback_replicas[row] = spec.fallback.replicas or 0
        table.day_bucket[row] = np.nan
        self._capacity.given[row] = spec.capacity_rps
        self._behavior.configure(row, spec.behavior.scale_up, spec.behavior.scale_down, spec.sync_period_s)
        if policy is not None:
            table.policy[row] = self._policy_index(policy)

    def remove(self, row: int) -> None:
        """Let a service go; its row may be given to another."""
        self._table.alive[row] = False
        self.specs[row] = None
        self.reset(np.array([row]))

    def reset(self, rows: IntArray | None = None) -> None:
        """Forget histories, events and estimates of these rows (all by default); settings stay."""
        picked = self._rows(rows)
        self._table.forget(picked)
        self._fine.reset(picked)
        self._coarse.reset(picked)
        self._capacity.reset(picked)
        self._behavior.reset(picked)

    def policy_of(self, row: int) -> Policy:
        """The policy that decides for this row."""
        return self._policies[int(self._table.policy[row])]

    def capacity_rps(self, rows: IntArray | None = None) -> FloatArray:
        """Requests/s that one replica is believed to serve, `[N]`; NaN while unknown."""
        return self._capacity.capacity_rps(self._rows(rows))

    def backfill(
        self, times_s: FloatArray, samples: Samples | FloatArray, rows: IntArray | None = None
    ) -> None:
        """Histories at start: request rates (requests/s) `[T, N]` at ascending times `[T]`; NaN missing."""
        picked = self._rows(rows)
        rates = np.asarray(
            samples.request_rate if isinstance(samples, Samples) else samples, dtype=np.float64
        )
        rates = rates.reshape(len(times_s), len(picked))
        rates = np.where(rates >= 0, rates, np.nan)
        times = np.asarray(times_s, dtype=np.float64)
        covers_s = float(np.median(np.diff(times))) if len(times) > 1 else obs.FINE_STEP_S
        self._fine.backfill(picked, times, rates, 2.0 * covers_s)
        self._coarse.backfill(picked, times, rates, 2.0 * covers_s)
        self._table.has_rate[picked] = np.isfinite(rates).any(axis=0) if len(times) else False
        self._table.day_bucket[picked] = np.nan

    def step(
        self,
        now_s: float | FloatArray,
        samples: Samples,
        rows: IntArray | None = None,
        record: bool = True,
    ) -> Decisions:
        """Observe, ask the policies, guard. `record=False`: the caller reports scale events itself."""
        view = self.observe(now_s, samples, rows)
        recommended, unfamiliar = ask(self._policies, self._table.policy[view.rows], view)
        return self._conclude(view, recommended, unfamiliar, record)

    def decide(
        self,
        view: View,
        action: FloatArray,
        action_schema: str = "relative-change/v1",
        record: bool = True,
    ) -> Decisions:
        """The same with an action `[N, A]` from outside, such as a network in training."""
        columns = np.asarray(action, dtype=np.float64).reshape(len(view), -1)
        recommended = ACTION_SCHEMAS[action_schema].decode(columns, view.current, view.load)
        return self._conclude(view, recommended, np.zeros(len(view), dtype=bool), record)

    def conclude(
        self,
        view: View,
        recommended: FloatArray,
        unfamiliar: BoolArray | None = None,
        record: bool = True,
    ) -> Decisions:
        """The guard over recommended replicas float `[N]` (NaN: nothing said) for the last reading's view.

        unfamiliar: observations unlike any in training, bool `[N]`; none by default.
        """
        strange = np.zeros(len(view), dtype=bool) if unfamiliar is None else np.asarray(unfamiliar, bool)
        return self._conclude(view, np.asarray(recommended, dtype=np.float64), strange, record)

    def observe(self, now_s: float | FloatArray, samples: Samples, rows: IntArray | None = None) -> View:
        """Take in one reading of each row; the view is valid until the next reading."""
        picked = self._rows(rows)
        if len(samples) != len(picked):
            raise ValueError(f"samples: {len(samples)} services, must be {len(picked)}, one for each row")
        now = np.broadcast_to(np.asarray(now_s, dtype=np.float64), picked.shape)
        clean = self._with_replicas(picked, reject_impossible(samples))
        table = self._table
        elapsed = np.clip(
            now - table.last_seen_s[picked], 0.0, MAX_ELAPSED_PERIODS * table.sync_period_s[picked]
        )
        table.last_seen_s[picked] = now
        rate = self._rate(picked, clean)
        self._remember(picked, now, rate, elapsed)
        self._capacity.update(picked, clean, table.slo_latency_ms[picked], elapsed)
        self._watch_objective(picked, clean, elapsed)
        return self._view(picked, now, clean, rate)

    def record_scale(self, row: int, now_s: float, before: int, after: int) -> None:
        """Report a scale that took place, for the rate rules of `behavior`."""
        self._record(np.array([row]), np.array([now_s]), np.array([before]), np.array([after]))

    def stabilization_state(self, row: int) -> dict[str, Any]:
        """What a restart must not forget: recommendations and scale events that still count.

        Recommendations are thinned to those that can still decide a window: times are seconds.
        """
        state, table = self._behavior, self._table
        now = float(table.last_seen_s[row])
        window_s = max(state.up.window_s[row], state.down.window_s[row])
        period_s = max(state.up.longest_period_s(row), state.down.longest_period_s(row))
        ups = state.ups.since(row, now - period_s)
        downs = [(time, -change) for time, change in state.downs.since(row, now - period_s)]
        return {
            "recommendations": _thinned(state.recommendations.since(row, now - window_s)),
            "scaleEvents": sorted(ups + downs),
            "desired": int(table.last_desired[row]),
        }

    def restore(self, row: int, now_s: float, state: Mapping[str, Any] | None, current_replicas: int) -> None:
        """Continue from `stabilization_state` after a restart.

        The current replicas count as a recommendation of now, as in a restarted HPA, and a difference
        between them and what was last desired counts as a scale event of now: one may have been made
        and not written down.
        """
        known = dict(state or {})
        rows = np.array([row])
        self._behavior.reset(rows)
        for time, value in known.get("recommendations", ()):
            self._behavior.recommendations.push(rows, np.array([float(time)]), np.array([int(value)]))
        self._behavior.recommendations.push(rows, np.array([now_s]), np.array([current_replicas]))
        for time, change in known.get("scaleEvents", ()):
            self._record(rows, np.array([float(time)]), np.array([0]), np.array([int(change)]))
        desired = int(known.get("desired", -1))
        if desired >= 0 and desired != current_replicas:
            self.record_scale(row, now_s, desired, current_replicas)
        self._table.last_desired[row] = current_replicas

    def _grow(self, services: int) -> None:
        if services <= len(self._table.alive):
            return
        self.specs += [None] * (services - len(self._table.alive))
        for part in (self._table, self._fine, self._coarse, self._capacity, self._behavior):
            part.grow(services)

    def _rows(self, rows: IntArray | None) -> IntArray:
        return np.flatnonzero(self._table.alive) if rows is None else np.asarray(rows, dtype=np.int64)

    def _policy_index(self, policy: Policy) -> int:
        for index, known in enumerate(self._policies):
            if known is policy:
                return index
        in_use = set(self._table.policy[self._table.alive].tolist())
        for index in range(len(self._policies)):
            if index not in in_use:
                self._policies[index] = policy
                return index
        self._policies.append(policy)
        return len(self._policies) - 1

    def _with_replicas(self, rows: IntArray, samples: Samples) -> Samples:
        """Current defaults to what was last desired, ready to current."""
        last = self._table.last_desired[rows]
        known = np.where(last >= 0, last, np.maximum(self._table.min_replicas[rows], 1))
        samples.current = np.where(np.isnan(samples.current), known, samples.current)
        samples.ready = np.where(np.isnan(samples.ready), samples.current, samples.ready)
        return samples

    def _rate(self, rows: IntArray, samples: Samples) -> FloatArray:
        """Request rate, or replicas in use (utilisation x ready) of services that have no rates."""
        table = self._table
        seen = np.isfinite(samples.request_rate)
        switched = rows[seen & ~table.has_rate[rows]]
        self._fine.reset(switched)
        self._coarse.reset(switched)
        table.has_rate[rows] |= seen
        with_rate = table.has_rate[rows]
        return np.where(with_rate, samples.request_rate, samples.utilisation * samples.ready)

    def _remember(self, rows: IntArray, now: FloatArray, rate: FloatArray, elapsed: FloatArray) -> None:
        table = self._table
        missing = np.isnan(rate)
        table.failures[rows] = np.where(missing, table.failures[rows] + 1, 0)
        covers = table.sync_period_s[rows]
        self._fine.write(rows, now, rate, covers)
        self._coarse.write(rows, now, rate, covers)
        # the threshold is in requests/s: it has no meaning for a service without request rates
        threshold = np.where(table.has_rate[rows], table.activation_rps[rows], 0.0)
        busy = missing | (rate > threshold) | np.isinf(table.busy_until_s[rows])
        table.busy_until_s[rows] = np.where(busy, now + table.idle_after_s[rows], table.busy_until_s[rows])

    def _watch_objective(self, rows: IntArray, samples: Samples, elapsed: FloatArray) -> None:
        known = np.isfinite(samples.latency_ms) & np.isfinite(self._table.slo_latency_ms[rows])
        with np.errstate(invalid="ignore"):
            over = samples.latency_ms > self._table.slo_latency_ms[rows]
        weight = np.where(known, 1.0 - np.exp(-elapsed / VIOLATION_MEMORY_S), 0.0)
        self._table.violation[rows] += weight * (over - self._table.violation[rows])

    def _view(self, rows: IntArray, now: FloatArray, samples: Samples, rate: FloatArray) -> View:
        table = self._table
        capacity = np.where(table.has_rate[rows], self._capacity.capacity_rps(rows), 1.0)
        load = rate / capacity
        with np.errstate(invalid="ignore"):
            danger = samples.latency_ms > table.slo_latency_ms[rows]
        return View(
            rows=rows,
            now_s=now,
            current=samples.current.astype(np.int64),
            ready=samples.ready,
            load=load,
            hpa_replicas=self._formula(rows, samples, load),
            usable=np.isfinite(rate),
            failures=table.failures[rows].copy(),
            capacity_known=np.isfinite(capacity),
            slo_in_danger=danger,
            preference=table.preference[rows],
            target_utilisation=table.target_utilisation[rows],
            samples=samples,
            make_features=self._feature_maker(rows, now, samples, rate, load, capacity),
            make_loads=self._load_maker(rows, now, capacity),
            make_setting=self._setting_maker(rows, capacity),
        )

    def _formula(self, rows: IntArray, samples: Samples, load: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            by_load = load / np.where(samples.ready > 0, samples.ready, np.nan)
        utilisation = np.where(np.isfinite(samples.utilisation), samples.utilisation, by_load)
        return hpa_replicas(
            samples.current.astype(np.int64),
            np.minimum(samples.ready, samples.current).astype(np.int64),
            utilisation / self._table.target_utilisation[rows],
            self._behavior.down.tolerance[rows],
            self._behavior.up.tolerance[rows],
        )

    def _feature_maker(
        self,
        rows: IntArray,
        now: FloatArray,
        samples: Samples,
        rate: FloatArray,
        load: FloatArray,
        capacity: FloatArray,
    ) -> MakeFeatures:
        table = self._table
        # taken now: features may be asked for after this very decision was recorded
        since_up, since_down = now - table.last_up_s[rows], now - table.last_down_s[rows]
        violation = table.violation[rows].copy()

        def make(index: IntArray) -> tuple[FloatArray, BoolArray]:
            picked, at, scale = rows[index], now[index], capacity[index].astype(np.float32)
            lead_s = table.start_up_s[picked] + table.sync_period_s[picked]
            fine = self._fine.window(picked, at, obs.FINE_SLOTS) / scale[:, None]
            lead_bins = np.ceil(lead_s / obs.FINE_STEP_S).astype(np.int64)
            with np.errstate(invalid="ignore", divide="ignore"):
                backlog = samples.in_flight[index] / (samples.ready[index] * capacity[index])
                latency = samples.latency_ms[index] / table.slo_latency_ms[picked]
            inputs = obs.Inputs(
                now_s=at,
                load=load[index],
                rate=rate[index],
                provisioned=samples.current[index].astype(np.int64),
                ready=samples.ready[index],
                min_replicas=table.min_replicas[picked],
                max_replicas=table.max_replicas[picked],
                fine=fine,
                season_1h=_masked(fine[:, 3 : 3 + SEASON_BINS], lead_bins),
                season_1d=self._day_ago(picked, at, lead_s) / scale[:, None],
                day_moves=self._day_moves(picked, at, lead_s),
                lead_bins=np.minimum(lead_bins, 240),
                latency_over_slo=latency,
                violation_recent=violation[index],
                error_ratio=samples.error_ratio[index],
                utilisation=samples.utilisation[index],
                backlog_s=backlog,
                capacity_uncertainty=self._capacity.uncertainty(picked),
                start_up_s=table.start_up_s[picked],
                sync_period_s=table.sync_period_s[picked],
                scale_down_window_s=self._behavior.down.window_s[picked],
                since_up_s=since_up[index],
                since_down_s=since_down[index],
                preference=table.preference[picked],
            )
            return obs.features(inputs)

        return make

    def _load_maker(self, rows: IntArray, now: FloatArray, capacity: FloatArray) -> MakeLoads:
        def make(index: IntArray, step_s: float, bins: int, ago_s: float) -> FloatArray:
            history = self._fine if step_s == obs.FINE_STEP_S else self._coarse
            scale = capacity[index].astype(np.float32)
            return history.window(rows[index], now[index], bins, ago_s) / scale[:, None]

        return make

    def _setting_maker(self, rows: IntArray, capacity: FloatArray) -> MakeSetting:
        table, behavior = self._table, self._behavior

        def make(index: IntArray, name: str) -> FloatArray:
            picked = rows[index]
            if name == "capacity_rps":
                return np.where(table.has_rate[picked], capacity[index], np.nan)
            if name == "tolerance_up":
                return behavior.up.tolerance[picked].copy()
            if name == "tolerance_down":
                return behavior.down.tolerance[picked].copy()
            return np.asarray(getattr(table, name)[picked], dtype=np.float64)

        return make

    def _day_ago(self, rows: IntArray, now: FloatArray, lead_s: FloatArray) -> FloatArray:
        ago_s = obs.DAY_S - (SEASON_BINS - 1) * obs.COARSE_STEP_S
        bins = self._coarse.window(rows, now, SEASON_BINS, ago_s)
        return _masked(bins, np.ceil(lead_s / obs.COARSE_STEP_S).astype(np.int64))

    def _day_moves(self, rows: IntArray, now: FloatArray, lead_s: FloatArray) -> FloatArray:
        """Quantiles of rises over a day, made anew every ten minutes; ratios, so rates will do."""
        table = self._table
        bucket = np.floor(now / obs.DAY_REFRESH_S)
        due = np.flatnonzero(bucket != table.day_bucket[rows])
        if len(due):
            window = self._coarse.window(rows[due], now[due], round(obs.DAY_S / obs.COARSE_STEP_S))
            capacity = self._capacity.capacity_rps(rows[due])
            scale = np.where(table.has_rate[rows[due]], capacity, 1.0).astype(np.float32)
            lead = np.ceil(lead_s[due] / obs.COARSE_STEP_S).astype(np.int64)
            moves = obs.rises(obs.log_load(window / scale[:, None]), np.minimum(lead, 60))
            table.day_moves[rows[due]] = obs.row_quantiles(moves, obs.DAY_MOVE_QUANTILES)
            table.day_bucket[rows[due]] = bucket[due]
        return table.day_moves[rows]

    def _conclude(
        self, view: View, recommended: FloatArray, unfamiliar: BoolArray, record: bool
    ) -> Decisions:
        chosen, fallback = self._with_fallback(view, recommended)
        table, rows = self._table, view.rows
        inputs = GuardInputs(
            rows=rows,
            now_s=view.now_s,
            current=view.current,
            hpa_replicas=view.hpa_replicas,
            usable=view.usable,
            slo_in_danger=view.slo_in_danger,
            unfamiliar=unfamiliar & view.usable,
            idle=view.now_s >= table.busy_until_s[rows],
            wake_replicas=_wake(view, table.activation_rps[rows]),
            min_replicas=table.min_replicas[rows],
            max_replicas=table.max_replicas[rows],
        )
        guarded = guard(inputs, chosen, self._behavior)
        table.last_desired[rows] = guarded.desired
        if record:
            self._record(rows, view.now_s, view.current, guarded.desired)
        formula = np.clip(view.hpa_replicas, inputs.min_replicas, inputs.max_replicas)
        return Decisions(
            current_replicas=view.current,
            recommended_replicas=chosen,
            hpa_replicas=formula,
            desired_replicas=guarded.desired,
            fallback=fallback,
            metrics_outcome=view.samples.outcome.astype(np.int64),
            load=view.load,
            stages=guarded.stages,
            policy_names=lambda index: self.policy_of(int(rows[index])).name,
            features_of=lambda index: dict(
                zip(obs.OBSERVATION_SCHEMA.names, view.features[index].tolist(), strict=True)
            ),
            paused_at_zero=inputs.at_zero_by_hand,
            unfamiliar=inputs.unfamiliar,
        )

    def _with_fallback(self, view: View, recommended: FloatArray) -> tuple[FloatArray, IntArray]:
        """What the policy said, or what stands in for it; and why (index into FALLBACKS)."""
        table, rows = self._table, view.rows
        kinds = [self._policies[index] for index in table.policy[rows]]
        network = np.array([policy.type != "HPA" for policy in kinds], dtype=bool)
        needs_capacity = np.array([getattr(policy, "needs_capacity", True) for policy in kinds], dtype=bool)
        absent = np.array([isinstance(policy, UnavailablePolicy) for policy in kinds], dtype=bool)
        silent = ~np.isfinite(recommended)
        code = np.zeros(len(view), dtype=np.int64)
        code[silent & network] = INVALID_ACTION
        code[network & needs_capacity & ~view.capacity_known] = CAPACITY_UNKNOWN
        code[absent] = POLICY_UNAVAILABLE
        waiting = ~view.usable & (view.failures < table.failure_threshold[rows])
        code[~view.usable] = METRICS_UNAVAILABLE
        code[waiting] = 0
        stand_in = self._stand_in(view)
        chosen = np.where(code > 0, stand_in, recommended)
        return np.where(waiting, np.nan, chosen), code

    def _stand_in(self, view: View) -> FloatArray:
        table, rows = self._table, view.rows
        behavior = table.fallback_code[rows]
        static = np.maximum(table.fallback_replicas[rows], np.where(view.usable, 0, view.current))
        result = np.where(behavior == _FALLBACK_HPA, view.hpa_replicas, np.nan)
        return np.where(behavior == _FALLBACK_STATIC, static, result)

    def _record(self, rows: IntArray, now_s: FloatArray, before: IntArray, after: IntArray) -> None:
        self._behavior.record(rows, now_s, before, after)
        up, down = after > before, after < before
        self._table.last_up_s[rows[up]] = now_s[up]
        self._table.last_down_s[rows[down]] = now_s[down]


def _masked(bins: FloatArray, lead_bins: IntArray) -> FloatArray:
    ahead = np.arange(bins.shape[1])[None, :] <= lead_bins[:, None]
    return np.where(ahead, bins, np.float32(np.nan))


def _wake(view: View, activation_rps: FloatArray) -> IntArray:
    """Replicas for a service at zero: enough for its load at the target utilisation, else none."""
    with np.errstate(invalid="ignore"):
        needed = np.ceil(view.load / view.target_utilisation)
    waking = view.usable & (np.nan_to_num(view.samples.request_rate) > activation_rps)
    replicas = np.clip(np.nan_to_num(needed, nan=1.0), 1.0, MAX_REPLICAS)
    return np.where(waking, replicas, 0.0).astype(np.int64)


def _thinned(history: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """The newest of each run of equal recommendations: exact for both windows, and short."""
    kept: list[tuple[float, int]] = []
    for time, value in history:
        if kept and kept[-1][1] == value:
            kept.pop()
        kept.append((time, value))
    return kept
