"""All that the engine holds of N services, grown and reset together.

Table (settings and single values), two histories, the estimators of capacity and start-up time, the past
that `behavior` looks at, and the scale changes of the flap budget.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from controller.core import observation as obs
from controller.core.behavior import BehaviorState
from controller.core.capacity import CapacityEstimator
from controller.core.flaps import FlapBudget
from controller.core.history import History
from controller.core.samples import FloatArray, IntArray
from controller.core.spec import ServiceSpec
from controller.core.startup import StartUpEstimator
from controller.core.table import Table
from controller.core.view import View


class _Part(Protocol):
    def grow(self, services: int) -> None: ...

    def reset(self, rows: IntArray) -> None: ...


class Memory:
    """The parts, each with its own arrays over the same rows."""

    def __init__(self) -> None:
        self.table = Table.empty(0)
        self.fine = History(0, obs.FINE_STEP_S, obs.FINE_SLOTS)
        self.coarse = History(0, obs.COARSE_STEP_S, obs.COARSE_SLOTS)
        self.capacity = CapacityEstimator(0)
        self.start_up = StartUpEstimator(0)
        self.behavior = BehaviorState(0)
        self.flaps = FlapBudget(0)
        self._features = np.zeros((0, obs.OBSERVATION_SCHEMA.size), dtype=np.float32)
        self._looked_at = np.zeros(0, dtype=bool)

    def __len__(self) -> int:
        return len(self.table.alive)

    def grow(self, services: int) -> None:
        """Make room for `services` rows."""
        extra = services - len(self)
        for part in self._parts:
            part.grow(services)
        self._features = np.concatenate(
            [self._features, np.zeros((extra, self._features.shape[1]), np.float32)]
        )
        self._looked_at = np.concatenate([self._looked_at, np.zeros(extra, dtype=bool)])

    @property
    def _parts(self) -> tuple[_Part, ...]:
        return (
            self.table, self.fine, self.coarse, self.capacity, self.start_up, self.behavior, self.flaps
        )  # fmt: skip

    def configure(self, row: int, spec: ServiceSpec) -> None:
        """Take over one service's settings; its past stays."""
        self.table.configure(row, spec)
        self.capacity.given[row] = spec.capacity_rps
        self.start_up.given[row] = spec.start_up_s
        self.behavior.configure(row, spec.behavior.scale_up, spec.behavior.scale_down, spec.sync_period_s)
        self.flaps.configure(spec.limits.changes_per_hour, spec.sync_period_s)

    def reset(self, rows: IntArray) -> None:
        """Forget histories, events and estimates of these rows; settings stay."""
        for part in self._parts:
            part.reset(rows)
        self._looked_at[rows] = False

    def keep(self, view: View) -> None:
        """Remember what a view's policies saw, for questions about their decisions."""
        self.table.last_current[view.rows] = view.current
        self.table.last_load[view.rows] = view.load
        self._looked_at[view.rows] = view.looked_at
        if view.looked_at:
            self._features[view.rows] = view.features

    def last_features(self, row: int) -> FloatArray:
        """Features float32 `[F]` of the last decision; empty where nobody has looked at them."""
        return self._features[row].copy() if self._looked_at[row] else np.zeros(0, dtype=np.float32)

    def record(self, rows: IntArray, now_s: FloatArray, before: IntArray, after: IntArray) -> None:
        """Remember scale events that took place; rows without a change leave no trace."""
        up, down = after > before, after < before
        if not (up | down).any():
            return
        self.behavior.record(rows, now_s, before, after)
        self.flaps.record(rows, now_s, np.asarray(after, dtype=np.int64) - before)
        self.table.last_up_s[rows[up]] = now_s[up]
        self.table.last_down_s[rows[down]] = now_s[down]
