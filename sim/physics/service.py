"""`ServicePhysics`: the arrays of N services and the methods that call the compiled kernels on them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.core import Samples
from sim.compiled import counted
from sim.errors import ParameterError, require_all
from sim.physics.advance import advance_rows
from sim.physics.flow import rate_at
from sim.physics.layout import COUNTERS, S_CLOCK, S_PENDING, S_READY, STATE, PhysicsArrays, new_arrays
from sim.physics.metrics import metrics_rows
from sim.physics.params import ArrayLike, FloatArray, IntArray, ServiceParams
from sim.physics.replicas import place_rows, reset_rows, scale_rows


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened in one `advance`; float arrays `[rows]`.

    arrived: attempts, as a mesh counts them; offered: first attempts, so that arrived - offered came again.
    served, dropped, violating: attempts. dropped ones timed out or were answered with an error; violating are
    those that came and will be late or dropped. replica_s: replica-seconds billed. p50_ms, p95_ms, p99_ms:
    means of the 1-s percentiles over requests served, NaN where there were none.
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
    offered: FloatArray

    @property
    def violation_share(self) -> FloatArray:
        """Violating over arrived requests, 0..1; 0 where there were none."""
        return np.minimum(self.violating / np.maximum(self.arrived, 1e-9), 1.0)

    @property
    def error_ratio(self) -> FloatArray:
        """Dropped over finished requests, 0..1; 0 where none finished."""
        return self.dropped / np.maximum(self.served + self.dropped, 1e-9)

    @property
    def quantiles_ms(self) -> FloatArray:
        """p50, p95 and p99, `[3, rows]`."""
        return np.stack([self.p50_ms, self.p95_ms, self.p99_ms])


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


def to_samples(shown: ServiceMetrics) -> Samples:
    """Simulated metrics as the engine reads real ones."""
    return Samples(
        request_rate=shown.request_rate,
        latency_ms=shown.latency_ms,
        error_ratio=shown.error_ratio,
        utilisation=shown.utilisation,
        ready=shown.ready,
        current=shown.current,
        in_flight=shown.in_flight,
    )


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
        self._arrays = new_arrays(services, np.asarray(le_ms, dtype=np.float64).reshape(-1))
        self._all: npt.NDArray[np.int64] = np.arange(services, dtype=np.int64)
        self.reset(self._all, params or ServiceParams(), service_seeds(seed, services), replicas)

    def reset(
        self, rows: IntArray | None, params: ServiceParams, seeds: IntArray, replicas: ArrayLike
    ) -> None:
        """Start these services anew with `replicas` ready ones, clock 0, empty counters."""
        picked, arrays = self._rows(rows), self._arrays
        arrays.params[picked] = params.matrix(len(picked))
        arrays.seeds[picked] = np.asarray(seeds).astype(np.uint64)
        reset_rows(picked, arrays)
        self.place(picked, replicas)

    def set_params(self, rows: IntArray | None, params: ServiceParams) -> None:
        """Change the constants of running services; replicas that exist keep their capacity."""
        picked = self._rows(rows)
        self._arrays.params[picked] = params.matrix(len(picked))

    def place(self, rows: IntArray | None, ready: ArrayLike) -> None:
        """Make exactly `ready` replicas ready at once, none starting (for who starts pods itself)."""
        picked = self._rows(rows)
        place_rows(picked, _counts(picked, ready, "ready"), self._arrays)

    def scale(self, rows: IntArray | None, replicas: ArrayLike) -> None:
        """Ask for `replicas` (int, `[rows]` or one): new ones start up, surplus ones drain."""
        picked = self._rows(rows)
        scale_rows(picked, _counts(picked, replicas, "replicas"), self._arrays)

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
        self._arrays = self._arrays._replace(
            rates=np.ascontiguousarray(rates),
            rate_rows=np.ascontiguousarray(chosen, dtype=np.int64),
            rate_period_s=np.array([float(period_s)]),
        )

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
        state = self._arrays.state
        before = state[picked, COUNTERS]
        advance_rows(picked, spans, constant, self._arrays)
        return _interval(spans, state[picked, COUNTERS] - before)

    def metrics(self, rows: IntArray | None = None) -> ServiceMetrics:
        """What the metrics show at each service's clock."""
        picked = self._rows(rows)
        shown = np.empty((len(fields(ServiceMetrics)), len(picked)))
        metrics_rows(picked, self._arrays, shown)
        return ServiceMetrics(*shown)

    def read(self, name: str, rows: IntArray | None = None) -> FloatArray:
        """One column of STATE: levels, and counters since the last reset."""
        return np.asarray(self._arrays.state[self._rows(rows), STATE.index(name)])

    def rate_now(self, rows: IntArray | None = None) -> FloatArray:
        """True request rate (requests/s) at each service's clock, of the rates set."""
        return np.asarray(_rates_now(self._rows(rows), self._arrays))

    @property
    def arrays(self) -> PhysicsArrays:
        """What the row kernels take."""
        return self._arrays

    @property
    def le_ms(self) -> npt.NDArray[np.float64]:
        """Upper bounds of the latency buckets, `[B]`."""
        return self._arrays.le_ms

    @property
    def histogram(self) -> npt.NDArray[np.float64]:
        """Requests at or below each of them since the last reset, `[N, B]`."""
        return self._arrays.histogram

    @property
    def rates(self) -> npt.NDArray[np.float32]:
        """The rates set, `[R, T]`; writing to it changes them."""
        return self._arrays.rates

    @property
    def ready(self) -> IntArray:
        """Ready replicas, int `[N]`."""
        return self._arrays.state[:, S_READY].astype(np.int64)

    @property
    def replicas(self) -> IntArray:
        """Ready and starting replicas, int `[N]`."""
        return (self._arrays.state[:, S_READY] + self._arrays.state[:, S_PENDING]).astype(np.int64)

    @property
    def clock_s(self) -> FloatArray:
        """Seconds since the last reset, `[N]`."""
        return self._arrays.state[:, S_CLOCK].copy()

    def _rows(self, rows: IntArray | None) -> npt.NDArray[np.int64]:
        return self._all if rows is None else np.asarray(rows, dtype=np.int64)


