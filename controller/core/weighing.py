"""Formulas for how pools share one traffic, N sets of P pools at once: what a learned policy has to beat.

They are asked for shares; `controller.core.pools.guard_weights` turns shares into integer weights and has
the last word, `controller.core.ejection` takes sick pools out before it. Arrays are `[N, P]`; a pool without
ready replicas gets nothing from any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from controller.core.samples import BoolArray, FloatArray, IntArray

DEFAULT_TARGET = 0.7
"""Utilisation that `cheapest_first` fills a pool to before it spills over, as the HPA's usual target."""
MEMORY_S = 60.0
"""Time constant of the smoothed latency and capacity (s): four sync periods of 15 s."""
GRADIENT_GAIN = 0.1
"""Power of the latency ratio by which a weight moves in a step; readings lag, so more would swing."""
GRADIENT_CLIP = 2.0
LEAST_SHARE = 0.01
"""A pool that carries nothing cannot be observed; the gradient starts again from here."""


@dataclass(frozen=True, slots=True)
class PoolReadings:
    """What is known of pools, `[N, P]` each; NaN unknown.

    ready: replicas. capacity_rps: requests/s that one replica is believed to serve. request_rate: requests/s
    that the pool gets. latency_ms: at the objective's percentile. error_ratio: 0..1. utilisation: of the
    ready replicas. in_flight: requests under way. price: cost of a unit of capacity. max_replicas: as in the
    spec. weights: parts of 100 that were last asked for; to formulas, as if nobody had been ejected
    (`controller.core.ejection.Unejected`). load_rps: of the whole set, `[N]`.
    """

    ready: FloatArray
    capacity_rps: FloatArray
    request_rate: FloatArray
    latency_ms: FloatArray
    error_ratio: FloatArray
    utilisation: FloatArray
    in_flight: FloatArray
    price: FloatArray
    max_replicas: IntArray
    weights: IntArray | FloatArray
    load_rps: FloatArray

    @property
    def serving(self) -> BoolArray:
        """Pools with a ready replica."""
        return np.nan_to_num(self.ready) > 0

    @property
    def ready_rps(self) -> FloatArray:
        """Requests/s that the ready replicas are believed to serve."""
        return np.nan_to_num(self.ready) * self.capacity_rps


class Smoother:
    """Exponentially weighted means of what single readings say with noise: latency, and the real capacity of
    a replica. NaN until first known; a reading that is missing changes nothing."""

    def __init__(self, sets: int, pools: int) -> None:
        self.latency_ms = np.full((sets, pools), np.nan)
        self.capacity_rps = np.full((sets, pools), np.nan)

    def update(self, readings: PoolReadings, elapsed_s: FloatArray) -> None:
        """Take in a reading `elapsed_s` seconds `[N]` after the last."""
        part = 1.0 - np.exp(-np.asarray(elapsed_s, dtype=np.float64) / MEMORY_S)[:, None]
        self.latency_ms = _towards(self.latency_ms, readings.latency_ms, part)
        self.capacity_rps = _towards(self.capacity_rps, effective_capacity(readings), part)

    def forget_latency(self, pools: BoolArray) -> None:
        """Forget how slow these pools `[N, P]` were, so that their next reading counts alone."""
        self.latency_ms[pools] = np.nan

    def reset(self, rows: IntArray) -> None:
        """Forget these sets."""
        self.latency_ms[rows] = np.nan
        self.capacity_rps[rows] = np.nan


def effective_capacity(readings: PoolReadings) -> FloatArray:
    """Requests/s that one replica really serves: rate over busy replicas (utilisation law, X = U C); NaN
    where a pool is too idle to tell."""
    busy = readings.utilisation * readings.ready
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        found = readings.request_rate / busy
        told = (busy > 0.05) & (readings.utilisation > 0.1) & (readings.request_rate > 0)
    return np.where(told, found, np.nan)


Weighing = Callable[[PoolReadings, Smoother], FloatArray]
"""Shares `[N, P]`, rows of which sum to 1 wherever a pool serves."""


def equal(readings: PoolReadings, smoother: Smoother) -> FloatArray:
    """Every pool that serves the same."""
    return normalised(readings.serving.astype(np.float64), readings)


def capacity_proportional(readings: PoolReadings, smoother: Smoother) -> FloatArray:
    """As large as each pool could be at most (maxReplicas)."""
    return normalised(readings.max_replicas * readings.capacity_rps, readings)


def ready_proportional(readings: PoolReadings, smoother: Smoother) -> FloatArray:
    """As large as the ready capacity of each pool is; what Kubernetes' own endpoints do."""
    return normalised(readings.ready_rps, readings)


