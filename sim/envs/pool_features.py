"""What is observed of several pools behind a route: the features of each pool, and those of the whole set.

`sim.envs.pool_batch` is the caller. The schemas, and the formulas as the operator computes them, are in
`controller.core.poolfeatures`; `pool_rows` is the same compiled (tests/core/test_poolfeatures.py).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from controller.core.poolfeatures import MIN_LOAD, POOL_SCHEMA, SET_SCHEMA
from sim.compiled import counted, inner
from sim.pools import WEIGHT_TOTAL, PoolsMetrics

FloatArray = npt.NDArray[np.floating]

SHOWN = (
    "request_rate", "latency_ms", "error_ratio", "utilisation", "in_flight", "ready", "current",
    "weights", "weights_asked", "told",
)  # fmt: skip
STATIC = (
    "present", "capacity_rps", "price", "start_up_s", "risk", "min_replicas", "max_replicas",
    "min_weight", "max_weight",
)  # fmt: skip


def split_observation(observations: FloatArray, pools: int) -> tuple[FloatArray, FloatArray]:
    """(of pools `[..., P, F]`, of the set `[..., S]`) for observations `[..., P * F + S]`."""
    cut = pools * POOL_SCHEMA.size
    of_pools = observations[..., :cut].reshape(*observations.shape[:-1], pools, POOL_SCHEMA.size)
    return of_pools, observations[..., cut:]


def observation_bounds(pools: int) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest observation, float32 `[P * F + S]`; 0 stands for unknown, so both include it."""
    low = np.concatenate([np.tile(POOL_SCHEMA.low, pools), SET_SCHEMA.low])
    high = np.concatenate([np.tile(POOL_SCHEMA.high, pools), SET_SCHEMA.high])
    return np.minimum(low, 0.0).astype(np.float32), np.maximum(high, 0.0).astype(np.float32)


def joined(shown: PoolsMetrics, capacity_rps: FloatArray, unit_rps: FloatArray) -> tuple[FloatArray, ...]:
    """Request rate, latency, error ratio, utilisation, ready, current and in flight of whole sets, `[N]`.

    Rates add up; latency and errors are weighted by requests, utilisation by ready capacity; replicas are
    counted in units of the plain machine. A signal is missing where no pool has it.
    """
    known = np.isfinite(shown.request_rate)
    rate = np.where(known, shown.request_rate, 0.0)
    size = np.where(shown.present, capacity_rps, 0.0) / unit_rps[:, None]
    total = np.where(known.any(axis=1), rate.sum(axis=1), np.nan)
    ready, current = (shown.ready * size).sum(axis=1), np.rint((shown.current * size).sum(axis=1))
    in_flight = np.where(np.isfinite(shown.in_flight), shown.in_flight, 0.0).sum(axis=1)
    return (
        total,
        _mean(shown.latency_ms, rate),
        _mean(shown.error_ratio, rate),
        _mean(shown.utilisation, shown.ready * size),
        ready,
        current,
        in_flight,
    )


def _mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted means of rows without their NaNs; NaN where there is nothing to weigh."""
    counted = np.where(np.isfinite(values), weights, 0.0)
    total = counted.sum(axis=1)
    weighed = (np.nan_to_num(values) * counted).sum(axis=1)
    return np.where(total > 0, weighed / np.maximum(total, 1e-300), np.nan)


@counted
def pool_rows(shown, static, load_rps, unit_rps, slo_ms, result):  # type: ignore[no-untyped-def]
    """Features of pools, not yet clipped, into `result` float32 `[N, P * F]`.

    shown `[10, N, P]` and static `[9, N, P]` are in the orders of SHOWN and STATIC; load and unit
    (requests/s) and the objective (ms) are `[N]`.
    """
    _, sets, pools = shown.shape
    size = result.shape[1] // pools
    for s in range(sets):
        ready_rps, requests = 0.0, 0.0
        for p in range(pools):
            if static[0, s, p] > 0.0:
                ready_rps += shown[5, s, p] * static[1, s, p]
                requests += shown[0, s, p] if shown[0, s, p] > 0.0 else 0.0
        load = max(load_rps[s] if load_rps[s] > 0.0 else 0.0, MIN_LOAD * unit_rps[s])
        for p in range(pools):
            if static[0, s, p] > 0.0:
                _pool_row(
                    shown[:, s, p], static[:, s, p], load, requests, ready_rps, unit_rps[s], slo_ms[s],
                    result[s, p * size : (p + 1) * size],
                )  # fmt: skip


@inner
def _pool_row(shown, static, load_rps, requests, ready_rps, unit_rps, slo_ms, row):  # type: ignore[no-untyped-def]
    rate, latency, errors, used, in_flight, ready, current, weight, asked, told = shown
    _, capacity, price, start_up, risk, least, most, low, high = static
    own_rps = rate if rate > 0.0 else 0.0
    own_load = max(own_rps, MIN_LOAD * capacity)
    row[0] = 1.0
    row[1] = own_rps / requests if requests > 0.0 else 0.0
    row[2] = weight / WEIGHT_TOTAL
    row[3] = asked / WEIGHT_TOTAL
    row[4] = (high - asked) / WEIGHT_TOTAL
    row[5] = (asked - low) / WEIGHT_TOTAL
    row[6] = math.log(max(ready, 0.5) * capacity / own_load)
    row[7] = math.log(max(ready, 0.5) * capacity / load_rps)
    row[8] = math.log(max(current, 0.5) * capacity / load_rps)
    row[9] = ready * capacity / ready_rps if ready_rps > 0.0 else 0.0
    row[10] = (current - ready) / max(current, 1.0)
    row[11] = math.log(max(most, 1.0) / max(current, 1.0))
    row[12] = math.log(max(current, 1.0) / max(least, 1.0))
    row[13] = 1.0 / (1.0 + current)
    row[14] = math.log(capacity / unit_rps)
    row[15] = used if used >= 0.0 else 0.0
    if latency > 0.0:
        row[16] = math.log(latency / slo_ms)
        row[17] = 1.0
    row[18] = math.sqrt(errors) if errors > 0.0 else 0.0
    row[19] = math.log1p(in_flight / max(ready * capacity, 1e-9)) if in_flight > 0.0 else 0.0
    if used > 0.05 and own_rps > MIN_LOAD * capacity:
        row[20] = math.log(used * ready * capacity / own_rps) if ready > 0.0 else 0.0
    row[21] = math.log(max(price, 1e-6))
    row[22] = math.log(max(start_up, 1.0) / 60.0)
    row[23] = risk
    row[24] = told / ready if ready > 0.0 else 0.0
