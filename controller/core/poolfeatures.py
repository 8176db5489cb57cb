"""What is observed of several pools behind a route: features of each pool, and the schema of the whole set.

`pool_features` is the operator's; `sim.envs.pool_features` has the same formulas compiled and shares the
schemas, so that an artifact sees in a cluster what it saw in training. The set is seen as one service,
through `controller.core.observation`; its pools add ratios of the same kind, so that all of it is scale-free.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.core.observation import OBSERVATION_SCHEMA, Feature, ObservationSchema
from controller.core.pools import WEIGHT_TOTAL
from controller.core.samples import BoolArray, FloatArray, IntArray

MIN_LOAD = 0.05
"""Loads (in replicas) below this count as this, as they do in the Autoscale observation."""


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
POOL_COLUMN = {name: column for column, name in enumerate(POOL_SCHEMA.names)}


@dataclass(frozen=True, slots=True)
class PoolSights:
    """What monitoring and the API server show of pools now, `[N, P]` each.

    request_rate: requests/s that the pool gets. latency_ms: at the objective's percentile. error_ratio: 0..1.
    utilisation: of the ready replicas. in_flight: requests under way. These five are NaN where unknown.
    ready, current: replicas. weights, weights_asked: parts of 100 in force, and last asked for. told: ready
    replicas that have a notice to go.
    """

    request_rate: FloatArray
    latency_ms: FloatArray
    error_ratio: FloatArray
    utilisation: FloatArray
    in_flight: FloatArray
    ready: FloatArray
    current: FloatArray
    weights: FloatArray | IntArray
    weights_asked: FloatArray | IntArray
    told: FloatArray | IntArray


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What does not change from tick to tick, `[N, P]` each.

    present: whether there is such a pool. capacity_rps: requests/s that one replica is believed to serve.
    price: cost of capacity over the mean of the set's pools. start_up_s: seconds until a new replica is
    ready. risk: share of its replicas that the provider takes in an hour. Bounds as in the spec; weights are
    parts of 100.
    """

    present: BoolArray
    capacity_rps: FloatArray
    price: FloatArray
    start_up_s: FloatArray
    risk: FloatArray
    min_replicas: IntArray
    max_replicas: IntArray
    min_weight: IntArray
    max_weight: IntArray


def relative_price(cost: FloatArray, capacity_rps: FloatArray, present: BoolArray) -> FloatArray:
    """Cost of capacity over the mean of the set's pools, `[N, P]`; 1 where all cost nothing."""
    each = np.where(present, cost / np.maximum(capacity_rps, 1e-300), 0.0)
    mean = each.sum(axis=1, keepdims=True) / np.maximum(present.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.where(mean > 0, each / np.maximum(mean, 1e-300), 1.0))


def set_features(
    service: FloatArray, present: BoolArray, propagation_s: FloatArray, max_step: FloatArray | IntArray
) -> FloatArray:
    """Features float32 `[N, S]` of whole sets in the order of SET_SCHEMA.

    service: the Autoscale observation of each set as one service `[N, F]`. propagation_s: usual seconds until
    weights are in force; max_step: largest change of a weight in a tick, parts of 100; both `[N]`.
    """
    own = np.stack(
        [
            1.0 / np.maximum(present.sum(axis=1), 1),
            np.log1p(propagation_s),
            np.asarray(max_step, dtype=np.float64) / WEIGHT_TOTAL,
        ],
        axis=1,
    )
    own = np.clip(own, SET_SCHEMA.low[-3:], SET_SCHEMA.high[-3:])
    return np.concatenate([service, own], axis=1).astype(np.float32)


def pool_features(
    shown: PoolSights, static: PoolSettings, load_rps: FloatArray, unit_rps: FloatArray, slo_ms: FloatArray
) -> FloatArray:
    """Features float32 `[N, P, F]` in the order of POOL_SCHEMA, clipped to its ranges; 0 where unknown.

    load_rps: of the whole set (requests/s, NaN unknown); unit_rps: what a replica of the plain machine
    serves (requests/s); slo_ms: the latency objective (ms, NaN: none); `[N]` each. An absent pool's values
    are all 0.
    """
    present = np.asarray(static.present, dtype=bool)
    raw = np.zeros((*present.shape, POOL_SCHEMA.size))
    unit = np.asarray(unit_rps, dtype=np.float64)[:, None]
    load = np.maximum(np.nan_to_num(np.asarray(load_rps, dtype=np.float64))[:, None], MIN_LOAD * unit)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        _traffic(raw, shown, static, present)
        _capacity(raw, shown, static, present, load)
        _bounds(raw, shown, static, unit)
        _health(raw, shown, static, np.asarray(slo_ms, dtype=np.float64)[:, None])
    known = np.where(present[:, :, None] & np.isfinite(raw), raw, 0.0).astype(np.float32)
    return np.where(present[:, :, None], np.clip(known, POOL_SCHEMA.low, POOL_SCHEMA.high), np.float32(0.0))


