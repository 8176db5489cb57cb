"""autoscaling/v2 `behavior`, batched: stabilisation windows and rate rules over N services.

Source: `stabilizeRecommendationWithBehaviors`, `convertDesiredReplicasWithBehaviorRate` and
`calculateScale{Up,Down}Limit...` of kubernetes' pkg/controller/podautoscaler/horizontal.go.
Recommendations and scale events are kept in rings whose length grows with the longest window.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from controller.core.samples import BoolArray, FloatArray, IntArray
from controller.core.spec import ScalingRules

SPARE_SLOTS = 4
_LARGE = np.int64(2**31 - 1)


class TimedRing:
    """The last values of N services with their times (s); empty slots have time -inf."""

    def __init__(self, services: int, slots: int) -> None:
        self.times = np.full((services, slots), -np.inf)
        self.values = np.zeros((services, slots), dtype=np.int64)
        self.next = np.zeros(services, dtype=np.int64)

    def grow(self, services: int) -> None:
        """Make room for `services` rows."""
        extra = services - len(self.next)
        slots = self.times.shape[1]
        self.times = np.concatenate([self.times, np.full((extra, slots), -np.inf)])
        self.values = np.concatenate([self.values, np.zeros((extra, slots), dtype=np.int64)])
        self.next = np.concatenate([self.next, np.zeros(extra, dtype=np.int64)])

    def lengthen(self, slots: int) -> None:
        """Make every ring at least `slots` long, keeping what it holds."""
        extra = slots - self.times.shape[1]
        if extra <= 0:
            return
        order = (self.next[:, None] + np.arange(self.times.shape[1])) % self.times.shape[1]
        times = np.take_along_axis(self.times, order, axis=1)
        values = np.take_along_axis(self.values, order, axis=1)
        services = len(self.next)
        self.times = np.concatenate([np.full((services, extra), -np.inf), times], axis=1)
        self.values = np.concatenate([np.zeros((services, extra), dtype=np.int64), values], axis=1)
        self.next = np.zeros(services, dtype=np.int64)

    def reset(self, rows: IntArray) -> None:
        """Forget everything of these rows."""
        self.times[rows] = -np.inf
        self.next[rows] = 0

    def push(self, rows: IntArray, times_s: FloatArray, values: IntArray) -> None:
        """Append one value a row over its oldest."""
        slot = self.next[rows]
        self.times[rows, slot] = times_s
        self.values[rows, slot] = values
        self.next[rows] = (slot + 1) % self.times.shape[1]

    def since(self, row: int, cutoff_s: float) -> list[tuple[float, int]]:
        """(time, value) pairs of one row after `cutoff_s`, oldest first."""
        kept = np.flatnonzero(self.times[row] > cutoff_s)
        ordered = kept[np.argsort(self.times[row, kept], kind="stable")]
        return [(float(self.times[row, i]), int(self.values[row, i])) for i in ordered]


class RuleTable:
    """One direction's ScalingRules of N services as arrays; rate rules padded to the longest list."""

    def __init__(self, services: int) -> None:
        self.window_s = np.zeros(services)
        self.tolerance = np.full(services, 0.1)
        self.select_min = np.zeros(services, dtype=bool)
        self.disabled = np.zeros(services, dtype=bool)
        self.percent = np.zeros((services, 1), dtype=bool)
        self.value = np.zeros((services, 1), dtype=np.int64)
        self.period_s = np.zeros((services, 1))
        self.present = np.zeros((services, 1), dtype=bool)

    def grow(self, services: int) -> None:
        """Make room for `services` rows."""
        for name, array in vars(self).items():
            extra = np.zeros((services - len(array), *array.shape[1:]), dtype=array.dtype)
            setattr(self, name, np.concatenate([array, extra]))

    def set(self, row: int, rules: ScalingRules) -> None:
        """Take over one service's rules."""
        self._widen(len(rules.policies))
        self.window_s[row] = rules.stabilization_window_s
        self.tolerance[row] = rules.tolerance
        self.select_min[row] = rules.select_policy == "Min"
        self.disabled[row] = rules.select_policy == "Disabled"
        self.present[row] = False
        for column, policy in enumerate(rules.policies):
            self.percent[row, column] = policy.type == "Percent"
            self.value[row, column] = policy.value
            self.period_s[row, column] = policy.period_s
            self.present[row, column] = True

    def longest_period_s(self, row: int) -> float:
        """The longest `periodSeconds` of one service."""
        return float(np.max(self.period_s[row], where=self.present[row], initial=0.0))

    def _widen(self, columns: int) -> None:
        extra = columns - self.value.shape[1]
        if extra <= 0:
            return
        for name in ("percent", "value", "period_s", "present"):
            array = getattr(self, name)
            padding = np.zeros((array.shape[0], extra), dtype=array.dtype)
            setattr(self, name, np.concatenate([array, padding], axis=1))


