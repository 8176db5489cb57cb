"""Services under load, N at once, as a fluid with 1-s steps: what a replica count does to latency and cost.

Called by the environments, by replay, and by the cluster twin. One compiled kernel advances every
service by its own number of seconds. In each second, for a service with `c` ready replicas of joint
capacity `C` requests/s:

* arrivals are Poisson round the rate (or the rate itself); at most `C` are served, in order of arrival;
* who waits longer than `timeout_s` leaves as an error, so that the backlog never exceeds `timeout_s * C`;
* latency is `base + backlog / C + W`, where `W` is the wait of M/M/c in Sakasegawa's approximation (1977),
  P(W > 0) = rho^(sqrt(2(c+1)) - 1), with an exponential tail

      P(W > t) = P(W > 0) * exp(-sqrt(c) * (1 - rho) * t / (burstiness * base))

  sqrt(c) and not c because a balancer that only sees its own requests pools replicas imperfectly. rho
  is limited to 0.98: beyond it no stationary wait exists and the backlog carries the overload;
* percentiles, the share over the objective and histograms are read off that one distribution.

A replica is billed from its creation until `drain_s` after its removal. New replicas take `start_up_s`
to serve; a smaller count removes those that are not ready first, as a ReplicaSet does.

What the metrics show differs from the truth as Prometheus makes it differ: counters are sampled at each
scrape, rates are increases over the samples of a window, scrapes can get lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from sim.errors import ParameterError, require_all
from sim.noise import normal, poisson, uniform

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]
ArrayLike = npt.ArrayLike

START_UP_SLOTS = 1024
SCRAPES = 32
RHO_MAX = 0.98
MIN_CAPACITY_SHARE = 0.3
MAX_SIGMAS = 4.0
_STREAM_ARRIVALS, _STREAM_START_UP, _STREAM_CAPACITY, _STREAM_SCRAPE = 0, 1, 2, 3


@dataclass(frozen=True)
class ServiceParams:
    """A service's constants; each field a number, or an array `[N]` with one a service."""

    capacity_rps: ArrayLike = 25.0
    """Mean requests/s that one ready replica can serve."""
    start_up_s: ArrayLike = 60.0
    """Median seconds from a replica's creation until it serves."""
    start_up_spread: ArrayLike = 0.1
    """Log-normal sigma of the start-up time."""
    capacity_spread: ArrayLike = 0.05
    """Standard deviation of a replica's capacity over the mean; none falls below 0.3."""
    base_latency_ms: ArrayLike = 40.0
    """Latency of a request that does not wait."""
    slo_latency_ms: ArrayLike = 250.0
    """The objective: a served request above it violates, and so does every one that timed out."""
    slo_percentile: ArrayLike = 95.0
    """Which percentile the latency metric shows."""
    timeout_s: ArrayLike = 10.0
    """Longest wait before a client gives up."""
    burstiness: ArrayLike = 1.0
    """(Ca^2 + Cs^2) / 2 of arrivals and service times: 1 is Poisson and exponential."""
    drain_s: ArrayLike = 10.0
    """Seconds for which a removed ready replica is still billed."""
    idle_utilisation: ArrayLike = 0.01
    """Share of its request that a replica uses without any load."""
    poisson: ArrayLike = 1.0
    """1: Poisson arrivals. 0: exactly the rate."""
    scrape_interval_s: ArrayLike = 15.0
    """Seconds between two scrapes (whole)."""
    scrape_phase_s: ArrayLike = 0.0
    """When in that interval the scrape falls (whole)."""
    scrape_loss: ArrayLike = 0.0
    """Probability that a scrape gets lost."""
    window_s: ArrayLike = 60.0
    """Window of the rates that the metrics show; at least two scrapes must fall into it."""

    def matrix(self, services: int) -> FloatArray:
        """Checked values as float `[services, fields]`; raises ParameterError."""
        result = np.empty((services, len(_FIELDS)))
        for column, name in enumerate(_FIELDS):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.ndim > 1 or values.size not in (1, services):
                raise ParameterError(
                    name, values.shape, f"one number, or one for each of {services} services"
                )
            lowest, highest = _RANGES.get(name, (0.0, math.inf))
            allowed = f"in {lowest:g}..{highest:g}"
            require_all(np.isfinite(values) & (values >= lowest) & (values <= highest), name, values, allowed)
            result[:, column] = values
        return result