def _own_rps(shown: PoolSights) -> FloatArray:
    return np.maximum(np.nan_to_num(np.asarray(shown.request_rate, dtype=np.float64)), 0.0)


def _put(raw: FloatArray, name: str, values: FloatArray | IntArray) -> None:
    raw[:, :, POOL_COLUMN[name]] = values


def _traffic(raw: FloatArray, shown: PoolSights, static: PoolSettings, present: BoolArray) -> None:
    own = _own_rps(shown)
    requests = np.where(present, own, 0.0).sum(axis=1, keepdims=True)
    asked = np.asarray(shown.weights_asked, dtype=np.float64)
    _put(raw, "present", np.ones(own.shape))
    _put(raw, "load_share", np.where(requests > 0, own / requests, 0.0))
    _put(raw, "weight_in_force", np.asarray(shown.weights, dtype=np.float64) / WEIGHT_TOTAL)
    _put(raw, "weight_asked", asked / WEIGHT_TOTAL)
    _put(raw, "weight_room_up", (static.max_weight - asked) / WEIGHT_TOTAL)
    _put(raw, "weight_room_down", (asked - static.min_weight) / WEIGHT_TOTAL)


def _capacity(
    raw: FloatArray, shown: PoolSights, static: PoolSettings, present: BoolArray, load: FloatArray
) -> None:
    capacity, ready, current = static.capacity_rps, shown.ready, shown.current
    own_load = np.maximum(_own_rps(shown), MIN_LOAD * capacity)
    all_ready = np.where(present, ready * capacity, 0.0).sum(axis=1, keepdims=True)
    _put(raw, "ready_over_load", np.log(np.maximum(ready, 0.5) * capacity / own_load))
    _put(raw, "ready_over_set_load", np.log(np.maximum(ready, 0.5) * capacity / load))
    _put(raw, "provisioned_over_set_load", np.log(np.maximum(current, 0.5) * capacity / load))
    _put(raw, "ready_share", np.where(all_ready > 0, ready * capacity / all_ready, 0.0))
    _put(raw, "pending_share", (current - ready) / np.maximum(current, 1.0))


def _bounds(raw: FloatArray, shown: PoolSights, static: PoolSettings, unit: FloatArray) -> None:
    current = np.maximum(shown.current, 1.0)
    _put(raw, "headroom_to_max", np.log(np.maximum(static.max_replicas, 1) / current))
    _put(raw, "headroom_to_min", np.log(current / np.maximum(static.min_replicas, 1)))
    _put(raw, "granularity", 1.0 / (1.0 + shown.current))
    _put(raw, "replica_size", np.log(static.capacity_rps / unit))
    _put(raw, "price", np.log(np.maximum(static.price, 1e-6)))
    _put(raw, "start_up", np.log(np.maximum(static.start_up_s, 1.0) / 60.0))
    _put(raw, "reclaim_risk", static.risk)
    _put(raw, "notice_share", np.where(shown.ready > 0, shown.told / shown.ready, 0.0))


def _health(raw: FloatArray, shown: PoolSights, static: PoolSettings, slo_ms: FloatArray) -> None:
    own, ready, used = _own_rps(shown), shown.ready, shown.utilisation
    timed = (shown.latency_ms > 0) & (slo_ms > 0)
    busy = (used > 0.05) & (own > MIN_LOAD * static.capacity_rps) & (ready > 0)
    queued = shown.in_flight / np.maximum(ready * static.capacity_rps, 1e-9)
    _put(raw, "utilisation", np.where(used >= 0, used, 0.0))
    _put(raw, "latency_over_slo", np.where(timed, np.log(shown.latency_ms / slo_ms), 0.0))
    _put(raw, "latency_known", timed.astype(np.float64))
    _put(raw, "error_ratio", np.where(shown.error_ratio > 0, np.sqrt(shown.error_ratio), 0.0))
    _put(raw, "backlog", np.where(shown.in_flight > 0, np.log1p(queued), 0.0))
    check = np.log(used * ready * static.capacity_rps / own)
    _put(raw, "capacity_check", np.where(busy, check, 0.0))
