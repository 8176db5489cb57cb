"""What one replica can serve, in requests/s: given, or estimated online, with its uncertainty.

While a service is unsaturated, rate / (ready x utilisation) is its capacity; an exponentially
weighted mean and deviation of that are the estimate. A capacity (given or estimated) is then
corrected downwards while the latency objective is broken at a load that it calls safe, because an
overestimate is what hurts; the correction heals slowly once the objective holds again.
"""

from __future__ import annotations

import numpy as np

from controller.core.samples import FloatArray, IntArray, Samples

MEMORY_S = 1800.0
UNSATURATED = (0.1, 0.9)
CORRECTION_RANGE = (0.6, 1.0)
DOUBTFUL_LOAD = (0.6, 1.05)
CORRECTION_DOWN_PER_MINUTE = 0.08
CORRECTION_UP_PER_MINUTE = 0.004
UNKNOWN_UNCERTAINTY = 1.0


class CapacityEstimator:
    """Capacity of N services; arrays `[N]`, requests/s, NaN while unknown."""

    def __init__(self, services: int) -> None:
        self.given = np.full(services, np.nan)
        self.mean = np.full(services, np.nan)
        self.variance = np.zeros(services)
        self.correction = np.ones(services)

    def grow(self, services: int) -> None:
        """Make room for `services` rows."""
        fresh = CapacityEstimator(services - len(self.mean))
        for name in ("given", "mean", "variance", "correction"):
            setattr(self, name, np.concatenate([getattr(self, name), getattr(fresh, name)]))

    def reset(self, rows: IntArray) -> None:
        """Forget what was learned of these rows, not what was given."""
        self.mean[rows] = np.nan
        self.variance[rows] = 0.0
        self.correction[rows] = 1.0

    def update(
        self, rows: IntArray, samples: Samples, slo_latency_ms: FloatArray, elapsed_s: FloatArray
    ) -> None:
        """Learn from one reading a row, `elapsed_s` after the last one."""
        self._estimate(rows, samples, elapsed_s)
        self._correct(rows, samples, slo_latency_ms, elapsed_s)

    def capacity_rps(self, rows: IntArray) -> FloatArray:
        """Requests/s that one replica of each row is believed to serve; NaN while unknown."""
        believed = np.where(np.isnan(self.given[rows]), self.mean[rows], self.given[rows])
        return np.asarray(believed * self.correction[rows])

    def uncertainty(self, rows: IntArray) -> FloatArray:
        """Relative standard deviation of the estimate in 0..1; 0 where given, 1 while unknown."""
        with np.errstate(invalid="ignore", divide="ignore"):
            relative = np.sqrt(self.variance[rows]) / self.mean[rows]
        known = np.where(np.isnan(relative), UNKNOWN_UNCERTAINTY, np.minimum(relative, 1.0))
        return np.where(np.isnan(self.given[rows]), known, 0.0)

    def _estimate(self, rows: IntArray, samples: Samples, elapsed_s: FloatArray) -> None:
        used = samples.utilisation * samples.ready
        with np.errstate(invalid="ignore", divide="ignore"):
            seen = samples.request_rate / used
            usable = (samples.utilisation > UNSATURATED[0]) & (samples.utilisation < UNSATURATED[1])
        usable &= np.isfinite(seen) & (seen > 0)
        first = usable & np.isnan(self.mean[rows])
        self.mean[rows] = np.where(first, seen, self.mean[rows])
        self.variance[rows] = np.where(first, (0.5 * seen) ** 2, self.variance[rows])
        weight = np.where(usable, 1.0 - np.exp(-elapsed_s / MEMORY_S), 0.0)
        # a young estimate moves fast: its deviation is still wide
        weight = np.where(usable, np.maximum(weight, 0.2 * np.minimum(self.uncertainty(rows), 1.0)), 0.0)
        error = np.where(usable, seen - self.mean[rows], 0.0)
        self.mean[rows] += weight * error
        self.variance[rows] = (1.0 - weight) * (self.variance[rows] + weight * error**2)

    def _correct(
        self, rows: IntArray, samples: Samples, slo_latency_ms: FloatArray, elapsed_s: FloatArray
    ) -> None:
        minutes = elapsed_s / 60.0
        with np.errstate(invalid="ignore", divide="ignore"):
            load = samples.request_rate / (samples.ready * self.capacity_rps(rows))
            settled = samples.ready >= samples.current
            slow = samples.latency_ms > slo_latency_ms
            doubtful = slow & settled & (load > DOUBTFUL_LOAD[0]) & (load < DOUBTFUL_LOAD[1])
            healthy = samples.latency_ms < 0.8 * slo_latency_ms
        factor = np.where(doubtful, np.exp(-CORRECTION_DOWN_PER_MINUTE * minutes), 1.0)
        factor = np.where(healthy, np.exp(CORRECTION_UP_PER_MINUTE * minutes), factor)
        self.correction[rows] = np.clip(self.correction[rows] * factor, *CORRECTION_RANGE)