def cheapest_first(readings: PoolReadings, smoother: Smoother) -> FloatArray:
    """The cheapest pool up to the target utilisation, then the next: spill-over. What is left over when all
    are full is shared by ready capacity."""
    room = np.where(readings.serving, DEFAULT_TARGET * readings.ready_rps, 0.0)
    order = np.argsort(np.where(readings.serving, readings.price, np.inf), axis=1, kind="stable")
    in_order = np.take_along_axis(room, order, axis=1)
    before = np.cumsum(in_order, axis=1) - in_order
    load = np.nan_to_num(readings.load_rps)[:, None]
    filled = np.zeros_like(room)
    np.put_along_axis(filled, order, np.clip(load - before, 0.0, in_order), axis=1)
    left = np.maximum(load - filled.sum(axis=1, keepdims=True), 0.0)
    return normalised(filled + left * ready_proportional(readings, smoother), readings)


def latency_gradient(readings: PoolReadings, smoother: Smoother) -> FloatArray:
    """From the current weights towards the pools with less smoothed latency, until latencies are equal.

    A multiplicative step: w x (mean latency / own latency) ^ gain, clipped to a factor of 2. Pools whose
    latency is unknown keep their weight.
    """
    now = normalised(np.maximum(readings.weights.astype(np.float64), 100.0 * LEAST_SHARE), readings)
    latency = np.where(readings.serving, smoother.latency_ms, np.nan)
    known = np.isfinite(latency)
    counted = np.where(known, now, 0.0)
    total = np.maximum(counted.sum(axis=1, keepdims=True), 1e-12)
    mean = (np.nan_to_num(latency) * counted).sum(axis=1, keepdims=True) / total
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.clip((mean / latency) ** GRADIENT_GAIN, 1.0 / GRADIENT_CLIP, GRADIENT_CLIP)
    return normalised(now * np.where(known & (mean > 0), factor, 1.0), readings)


def expected_delay(readings: PoolReadings, smoother: Smoother) -> FloatArray:
    """Join the shortest expected delay at the weights' time scale: shares by which, over the next MEMORY_S,
    each pool's backlog and new work over what it really serves come out equal (water filling).

    Real capacity is the smoothed `effective_capacity`, the believed one while that is unknown. Source of the
    rule: Weber 1978 and the SED policy, with rates for single jobs.
    """
    one = np.where(np.isfinite(smoother.capacity_rps), smoother.capacity_rps, readings.capacity_rps)
    served = np.where(readings.serving, np.nan_to_num(readings.ready) * one, 0.0) * MEMORY_S
    usual = np.where(readings.serving, np.nan_to_num(readings.ready), 0.0)
    backlog = np.maximum(np.nan_to_num(readings.in_flight) - usual, 0.0)
    work = np.maximum(np.nan_to_num(readings.load_rps, nan=1.0), 1e-9)[:, None] * MEMORY_S
    return normalised(_filled(backlog, served, work), readings)


WEIGHINGS: dict[str, Weighing] = {
    "Equal": equal,
    "Capacity": capacity_proportional,
    "Ready": ready_proportional,
    "CheapestFirst": cheapest_first,
    "LatencyGradient": latency_gradient,
    "ExpectedDelay": expected_delay,
}


def normalised(values: FloatArray, readings: PoolReadings) -> FloatArray:
    """Shares that sum to 1 over the pools that serve; equal ones where all values are 0; none where no pool
    serves."""
    serving = readings.serving
    shares = np.where(serving, np.nan_to_num(values), 0.0)
    total = shares.sum(axis=1, keepdims=True)
    count = np.maximum(serving.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.where(total > 0, shares / np.maximum(total, 1e-300), serving / count))


def _filled(backlog: FloatArray, served: FloatArray, work: FloatArray) -> FloatArray:
    """Work `[N, P]` that sums to `work` `[N, 1]` and levels (backlog + x) / served from below.

    Exact: pools are taken in the order of their present delay; with the first k of them the common level is
    (work + their backlog) / their service, and k is the last for which it is above the k-th's own delay.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        delay = np.where(served > 0, backlog / served, np.inf)
    order = np.argsort(delay, axis=1, kind="stable")
    in_order = np.take_along_axis(delay, order, axis=1)
    work_sum = np.cumsum(np.take_along_axis(backlog, order, axis=1), axis=1) + work
    served_sum = np.cumsum(np.take_along_axis(served, order, axis=1), axis=1)
    levels = work_sum / np.maximum(served_sum, 1e-300)
    last = np.maximum((levels >= in_order).sum(axis=1), 1)[:, None] - 1
    level = np.take_along_axis(levels, last, axis=1)
    return np.maximum(np.where(served > 0, level * served - backlog, 0.0), 0.0)


def _towards(old: FloatArray, new: FloatArray, part: FloatArray) -> FloatArray:
    known = np.isfinite(new)
    first = known & ~np.isfinite(old)
    mixed = np.where(first, new, old + part * (new - old))
    return np.where(known, mixed, old)