_FIELDS = tuple(item.name for item in fields(ServiceParams))
_RANGES = {
    "capacity_rps": (1e-6, math.inf),
    "start_up_s": (0.0, START_UP_SLOTS / 2),
    "start_up_spread": (0.0, 1.0),
    "capacity_spread": (0.0, 0.5),
    "base_latency_ms": (1e-3, math.inf),
    "slo_latency_ms": (1e-3, math.inf),
    "slo_percentile": (1e-3, 99.999),
    "timeout_s": (1e-2, 3600.0),
    "burstiness": (1e-2, 100.0),
    "poisson": (0.0, 1.0),
    "idle_utilisation": (0.0, 1.0),
    "scrape_interval_s": (1.0, 600.0),
    "scrape_loss": (0.0, 1.0),
    "window_s": (1.0, 3600.0),
}
# fmt: off
(P_CAPACITY, P_START_UP, P_START_UP_SPREAD, P_CAPACITY_SPREAD, P_BASE, P_SLO, P_PERCENTILE, P_TIMEOUT,
 P_BURSTINESS, P_DRAIN, P_IDLE, P_POISSON, P_SCRAPE, P_PHASE, P_LOSS, P_WINDOW) = range(len(_FIELDS))
# fmt: on

STATE = (
    "clock_s", "ready", "pending", "capacity_rps", "backlog", "created",
    "arrived", "served", "dropped", "violating", "replica_s", "used_s",
    "p50_ms_served", "p95_ms_served", "p99_ms_served", "slo_ms_served", "in_flight", "scrapes",
)  # fmt: skip
(S_CLOCK, S_READY, S_PENDING, S_CAPACITY, S_BACKLOG, S_CREATED, S_ARRIVED, S_SERVED, S_DROPPED, S_VIOLATING,
 S_REPLICA_S, S_USED, S_P50, S_P95, S_P99, S_PSLO, S_IN_FLIGHT, S_SCRAPES) = range(len(STATE))  # fmt: skip
