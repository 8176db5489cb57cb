"""The constants of pools and of their route, and where everything is in the arrays of the kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sim.errors import ParameterError, require_all

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]
BoolArray = npt.NDArray[np.bool_]
ArrayLike = npt.ArrayLike

WEIGHT_TOTAL = 100
MAX_POOLS = 32
NOTICE_SLOTS = 1024
"""Seconds ahead for which notices are kept."""
CHANGE_SLOTS = 32
"""Changes of the weights that can be on their way at once."""


@dataclass(frozen=True)
class PoolParams:
    """What pools have beside a service's constants; each field a number, or an array `[P]` or `[N, P]`."""

    cost_per_replica: ArrayLike = 1.0
    """Cost of one replica for one second, in any unit."""
    reclaims_per_hour: ArrayLike = 0.0
    """How often an hour a replica is told to go, each on its own (spot instances)."""
    sweeps_per_hour: ArrayLike = 0.0
    """How often an hour many replicas are told to go together (a shortage of that kind of machine)."""
    sweep_share: ArrayLike = 1.0
    """Share of the ready replicas that a sweep takes, rounded up."""
    notice_s: ArrayLike = 120.0
    """Seconds between telling and taking. AWS gives 120 s, Google and Azure 30 s."""
    shortage_s: ArrayLike = 0.0
    """Mean seconds after a sweep in which no new replica can be had; 0: at once."""
    slowdowns_per_hour: ArrayLike = 0.0
    """How often an hour the whole pool becomes slow."""
    slowdown_factor: ArrayLike = 5.0
    """How many times slower it is then."""
    slowdown_s: ArrayLike = 300.0
    """Mean seconds until it recovers."""
    outages_per_hour: ArrayLike = 0.0
    """How often an hour the pool begins to answer errors."""
    outage_error_share: ArrayLike = 0.5
    """Share of its requests that fail then."""
    outage_s: ArrayLike = 300.0
    """Mean seconds until it recovers."""

    def matrix(self, sets: int, pools: int) -> FloatArray:
        """Checked values as float `[sets, pools, fields]`; raises ParameterError."""
        return _matrix(
            self, (sets, pools), _POOL_RANGES, f"one number, or {pools} or {sets} x {pools} numbers"
        )


@dataclass(frozen=True)
class RouteParams:
    """What a set of pools shares; each field a number, or an array `[N]`."""

    propagation_s: ArrayLike = 5.0
    """Seconds until weights that are asked for are in force (median)."""
    propagation_spread: ArrayLike = 0.0
    """Log-normal sigma of that time."""
    poisson: ArrayLike = 1.0
    """1: random arrivals, split at random. 0: exactly the rate, split exactly."""
    arrival_dispersion: ArrayLike = 1.0
    """Variance over mean of the set's arrivals in a second: 1 is Poisson, above it negative binomial."""
    retry_share: ArrayLike = 0.0
    """Probability that a failed attempt is made again."""
    retry_after_s: ArrayLike = 1.0
    """Mean seconds until then."""

    def matrix(self, sets: int) -> FloatArray:
        """Checked values as float `[sets, fields]`; raises ParameterError."""
        return _matrix(self, (sets,), _ROUTE_RANGES, f"one number, or one for each of {sets} sets")


POOL_FIELDS = tuple(item.name for item in fields(PoolParams))
ROUTE_FIELDS = tuple(item.name for item in fields(RouteParams))
_POOL_RANGES = {
    "sweep_share": (0.0, 1.0),
    "notice_s": (0.0, NOTICE_SLOTS - 1.0),
    "slowdown_factor": (1.0, 1000.0),
    "outage_error_share": (0.0, 1.0),
}
_ROUTE_RANGES = {
    "propagation_s": (0.0, 600.0),
    "propagation_spread": (0.0, 1.0),
    "poisson": (0.0, 1.0),
    "arrival_dispersion": (1.0, 1000.0),
    "retry_share": (0.0, 0.99),
    "retry_after_s": (0.1, 3600.0),
}


def _matrix(
    params: Any, shape: tuple[int, ...], ranges: dict[str, tuple[float, float]], shapes: str
) -> FloatArray:
    names = [item.name for item in fields(params)]
    result = np.empty((*shape, len(names)))
    for column, name in enumerate(names):
        values = np.asarray(getattr(params, name), dtype=np.float64)
        try:
            values = np.broadcast_to(values, shape)
        except ValueError:
            raise ParameterError(name, values.shape, shapes) from None
        lowest, highest = ranges.get(name, (0.0, math.inf))
        allowed = f"in {lowest:g}..{highest:g}"
        require_all(np.isfinite(values) & (values >= lowest) & (values <= highest), name, values, allowed)
        result[..., column] = values
    return result


