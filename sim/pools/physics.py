"""`PoolsPhysics`: the arrays of N sets of pools and the methods that call the compiled kernels on them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from sim.errors import ParameterError, require, require_all
from sim.physics.layout import (
    S_ARRIVED,
    S_DROPPED,
    S_P50,
    S_P95,
    S_P99,
    S_REPLICA_S,
    S_SERVED,
    S_VIOLATING,
)
from sim.physics.metrics import metrics_rows
from sim.physics.params import ServiceParams
from sim.physics.service import ServiceMetrics, ServicePhysics, service_seeds
from sim.pools.kernels import advance_sets, joint_percentile, rates_now, route_sets, scale_sets
from sim.pools.params import (
    EVENT_RATES,
    G_OFFERED,
    G_UNROUTED,
    K_COST,
    MAX_POOLS,
    TOTALS,
    TROUBLES,
    WEIGHT_TOTAL,
    ArrayLike,
    BoolArray,
    FloatArray,
    IntArray,
    PoolArrays,
    PoolParams,
    RouteParams,
    new_arrays,
)

_COUNTED = (S_ARRIVED, S_SERVED, S_DROPPED, S_VIOLATING, S_REPLICA_S, S_P50, S_P95, S_P99)
_APART = np.uint64(0xA24BAED4963EE407)
"""Odd, and not one of the multipliers of `sim.noise`: seeds that far apart have nothing in common."""


@dataclass(frozen=True, slots=True)
class PoolsInterval:
    """What happened in one `advance`; float arrays `[rows, P]` of pools (0 or NaN for absent ones).

    arrived, served, dropped, violating: requests; arrived counts attempts. replica_s: replica-seconds billed,
    cost: the same times the pool's cost. p50_ms, p95_ms, p99_ms: means of the 1-s percentiles over requests
    served. seconds, offered (first attempts) and unrouted (requests for pools without a ready replica) are
    `[rows]`, of the set.
    """

    seconds: FloatArray
    offered: FloatArray
    unrouted: FloatArray
    arrived: FloatArray
    served: FloatArray
    dropped: FloatArray
    violating: FloatArray
    replica_s: FloatArray
    cost: FloatArray
    p50_ms: FloatArray
    p95_ms: FloatArray
    p99_ms: FloatArray

    @property
    def violation_share(self) -> FloatArray:
        """Violating over arrived requests of the set, 0..1, `[rows]`; 0 where there were none."""
        arrived = self.arrived.sum(axis=1)
        return np.asarray(np.minimum(self.violating.sum(axis=1) / np.maximum(arrived, 1e-9), 1.0))

    def percentile_ms(self, percentile: float) -> FloatArray:
        """Latency percentile (50..99.9) of all requests that the set served, `[rows]`; NaN where none were.

        Pools are mixed by the requests that they served. Each pool's tail runs through its three percentiles,
        log-linearly in between and beyond: that is its exponential tail as long as it is in a steady state.
        """
        require(50.0 <= percentile <= 99.9, "percentile", percentile, "in 50..99.9")
        known = np.stack([self.p50_ms, self.p95_ms, self.p99_ms])
        return np.asarray(joint_percentile(known, self.served, 1.0 - percentile / 100.0))


@dataclass(frozen=True, slots=True)
class PoolsMetrics:
    """What monitoring and the API server show now, `[rows, P]`; NaN where there is no data.

    The first seven are those of `ServiceMetrics`, a pool each, with Prometheus' lag; replicas, weights (asked
    for, and in force) and `told` (ready replicas that have a notice) are shown without.
    """

    request_rate: FloatArray
    latency_ms: FloatArray
    error_ratio: FloatArray
    utilisation: FloatArray
    in_flight: FloatArray
    ready: FloatArray
    current: FloatArray
    weights: IntArray
    weights_asked: IntArray
    told: IntArray
    present: BoolArray


class PoolsPhysics:
    """N sets of up to P pools. `rows` (int array) picks some sets everywhere; None is all.

    `services` is the `ServicePhysics` underneath: pool p of set s is its row s * P + p. `le_ms`: bounds of
    latency buckets to count requests in (`histogram`); none by default, for speed.
    """

    def __init__(
        self,
        sets: int = 1,
        pools: int = 3,
        service: ServiceParams | None = None,
        params: PoolParams | None = None,
        route: RouteParams | None = None,
        seed: int | IntArray = 0,
        replicas: ArrayLike = 1,
        le_ms: ArrayLike = (),
    ) -> None:
        require(sets >= 1, "sets", sets, "1 or more")
        require(1 <= pools <= MAX_POOLS, "pools", pools, f"in 1..{MAX_POOLS}")
        self.sets, self.pools = sets, pools
        self.services = ServicePhysics(ServiceParams(), sets * pools, le_ms=le_ms)
        self._all: npt.NDArray[np.int64] = np.arange(sets, dtype=np.int64)
        self._arrays = new_arrays(sets, pools)
        self.reset(
            None,
            service or ServiceParams(),
            params or PoolParams(),
            route or RouteParams(),
            service_seeds(seed, sets),
            replicas,
        )

    def reset(
        self,
        rows: IntArray | None,
        service: ServiceParams,
        params: PoolParams,
        route: RouteParams,
        seeds: IntArray,
        replicas: ArrayLike,
        weights: ArrayLike | None = None,
        present: ArrayLike | None = None,
    ) -> None:
        """Start these sets anew with `replicas` ready ones (int, broadcast to `[rows, P]`), clock 0.

        service: fields are numbers, or arrays broadcast to `[rows, P]`. Arrivals are the route's: a
        service's `poisson` and `arrival_dispersion` are not read, its `retry_share` must be 0. weights: int
        `[rows, P]`, in force at once; equal ones by default. present: bool `[rows, P]`; all by default.
        """
        picked, arrays = self._rows(rows), self._arrays
        shape = (len(picked), self.pools)
        arrays.params[picked] = params.matrix(*shape)
        arrays.route[picked] = route.matrix(len(picked))
        arrays.eventful[picked] = (arrays.params[picked][:, :, EVENT_RATES] > 0).any(axis=2)
        there = np.ones(shape, dtype=bool) if present is None else np.broadcast_to(np.asarray(present), shape)
        require_all(
            np.asarray(there.any(axis=1)), "present", there.sum(axis=1), "at least one pool of each set"
        )
        arrays.present[picked] = there
        arrays.seeds[picked] = np.asarray(seeds).astype(np.uint64)
        arrays.told[picked], arrays.told_slots[picked] = 0, 0
        arrays.until_s[picked], arrays.totals[picked], arrays.change_marks[picked] = 0.0, 0.0, 0
        counts = np.where(there, self._spread(replicas, shape, "replicas"), 0)
        arrays.asked[picked] = counts
        first = equal_weights(there) if weights is None else self._checked(picked, weights)
        arrays.weights[picked] = arrays.weights_asked[picked] = first
        flat = self._flat(picked)
        row_seeds = _row_seeds(arrays.seeds[picked], self.pools)
        self.services.reset(flat, _per_row(service, shape), row_seeds, counts.reshape(-1))

    def set_rates(self, rates_rps: ArrayLike, period_s: float, rate_rows: IntArray | None = None) -> None:
        """Request rates `[R, T]`, one every `period_s` seconds from clock 0, interpolated linearly.

        `rate_rows` int `[N]`: which of the R each set follows (default: its own).
        """
        rates = np.atleast_2d(np.asarray(rates_rps, dtype=np.float32))
        chosen = self._all if rate_rows is None else np.asarray(rate_rows)
        if len(chosen) != self.sets or chosen.max(initial=0) >= len(rates):
            raise ParameterError("rate_rows", len(chosen), f"{self.sets} rows of {len(rates)} rate series")
        self._arrays = self._arrays._replace(
            rates=np.ascontiguousarray(rates),
            rate_rows=np.ascontiguousarray(chosen, dtype=np.int64),
            rate_period_s=np.array([float(period_s)]),
        )

    def scale(self, rows: IntArray | None, replicas: ArrayLike) -> None:
        """Ask for `replicas` (int, broadcast to `[rows, P]`); absent pools stay at none."""
        picked = self._rows(rows)
        counts = self._spread(replicas, (len(picked), self.pools), "replicas")
        scale_sets(picked, counts, self.services.arrays, self._arrays)

    def route(self, rows: IntArray | None, weights: ArrayLike) -> None:
        """Ask for `weights` (int, broadcast to `[rows, P]`, each row sums to 100)."""
        picked = self._rows(rows)
        route_sets(picked, self._checked(picked, weights), self._arrays)

    def advance(
        self, rows: IntArray | None = None, seconds: ArrayLike = 1, rate_rps: ArrayLike | None = None
    ) -> PoolsInterval:
        """Let `seconds` (whole, `[rows]` or one) pass; `rate_rps` `[rows]` or one overrides the rates."""
        picked = self._rows(rows)
        spans = np.broadcast_to(np.asarray(seconds, dtype=np.int64), picked.shape).astype(np.int64)
        constant = np.full(len(picked), -1.0)
        if rate_rps is not None:
            constant[:] = rate_rps
            require_all(constant >= 0, "rate_rps", constant, "0 or more")
        before, totals = self._counters(picked), self._arrays.totals[picked]
        advance_sets(picked, spans, constant, self.services.arrays, self._arrays)
        change, passed = self._counters(picked) - before, self._arrays.totals[picked] - totals
        return self._interval(picked, spans, change, passed)

    def metrics(self, rows: IntArray | None = None) -> PoolsMetrics:
        """What the metrics show at each set's clock."""
        picked, arrays = self._rows(rows), self._arrays
        flat = self._flat(picked)
        shown = np.empty((len(fields(ServiceMetrics)), len(flat)))
        metrics_rows(flat, self.services.arrays, shown)
        columns = shown.reshape(len(shown), len(picked), self.pools)
        columns[6] = arrays.asked[picked]
        there = arrays.present[picked]
        columns[:5, ~there] = np.nan
        return PoolsMetrics(
            request_rate=columns[0],
            latency_ms=columns[1],
            error_ratio=columns[2],
            utilisation=columns[3],
            in_flight=columns[4],
            ready=columns[5],
            current=columns[6],
            weights=arrays.weights[picked],
            weights_asked=arrays.weights_asked[picked],
            told=arrays.told[picked],
            present=there,
        )

    def rate_now(self, rows: IntArray | None = None) -> FloatArray:
        """True request rate (requests/s) of each set at its clock, of the rates set; `[rows]`."""
        return np.asarray(rates_now(self._rows(rows), self._arrays))

    @property
    def arrays(self) -> PoolArrays:
        """What the kernels take, beside `services.arrays`."""
        return self._arrays

    @property
    def rates(self) -> npt.NDArray[np.float32]:
        """The rates set, `[R, T]`; writing to it changes them."""
        return self._arrays.rates

    @property
    def ready(self) -> IntArray:
        """Ready replicas, int `[N, P]`."""
        return np.asarray(self.services.ready.reshape(self.sets, self.pools))

    @property
    def replicas(self) -> IntArray:
        """Replicas asked for, int `[N, P]`, whether they exist yet or not."""
        return self._arrays.asked.copy()

    @property
    def weights(self) -> IntArray:
        """Weights in force, int `[N, P]`."""
        return self._arrays.weights.copy()

    @property
    def weights_asked(self) -> IntArray:
        """The last weights asked for, int `[N, P]`."""
        return self._arrays.weights_asked.copy()

    @property
    def backlog(self) -> FloatArray:
        """Requests that wait in each pool, `[N, P]`."""
        return self.services.read("backlog").reshape(self.sets, self.pools)

    @property
    def histogram(self) -> FloatArray:
        """Requests of each set at or below each of `le_ms`, over all pools since the reset, `[N, B]`."""
        counts = self.services.histogram.reshape(self.sets, self.pools, -1)
        return np.asarray(counts.sum(axis=1))

    def failing(self, what: str) -> BoolArray:
        """Pools `[N, P]` that are in a "shortage", a "slowdown" or an "outage" now."""
        require(what in TROUBLES, "what", what, f"one of {', '.join(TROUBLES)}")
        return np.asarray(self._arrays.until_s[:, :, TROUBLES.index(what)] > 0)

    def total(self, name: str) -> FloatArray:
        """Of the sets since their reset, `[N]`: requests arrived, offered, unrouted; replicas reclaimed; or
        `retrying`, the failed attempts that will be made again."""
        require(name in TOTALS, "name", name, f"one of {', '.join(TOTALS)}")
        return self._arrays.totals[:, TOTALS.index(name)].copy()

    def _interval(
        self, picked: IntArray, spans: IntArray, change: FloatArray, passed: FloatArray
    ) -> PoolsInterval:
        arrived, served, dropped, violating, replica_s, *waits = np.moveaxis(change, 2, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            p50, p95, p99 = (column / served for column in waits)
        return PoolsInterval(
            seconds=spans.astype(np.float64),
            offered=passed[:, G_OFFERED],
            unrouted=passed[:, G_UNROUTED],
            arrived=arrived,
            served=served,
            dropped=dropped,
            violating=violating,
            replica_s=replica_s,
            cost=replica_s * self._arrays.params[picked, :, K_COST],
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
        )

    def _counters(self, picked: IntArray) -> FloatArray:
        state = self.services.arrays.state.reshape(self.sets, self.pools, -1)
        return np.take(state[picked], _COUNTED, axis=2)

    def _rows(self, rows: IntArray | None) -> npt.NDArray[np.int64]:
        return self._all if rows is None else np.asarray(rows, dtype=np.int64)

    def _flat(self, picked: IntArray) -> npt.NDArray[np.int64]:
        return np.asarray(picked[:, None] * self.pools + np.arange(self.pools), dtype=np.int64).reshape(-1)

    def _spread(self, values: ArrayLike, shape: tuple[int, int], name: str) -> npt.NDArray[np.int64]:
        given = np.asarray(values, dtype=np.int64)
        try:
            counts = np.broadcast_to(given, shape).astype(np.int64)
        except ValueError:
            raise ParameterError(name, given.shape, f"a number, or of shape {shape}") from None
        require_all(counts >= 0, name, counts, "0 or more")
        return counts

    def _checked(self, picked: IntArray, weights: ArrayLike) -> npt.NDArray[np.int64]:
        shares = self._spread(weights, (len(picked), self.pools), "weights")
        sums = shares.sum(axis=1)
        require_all(sums == WEIGHT_TOTAL, "weights", sums, f"rows that sum to {WEIGHT_TOTAL}")
        absent = (shares > 0) & ~self._arrays.present[picked]
        require_all(~absent, "weights", shares, "0 for a pool that is absent")
        return shares


def equal_weights(present: BoolArray) -> npt.NDArray[np.int64]:
    """Weights int `[N, P]` that sum to 100, as equal as integers allow, over the present pools."""
    count = present.sum(axis=1, keepdims=True)
    place = np.cumsum(present, axis=1) - 1
    extra = place < WEIGHT_TOTAL % count
    return np.where(present, WEIGHT_TOTAL // count + extra, 0).astype(np.int64)


def _per_row(service: ServiceParams, shape: tuple[int, int]) -> ServiceParams:
    """The same constants, one a pool."""
    columns = {}
    for item in fields(ServiceParams):
        values = np.asarray(getattr(service, item.name), dtype=np.float64)
        if values.ndim == 1 and values.size == shape[0] * shape[1]:
            values = values.reshape(shape)
        try:
            columns[item.name] = np.broadcast_to(values, shape).reshape(-1)
        except ValueError:
            raise ParameterError(item.name, values.shape, f"a number, or of shape {shape}") from None
    require_all(
        columns["retry_share"] == 0, "retry_share", columns["retry_share"], "0: retries are the route's"
    )
    return ServiceParams(**columns)


def _row_seeds(seeds: npt.NDArray[np.uint64], pools: int) -> npt.NDArray[np.uint64]:
    """A seed for each pool of each set, `[N * P]`."""
    apart = np.arange(1, pools + 1, dtype=np.uint64) * _APART
    return np.asarray(seeds[:, None] + apart[None, :]).reshape(-1)