M_TIME, M_ARRIVED, M_DROPPED, M_USED, M_PSLO, M_SERVED, M_IN_FLIGHT = range(7)
_COUNTERS = slice(S_ARRIVED, S_IN_FLIGHT)


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened in one `advance`; float arrays `[rows]`.

    arrived, served, dropped, violating: requests; violating are those that came and will be late or dropped.
    replica_s: replica-seconds billed. p50_ms, p95_ms, p99_ms: means of the 1-s percentiles over requests
    served, NaN where there were none.
    """

    seconds: FloatArray
    arrived: FloatArray
    served: FloatArray
    dropped: FloatArray
    violating: FloatArray
    replica_s: FloatArray
    p50_ms: FloatArray
    p95_ms: FloatArray
    p99_ms: FloatArray

    @property
    def violation_share(self) -> FloatArray:
        """Violating over arrived requests, 0..1; 0 where there were none."""
        return np.minimum(self.violating / np.maximum(self.arrived, 1e-9), 1.0)


@dataclass(frozen=True, slots=True)
class ServiceMetrics:
    """What monitoring and the API server show now; float arrays `[rows]`, NaN where there is no data.

    request_rate: requests/s. latency_ms: at `slo_percentile`. error_ratio: 0..1. utilisation: used over
    requested CPU of the ready replicas. in_flight: requests. ready, current: replicas, without any lag.
    """

    request_rate: FloatArray
    latency_ms: FloatArray
    error_ratio: FloatArray
    utilisation: FloatArray
    in_flight: FloatArray
    ready: FloatArray
    current: FloatArray


class ServicePhysics:
    """N services. `rows` (int array) picks some of them everywhere; None is all.

    `le_ms`: upper bounds of latency buckets to count served and timed-out requests in (`histogram`); none by
    default, for speed.
    """

    def __init__(
        self,
        params: ServiceParams | None = None,
        services: int = 1,
        seed: int | IntArray = 0,
        replicas: ArrayLike = 1,
        le_ms: ArrayLike = (),
    ) -> None:
        self.services = services
        self.le_ms = np.asarray(le_ms, dtype=np.float64)
        self.histogram = np.zeros((services, len(self.le_ms)))
        self._params = np.zeros((services, len(_FIELDS)))
        self._state = np.zeros((services, len(STATE)))
        self._seeds = np.zeros(services, dtype=np.uint64)
        self._pending = np.zeros((services, START_UP_SLOTS), dtype=np.int32)
        self._pending_rps = np.zeros((services, START_UP_SLOTS), dtype=np.float64)
        self._scrapes = np.zeros((services, SCRAPES, 7))
        self._all: npt.NDArray[np.int64] = np.arange(services, dtype=np.int64)
        self._rates = np.zeros((services, 1), dtype=np.float32)
        self._rate_rows: IntArray = self._all
        self._rate_period_s = 1.0
        self.reset(self._all, params or ServiceParams(), service_seeds(seed, services), replicas)

    def reset(
        self, rows: IntArray | None, params: ServiceParams, seeds: IntArray, replicas: ArrayLike
    ) -> None:
        """Start these services anew with `replicas` ready ones, clock 0, empty counters."""
        picked = self._rows(rows)
        self._params[picked] = params.matrix(len(picked))
        self._seeds[picked] = np.asarray(seeds).astype(np.uint64)
        self._state[picked] = 0.0
        self._pending[picked] = 0
        self._pending_rps[picked] = 0.0
        self._scrapes[picked] = 0.0
        self.histogram[picked] = 0.0
        self.place(picked, replicas)

    def set_params(self, rows: IntArray | None, params: ServiceParams) -> None:
        """Change the constants of running services; replicas that exist keep their capacity."""
        picked = self._rows(rows)
        self._params[picked] = params.matrix(len(picked))

    def place(self, rows: IntArray | None, ready: ArrayLike) -> None:
        """Make exactly `ready` replicas ready at once, none starting (for who starts pods itself)."""
        picked = self._rows(rows)
        counts = np.broadcast_to(np.asarray(ready, dtype=np.int64), picked.shape).astype(np.int64)
        require_all(counts >= 0, "ready", counts, "0 or more")
        _place(picked, counts, self._params, self._state, self._seeds, self._pending, self._pending_rps)

    def scale(self, rows: IntArray | None, replicas: ArrayLike) -> None:
        """Ask for `replicas` (int, `[rows]` or one): new ones start up, surplus ones drain."""
        picked = self._rows(rows)
        counts = np.broadcast_to(np.asarray(replicas, dtype=np.int64), picked.shape).astype(np.int64)
        require_all(counts >= 0, "replicas", counts, "0 or more")
        _scale(picked, counts, self._params, self._state, self._seeds, self._pending, self._pending_rps)

    def set_rates(self, rates_rps: ArrayLike, period_s: float, rate_rows: IntArray | None = None) -> None:
        """Request rates `[R, T]`, one every `period_s` seconds from clock 0, interpolated linearly.

        `rate_rows` int `[N]`: which of the R each service follows (default: its own).
        """
        rates = np.atleast_2d(np.asarray(rates_rps, dtype=np.float32))
        chosen = self._all if rate_rows is None else np.asarray(rate_rows)
        if len(chosen) != self.services or chosen.max(initial=0) >= len(rates):
            raise ParameterError(
                "rate_rows", len(chosen), f"{self.services} rows of {len(rates)} rate series"
            )
        self._rates, self._rate_rows, self._rate_period_s = rates, chosen, float(period_s)

    def advance(
        self, rows: IntArray | None = None, seconds: ArrayLike = 1, rate_rps: ArrayLike | None = None
    ) -> Interval:
        """Let `seconds` (whole, `[rows]` or one) pass; `rate_rps` overrides the rates set before."""
        picked = self._rows(rows)
        spans = np.broadcast_to(np.asarray(seconds, dtype=np.int64), picked.shape).astype(np.int64)
        constant = np.full(len(picked), -1.0)
        if rate_rps is not None:
            constant[:] = rate_rps
            require_all(constant >= 0, "rate_rps", constant, "0 or more")
        before = self._state[picked, _COUNTERS]
        _advance(
            picked, spans, constant, self._rates, self._rate_rows, self._rate_period_s,
            self._params, self._state, self._seeds, self._pending, self._pending_rps, self._scrapes,
            self.le_ms, self.histogram,
        )  # fmt: skip
        return _interval(spans, self._state[picked, _COUNTERS] - before)

    def metrics(self, rows: IntArray | None = None) -> ServiceMetrics:
        """What the metrics show at each service's clock."""
        picked = self._rows(rows)
        shown = np.empty((5, len(picked)))
        _observe(picked, self._params, self._state, self._scrapes, shown)
        ready = self._state[picked, S_READY]
        rate, latency, errors, used, in_flight = shown
        current = ready + self._state[picked, S_PENDING]
        return ServiceMetrics(rate, latency, errors, used, in_flight, ready, current)

    def read(self, name: str, rows: IntArray | None = None) -> FloatArray:
        """One column of STATE: levels, and counters since the last reset."""
        return np.asarray(self._state[self._rows(rows), STATE.index(name)])

    def rate_now(self, rows: IntArray | None = None) -> FloatArray:
        """True request rate (requests/s) at each service's clock, of the rates set."""
        picked = self._rows(rows)
        rates = _rates_now(picked, self._rates, self._rate_rows, self._rate_period_s, self._state)
        return np.asarray(rates)

    @property
    def rates(self) -> npt.NDArray[np.float32]:
        """The rates set, `[R, T]`; writing to it changes them."""
        return self._rates

    @property
    def ready(self) -> IntArray:
        """Ready replicas, int `[N]`."""
        return self._state[:, S_READY].astype(np.int64)

    @property
    def replicas(self) -> IntArray:
        """Ready and starting replicas, int `[N]`."""
        return (self._state[:, S_READY] + self._state[:, S_PENDING]).astype(np.int64)

    @property
    def clock_s(self) -> FloatArray:
        """Seconds since the last reset, `[N]`."""
        return self._state[:, S_CLOCK].copy()

    def _rows(self, rows: IntArray | None) -> npt.NDArray[np.int64]:
        return self._all if rows is None else np.asarray(rows, dtype=np.int64)


