"""Services as single requests: the second fidelity, with the interface of `sim.physics.ServicePhysics`.

Called by `sim.scenario_files`, which runs the same scenario through both, and by benchmarks. Rows are
services, or the pools behind one route.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from sim.errors import ParameterError, require, require_all
from sim.latency import BALANCERS, CENTRAL, workers_of
from sim.noise import negative_binomial, poisson, uniform
from sim.physics import Interval, ServiceMetrics, ServiceParams, ServicePhysics, scalar, service_seeds
from sim.physics.layout import (
    M_ARRIVED,
    M_DROPPED,
    M_IN_FLIGHT,
    M_PSLO,
    M_SERVED,
    M_TIME,
    M_USED,
    STATE,
    STREAM_ARRIVALS,
    STREAM_DISPERSION,
    STREAM_SCRAPE,
)
from sim.physics.params import SCRAPES
from sim.pools import PoolParams
from sim.requests import world as wd
from sim.requests.draws import bucket_edges_s, percentile_ms
from sim.requests.kernel import advance as advance_world
from sim.requests.replicas import change_replicas

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.integer[Any]]
ArrayLike = npt.ArrayLike
STREAM_ROUTE = 140
_SAMPLED = {
    M_TIME: "clock_s",
    M_ARRIVED: "arrived",
    M_DROPPED: "dropped",
    M_USED: "used_s",
    M_PSLO: "slo_ms_served",
    M_SERVED: "served",
    M_IN_FLIGHT: "in_flight",
}
PERCENTILES = (50.0, 95.0, 99.0)


class RequestSimulator:
    """P services (or pools of one route), request by request.

    params: numbers, or arrays `[P]`, as for ServicePhysics. balancer: one of ALL_BALANCERS, default: that of
    the parameters (central where they name none). proxies: how many balancers there are, each of which sees
    only its own requests (nothing changes for central and random), default: that of the parameters.
    The same seed has the same arrivals in each second, start-up times and capacities as a ServicePhysics.

    pools: what the services have as pools of one route: reclaims, sweeps and notices of `sim.pools`. A pool
    without a ready replica refuses its requests; a service of its own lets them wait.

    A replica has `workers` = max(1, floor(capacity * base latency)) slots. A request takes
    workers / capacity in one of them (gamma with `service_cv2`), so that the replica's capacity is exactly
    `capacity_rps`; the rest of the base latency is constant and takes no slot.
    """

    def __init__(
        self,
        params: ServiceParams | None = None,
        services: int = 1,
        seed: int | IntArray = 0,
        replicas: ArrayLike = 1,
        balancer: str | None = None,
        proxies: int | None = None,
        pools: PoolParams | None = None,
    ) -> None:
        require(services >= 1, "services", services, "1 or more")
        self.services = services
        self._params = [_one(params or ServiceParams(), row, services) for row in range(services)]
        self._seeds = service_seeds(seed, services)
        self._billed_s = np.zeros(services)
        counts = _whole("replicas", replicas, services)
        offers = _offers(pools, services)
        self._ledgers = [
            ServicePhysics(one, 1, self._seeds[row : row + 1], 0) for row, one in enumerate(self._params)
        ]
        self._worlds = [
            wd.make_world(
                _constants(one, offers[row]),
                scalar(one.service_cv2),
                balancer or _balancer_of(one),
                proxies or int(scalar(one.proxies)),
                int(self._seeds[row]),
                int(counts[row]),
                scalar(one.poisson) <= 0.0,
            )
            for row, one in enumerate(self._params)
        ]
        for world, count in zip(self._worlds, counts, strict=True):
            world.n[wd.N_REFUSES] = pools is not None
            change_replicas(world, int(count), True)
        self._rates = np.zeros((services, 1), dtype=np.float32)
        self._period_s = 1.0
        self._weights: FloatArray | None = None
        self._carry = np.zeros(services)
        self._edges_s = bucket_edges_s()
        self._at_scrape = [world.histogram.copy() for world in self._worlds]

    def set_rates(self, rates_rps: ArrayLike, period_s: float) -> None:
        """Request rates `[P, T]` (`[1, T]` or `[T]`: one series for all, or for the route), one every
        `period_s` seconds from clock 0, interpolated linearly."""
        rates = np.atleast_2d(np.asarray(rates_rps, dtype=np.float32))
        if len(rates) not in (1, self.services):
            raise ParameterError("rates_rps", rates.shape, f"one series, or {self.services}")
        require(period_s > 0, "period_s", period_s, "greater than 0")
        self._rates, self._period_s = rates, float(period_s)

    def set_weights(self, weights: ArrayLike | None) -> None:
        """Make the services pools of one route: shares `[T, P]` of its requests in each second from clock 0
        (the last row holds on), any positive scale. None: services of their own again."""
        if weights is None:
            self._weights = None
            return
        table = np.atleast_2d(np.asarray(weights, dtype=np.float64))
        if table.shape[1] != self.services:
            raise ParameterError("weights", table.shape, f"[seconds, {self.services}]")
        require_all(np.isfinite(table) & (table >= 0), "weights", table, "0 or more")
        require(bool((table.sum(axis=1) > 0).all()), "weights", 0, "positive for at least one pool")
        self._weights = np.cumsum(table / table.sum(axis=1, keepdims=True), axis=1)

    def scale(self, rows: IntArray | None, replicas: ArrayLike) -> None:
        """Ask for `replicas` (int, one, or one for each of `rows`): new ones start up, surplus ones drain."""
        picked = range(self.services) if rows is None else np.asarray(rows)
        counts = _whole("replicas", replicas, len(picked))
        for row, count in zip(picked, counts, strict=True):
            world = self._worlds[row]
            there = int(world.n[wd.N_READY] + world.n[wd.N_STARTING] - world.n[wd.N_TOLD])
            change = int(count) - there
            places = int(world.n[wd.N_READY] + world.n[wd.N_STARTING]) + max(change, 0)
            world = self._worlds[row] = wd.with_replicas(world, places)
            change_replicas(world, change, False)

    def disturb(
        self,
        row: int,
        replicas: slice | None = None,
        *,
        slower: float = 1.0,
        errors: float = 0.0,
        errors_at_once: bool = False,
    ) -> None:
        """A grey failure of ready replicas of one row, from now on (the default: they are well again).

        replicas: which of them, oldest first; None: all. slower: times the work of requests that begin from
        now on takes, 1..100. errors: share of the requests that is answered with an error, after its work or,
        with `errors_at_once`, in a millisecond and without a worker (not for central). New replicas are well.
        """
        require(1.0 <= slower <= 100.0, "slower", slower, "in 1..100")
        require(0.0 <= errors <= 1.0, "errors", errors, "in 0..1")
        world = self._worlds[row]
        picked = world.order[: int(world.n[wd.N_READY])][replicas or slice(None)]
        world.pace[picked], world.errors[picked], world.fast[picked] = 1.0 / slower, errors, errors_at_once
        world.n[wd.N_VARIED] |= slower > 1.0

    def advance(self, *, seconds: int = 1, rate_rps: ArrayLike | None = None) -> Interval:
        """Let whole seconds pass; `rate_rps` overrides the rates set before.

        The interval's percentiles are those of the requests answered in it.
        """
        require(seconds == int(seconds) and seconds >= 0, "seconds", seconds, "whole, 0 or more")
        counts = self._draw(int(seconds), rate_rps)
        before = [world.histogram.copy() for world in self._worlds]
        start = np.array([world.x for world in self._worlds])
        # replicas that were removed in between drain in this interval
        start[:, wd.X_REPLICA_S] = self._billed_s
        for row in range(self.services):
            self._advance_row(row, counts[row])
        change = np.array([world.x for world in self._worlds]) - start
        self._billed_s = self.total("replica_s")
        names = ("arrived", "served", "dropped", "violating", "replica_s", "offered")
        shown = [
            percentile_ms(world.histogram - old, PERCENTILES, self._edges_s)
            for world, old in zip(self._worlds, before, strict=True)
        ]
        return _interval(
            float(seconds), {name: change[:, _COUNTERS[name]] for name in names}, np.array(shown)
        )

    def metrics(self) -> ServiceMetrics:
        """What monitoring shows now, by the very scrapes and windows of the fluid; arrays `[P]`."""
        for row in range(self.services):
            self._enter(row)
        each = [ledger.metrics() for ledger in self._ledgers]
        return ServiceMetrics(
            *(np.concatenate([getattr(one, name) for one in each]) for name in ServiceMetrics.__slots__)
        )

    @property
    def ready(self) -> IntArray:
        """Ready replicas, `[P]`."""
        return np.array([int(world.n[wd.N_READY]) for world in self._worlds])

    @property
    def replicas(self) -> IntArray:
        """Ready and starting replicas, `[P]`."""
        return np.array([int(world.n[wd.N_READY] + world.n[wd.N_STARTING]) for world in self._worlds])

    @property
    def clock_s(self) -> FloatArray:
        """Seconds since the start, `[P]`."""
        return np.array([float(world.n[wd.N_CLOCK]) for world in self._worlds])

    @property
    def queued(self) -> FloatArray:
        """Attempts that have come and are neither answered nor given up, counted one by one, `[P]`."""
        return np.array([_queued(world) for world in self._worlds])

    def in_flight(self) -> IntArray:
        """Requests at each ready replica, oldest replica first, `[P, R]`, 0 where a row has fewer.

        Not counted by `central`, `round-robin` and `random`, which do not look.
        """
        rows = [
            world.in_flight.sum(axis=0)[world.order[: int(world.n[wd.N_READY])]] for world in self._worlds
        ]
        found = np.zeros((self.services, max(map(len, rows))), dtype=np.int64)
        for row, counts in enumerate(rows):
            found[row, : len(counts)] = counts
        return found

    @property
    def coming_again(self) -> FloatArray:
        """Clients that will try again, `[P]`."""
        return np.array([float(world.n[wd.N_HEAP]) for world in self._worlds])

    @property
    def histogram(self) -> FloatArray:
        """Requests answered since the start in each latency bucket, `[P, BINS]`."""
        return np.array([world.histogram for world in self._worlds])

    @property
    def edges_s(self) -> FloatArray:
        """Edges of the buckets in seconds, `[BINS + 1]`."""
        return self._edges_s

    def total(self, name: str) -> FloatArray:
        """So far: arrived, offered (first attempts), served, dropped, violating, replica_s, used_s; `[P]`."""
        require(name in _COUNTERS, "name", name, f"one of {', '.join(_COUNTERS)}")
        return np.array([float(world.x[_COUNTERS[name]]) for world in self._worlds])

    def percentiles_ms(self, percentiles: ArrayLike = PERCENTILES) -> FloatArray:
        """Latency percentiles of all requests answered so far, `[P, percentiles]`."""
        return np.array(
            [percentile_ms(world.histogram, percentiles, self._edges_s) for world in self._worlds]
        )

    def _draw(self, seconds: int, rate_rps: ArrayLike | None) -> IntArray:
        """New requests `[P, seconds]`."""
        clock = int(self._worlds[0].n[wd.N_CLOCK])
        routed = self._weights is not None
        series = 1 if routed else self.services
        if rate_rps is None:
            rates = _rates_between(self._rates, self._period_s, clock, seconds)
            rates = np.broadcast_to(rates, (series, seconds))
        else:
            given = np.broadcast_to(np.asarray(rate_rps, dtype=np.float64), (series,))
            require_all(given >= 0, "rate_rps", given, "0 or more")
            rates = np.repeat(given[:, None], seconds, axis=1)
        counts = np.zeros((self.services, seconds), dtype=np.int64)
        for row in range(series):
            one = self._params[row]
            if scalar(one.poisson) <= 0.0:
                self._carry[row] = _even_counts(rates[row], counts[row], self._carry[row])
            else:
                _draw_counts(rates[row], counts[row], clock, self._seeds[row], scalar(one.arrival_dispersion))
        if self._weights is not None:
            _split(counts, self._weights, clock, self._seeds[0])
        return counts

    def _advance_row(self, row: int, counts: IntArray) -> None:
        done = 0
        while done < len(counts):
            world = self._worlds[row]
            upto = min(done + self._until_scrape(row), len(counts))
            while done < upto:
                done += self._with_room(row, counts[done:upto])
            self._scrape_if_due(row, int(world.n[wd.N_CLOCK]))

    def _with_room(self, row: int, counts: IntArray) -> int:
        """Advance as far as the arrays allow, at least a second: they grow for it."""
        world = self._worlds[row]
        done = int(advance_world(world, counts, 0))
        if done == 0:
            held = int(world.n[wd.N_HELD] + world.n[wd.N_HEAP])
            world = wd.with_moments(world, int(counts.max()))
            there = int(world.n[wd.N_READY] + world.n[wd.N_STARTING])
            world = wd.with_replicas(world, 2 * there + 8)
            world = self._worlds[row] = wd.with_events(world, held + int(counts[0]) + 2)
            done = int(advance_world(world, counts, 0))
        return done

    def _until_scrape(self, row: int) -> int:
        one, clock = self._params[row], int(self._worlds[row].n[wd.N_CLOCK])
        interval = int(scalar(one.scrape_interval_s))
        return interval - (clock - int(scalar(one.scrape_phase_s))) % interval

    def _scrape_if_due(self, row: int, clock: int) -> None:
        one = self._params[row]
        interval = int(scalar(one.scrape_interval_s))
        if clock % interval != int(scalar(one.scrape_phase_s)) % interval:
            return
        loss = scalar(one.scrape_loss)
        if loss > 0.0 and uniform(self._seeds[row], clock - 1, STREAM_SCRAPE) < loss:
            return
        self._enter(row)
        arrays = self._ledgers[row].arrays
        state = arrays.state[0]
        since = self._worlds[row].histogram - self._at_scrape[row]
        served = float(since.sum())
        if served > 0:
            shown = float(percentile_ms(since, scalar(one.slo_percentile), self._edges_s)[0])
            state[STATE.index("slo_ms_served")] += served * shown
        self._at_scrape[row] = self._worlds[row].histogram.copy()
        sample = arrays.scrapes[0, int(state[STATE.index("scrapes")]) & (SCRAPES - 1)]
        for column, name in _SAMPLED.items():
            sample[column] = state[STATE.index(name)]
        state[STATE.index("scrapes")] += 1.0

    def _enter(self, row: int) -> None:
        """Counters and levels into the ledger that the scrapes are taken from."""
        world, state = self._worlds[row], self._ledgers[row].arrays.state[0]
        shown = {
            "clock_s": world.n[wd.N_CLOCK],
            "ready": world.n[wd.N_READY],
            "pending": world.n[wd.N_STARTING],
            "arrived": world.x[wd.X_ARRIVED],
            "served": world.x[wd.X_SERVED],
            "dropped": world.x[wd.X_DROPPED],
            "violating": world.x[wd.X_VIOLATING],
            "used_s": world.x[wd.X_USED_S],
            "in_flight": world.x[wd.X_ARRIVED] - world.x[wd.X_SERVED] - world.x[wd.X_DROPPED],
        }
        for name, value in shown.items():
            state[STATE.index(name)] = value


def _one(params: ServiceParams, row: int, services: int) -> ServiceParams:
    """The constants of one service, checked."""
    matrix = params.matrix(services)
    return ServiceParams(**dict(zip(ServiceParams.__dataclass_fields__, matrix[row].tolist(), strict=True)))


def _balancer_of(params: ServiceParams) -> str:
    return BALANCERS[max(int(scalar(params.balancer)), CENTRAL)]


def _offers(pools: PoolParams | None, services: int) -> FloatArray:
    """Reclaims and sweeps an hour, share of a sweep and notice of each pool, `[P, 4]`."""
    if pools is None:
        return np.zeros((services, 4))
    pools.matrix(1, services)
    for name in ("shortage_s", "slowdowns_per_hour", "outages_per_hour"):
        given = np.asarray(getattr(pools, name), dtype=np.float64)
        require_all(np.atleast_1d(given == 0), name, np.atleast_1d(given), "0: single requests have none")
    names = ("reclaims_per_hour", "sweeps_per_hour", "sweep_share", "notice_s")
    columns = [np.broadcast_to(np.asarray(getattr(pools, name), float), (services,)) for name in names]
    return np.stack(columns, axis=1)


def _constants(params: ServiceParams, offer: FloatArray) -> npt.NDArray[np.float64]:
    """World.q from the physics' parameters."""
    q = np.zeros(wd.CONSTANTS)
    base_s, capacity = scalar(params.base_latency_ms) / 1000.0, scalar(params.capacity_rps)
    service_s = workers_of(capacity, base_s) / capacity
    q[[wd.Q_CAPACITY, wd.Q_BASE_S, wd.Q_SERVICE_S]] = capacity, base_s, service_s
    q[wd.Q_REST_S] = max(base_s - service_s, 0.0)
    q[wd.Q_SLO_S] = scalar(params.slo_latency_ms) / 1000.0
    for column, name in _NAMED.items():
        q[column] = scalar(getattr(params, name))
    q[[wd.Q_RECLAIMS, wd.Q_SWEEPS, wd.Q_SWEEP_SHARE, wd.Q_NOTICE_S]] = offer
    return q


