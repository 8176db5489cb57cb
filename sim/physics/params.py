"""The constants of a service; their columns in the arrays of the kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import ParameterError, require_all
from sim.latency import BALANCERS

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]
ArrayLike = npt.ArrayLike

START_UP_SLOTS = 1024
"""Seconds ahead in which a replica can begin to serve; a power of two."""
SCRAPES = 64
"""Samples that the metrics remember; a power of two."""


@dataclass(frozen=True)
class ServiceParams:
    """A service's constants; each field a number, or an array `[N]` with one a service.

    The first sixteen make the plain service. What follows is off by default: over-dispersed arrivals, service
    times that vary, retries, late readiness, cold caches, faults, and what monitoring adds of its own.
    """

    capacity_rps: ArrayLike = 25.0
    """Mean requests/s that one ready replica can serve."""
    start_up_s: ArrayLike = 60.0
    """Median seconds from a replica's creation until it serves."""
    start_up_spread: ArrayLike = 0.1
    """Log-normal sigma of the start-up time."""
    capacity_spread: ArrayLike = 0.05
    """Standard deviation of a replica's capacity over the mean; none falls below 0.3."""
    base_latency_ms: ArrayLike = 40.0
    """Latency of a request that does not wait; its mean where `service_cv2` is above 0."""
    slo_latency_ms: ArrayLike = 250.0
    """The objective: a served request above it violates, and so does every one that failed."""
    slo_percentile: ArrayLike = 95.0
    """Which percentile the latency metric shows."""
    timeout_s: ArrayLike = 10.0
    """Longest wait before a client gives up."""
    burstiness: ArrayLike = 1.0
    """(Ca^2 + Cs^2) / 2 of arrivals and service times: 1 is Poisson and exponential."""
    drain_s: ArrayLike = 10.0
    """Seconds for which a removed ready replica finishes what it holds, and is still billed."""
    idle_utilisation: ArrayLike = 0.01
    """Share of its request that a replica uses without any load."""
    poisson: ArrayLike = 1.0
    """1: random arrivals. 0: exactly the rate."""
    scrape_interval_s: ArrayLike = 15.0
    """Seconds between two scrapes (whole)."""
    scrape_phase_s: ArrayLike = 0.0
    """When in that interval the scrape falls (whole)."""
    scrape_loss: ArrayLike = 0.0
    """Probability that a scrape gets lost."""
    window_s: ArrayLike = 60.0
    """Window of the rates that the metrics show; at least two scrapes must fall into it."""

    arrival_dispersion: ArrayLike = 1.0
    """Variance over mean of the arrivals in a second: 1 is Poisson, above it negative binomial. Waits within
    a second follow `burstiness`, which see."""
    pooling: ArrayLike = 0.5
    """How well the load balancer pools the replicas, 0..1: the exponent of `sim.latency`."""
    service_cv2: ArrayLike = 0.0
    """Squared coefficient of variation of service times, which are gamma distributed: 0 is constant, 1 is
    exponential. It is in the latency of who is served; in waiting it counts by `burstiness`."""
    retry_share: ArrayLike = 0.0
    """Probability that a failed attempt comes again."""
    retry_after_s: ArrayLike = 1.0
    """Mean of the time until then, which is exponential."""
    readiness_period_s: ArrayLike = 0.0
    """A replica that could serve is seen ready up to this much later, uniformly (periodSeconds of its
    readiness probe; Kubernetes' default is 10)."""
    cold_share: ArrayLike = 1.0
    """Share of its capacity that a replica has when it begins to serve; 1 is warm at once."""
    warming_s: ArrayLike = 60.0
    """Time constant with which the rest comes."""
    crashes_per_hour: ArrayLike = 0.0
    """Of each ready replica. It starts up again, and is billed meanwhile."""
    node_losses_per_hour: ArrayLike = 0.0
    """Of the service: `node_share` of its ready replicas go at once, and are created anew elsewhere."""
    node_share: ArrayLike = 0.2
    """Share of the replicas that are on one node."""
    slow_per_hour: ArrayLike = 0.0
    """How often a ready replica becomes slow."""
    slow_share: ArrayLike = 0.3
    """Share of its capacity that a slow replica keeps; its service times are longer by 1 / slow_share."""
    slow_s: ArrayLike = 120.0
    """Mean of the time for which it is slow, which is exponential."""
    failing_per_hour: ArrayLike = 0.0
    """How often a ready replica begins to answer errors. It stays ready and gets its share of requests."""
    failing_s: ArrayLike = 60.0
    """Mean of the time for which it does, which is exponential."""
    neighbour_per_hour: ArrayLike = 0.0
    """How often noisy neighbours trouble the whole service."""
    neighbour_share: ArrayLike = 0.3
    """Share of every replica's capacity that they take; service times are longer by 1 / (1 - share)."""
    neighbour_s: ArrayLike = 120.0
    """Mean of the time for which they do, which is exponential."""
    metric_lag_s: ArrayLike = 0.0
    """The metrics show what they would have shown this much earlier."""
    rate_extrapolation: ArrayLike = 0.0
    """1: rates are extrapolated to the window's ends by the rule of Prometheus' rate(), which matters when
    scrapes are missing. 0: increase over the time between the samples."""
    balancer: ArrayLike = 0.0
    """What spreads requests over the replicas, as a number: place in `sim.latency.BALANCERS`. 0 is the plain
    formula with `pooling`; the others know the replicas' workers, and do not look at `pooling`."""
    proxies: ArrayLike = 1.0
    """How many such balancers there are, each of which sees only its own requests."""

    def matrix(self, services: int) -> npt.NDArray[np.float64]:
        """Checked values as float64 `[services, fields]`; raises ParameterError."""
        result = np.empty((services, len(FIELDS)))
        for column, name in enumerate(FIELDS):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.ndim > 1 or values.size not in (1, services):
                raise ParameterError(
                    name, values.shape, f"one number, or one for each of {services} services"
                )
            result[:, column] = values
        accepted = (result >= _LOWEST) & (result <= _HIGHEST) & (result < math.inf)
        if not accepted.all():
            self._refuse(result, accepted)
        _check_remembered(result)
        return result

    @staticmethod
    def _refuse(values: FloatArray, accepted: npt.NDArray[np.bool_]) -> None:
        column = int(np.flatnonzero(~accepted.all(axis=0))[0])
        allowed = f"in {_LOWEST[column]:g}..{_HIGHEST[column]:g}"
        require_all(accepted[:, column], FIELDS[column], values[:, column], allowed)