def scalar(value: ArrayLike) -> float:
    """A constant of ServiceParams as a number (the first service's, of an array)."""
    return float(np.asarray(value, dtype=np.float64).reshape(-1)[0])


def service_seeds(seed: int | npt.ArrayLike, services: int) -> npt.NDArray[np.uint64]:
    """One seed a service: given ones as they are, or spread from a single number."""
    if np.ndim(seed) == 0:
        spread = np.random.SeedSequence(int(np.asarray(seed))).generate_state(services, np.uint64)
        return spread.astype(np.uint64)
    return np.asarray(seed).astype(np.uint64)


def _interval(spans: IntArray, change: FloatArray) -> Interval:
    names = STATE[_COUNTERS]
    column: dict[str, Any] = {name: change[:, index] for index, name in enumerate(names)}
    with np.errstate(invalid="ignore", divide="ignore"):
        percentiles = {f"p{q}_ms": column[f"p{q}_ms_served"] / column["served"] for q in (50, 95, 99)}
    kept = {name: column[name] for name in ("arrived", "served", "dropped", "violating", "replica_s")}
    return Interval(seconds=spans.astype(np.float64), **kept, **percentiles)


@nb.njit(cache=True)
def _new_capacity(param, state, seed):  # type: ignore[no-untyped-def]
    share = 1.0 + param[P_CAPACITY_SPREAD] * normal(uniform(seed, int(state[S_CREATED]), _STREAM_CAPACITY))
    return param[P_CAPACITY] * max(MIN_CAPACITY_SHARE, share)