_COUNTERS = {
    "arrived": wd.X_ARRIVED,
    "offered": wd.X_OFFERED,
    "served": wd.X_SERVED,
    "dropped": wd.X_DROPPED,
    "violating": wd.X_VIOLATING,
    "replica_s": wd.X_REPLICA_S,
    "used_s": wd.X_USED_S,
}
_NAMED = {
    wd.Q_TIMEOUT_S: "timeout_s",
    wd.Q_DRAIN_S: "drain_s",
    wd.Q_IDLE: "idle_utilisation",
    wd.Q_START_UP: "start_up_s",
    wd.Q_START_UP_SPREAD: "start_up_spread",
    wd.Q_CAPACITY_SPREAD: "capacity_spread",
    wd.Q_RETRY_SHARE: "retry_share",
    wd.Q_RETRY_S: "retry_after_s",
    wd.Q_READINESS_S: "readiness_period_s",
    wd.Q_COLD: "cold_share",
    wd.Q_WARMING_S: "warming_s",
    wd.Q_CRASHES: "crashes_per_hour",
    wd.Q_NODE_LOSSES: "node_losses_per_hour",
    wd.Q_NODE_SHARE: "node_share",
    wd.Q_SLOW: "slow_per_hour",
    wd.Q_SLOW_SHARE: "slow_share",
    wd.Q_SLOW_S: "slow_s",
    wd.Q_FAILING: "failing_per_hour",
    wd.Q_FAILING_S: "failing_s",
    wd.Q_NEIGHBOUR: "neighbour_per_hour",
    wd.Q_NEIGHBOUR_SHARE: "neighbour_share",
    wd.Q_NEIGHBOUR_S: "neighbour_s",
}


