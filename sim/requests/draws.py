"""What is drawn for single requests: arrival moments within a second, service times, latency buckets.

Pure functions of (seed, counter) as in `sim.noise`, so that two runs with other replicas see the same
requests. Called by `sim.requests.kernel`.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from sim.compiled import inlined, inner
from sim.noise import uniform

STREAM_GAPS, STREAM_SERVICE, STREAM_BALANCER, STREAM_SECOND, STREAM_PROXY, STREAM_RETRY = range(100, 106)
STREAM_ERROR = 106
STREAM_PROBE = 1000
"""And one more for each proxy."""

GAMMA_STEPS_PER_UNIT = 64
GAMMA_LONGEST = 40.0
"""Service times are drawn up to the quantile 1 - exp(-40)."""

BINS_PER_OCTAVE = 32
OCTAVES = 30
BINS = BINS_PER_OCTAVE * OCTAVES
_SHIFT = np.int64(52 - 5)
SMALLEST_S = 2.0**-17
"""Latencies below 7.6 us share the first bucket; the last ends at 2^13 s."""
_FIRST = np.int64(np.float64(SMALLEST_S).view(np.int64) >> _SHIFT)


@functools.lru_cache(maxsize=64)
def service_quantiles(cv2: float) -> npt.NDArray[np.float64]:
    """Gamma quantiles of mean 1 and squared coefficient of variation `cv2`, at 1 - exp(-i / 64).

    Against the exponential variate the quantile is nearly a straight line, so that `service_share`
    interpolates it well. The density is integrated numerically in the logarithm, where it is smooth for
    every shape. `[1]` of 1.0 for a constant.
    """
    if cv2 <= 0.0:
        return np.ones(1)
    shape = 1.0 / cv2
    logs = np.linspace(-min(60.0 * max(cv2, 1.0), 700.0), math.log(60.0 + 60.0 * cv2), 400_001)
    density = np.exp(shape * logs - shape * np.exp(logs) + shape * math.log(shape) - math.lgamma(shape))
    pieces = 0.5 * (density[1:] + density[:-1]) * (logs[1] - logs[0])
    above = np.concatenate([np.cumsum(pieces[::-1])[::-1], [0.0]])
    exponential = -np.log(np.clip(above / above[0], 1e-300, 1.0))
    wanted = np.arange(int(GAMMA_LONGEST * GAMMA_STEPS_PER_UNIT) + 1) / GAMMA_STEPS_PER_UNIT
    table = np.exp(np.interp(wanted, exponential, logs))
    table[0] = 0.0 if cv2 >= 0.05 else table[0]
    return np.asarray(table)


@inlined
def service_share(table, seed, index):  # type: ignore[no-untyped-def]
    """Request `index`'s service time over the mean one."""
    if len(table) == 1:
        return 1.0
    position = -math.log(uniform(seed, index, STREAM_SERVICE)) * GAMMA_STEPS_PER_UNIT
    left = int(position)
    if left >= len(table) - 1:
        return table[-1]
    part = position - left
    return table[left] * (1.0 - part) + table[left + 1] * part


@inner
def moments_in_second(times, count, clock, seed, first, spread):  # type: ignore[no-untyped-def]
    """Fill `times[:count]` with ascending moments in [clock, clock + 1).

    spread: evenly drawn ones (given their number, that is what a Poisson process has), by the spacings of
    count + 1 exponentials; else equally spaced ones. first: index of the first of them in its life.
    """
    if not spread:
        for k in range(count):
            times[k] = clock + (k + 0.5) / count
        return
    total = 0.0
    for k in range(count):
        total -= math.log(uniform(seed, first + k, STREAM_GAPS))
        times[k] = total
    total -= math.log(uniform(seed, clock, STREAM_SECOND))
    for k in range(count):
        times[k] = clock + times[k] / total


@inlined
def bucket(latency_s):  # type: ignore[no-untyped-def]
    """Index of a latency's bucket: 32 in each octave, at most 3.1 % wide."""
    index = (np.float64(latency_s).view(np.int64) >> _SHIFT) - _FIRST
    return min(max(index, 0), BINS - 1)


def bucket_edges_s() -> npt.NDArray[np.float64]:
    """Edges of the buckets in seconds, `[BINS + 1]`; the first is 0."""
    index = np.arange(BINS + 1)
    octave, part = np.divmod(index, BINS_PER_OCTAVE)
    edges = SMALLEST_S * 2.0**octave * (1.0 + part / BINS_PER_OCTAVE)
    edges[0] = 0.0
    return np.asarray(edges)


def percentile_ms(
    counts: npt.NDArray[np.floating], percentiles: npt.ArrayLike, edges_s: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Percentiles (ms) of a histogram `[B]` with edges `[B + 1]`, linear within a bucket; NaN if empty."""
    wanted = np.atleast_1d(np.asarray(percentiles, dtype=np.float64))
    total = float(np.sum(counts))
    if total <= 0.0:
        return np.full(len(wanted), np.nan)
    cumulative = np.concatenate([[0.0], np.cumsum(counts)])
    result = np.empty(len(wanted))
    for k, share in enumerate(wanted / 100.0):
        right = int(np.searchsorted(cumulative, share * total, side="left"))
        right = min(max(right, 1), len(counts))
        inside = (share * total - cumulative[right - 1]) / max(counts[right - 1], 1e-300)
        result[k] = edges_s[right - 1] + inside * (edges_s[right] - edges_s[right - 1])
    return 1000.0 * result