@nb.njit(cache=True)
def _place(rows, counts, params, state, seeds, pending, pending_rps):  # type: ignore[no-untyped-def]
    for k in range(len(rows)):
        i = rows[k]
        if state[i, S_PENDING] > 0:
            pending[i] = 0
            pending_rps[i] = 0.0
            state[i, S_PENDING] = 0.0
        ready = int(state[i, S_READY])
        if counts[k] < ready:
            state[i, S_CAPACITY] *= counts[k] / ready
        for _ in range(ready, counts[k]):
            state[i, S_CAPACITY] += _new_capacity(params[i], state[i], seeds[i])
            state[i, S_CREATED] += 1.0
        state[i, S_READY] = counts[k]


@nb.njit(cache=True)
def _scale(rows, counts, params, state, seeds, pending, pending_rps):  # type: ignore[no-untyped-def]
    for k in range(len(rows)):
        i = rows[k]
        change = counts[k] - int(state[i, S_READY] + state[i, S_PENDING])
        if change > 0:
            _create(params[i], state[i], seeds[i], pending[i], pending_rps[i], change)
        elif change < 0:
            _remove(params[i], state[i], pending[i], pending_rps[i], -change)


@nb.njit(cache=True)
def _create(param, state, seed, pending, pending_rps, count):  # type: ignore[no-untyped-def]
    clock = int(state[S_CLOCK])
    for _ in range(count):
        z = normal(uniform(seed, int(state[S_CREATED]), _STREAM_START_UP))
        slot = (clock + _delay(param, min(z, MAX_SIGMAS))) % START_UP_SLOTS
        pending[slot] += 1
        pending_rps[slot] += _new_capacity(param, state, seed)
        state[S_CREATED] += 1.0
    state[S_PENDING] += count


@nb.njit(cache=True)
def _delay(param, sigmas):  # type: ignore[no-untyped-def]
    """Whole seconds until a replica serves."""
    delay = int(param[P_START_UP] * math.exp(param[P_START_UP_SPREAD] * sigmas) + 0.5)
    return min(delay, START_UP_SLOTS - 1)


@nb.njit(cache=True)
def _remove(param, state, pending, pending_rps, count):  # type: ignore[no-untyped-def]
    clock = int(state[S_CLOCK])
    back = _delay(param, MAX_SIGMAS) + START_UP_SLOTS
    while count > 0 and state[S_PENDING] > 0.0:
        slot = (clock + back) % START_UP_SLOTS
        back -= 1
        here = pending[slot]
        if here > 0:
            gone = min(count, here)
            pending_rps[slot] *= (here - gone) / here
            pending[slot] -= gone
            state[S_PENDING] -= gone
            count -= gone
    if count > 0:
        ready = state[S_READY]
        state[S_CAPACITY] *= (ready - count) / ready
        state[S_READY] = ready - count
        state[S_REPLICA_S] += count * param[P_DRAIN]


@nb.njit(cache=True, inline="always")
def _rate_at(rates, row, period_s, clock_s):  # type: ignore[no-untyped-def]
    position = clock_s / period_s
    last = rates.shape[1] - 1
    left = int(position)
    if left >= last:
        return float(rates[row, last])
    part = position - left
    return rates[row, left] * (1.0 - part) + rates[row, left + 1] * part