def _whole(name: str, values: ArrayLike, size: int) -> IntArray:
    counts = np.broadcast_to(np.asarray(values, dtype=np.int64), (size,)).astype(np.int64)
    require_all(counts >= 0, name, counts, "0 or more")
    return counts


def _queued(world: wd.World) -> float:
    """Attempts that wait, are served, or are booked into a second to come."""
    waiting = int(world.n[wd.N_WAITING])
    if world.n[wd.N_TRACKED]:
        return float(waiting + world.n[wd.N_IN_FLIGHT])
    return float(waiting + world.ahead.sum() + world.ahead_dropped.sum())


def _interval(seconds: float, sums: dict[str, FloatArray], percentiles: FloatArray) -> Interval:
    shown = {f"p{q:g}_ms": percentiles[:, k] for k, q in enumerate(PERCENTILES)}
    return Interval(seconds=np.full(len(percentiles), seconds), **sums, **shown)


@nb.njit(cache=True)
def _rates_between(rates, period_s, clock, seconds):  # type: ignore[no-untyped-def]
    """The rate at the start of each second, as the fluid has it."""
    last = rates.shape[1] - 1
    result = np.empty((len(rates), seconds))
    for row in range(len(rates)):
        for second in range(seconds):
            position = (clock + second) / period_s
            left = int(position)
            if left >= last:
                result[row, second] = rates[row, last]
            else:
                part = position - left
                result[row, second] = rates[row, left] * (1.0 - part) + rates[row, left + 1] * part
    return result


