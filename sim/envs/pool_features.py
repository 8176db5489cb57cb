"""What is observed of several pools behind a route: the features of each pool, and those of the whole set.

`sim.envs.pool_batch` is the caller. The set is seen as one service, through the operator's own observation
(`controller.core.observation`); its pools add ratios of the same kind, so that all of it is scale-free.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from controller.core import OBSERVATION_SCHEMA, Feature, ObservationSchema
from sim.compiled import counted, inner
from sim.pools import WEIGHT_TOTAL, PoolsMetrics

FloatArray = npt.NDArray[np.floating]

MIN_LOAD = 0.05
"""Loads (in replicas) below this count as this, as they do in the Autoscale observation."""
SHOWN = (
    "request_rate", "latency_ms", "error_ratio", "utilisation", "in_flight", "ready", "current",
    "weights", "weights_asked", "told",
)  # fmt: skip
STATIC = (
    "present", "capacity_rps", "price", "start_up_s", "risk", "min_replicas", "max_replicas",
    "min_weight", "max_weight",
)  # fmt: skip


def _pool_schema() -> ObservationSchema:
    log, share, ratio = "ln ratio", "share", "ratio"
    return ObservationSchema(
        "pools/v1/pool",
        (
            Feature("present", 0, 1, "flag", "whether there is such a pool; if not, all its values are 0"),
            Feature("load_share", 0, 1, share, "requests that it gets, over those of all pools"),
            Feature("weight_in_force", 0, 1, share, "weight that the route applies now"),
            Feature("weight_asked", 0, 1, share, "weight that was last asked for"),
            Feature("weight_room_up", 0, 1, share, "maxWeight above the weight asked for"),
            Feature("weight_room_down", 0, 1, share, "weight asked for above minWeight"),
            Feature("ready_over_load", -4, 9, log, "capacity of its ready replicas over its load"),
            Feature("ready_over_set_load", -4, 9, log, "the same over the load of the whole set"),
            Feature("provisioned_over_set_load", -4, 9, log, "capacity of all its replicas over that load"),
            Feature("ready_share", 0, 1, share, "capacity of its ready replicas over that of all pools"),
            Feature("pending_share", -1, 1, share, "replicas asked for but not ready, over those asked for"),
            Feature("headroom_to_max", 0, 6, log, "maxReplicas over the replicas asked for"),
            Feature("headroom_to_min", 0, 6, log, "replicas asked for over minReplicas (at least 1)"),
            Feature("granularity", 0, 1, ratio, "1 / (1 + replicas asked for)"),
            Feature("replica_size", -4, 4, log, "capacity of its replica over the plain machine's"),
            Feature("utilisation", 0, 2, share, "utilisation of the ready replicas"),
            Feature(
                "latency_over_slo", -3, 3, log, "latency at the objective's percentile over the objective"
            ),
            Feature("latency_known", 0, 1, "flag", "whether there is a latency"),
            Feature("error_ratio", 0, 1, share, "square root of the error ratio"),
            Feature("backlog", 0, 4, "ln(1+s)", "requests in flight over what ready replicas serve in 1 s"),
            Feature(
                "capacity_check", -2, 2, log, "utilisation x ready over load: above 0 where less is served"
            ),
            Feature("price", -3, 3, log, "cost of its capacity over the mean of all pools"),
            Feature("start_up", -3, 3, log, "start-up time over 60 s"),
            Feature("reclaim_risk", 0, 1, share, "replicas that its provider says to take in an hour"),
            Feature("notice_share", 0, 1, share, "ready replicas that were told to go"),
        ),
    )


POOL_SCHEMA = _pool_schema()
"""What is observed of each pool, in order."""
SET_SCHEMA = ObservationSchema(
    "pools/v1/set",
    (
        *OBSERVATION_SCHEMA.features,
        Feature("pools", 0, 1, "ratio", "1 / number of pools"),
        Feature("propagation", 0, 7, "ln(1+s)", "usual time until weights are in force"),
        Feature("max_weight_step", 0, 1, "share", "largest change of a weight in a tick"),
    ),
)
"""What is observed of the whole set: the Autoscale observation of it as one service, and three settings."""


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