def scalar(value: ArrayLike) -> float:
    """A constant of ServiceParams as a number (the first service's, of an array)."""
    return float(np.asarray(value, dtype=np.float64).reshape(-1)[0])


FIELDS = tuple(item.name for item in fields(ServiceParams))
# fmt: off
(P_CAPACITY, P_START_UP, P_START_UP_SPREAD, P_CAPACITY_SPREAD, P_BASE, P_SLO, P_PERCENTILE, P_TIMEOUT,
 P_BURSTINESS, P_DRAIN, P_IDLE, P_POISSON, P_SCRAPE, P_PHASE, P_LOSS, P_WINDOW,
 P_DISPERSION, P_POOLING, P_CV2, P_RETRY_SHARE, P_RETRY_AFTER, P_READINESS, P_COLD_SHARE, P_WARMING,
 P_CRASHES, P_NODE_LOSSES, P_NODE_SHARE, P_SLOW, P_SLOW_SHARE, P_SLOW_S, P_FAILING, P_FAILING_S,
 P_NEIGHBOUR, P_NEIGHBOUR_SHARE, P_NEIGHBOUR_S, P_LAG, P_EXTRAPOLATION,
 P_BALANCER, P_PROXIES) = range(len(FIELDS))
# fmt: on

_HOURLY = (0.0, 3600.0)
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
    "arrival_dispersion": (1.0, 1000.0),
    "pooling": (0.0, 1.0),
    "service_cv2": (0.0, 10.0),
    "retry_share": (0.0, 0.999),
    "retry_after_s": (1e-2, 3600.0),
    "readiness_period_s": (0.0, 300.0),
    "cold_share": (0.01, 1.0),
    "warming_s": (1e-2, 1e5),
    "crashes_per_hour": _HOURLY,
    "node_losses_per_hour": _HOURLY,
    "node_share": (0.0, 1.0),
    "slow_per_hour": _HOURLY,
    "slow_share": (0.01, 1.0),
    "slow_s": (1.0, 1e6),
    "failing_per_hour": _HOURLY,
    "failing_s": (1.0, 1e6),
    "neighbour_per_hour": _HOURLY,
    "neighbour_share": (0.0, 0.95),
    "neighbour_s": (1.0, 1e6),
    "metric_lag_s": (0.0, 600.0),
    "rate_extrapolation": (0.0, 1.0),
    "balancer": (0.0, float(len(BALANCERS) - 1)),
    "proxies": (1.0, 1000.0),
}
_LOWEST = np.array([_RANGES.get(name, (0.0, math.inf))[0] for name in FIELDS])
_HIGHEST = np.array([_RANGES.get(name, (0.0, math.inf))[1] for name in FIELDS])


def _check_remembered(values: FloatArray) -> None:
    """A window, and the lag before it, must fit into the samples that are kept."""
    needed_s = values[:, P_WINDOW] + values[:, P_LAG]
    longest_s = (SCRAPES - 2) * values[:, P_SCRAPE]
    if (needed_s > longest_s).any():
        row = int(np.flatnonzero(needed_s > longest_s)[0])
        allowed = f"at most {longest_s[row]:g} at that scrape_interval_s"
        raise ParameterError("window_s + metric_lag_s", float(needed_s[row]), allowed)


__all__ = [
    "FIELDS",
    "SCRAPES",
    "START_UP_SLOTS",
    "ArrayLike",
    "FloatArray",
    "IntArray",
    "ServiceParams",
    "scalar",
    *(name for name in globals() if name[:2] == "P_"),
]