# fmt: off
(K_COST, K_RECLAIMS, K_SWEEPS, K_SWEEP_SHARE, K_NOTICE, K_SHORTAGE, K_SLOWDOWNS, K_FACTOR, K_SLOW_S,
 K_OUTAGES, K_ERRORS, K_OUTAGE_S) = range(len(POOL_FIELDS))
(R_DELAY, R_DELAY_SPREAD, R_POISSON, R_DISPERSION, R_RETRY, R_RETRY_S) = range(len(ROUTE_FIELDS))
# fmt: on
EVENT_RATES = (K_RECLAIMS, K_SWEEPS, K_SLOWDOWNS, K_OUTAGES)
TROUBLES = ("shortage", "slowdown", "outage")
E_SHORTAGE, E_SLOW, E_OUTAGE = range(len(TROUBLES))
TOTALS = ("clock_s", "arrived", "offered", "retrying", "unrouted", "reclaimed")
G_CLOCK, G_ARRIVED, G_OFFERED, G_RETRYING, G_UNROUTED, G_RECLAIMED = range(len(TOTALS))


class PoolArrays(NamedTuple):
    """All that `PoolsPhysics` adds to its services, as the kernels take it; N sets of P pools."""

    params: npt.NDArray[np.float64]
    """`[N, P, fields of PoolParams]`, columns K_*."""
    route: npt.NDArray[np.float64]
    """`[N, fields of RouteParams]`, columns R_*."""
    present: npt.NDArray[np.bool_]
    """`[N, P]`: whether there is such a pool."""
    eventful: npt.NDArray[np.bool_]
    """`[N, P]`: whether it can ever be reclaimed, slow or failing."""
    seeds: npt.NDArray[np.uint64]
    """`[N]`."""
    asked: npt.NDArray[np.int64]
    """`[N, P]`: replicas asked for."""
    weights_asked: npt.NDArray[np.int64]
    """`[N, P]`: the last weights asked for."""
    weights: npt.NDArray[np.int64]
    """`[N, P]`: the weights in force."""
    changes: npt.NDArray[np.int64]
    """`[N, CHANGE_SLOTS, P + 1]`: a ring of weights on their way; the last column is when they arrive (s)."""
    change_marks: npt.NDArray[np.int64]
    """`[N, 3]`: how many changes arrived, how many are stored, how many were ever asked for."""
    told: npt.NDArray[np.int64]
    """`[N, P]`: ready replicas that were told to go."""
    told_slots: npt.NDArray[np.int32]
    """`[N, P, NOTICE_SLOTS]`: of those, how many go in the second with that remainder."""
    until_s: npt.NDArray[np.float64]
    """`[N, P, 3]`: when shortage, slowdown and outage end (clock); 0: there is none."""
    totals: npt.NDArray[np.float64]
    """`[N, 6]`: clock and counters of the set, columns G_*."""
    rates: npt.NDArray[np.float32]
    """`[R, T]`, requests/s."""
    rate_rows: npt.NDArray[np.int64]
    """`[N]`: the series that each set follows."""
    rate_period_s: npt.NDArray[np.float64]
    """`[1]`: seconds between two rates."""
    scratch: npt.NDArray[np.int64]
    """`[2, 1]`: a row and its replicas on their way to `scale_rows`."""


def new_arrays(sets: int, pools: int) -> PoolArrays:
    """Zeroed arrays; every pool present."""
    return PoolArrays(
        params=np.zeros((sets, pools, len(POOL_FIELDS))),
        route=np.zeros((sets, len(ROUTE_FIELDS))),
        present=np.ones((sets, pools), dtype=np.bool_),
        eventful=np.zeros((sets, pools), dtype=np.bool_),
        seeds=np.zeros(sets, dtype=np.uint64),
        asked=np.zeros((sets, pools), dtype=np.int64),
        weights_asked=np.zeros((sets, pools), dtype=np.int64),
        weights=np.zeros((sets, pools), dtype=np.int64),
        changes=np.zeros((sets, CHANGE_SLOTS, pools + 1), dtype=np.int64),
        change_marks=np.zeros((sets, 3), dtype=np.int64),
        told=np.zeros((sets, pools), dtype=np.int64),
        told_slots=np.zeros((sets, pools, NOTICE_SLOTS), dtype=np.int32),
        until_s=np.zeros((sets, pools, len(TROUBLES))),
        totals=np.zeros((sets, len(TOTALS))),
        rates=np.zeros((sets, 1), dtype=np.float32),
        rate_rows=np.arange(sets, dtype=np.int64),
        rate_period_s=np.ones(1),
        scratch=np.zeros((2, 1), dtype=np.int64),
    )