class BehaviorState:
    """Recommendations and scale events of N services, and what they allow now."""

    def __init__(self, services: int) -> None:
        self.up = RuleTable(services)
        self.down = RuleTable(services)
        self.recommendations = TimedRing(services, SPARE_SLOTS)
        self.ups = TimedRing(services, SPARE_SLOTS)
        self.downs = TimedRing(services, SPARE_SLOTS)
        self._found_s = np.full(services, -np.inf)
        self._found = np.zeros(services, dtype=np.int64)

    def grow(self, services: int) -> None:
        """Make room for `services` rows."""
        for table in (self.up, self.down):
            table.grow(services)
        self.grow_past(services)

    def grow_past(self, services: int) -> None:
        """Make room in the past alone, for one that goes by another's rules."""
        for ring in (self.recommendations, self.ups, self.downs):
            ring.grow(services)
        more = services - len(self._found)
        self._found_s = np.concatenate([self._found_s, np.full(more, -np.inf)])
        self._found = np.concatenate([self._found, np.zeros(more, dtype=np.int64)])

    def configure(self, row: int, up: ScalingRules, down: ScalingRules, sync_period_s: float) -> None:
        """Take over one service's rules; rings get long enough for its windows at its sync period."""
        self.up.set(row, up)
        self.down.set(row, down)
        window_s = max(up.stabilization_window_s, down.stabilization_window_s)
        self.recommendations.lengthen(math.ceil(window_s / sync_period_s) + SPARE_SLOTS)
        period_s = max(self.up.longest_period_s(row), self.down.longest_period_s(row))
        events = math.ceil(period_s / sync_period_s) + SPARE_SLOTS
        self.ups.lengthen(events)
        self.downs.lengthen(events)

    def reset(self, rows: IntArray) -> None:
        """Forget the past of these rows."""
        for ring in (self.recommendations, self.ups, self.downs):
            ring.reset(rows)
        self._found_s[rows], self._found[rows] = -np.inf, 0

    def stabilize(
        self, rows: IntArray, now_s: FloatArray, current: IntArray, recommended: IntArray
    ) -> IntArray:
        """Recommendation after both stabilisation windows; records the raw one. All int `[rows]`.

        A service with no recorded recommendation starts from its current replicas, as the HPA does.
        """
        ring = self.recommendations
        first = np.isneginf(ring.times[rows]).all(axis=1)
        if first.any():
            ring.push(rows[first], now_s[first], current[first])
        times, values = ring.times[rows], ring.values[rows]
        in_up = times > (now_s - self.up.window_s[rows])[:, None]
        in_down = times > (now_s - self.down.window_s[rows])[:, None]
        lowest = np.minimum(np.where(in_up, values, _LARGE).min(axis=1), recommended)
        highest = np.maximum(np.where(in_down, values, -_LARGE).max(axis=1), recommended)
        ring.push(rows, now_s, recommended)
        return np.asarray(np.minimum(np.maximum(current, lowest), highest))

    def limits(self, rows: IntArray, now_s: FloatArray, current: IntArray) -> tuple[IntArray, IntArray]:
        """(lowest, highest) replicas that the rate rules allow now; int `[rows]` each."""
        added = self._changes(self.ups, rows, now_s)
        removed = self._changes(self.downs, rows, now_s)
        rise, drop = self._found_of(rows, now_s, 1), self._found_of(rows, now_s, -1)
        up = self._limit(
            self.up, rows, current, added, lambda s: removed(s) - drop(s), _grown, np.minimum, np.maximum
        )
        down = self._limit(
            self.down, rows, current, lambda s: added(s) - rise(s), removed, _shrunk, np.maximum, np.minimum
        )
        highest = np.where(self.up.disabled[rows], current, np.maximum(up, current))
        lowest = np.where(self.down.disabled[rows], current, np.minimum(down, current))
        return lowest, highest

    def record(self, rows: IntArray, now_s: FloatArray, before: IntArray, after: IntArray) -> None:
        """Remember scale events that took place; rows without a change leave no trace."""
        change = np.asarray(after, dtype=np.int64) - before
        up, down = change > 0, change < 0
        self.ups.push(rows[up], now_s[up], change[up])
        self.downs.push(rows[down], now_s[down], -change[down])

    def found(self, row: int, now_s: float, change: int) -> None:
        """A recorded change of which only now is known, and not when it took place.

        It limits its own direction as one of now, and does not widen the other's limit as if it had just
        been: the later of both for each.
        """
        self._found_s[row], self._found[row] = now_s, change

    def _found_of(self, rows: IntArray, now_s: FloatArray, sign: int) -> Callable[[FloatArray], IntArray]:
        times, sizes = self._found_s[rows], np.maximum(sign * self._found[rows], 0)

        def within(period_s: FloatArray) -> IntArray:
            return np.asarray(np.where(times > now_s - period_s, sizes, 0))

        return within

    @staticmethod
    def _changes(ring: TimedRing, rows: IntArray, now_s: FloatArray) -> Callable[[FloatArray], IntArray]:
        times, values = ring.times[rows], ring.values[rows]

        def within(period_s: FloatArray) -> IntArray:
            recent = times > (now_s - period_s)[:, None]
            return np.asarray(np.where(recent, values, 0).sum(axis=1))

        return within

    @staticmethod
    def _limit(
        table: RuleTable,
        rows: IntArray,
        current: IntArray,
        added: Callable[[FloatArray], IntArray],
        removed: Callable[[FloatArray], IntArray],
        propose: Callable[[IntArray, IntArray, BoolArray], IntArray],
        pick_min: Callable[[IntArray, IntArray], IntArray],
        pick_max: Callable[[IntArray, IntArray], IntArray],
    ) -> IntArray:
        """The limit over all rate rules: `pick_min` joins them under selectPolicy Min, else `pick_max`."""
        limit = np.zeros_like(current)
        begun = np.zeros(len(rows), dtype=bool)
        for column in range(table.value.shape[1]):
            present = table.present[rows, column]
            period_s = table.period_s[rows, column]
            start = current - added(period_s) + removed(period_s)
            proposal = propose(start, table.value[rows, column], table.percent[rows, column])
            joined = np.where(table.select_min[rows], pick_min(limit, proposal), pick_max(limit, proposal))
            limit = np.where(present, np.where(begun, joined, proposal), limit)
            begun |= present
        return limit


def _grown(start: IntArray, value: IntArray, percent: BoolArray) -> IntArray:
    # rounded up, or a small service could never grow by a percentage
    by_percent = np.ceil(start * (1.0 + value / 100.0)).astype(np.int64)
    return np.where(percent, by_percent, start + value)


def _shrunk(start: IntArray, value: IntArray, percent: BoolArray) -> IntArray:
    by_percent = np.trunc(start * (1.0 - value / 100.0)).astype(np.int64)
    return np.where(percent, by_percent, start - value)