@nb.njit(cache=True)
def _rates_now(rows, rates, rate_rows, period_s, state):  # type: ignore[no-untyped-def]
    result = np.empty(len(rows))
    for k in range(len(rows)):
        result[k] = _rate_at(rates, rate_rows[rows[k]], period_s, state[rows[k], S_CLOCK])
    return result


@nb.njit(cache=True)
def _advance(  # type: ignore[no-untyped-def]
    rows, spans, constant, rates, rate_rows, period_s, params, state, seeds, pending, pending_rps, scrapes,
    le_ms, histogram,
):  # fmt: skip
    for k in range(len(rows)):
        i = rows[k]
        param, now = params[i], state[i]
        percentile_log = -math.log(1.0 - param[P_PERCENTILE] / 100.0)
        interval, phase = int(param[P_SCRAPE]), int(param[P_PHASE]) % int(param[P_SCRAPE])
        for _ in range(spans[k]):
            clock = int(now[S_CLOCK])
            if now[S_PENDING] > 0.0:
                _start(now, pending[i], pending_rps[i], clock % START_UP_SLOTS)
            rate = constant[k]
            if rate < 0.0:
                rate = _rate_at(rates, rate_rows[i], period_s, now[S_CLOCK])
            arrivals = rate
            if param[P_POISSON] > 0.0:
                arrivals = poisson(rate, uniform(seeds[i], clock, _STREAM_ARRIVALS))
            _second(param, now, rate, arrivals, percentile_log, le_ms, histogram[i])
            now[S_CLOCK] = clock + 1.0
            if (clock + 1) % interval == phase and not _lost(param[P_LOSS], seeds[i], clock):
                _scrape(now, scrapes[i])


@nb.njit(cache=True)
def _lost(probability, seed, clock):  # type: ignore[no-untyped-def]
    return probability > 0.0 and uniform(seed, clock, _STREAM_SCRAPE) < probability


@nb.njit(cache=True, inline="always")
def _start(now, pending, pending_rps, slot):  # type: ignore[no-untyped-def]
    if pending[slot] > 0:
        now[S_READY] += pending[slot]
        now[S_PENDING] -= pending[slot]
        now[S_CAPACITY] += pending_rps[slot]
        pending[slot] = 0
        pending_rps[slot] = 0.0


@nb.njit(cache=True, inline="always")
def _second(param, now, rate, arrivals, percentile_log, le_ms, histogram):  # type: ignore[no-untyped-def]
    capacity, ready, before = now[S_CAPACITY], now[S_READY], now[S_BACKLOG]
    now[S_ARRIVED] += arrivals
    now[S_REPLICA_S] += ready + now[S_PENDING]
    if ready <= 0.0:
        # nobody serves: who comes is late, the oldest give up as they reach the time-out
        gone = (before + arrivals) * min(1.0, 1.0 / param[P_TIMEOUT])
        now[S_BACKLOG] = before + arrivals - gone
        now[S_DROPPED] += gone
        now[S_VIOLATING] += arrivals
        now[S_IN_FLIGHT] = now[S_BACKLOG]
        return
    served = min(before + arrivals, capacity)
    left = before + arrivals - served
    dropped = max(0.0, left - param[P_TIMEOUT] * capacity)
    left -= dropped
    base_s = param[P_BASE] / 1000.0
    queued_s = min(0.5 * (before + left) / capacity, param[P_TIMEOUT])
    rho = min((rate + before) / capacity, RHO_MAX)
    log_waits = (math.sqrt(2.0 * (ready + 1.0)) - 1.0) * math.log(rho) if rho > 1e-12 else -700.0
    decay = math.sqrt(ready) * (1.0 - rho) / (param[P_BURSTINESS] * base_s)
    slack = param[P_SLO] / 1000.0 - base_s - queued_s
    late = 1.0 if slack <= 0.0 else math.exp(log_waits - decay * slack)
    now[S_BACKLOG] = left
    now[S_SERVED] += served
    now[S_DROPPED] += dropped
    # who gives up after a scale-down may have counted as late before
    violating = now[S_VIOLATING] + dropped + max(arrivals - dropped, 0.0) * late
    now[S_VIOLATING] = min(violating, now[S_ARRIVED])
    now[S_USED] += ready * (param[P_IDLE] + (1.0 - param[P_IDLE]) * served / capacity)
    floor_s, longest = base_s + queued_s, base_s + param[P_TIMEOUT]
    now[S_P50] += served * _percentile_ms(floor_s, longest, log_waits, decay, 0.6931471805599453)
    now[S_P95] += served * _percentile_ms(floor_s, longest, log_waits, decay, 2.995732273553991)
    now[S_P99] += served * _percentile_ms(floor_s, longest, log_waits, decay, 4.605170185988092)
    now[S_PSLO] += served * _percentile_ms(floor_s, longest, log_waits, decay, percentile_log)
    now[S_IN_FLIGHT] = left + served * (base_s + math.exp(log_waits) / decay)
    for b in range(len(le_ms)):
        over = le_ms[b] / 1000.0 - floor_s
        if over >= 0.0:
            histogram[b] += served * (1.0 - math.exp(log_waits - decay * over))
        if le_ms[b] >= 1000.0 * longest:
            histogram[b] += dropped


