"""`FusedEngine`: the decision engine for simulation, compiled, with the operator's semantics.

`controller.core.Engine` stays the reference and what the operator runs; tests hold this twin to it on random
services: features within 1e-5, replicas exactly. It is faster because one compiled pass a service replaces
dozens of array operations, and because windows of history are kept up to date instead of being made anew.
It keeps no explanations: no stages, reasons or messages. Its clock must not run backwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controller.core import ActionPolicy, Limits, Policy, Samples, ServiceSpec, View
from controller.core import observation as obs
from controller.core.behavior import SPARE_SLOTS
from controller.core.history import History
from controller.core.policy import UnavailablePolicy, ask
from controller.core.samples import BoolArray
from controller.core.spec import ScalingRules
from controller.core.table import FALLBACK_CODES
from sim.errors import ParameterError, require
from sim.fused import layout
from sim.fused.features import feature_rows
from sim.fused.guarding import (
    D_CURRENT,
    D_DESIRED,
    D_FALLBACK,
    D_HPA,
    D_RECOMMENDED,
    SCHEMAS,
    conclude_rows,
    decode_rows,
    record_change,
)
from sim.fused.histories import load_rows, log_rows, reset_rows
from sim.fused.layout import FloatArray, IntArray, make_arrays
from sim.fused.reading import observe_rows

_SETTING = {name: column for column, name in enumerate(layout.COLUMNS)}
_SIGNALS = ("request_rate", "latency_ms", "error_ratio", "utilisation", "in_flight", "ready", "current")
POLICY_SETTINGS = ("network", "needs_capacity", "absent")
"""Columns of SETTINGS that depend on the policy."""
_RULES = {"tolerance_up": "up_tolerance", "tolerance_down": "down_tolerance"}


@dataclass(frozen=True, slots=True)
class FusedDecisions:
    """Decisions of N services: arrays `[N]`, replicas int64, recommendations float with NaN.

    fallback: index into `controller.core.decision.FALLBACKS`.
    """

    current_replicas: IntArray
    recommended_replicas: FloatArray
    hpa_replicas: FloatArray
    desired_replicas: IntArray
    fallback: IntArray
    load: FloatArray

    def __len__(self) -> int:
        return len(self.desired_replicas)


class FusedEngine:
    """Decides for N services at once, as `controller.core.Engine` does.

    specs: one ServiceSpec or a list of N. policy: one policy for all, or a list of N; None: a network that
    decides outside (`decide`). `rows` (int array)
    picks some of the services everywhere; None is all.
    """

    def __init__(
        self, specs: ServiceSpec | Sequence[ServiceSpec], policy: Policy | Sequence[Policy] | None = None
    ) -> None:
        listed = [specs] if isinstance(specs, ServiceSpec) else list(specs)
        policies = list(policy) if isinstance(policy, Sequence) else [policy or ActionPolicy()] * len(listed)
        require(
            len(policies) == len(listed),
            "policy",
            len(policies),
            f"one, or one for each of {len(listed)} specs",
        )
        self.specs: list[ServiceSpec] = []
        self._policies: list[Policy] = []
        self._owner = np.zeros(len(listed), dtype=np.int64)
        self._all: IntArray = np.arange(len(listed), dtype=np.int64)
        self.arrays = make_arrays(len(listed), *_lengths(listed))
        self.specs = listed
        for row, (spec, one) in enumerate(zip(listed, policies, strict=True)):
            self.update(row, spec, one)

    def __len__(self) -> int:
        return len(self._all)

    def update(self, row: int, spec: ServiceSpec, policy: Policy | None = None) -> None:
        """New settings, or a new policy, for a service; its history stays."""
        self.specs[row] = spec
        self._lengthen(spec)
        now = self.arrays.table[row]
        own = {name: now[_SETTING[name]] for name in POLICY_SETTINGS}
        now[: len(layout.SETTINGS)] = setting_columns(spec, own)
        self.arrays.rules[row] = rule_matrix(spec, self.arrays.rules.shape[2])
        now[layout.C_DAY_BUCKET] = np.nan
        if policy is not None:
            self._owner[row] = self._policy_index(policy)
            now[layout.C_NETWORK] = policy.type != "HPA"
            now[layout.C_NEEDS_CAPACITY] = bool(getattr(policy, "needs_capacity", True))
            now[layout.C_ABSENT] = isinstance(policy, UnavailablePolicy)

    def reset(self, rows: IntArray | None = None) -> None:
        """Forget histories, events and estimates of these rows; settings stay."""
        reset_rows(self._rows(rows), self.arrays)

    def policy_of(self, row: int) -> Policy:
        """The policy that decides for this row."""
        return self._policies[int(self._owner[row])]

    def capacity_rps(self, rows: IntArray | None = None) -> FloatArray:
        """Requests/s that one replica is believed to serve, `[N]`; NaN while unknown."""
        table = self.arrays.table[self._rows(rows)]
        given, mean = table[:, layout.C_GIVEN], table[:, layout.C_MEAN]
        return np.asarray(np.where(np.isnan(given), mean, given) * table[:, layout.C_CORRECTION])

    def backfill(
        self, times_s: FloatArray, samples: Samples | FloatArray, rows: IntArray | None = None
    ) -> None:
        """Histories at start: request rates (requests/s) `[T, N]` at ascending times `[T]`; NaN missing."""
        picked, times = self._rows(rows), np.asarray(times_s, dtype=np.float64)
        given = samples.request_rate if isinstance(samples, Samples) else samples
        rates = np.asarray(given, dtype=np.float64).reshape(len(times), len(picked))
        rates = np.where(rates >= 0, rates, np.nan)
        covers_s = 2.0 * (float(np.median(np.diff(times))) if len(times) > 1 else obs.FINE_STEP_S)
        arrays, C = self.arrays, layout
        whole = np.arange(len(picked))
        for fine in (True, False):
            step_s, slots = (
                (obs.FINE_STEP_S, obs.FINE_SLOTS) if fine else (obs.COARSE_STEP_S, obs.COARSE_SLOTS)
            )
            history = History(len(picked), step_s, slots)
            history.backfill(whole, times, rates, covers_s)
            ring = arrays.fine_rate if fine else arrays.coarse_rate
            ring[picked] = np.nan
            newest = int(history.last_bin[0]) if len(picked) else -1
            bins = np.arange(max(newest - slots + 1, 0), newest + 1)
            ring[picked[:, None], bins % ring.shape[1]] = history.values[:, bins % slots]
            arrays.table[picked, C.C_FINE_BIN if fine else C.C_COARSE_BIN] = newest
            arrays.table[picked, C.C_FINE_COUNT if fine else C.C_COARSE_COUNT] = 1.0 if len(times) else 0.0
        log_rows(picked, arrays)
        arrays.table[picked, C.C_HAS_RATE] = np.isfinite(rates).any(axis=0) if len(times) else False
        arrays.table[picked, C.C_DAY_BUCKET] = np.nan

    def step(
        self,
        now_s: float | FloatArray,
        samples: Samples,
        rows: IntArray | None = None,
        record: bool = True,
    ) -> FusedDecisions:
        """Observe, ask the policies, guard. `record=False`: the caller reports scale events itself."""
        view = self.observe(now_s, samples, rows)
        recommended, unfamiliar = ask(self._policies, self._owner[view.rows], view)
        return self.conclude(view, recommended, unfamiliar, record)

    def decide(
        self, view: View, action: FloatArray, action_schema: str = "relative-change/v1", record: bool = True
    ) -> FusedDecisions:
        """The same with an action `[N, A]` from outside, such as a network in training."""
        require(action_schema in SCHEMAS, "action_schema", action_schema, f"one of {', '.join(SCHEMAS)}")
        columns = np.asarray(action, dtype=np.float64).reshape(len(view), -1)
        recommended = np.empty(len(view))
        decode_rows(view.rows, SCHEMAS[action_schema], columns, self.arrays, recommended)
        return self.conclude(view, recommended, None, record)

    def conclude(
        self,
        view: View,
        recommended: FloatArray,
        unfamiliar: BoolArray | None = None,
        record: bool = True,
    ) -> FusedDecisions:
        """The guard over recommended replicas float `[N]` (NaN: nothing said) for the last reading's view."""
        strange = (
            np.zeros(len(view), dtype=np.bool_) if unfamiliar is None else np.asarray(unfamiliar, np.bool_)
        )
        decided = np.empty((5, len(view)))
        conclude_rows(
            view.rows, np.asarray(recommended, dtype=np.float64), strange, record, self.arrays, decided
        )
        return FusedDecisions(
            current_replicas=decided[D_CURRENT].astype(np.int64),
            recommended_replicas=decided[D_RECOMMENDED],
            hpa_replicas=decided[D_HPA],
            desired_replicas=decided[D_DESIRED].astype(np.int64),
            fallback=decided[D_FALLBACK].astype(np.int64),
            load=view.load,
        )

    def observe(self, now_s: float | FloatArray, samples: Samples, rows: IntArray | None = None) -> View:
        """Take in one reading of each row; the view is valid until the next reading.

        Raises ParameterError where a row's clock would run backwards.
        """
        picked = self._rows(rows)
        require(len(samples) == len(picked), "samples", len(samples), f"{len(picked)} services, one a row")
        now = np.ascontiguousarray(np.broadcast_to(np.asarray(now_s, dtype=np.float64), picked.shape))
        self._check_clock(picked, now)
        signals = np.stack([getattr(samples, name) for name in _SIGNALS])
        observe_rows(picked, now, signals, samples.outcome, self.arrays)
        return self._view(picked)

    def features(self, rows: IntArray | None = None) -> tuple[FloatArray, BoolArray]:
        """(features float32 `[N, F]`, mask bool `[N, F]`) of the last reading."""
        picked = self._rows(rows)
        matrix = np.empty((len(picked), obs.OBSERVATION_SCHEMA.size), dtype=np.float32)
        valid = np.empty(matrix.shape, dtype=np.bool_)
        feature_rows(picked, self.arrays, matrix, valid)
        return matrix, valid

    def record_scale(self, row: int, now_s: float, before: int, after: int) -> None:
        """Report a scale that took place, for the rate rules of `behavior`."""
        record_change(row, float(now_s), float(before), float(after), self.arrays)

    def _check_clock(self, rows: IntArray, now_s: FloatArray) -> None:
        table = self.arrays.table
        latest = np.maximum(
            table[rows, layout.C_LAST_SEEN], table[rows, layout.C_COARSE_BIN] * obs.COARSE_STEP_S
        )
        latest = np.maximum(latest, table[rows, layout.C_FINE_BIN] * obs.FINE_STEP_S)
        if np.any(now_s < latest):
            worst = int(np.argmax(latest - now_s))
            raise ParameterError(
                "now_s", float(now_s[worst]), f"at least {latest[worst]:g}, the last reading's"
            )

    def _view(self, rows: IntArray) -> View:
        C, now = layout, self.arrays.table[rows]
        samples = Samples.__new__(Samples)
        for name in _SIGNALS:
            setattr(samples, name, now[:, _SETTING[name]])
        samples.outcome = now[:, C.C_OUTCOME].astype(np.int8)
        with np.errstate(invalid="ignore"):
            danger = now[:, C.C_LATENCY] > now[:, C.C_SLO]
        capacity = now[:, C.C_CAPACITY]
        return View(
            rows=rows,
            now_s=now[:, C.C_NOW],
            current=samples.current.astype(np.int64),
            ready=samples.ready,
            load=now[:, C.C_LOAD],
            hpa_replicas=now[:, C.C_HPA],
            usable=np.isfinite(now[:, C.C_RATE]),
            failures=now[:, C.C_FAILURES].astype(np.int64),
            capacity_known=np.isfinite(capacity),
            slo_in_danger=danger,
            preference=now[:, C.C_PREFERENCE],
            target_utilisation=now[:, C.C_TARGET],
            samples=samples,
            make_features=lambda index: self.features(rows[index]),
            make_loads=lambda index, step_s, bins, ago_s: self._loads(
                rows[index], now[index, C.C_NOW], capacity[index], step_s, bins, ago_s
            ),
            make_setting=lambda index, name: self._settings(now[index], name),
        )

    def _loads(
        self, rows: IntArray, now_s: FloatArray, capacity: FloatArray, step_s: float, bins: int, ago_s: float
    ) -> FloatArray:
        loads = np.empty((len(rows), bins), dtype=np.float32)
        load_rows(rows, now_s, capacity, float(ago_s), step_s == obs.FINE_STEP_S, self.arrays, loads)
        return loads

    def _settings(self, now: FloatArray, name: str) -> FloatArray:
        if name == "capacity_rps":
            return np.where(now[:, layout.C_HAS_RATE] > 0, now[:, layout.C_CAPACITY], np.nan)
        return now[:, _SETTING[_RULES.get(name, name)]].copy()

    def _rows(self, rows: IntArray | None) -> IntArray:
        return self._all if rows is None else np.ascontiguousarray(rows, dtype=np.int64)

    def _policy_index(self, policy: Policy) -> int:
        for index, known in enumerate(self._policies):
            if known is policy:
                return index
        self._policies.append(policy)
        return len(self._policies) - 1

    def _lengthen(self, spec: ServiceSpec) -> None:
        """Rings long enough for this spec's windows, as the reference has them."""
        arrays, C = self.arrays, layout
        recommendations, events, rules = _lengths([spec])
        table = arrays.table
        self.arrays = arrays._replace(
            recommendations=_longer(arrays.recommendations, recommendations, table, C.C_NEXT_RECOMMENDATION),
            ups=_longer(arrays.ups, events, table, C.C_NEXT_UP),
            downs=_longer(arrays.downs, events, table, C.C_NEXT_DOWN),
            rules=_wider(arrays.rules, rules),
        )


