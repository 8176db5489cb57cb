"""Outlier detection: a pool that is much slower or fails much more than the others loses its traffic at once,
and gets it back slowly.

After Envoy's outlier detection (ejection for a base time that grows with every ejection, at most a part of
the pools) and its slow start, at the time scale of weights. A pool that is out keeps a small share: without
requests nobody could see that it is well again. Arrays are `[N, P]` for N sets of P pools.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.core.samples import BoolArray, FloatArray, IntArray
from controller.core.weighing import LEAST_SHARE, PoolReadings

IN_FLIGHT_SIGMAS = 4.0
"""Standard deviations by which a number of requests under way is taken lower than it was read."""


@dataclass(frozen=True, slots=True)
class EjectionRules:
    """latency_ratio: over the median of the other pools, and above the objective where there is one.
    error_ratio: absolute, and `latency_ratio` times that of the others. probe_share: what a pool keeps of its
    share while it is out. base_s: shortest time out; doubled for each ejection up to longest_s, forgotten
    after as long without one. recovery_s: until the whole share is back. max_out: largest part of the ready
    capacity that may be out. busy: utilisation by the believed capacity above which slowness is no sign of
    sickness, and to which the other pools may be filled by what an ejected one leaves."""

    latency_ratio: float = 2.5
    error_ratio: float = 0.05
    probe_share: float = 0.05
    base_s: float = 30.0
    longest_s: float = 600.0
    recovery_s: float = 120.0
    max_out: float = 0.5
    busy: float = 0.7


class Ejector:
    """Which pools are out, `[N, P]`; `factors` is what each keeps of its share, 1 for a healthy one."""

    def __init__(self, sets: int, pools: int, rules: EjectionRules | None = None) -> None:
        self.rules = rules or EjectionRules()
        self.factors = np.ones((sets, pools))
        self.times = np.zeros((sets, pools), dtype=np.int64)
        self._until_s = np.full((sets, pools), -np.inf)
        self._last_s = np.full((sets, pools), -np.inf)
        self._held_up_ms = np.full((sets, pools), np.nan)

    @property
    def out(self) -> BoolArray:
        """Pools whose share is only a probe."""
        return self.factors <= self.rules.probe_share

    def reset(self, rows: IntArray) -> None:
        """Forget these sets."""
        self.factors[rows] = 1.0
        self.times[rows] = 0
        self._until_s[rows] = -np.inf
        self._last_s[rows] = -np.inf
        self._held_up_ms[rows] = np.nan

    def update(
        self, now_s: FloatArray, elapsed_s: FloatArray, readings: PoolReadings, slo_ms: FloatArray
    ) -> FloatArray:
        """Judge every pool by its readings; the factors after it.

        now_s, elapsed_s (s) and slo_ms (the latency objective, NaN: none) are `[N]`.
        """
        rules = self.rules
        now = np.asarray(now_s, dtype=np.float64)[:, None]
        before, self._held_up_ms = self._held_up_ms, held_up_ms(readings, rules.busy)
        # twice in a row: a queue that comes and goes with a burst is no sickness
        sick = self.sick(readings, slo_ms, np.minimum(before, self._held_up_ms))
        waiting = now < self._until_s
        started = sick & ~waiting & self._affordable(sick | waiting, readings)
        self.times = np.where(now - self._last_s > rules.longest_s, 0, self.times)
        self.times = self.times + started
        out_s = np.minimum(rules.base_s * 2.0 ** np.maximum(self.times - 1, 0), rules.longest_s)
        self._until_s = np.where(started, now + out_s, self._until_s)
        self._last_s = np.where(started, now, self._last_s)
        grown = self.factors + (np.asarray(elapsed_s)[:, None] / rules.recovery_s) * (1.0 - rules.probe_share)
        healthy = np.where(sick, self.factors, np.minimum(grown, 1.0))
        self.factors = np.where(now < self._until_s, rules.probe_share, healthy)
        return self.factors

    def sick(
        self, readings: PoolReadings, slo_ms: FloatArray, held_up: FloatArray | float = np.nan
    ) -> BoolArray:
        """Pools that are slower, or fail more, than the rules allow beside the others of their set.

        held_up: latencies (ms) `[N, P]` that requests under way tell; see `held_up_ms`.
        """
        rules = self.rules
        serving = readings.serving
        latency = np.where(serving, np.fmax(readings.latency_ms, held_up), np.nan)
        errors = np.where(serving, readings.error_ratio, np.nan)
        with np.errstate(invalid="ignore"):
            slow = latency > rules.latency_ratio * _median_of_others(latency)
            slow &= ~(latency <= np.asarray(slo_ms)[:, None])
            # latency under more load than it can serve is no sickness, and less load for it more for others
            slow &= readings.request_rate < rules.busy * readings.ready_rps
            others = np.nan_to_num(_median_of_others(errors))
            failing = (errors > rules.error_ratio) & (errors > rules.latency_ratio * others)
        return np.asarray(slow | failing)

    def _affordable(self, out: BoolArray, readings: PoolReadings) -> BoolArray:
        """Rows `[N, 1]` in which no more than `max_out` would be out, and the rest can take the load."""
        capacity = readings.ready_rps
        left = np.where(out, 0.0, capacity).sum(axis=1)
        enough = left >= (1.0 - self.rules.max_out) * capacity.sum(axis=1) - 1e-9
        bearable = ~(readings.load_rps > self.rules.busy * left)
        return np.asarray(enough & bearable)[:, None]


def held_up_ms(readings: PoolReadings, busy: float) -> FloatArray:
    """The mean latency (ms) that the requests under way tell at least, `[N, P]`; NaN unknown.

    A histogram knows requests that have been answered: of a pool that hangs it shows nothing until clients
    give up. The requests under way rise at once, and over the rate they are the mean latency (Little 1961).
    One look at them is a Poisson number, of which the lower end counts (variance-stabilised, Anscombe 1948:
    2 sqrt(L) has a deviation of 1). The rate is at least what the weights send, as rates over a window lag
    behind weights that have risen. Above the utilisation `busy` requests queue, and nothing is known.
    """
    weights = readings.weights / np.maximum(readings.weights.sum(axis=1, keepdims=True), 1)
    rate = np.fmax(readings.request_rate, weights * np.nan_to_num(readings.load_rps)[:, None])
    with np.errstate(invalid="ignore", divide="ignore"):
        surely = np.maximum(np.sqrt(readings.in_flight) - IN_FLIGHT_SIGMAS / 2.0, 0.0) ** 2
        told = (rate > 0) & ~(readings.utilisation > busy)
        return np.asarray(np.where(told, 1000.0 * surely / rate, np.nan))


def with_ejections(shares: FloatArray, factors: FloatArray) -> FloatArray:
    """Shares times factors; what is taken away goes to the others by their shares."""
    kept = shares * factors
    total = kept.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, kept / np.maximum(total, 1e-300), shares))


@dataclass(frozen=True, slots=True)
class Unejected:
    """What route weights would be had ejection not cut them, for formulas that step from the present weights.

    From weights that are cut such a formula would be cut again in each step, and a pool that is well again
    would stay at its probe. Weights are integers, so that a probe of 1 or 2 parts cannot be divided by its
    factor: what a pool had when it was last whole is remembered instead. shares: that, 0 unknown.
    factors: with which the present weights were made. Both `[N, P]`.
    """

    shares: FloatArray
    factors: FloatArray

    @classmethod
    def new(cls, sets: int, pools: int) -> Unejected:
        """Nothing is ejected, and nothing known."""
        return cls(np.zeros((sets, pools)), np.ones((sets, pools)))

    def weights(self, present: IntArray | FloatArray) -> FloatArray:
        """Of the present weights `[N, P]`: a pool that is out or recovering has what it had, the others share
        the rest as they do now. The same where nobody is out."""
        weights = np.asarray(present, dtype=np.float64)
        held = self.held
        kept = np.where(held, self.shares, 0.0)
        rest = np.where(held, 0.0, weights)
        left = np.maximum(1.0 - kept.sum(axis=1, keepdims=True), LEAST_SHARE)
        scaled = rest / np.maximum(rest.sum(axis=1, keepdims=True), 1e-300) * left
        restored = weights.sum(axis=1, keepdims=True) * (kept + scaled)
        return np.where(held.any(axis=1, keepdims=True), restored, weights)

    def after(self, present: IntArray | FloatArray, factors: FloatArray) -> Unejected:
        """What is known once weights have been made from `present` with these factors."""
        whole = self.weights(present)
        shares = whole / np.maximum(whole.sum(axis=1, keepdims=True), 1e-300)
        return Unejected(np.where(self.held, self.shares, shares), np.array(factors))

    @property
    def held(self) -> BoolArray:
        """Pools that are out or recovering in the present weights. What they showed while they were sick says
        nothing of what they will be: `Smoother.forget_latency`."""
        return np.asarray((self.factors < 1.0) & (self.shares > 0.0))


def _median_of_others(values: FloatArray) -> FloatArray:
    """For each pool the median of the other pools' known values; NaN where there is none."""
    result = np.full(values.shape, np.nan)
    for pool in range(values.shape[1]):
        rest = np.delete(values, pool, axis=1)
        known = np.isfinite(rest).any(axis=1)
        if known.any():
            result[known, pool] = np.nanmedian(rest[known], axis=1)
    return result
