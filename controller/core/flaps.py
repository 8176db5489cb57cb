"""The flap budget: so many scale changes an hour, and then none down.

A service has used it up when its n-th last change lies within the hour; so n changes a service are all
that is kept.
"""

from __future__ import annotations

import math

import numpy as np

from controller.core.behavior import SPARE_SLOTS, TimedRing
from controller.core.samples import BoolArray, FloatArray, IntArray

HOUR_S = 3600.0


class FlapBudget:
    """The last scale changes of N services, signed replicas."""

    def __init__(self, services: int) -> None:
        self.changes = TimedRing(services, 1)

    def grow(self, services: int) -> None:
        """Make room for `services` rows."""
        self.changes.grow(services)

    def configure(self, changes_per_hour: int | None, sync_period_s: float) -> None:
        """Keep as many changes as a service with this limit needs: no more than it can make in an hour."""
        possible = math.ceil(HOUR_S / sync_period_s) + SPARE_SLOTS
        self.changes.lengthen(min(changes_per_hour or 1, possible))

    def reset(self, rows: IntArray) -> None:
        """Forget the changes of these rows."""
        self.changes.reset(rows)

    def record(self, rows: IntArray, now_s: FloatArray, change: IntArray) -> None:
        """Remember changes of replicas; 0 is none."""
        moved = change != 0
        self.changes.push(rows[moved], now_s[moved], change[moved])

    def used_up(self, rows: IntArray, now_s: FloatArray, changes_per_hour: IntArray) -> BoolArray:
        """Whether no scale-down is left, bool `[rows]`; never where changes_per_hour is 0."""
        recent = self.changes.times[rows] > (now_s - HOUR_S)[:, None]
        return np.asarray((changes_per_hour > 0) & (recent.sum(axis=1) >= changes_per_hour))

    def since(self, row: int, cutoff_s: float) -> list[tuple[float, int]]:
        """(time, change) of one row after `cutoff_s`, oldest first."""
        return self.changes.since(row, cutoff_s)