def setting_columns(spec: ServiceSpec, policy: Mapping[str, float]) -> FloatArray:
    """A specification as the columns SETTINGS; `policy`: those of POLICY_SETTINGS.

    Raises ParameterError where it asks for what only `controller.core.Engine` does.
    """
    _require_compiled(spec)
    up, down = spec.behavior.scale_up, spec.behavior.scale_down
    known: dict[str, float] = {
        **policy,
        "failure_threshold": spec.fallback.failure_threshold,
        "fallback_code": FALLBACK_CODES[spec.fallback.behavior],
        "fallback_replicas": spec.fallback.replicas or 0,
        "given_rps": spec.capacity_rps,
    }
    for direction, rules in (("up", up), ("down", down)):
        known[f"{direction}_window_s"] = rules.stabilization_window_s
        known[f"{direction}_tolerance"] = rules.tolerance
        known[f"{direction}_select_min"] = rules.select_policy == "Min"
        known[f"{direction}_disabled"] = rules.select_policy == "Disabled"
    lead_s = spec.start_up_s + spec.sync_period_s
    known["log_max"], known["log_min"] = math.log(spec.max_replicas), math.log(max(spec.min_replicas, 1))
    known["log_start_up"] = math.log(max(spec.start_up_s, 1.0) / 60.0)
    known["log_sync_period"] = math.log(spec.sync_period_s / 15.0)
    known["lead_bins"] = math.ceil(lead_s / obs.FINE_STEP_S)
    known["coarse_lead_bins"] = math.ceil(lead_s / obs.COARSE_STEP_S)
    values = [known[name] if name in known else getattr(spec, name) for name in layout.SETTINGS]
    return np.array(values, dtype=np.float64)