@nb.njit(cache=True, inline="always")
def _percentile_ms(floor_s, longest_s, log_waits, decay, minus_log_tail):  # type: ignore[no-untyped-def]
    waits = log_waits + minus_log_tail
    if waits <= 0.0:
        return 1000.0 * min(floor_s, longest_s)
    return 1000.0 * min(floor_s + waits / decay, longest_s)


@nb.njit(cache=True)
def _scrape(now, ring):  # type: ignore[no-untyped-def]
    slot = int(now[S_SCRAPES]) % SCRAPES
    ring[slot, M_TIME] = now[S_CLOCK]
    ring[slot, M_ARRIVED] = now[S_ARRIVED]
    ring[slot, M_DROPPED] = now[S_DROPPED]
    ring[slot, M_USED] = now[S_USED]
    ring[slot, M_PSLO] = now[S_PSLO]
    ring[slot, M_SERVED] = now[S_SERVED]
    ring[slot, M_IN_FLIGHT] = now[S_IN_FLIGHT]
    now[S_SCRAPES] += 1.0


@nb.njit(cache=True)
def _observe(rows, params, state, scrapes, shown):  # type: ignore[no-untyped-def]
    for k in range(len(rows)):
        i = rows[k]
        shown[:, k] = np.nan
        count = int(state[i, S_SCRAPES])
        oldest_s = state[i, S_CLOCK] - params[i, P_WINDOW]
        if count < 1 or scrapes[i, (count - 1) % SCRAPES, M_TIME] <= oldest_s:
            continue
        last = scrapes[i, (count - 1) % SCRAPES]
        shown[4, k] = last[M_IN_FLIGHT]
        first = last
        for back in range(2, min(count, SCRAPES) + 1):
            sample = scrapes[i, (count - back) % SCRAPES]
            if sample[M_TIME] <= oldest_s:
                break
            first = sample
        span = last[M_TIME] - first[M_TIME]
        if span <= 0.0:
            continue
        arrived, served = last[M_ARRIVED] - first[M_ARRIVED], last[M_SERVED] - first[M_SERVED]
        dropped = last[M_DROPPED] - first[M_DROPPED]
        shown[0, k] = arrived / span
        if served > 0.0:
            shown[1, k] = (last[M_PSLO] - first[M_PSLO]) / served
        if served + dropped > 0.0:
            shown[2, k] = dropped / (served + dropped)
        if state[i, S_READY] > 0.0:
            shown[3, k] = (last[M_USED] - first[M_USED]) / span / state[i, S_READY]
