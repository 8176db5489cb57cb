"""Settings and small memories of N services, one array each: what fits in one column.

The engine's parts read and write these columns; `Memory` grows and resets them with everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from controller.core.observation import DAY_MOVE_QUANTILES
from controller.core.samples import BoolArray, FloatArray, IntArray
from controller.core.spec import DEFAULT_ACTIVATION_RPS, DEFAULT_IDLE_AFTER_S, ServiceSpec

FALLBACK_HPA, FALLBACK_HOLD, FALLBACK_STATIC = range(3)
FALLBACK_CODES = {"HPA": FALLBACK_HPA, "Hold": FALLBACK_HOLD, "Static": FALLBACK_STATIC}
OFF = 0
"""A limit that is not set."""

_COPIED = (
    "min_replicas",
    "max_replicas",
    "sync_period_s",
    "slo_latency_ms",
    "slo_percentile",
    "preference",
    "target_utilisation",
    "idle_after_s",
    "activation_rps",
)
_MEMORY = (
    "failures",
    "awaited",
    "last_seen_s",
    "last_current",
    "last_load",
    "last_desired",
    "has_rate",
    "busy_until_s",
    "hold_until_s",
    "violation",
    "last_up_s",
    "last_down_s",
    "day_moves",
    "day_bucket",
)


@dataclass
class Table:
    """Arrays `[N]` (day_moves `[N, Q]`): settings first, then what is remembered.

    awaited: good readings until the policy decides again. floor: a schedule's, 0 without one.
    changes_per_hour, max_step, min_step: OFF where not set.
    """

    min_replicas: IntArray
    max_replicas: IntArray
    sync_period_s: FloatArray
    slo_latency_ms: FloatArray
    slo_percentile: FloatArray
    preference: FloatArray
    target_utilisation: FloatArray
    idle_after_s: FloatArray
    activation_rps: FloatArray
    failure_threshold: IntArray
    recovery_threshold: IntArray
    fallback_code: IntArray
    fallback_replicas: IntArray
    changes_per_hour: IntArray
    max_step: IntArray
    min_step: IntArray
    floor: IntArray
    failures: IntArray
    awaited: IntArray
    last_seen_s: FloatArray
    last_current: IntArray
    last_load: FloatArray
    last_desired: IntArray
    has_rate: BoolArray
    busy_until_s: FloatArray
    hold_until_s: FloatArray
    violation: FloatArray
    last_up_s: FloatArray
    last_down_s: FloatArray
    day_moves: FloatArray
    day_bucket: FloatArray
    policy: IntArray
    alive: BoolArray

    @classmethod
    def empty(cls, services: int) -> Table:
        """Columns of services that are not there yet."""

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
            target_utilisation=filled(0.7),
            idle_after_s=filled(DEFAULT_IDLE_AFTER_S),
            activation_rps=filled(DEFAULT_ACTIVATION_RPS),
            failure_threshold=zeros(),
            recovery_threshold=np.ones(services, dtype=np.int64),
            fallback_code=zeros(),
            fallback_replicas=zeros(),
            changes_per_hour=zeros(),
            max_step=zeros(),
            min_step=zeros(),
            floor=zeros(),
            failures=zeros(),
            awaited=zeros(),
            last_seen_s=filled(-np.inf),
            last_current=zeros(),
            last_load=filled(np.nan),
            last_desired=np.full(services, -1, dtype=np.int64),
            has_rate=zeros(bool),
            busy_until_s=filled(np.inf),
            hold_until_s=filled(-np.inf),
            violation=filled(0.0),
            last_up_s=filled(-np.inf),
            last_down_s=filled(-np.inf),
            day_moves=np.full((services, len(DAY_MOVE_QUANTILES)), np.nan),
            day_bucket=filled(np.nan),
            policy=zeros(),
            alive=zeros(bool),
        )

    def grow(self, services: int) -> None:
        """Make room for `services` rows."""
        fresh = Table.empty(services - len(self.alive))
        for name in vars(self):
            setattr(self, name, np.concatenate([getattr(self, name), getattr(fresh, name)]))

    def configure(self, row: int, spec: ServiceSpec) -> None:
        """Take over one service's settings; its memory stays."""
        for name in _COPIED:
            getattr(self, name)[row] = getattr(spec, name)
        self.failure_threshold[row] = spec.fallback.failure_threshold
        self.recovery_threshold[row] = spec.fallback.recovery_threshold
        self.fallback_code[row] = FALLBACK_CODES[spec.fallback.behavior]
        self.fallback_replicas[row] = spec.fallback.replicas or 0
        self.changes_per_hour[row] = spec.limits.changes_per_hour or OFF
        self.max_step[row] = spec.limits.max_step or OFF
        self.min_step[row] = spec.limits.min_step or OFF
        self.day_bucket[row] = np.nan

    def reset(self, rows: IntArray) -> None:
        """Memory back to its beginning; settings stay."""
        fresh = _beginning()
        for name in _MEMORY:
            getattr(self, name)[rows] = getattr(fresh, name)[0]


@cache
def _beginning() -> Table:
    """One service that nothing is known of."""
    return Table.empty(1)