def _require_compiled(spec: ServiceSpec) -> None:
    known = math.isfinite(spec.start_up_s)
    require(known, "start_up_s", spec.start_up_s, "a number of seconds: controller.core.Engine learns it")
    require(spec.limits == Limits(), "limits", spec.limits, "none: controller.core.Engine knows limits")
    recovery = spec.fallback.recovery_threshold
    require(recovery == 1, "recovery_threshold", recovery, "1: controller.core.Engine waits for more")


def rule_matrix(spec: ServiceSpec, columns: int) -> FloatArray:
    """A specification's rate rules, `[2, columns, 4]`."""
    matrix = np.zeros((2, columns, 4))
    for direction, rules in enumerate((spec.behavior.scale_up, spec.behavior.scale_down)):
        for column, rule in enumerate(rules.policies):
            matrix[direction, column] = (rule.type == "Percent", rule.value, rule.period_s, 1.0)
    return matrix


def _lengths(specs: Sequence[ServiceSpec]) -> tuple[int, int, int]:
    """Slots of the rings of recommendations and of scale events, and rate rules a direction."""
    longest = [SPARE_SLOTS, SPARE_SLOTS, 1]
    for spec in specs:
        up, down = spec.behavior.scale_up, spec.behavior.scale_down
        window_s = max(up.stabilization_window_s, down.stabilization_window_s)
        period_s = max(_longest_period_s(up), _longest_period_s(down))
        longest[0] = max(longest[0], math.ceil(window_s / spec.sync_period_s) + SPARE_SLOTS)
        longest[1] = max(longest[1], math.ceil(period_s / spec.sync_period_s) + SPARE_SLOTS)
        longest[2] = max(longest[2], len(up.policies), len(down.policies))
    return longest[0], longest[1], longest[2]


def _longest_period_s(rules: ScalingRules) -> float:
    return max(rule.period_s for rule in rules.policies)


def _longer(ring: FloatArray, slots: int, table: FloatArray, following: int) -> FloatArray:
    """A ring of at least `slots` slots that holds the same, oldest first."""
    services, old, _ = ring.shape
    if slots <= old:
        return ring
    order = (table[:, following].astype(np.int64)[:, None] + np.arange(old)) % old
    longer = np.zeros((services, slots, 2))
    longer[:, :, 0] = -np.inf
    longer[:, slots - old :] = np.take_along_axis(ring, order[:, :, None], axis=1)
    table[:, following] = 0
    return longer


def _wider(rules: FloatArray, columns: int) -> FloatArray:
    extra = columns - rules.shape[2]
    return rules if extra <= 0 else np.pad(rules, ((0, 0), (0, 0), (0, extra), (0, 0)))