def service_seeds(seed: int | npt.ArrayLike, services: int) -> npt.NDArray[np.uint64]:
    """One seed a service: given ones as they are, or spread from a single number."""
    if np.ndim(seed) == 0:
        spread = np.random.SeedSequence(int(np.asarray(seed))).generate_state(services, np.uint64)
        return spread.astype(np.uint64)
    return np.asarray(seed).astype(np.uint64)


def _counts(rows: IntArray, values: ArrayLike, name: str) -> npt.NDArray[np.int64]:
    counts = np.broadcast_to(np.asarray(values, dtype=np.int64), rows.shape).astype(np.int64)
    require_all(counts >= 0, name, counts, "0 or more")
    return counts


def _interval(spans: IntArray, change: FloatArray) -> Interval:
    column: dict[str, Any] = {name: change[:, index] for index, name in enumerate(STATE[COUNTERS])}
    with np.errstate(invalid="ignore", divide="ignore"):
        percentiles = {f"p{q}_ms": column[f"p{q}_ms_served"] / column["served"] for q in (50, 95, 99)}
    counted = ("arrived", "served", "dropped", "violating", "replica_s", "offered")
    kept = {name: column[name] for name in counted}
    return Interval(seconds=spans.astype(np.float64), **kept, **percentiles)


@counted
def _rates_now(rows, arrays):  # type: ignore[no-untyped-def]
    result = np.empty(len(rows))
    for k in range(len(rows)):
        row, clock_s = arrays.rate_rows[rows[k]], arrays.state[rows[k], S_CLOCK]
        result[k] = rate_at(arrays.rates, row, arrays.rate_period_s[0], clock_s)
    return result