@nb.njit(cache=True)
def _draw_counts(rates, counts, clock, seed, dispersion):  # type: ignore[no-untyped-def]
    """The very numbers that the fluid draws."""
    for second in range(len(rates)):
        drawn = uniform(seed, clock + second, STREAM_ARRIVALS)
        if dispersion > 1.0:
            other = uniform(seed, clock + second, STREAM_DISPERSION)
            counts[second] = int(negative_binomial(rates[second], dispersion, drawn, other))
        else:
            counts[second] = int(poisson(rates[second], drawn))


@nb.njit(cache=True)
def _even_counts(rates, counts, carry):  # type: ignore[no-untyped-def]
    for second in range(len(rates)):
        due = rates[second] + carry
        counts[second] = int(due + 1e-9)
        carry = due - counts[second]
    return carry


@nb.njit(cache=True)
def _split(counts, cumulative, clock, seed):  # type: ignore[no-untyped-def]
    """Send each of the route's requests (row 0) to a pool by the weights in effect."""
    drawn = 0
    for second in range(counts.shape[1]):
        total = counts[0, second]
        shares = cumulative[min(clock + second, len(cumulative) - 1)]
        counts[0, second] = 0
        for k in range(total):
            u = uniform(seed, (clock + second) * 1_000_003 + k, STREAM_ROUTE)
            pool = 0
            while pool < len(shares) - 1 and u >= shares[pool]:
                pool += 1
            counts[pool, second] += 1
            drawn += 1
    return drawn
