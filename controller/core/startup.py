"""How long a replica takes from being asked for to being ready: given, or learned for each service.

A rise of the replicas asked for opens a wait; it ends when as many are ready. What was waited enters a
running mean and deviation of its logarithm, and the estimate is a high quantile of that, because a start-up
time that is believed too short is what hurts. Only counts are seen, so whatever could blur them is left out:
a fall of the replicas or of the ready ones ends all waits of a service unlearned, and so do a gap in the
readings and a rise on top of a wait that takes far too long; replicas that do not come within LONGEST_S are
failures, not slow starters.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from controller.core.samples import BoolArray, FloatArray, IntArray

UNKNOWN_S = 60.0
"""Believed in until the first rise was seen through."""
SHORTEST_S, LONGEST_S = 1.0, 1800.0
QUANTILE_SCORE = 1.2816
"""Standard normal score of the quantile that is believed in: 90 %."""
FIRST_DEVIATION = 0.25
"""Deviation of the logarithm that one single start-up stands for."""
LEAST_WEIGHT = 0.2
MOST_SURPRISE = math.log(3.0)
"""One start-up moves the mean by no more than its weight of this: some are failures that healed."""
WAITS = 8
"""Rises that are followed at once; those that come on top of them are not learned from."""
OVERDUE = 4.0
"""A wait of so many usual ones ends when replicas are added: whichever comes then was not waited for."""
RESTORED_COUNT = 4


class StartUpEstimator:
    """Start-up times of N services; arrays `[N]`, seconds, NaN where unknown."""

    def __init__(self, services: int) -> None:
        self.given = np.full(services, np.nan)
        self.mean = np.full(services, np.nan)
        self.variance = np.zeros(services)
        self.count = np.zeros(services, dtype=np.int64)
        self._seen_s = np.full(services, -np.inf)
        self._current = np.full(services, np.nan)
        self._ready = np.full(services, np.nan)
        self._begun = np.full((services, WAITS), np.nan)
        self._target = np.full((services, WAITS), np.nan)
        self._waiting = np.zeros(services, dtype=bool)

    def grow(self, services: int) -> None:
        """Make room for `services` rows."""
        fresh = StartUpEstimator(services - len(self.mean))
        for name, array in vars(self).items():
            setattr(self, name, np.concatenate([array, getattr(fresh, name)]))

    def reset(self, rows: IntArray) -> None:
        """Forget what was learned and seen of these rows, not what was given."""
        fresh = _beginning()
        for name, array in vars(self).items():
            if name != "given":
                array[rows] = getattr(fresh, name)[0]

    def seconds(self, rows: IntArray) -> FloatArray:
        """The start-up time to reckon with, `[rows]`: given, else learned, else UNKNOWN_S."""
        learned = self.learned_s(rows)
        believed = np.where(np.isnan(learned), UNKNOWN_S, learned)
        return np.where(np.isnan(self.given[rows]), believed, self.given[rows])

    def learned_s(self, rows: IntArray) -> FloatArray:
        """The learned quantile, `[rows]`; NaN while nothing was learned, whatever is given."""
        high = np.exp(self.mean[rows] + QUANTILE_SCORE * np.sqrt(self.variance[rows]))
        return np.clip(high, SHORTEST_S, LONGEST_S)

    def uncertainty(self, rows: IntArray) -> FloatArray:
        """Relative standard deviation of a start-up in 0..1; 0 where given, 1 while unknown."""
        deviation = np.minimum(np.sqrt(np.expm1(self.variance[rows])), 1.0)
        learned = np.where(np.isnan(self.mean[rows]), 1.0, deviation)
        return np.where(np.isnan(self.given[rows]), learned, 0.0)

    def restore(self, row: int, learned_s: float) -> None:
        """Go on from `learned_s` of before a restart; anything that is no time is ignored."""
        if not SHORTEST_S <= learned_s <= LONGEST_S:
            return
        self.mean[row] = math.log(learned_s) - QUANTILE_SCORE * FIRST_DEVIATION
        self.variance[row] = FIRST_DEVIATION**2
        self.count[row] = RESTORED_COUNT

    def update(
        self,
        rows: IntArray,
        now_s: FloatArray,
        current: FloatArray,
        ready: FloatArray,
        last_up_s: FloatArray,
        longest_gap_s: FloatArray,
    ) -> None:
        """Learn from one reading a row: replicas asked for and ready (NaN: not read).

        last_up_s: when the service was last scaled up by us. longest_gap_s: between two readings that belong
        together.
        """
        known = np.isfinite(current) & np.isfinite(ready)
        with np.errstate(invalid="ignore"):
            moved = (current != self._current[rows]) | (ready != self._ready[rows])
        busy = np.flatnonzero(known & (moved | self._waiting[rows]))
        if len(busy):
            picked = rows[busy]
            gap = now_s[busy] - self._seen_s[picked] > longest_gap_s[busy]
            self._follow(picked, now_s[busy], current[busy], ready[busy], last_up_s[busy], gap)
        seen = rows[known]
        self._seen_s[seen] = now_s[known]
        self._current[seen], self._ready[seen] = current[known], ready[known]

    def _follow(
        self,
        rows: IntArray,
        now_s: FloatArray,
        current: FloatArray,
        ready: FloatArray,
        last_up_s: FloatArray,
        gap: BoolArray,
    ) -> None:
        before, were_ready = self._current[rows], self._ready[rows]
        overdue = (current > before) & self._overdue(rows, now_s)
        blurred = gap | (current < before) | (ready < were_ready) | overdue
        self._drop(rows[blurred])
        settled = (were_ready >= before) | self._waiting[rows]
        rose = np.flatnonzero((current > before) & settled & ~blurred)
        self._open(rows[rose], now_s[rose], current[rose], last_up_s[rose])
        self._close(rows, now_s, ready)

    def _overdue(self, rows: IntArray, now_s: FloatArray) -> BoolArray:
        """Whether somebody is waited for so long that he will hardly come: the next to come is another."""
        oldest = np.fmin.reduce(self._begun[rows], axis=1)
        learned = self.learned_s(rows)
        usual = np.where(np.isnan(learned), UNKNOWN_S, learned)
        with np.errstate(invalid="ignore"):
            return np.asarray(now_s - oldest > OVERDUE * usual)

    def _drop(self, rows: IntArray) -> None:
        self._begun[rows], self._target[rows] = np.nan, np.nan
        self._waiting[rows] = False

    def _open(self, rows: IntArray, now_s: FloatArray, target: FloatArray, last_up_s: FloatArray) -> None:
        seen_s = self._seen_s[rows]
        ours = (last_up_s >= seen_s) & (last_up_s <= now_s)
        begun = np.where(ours, last_up_s, (seen_s + now_s) / 2.0)
        free = np.isnan(self._begun[rows])
        slot = np.argmax(free, axis=1)
        able = free.any(axis=1)
        rows, slot = rows[able], slot[able]
        self._begun[rows, slot], self._target[rows, slot] = begun[able], target[able]
        self._waiting[rows] = True

    def _close(self, rows: IntArray, now_s: FloatArray, ready: FloatArray) -> None:
        begun, target = self._begun[rows], self._target[rows]
        with np.errstate(invalid="ignore"):
            came = target <= ready[:, None]
            late = now_s[:, None] - begun > LONGEST_S
        # they came some time between the last reading and this one
        came_s = (np.fmax(begun, self._seen_s[rows][:, None]) + now_s[:, None]) / 2.0
        for slot in np.flatnonzero(came.any(axis=0)):
            index = np.flatnonzero(came[:, slot] & ~late[:, slot])
            self._learn(rows[index], came_s[index, slot] - begun[index, slot])
        over = came | late
        self._begun[rows] = np.where(over, np.nan, begun)
        self._target[rows] = np.where(over, np.nan, target)
        self._waiting[rows] = np.isfinite(self._begun[rows]).any(axis=1)

    def _learn(self, rows: IntArray, waited_s: FloatArray) -> None:
        logs = np.log(np.clip(waited_s, SHORTEST_S, LONGEST_S))
        first = self.count[rows] == 0
        mean = np.where(first, logs, self.mean[rows])
        variance = np.where(first, FIRST_DEVIATION**2, self.variance[rows])
        weight = np.maximum(1.0 / (self.count[rows] + 1.0), LEAST_WEIGHT)
        error = np.clip(logs - mean, -MOST_SURPRISE, MOST_SURPRISE)
        self.mean[rows] = mean + weight * error
        self.variance[rows] = np.where(first, variance, (1.0 - weight) * (variance + weight * error**2))
        self.count[rows] += 1


@cache
def _beginning() -> StartUpEstimator:
    """One service that nothing is known of."""
    return StartUpEstimator(1)
