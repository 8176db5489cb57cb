"""The clairvoyant bound: the cheapest replicas for a violation level, with the whole trace known beforehand.

Exact dynamic programme over the ready replicas at every control step. A step at `r` replicas costs `r`;
each replica that is added costs its start-up time on top (it is billed before it serves), each that is
removed its draining. A share `v` of the trace's requests violating costs `v * penalty` replicas in every
step. Plans for a sweep of penalties, *executed in the simulator* with its noise, backlog and start-up times
(`sim.replay.replay_clairvoyant`), draw the frontier of cost over violations that nobody is known to beat.

It is a bound, not a policy: it knows the rates, and obeys no guard. It is not proven to be the lowest. It
plans with the stationary wait of `sim.latency` (any balancer; constant service times) at replicas of mean
capacity, so it does not know: backlog, which only the execution carries over; chance in arrivals, in
capacities and in start-up times (it allows for slow starts and readiness probes); faults, cold replicas and
retries. Between two of its points, interpolate in (violation, cost).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from sim.errors import require
from sim.latency import (
    POOLED,
    RHO_MAX,
    balanced_decay_per_s,
    balanced_wait,
    wait_decay_per_s,
    wait_exponent,
    workers_of,
)
from sim.physics import ServiceParams, scalar

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Problem:
    """One trace and service. rates_rps `[T, S]`: requests/s at S moments of each of T control steps."""

    rates_rps: FloatArray
    params: ServiceParams
    sync_period_s: float
    min_replicas: int = 1
    max_replicas: int = 100

    def __post_init__(self) -> None:
        require(self.rates_rps.ndim == 2, "rates_rps", self.rates_rps.shape, "steps by moments")
        require(
            0 < self.max_replicas <= 5000 and 0 <= self.min_replicas <= self.max_replicas,
            "max_replicas",
            (self.min_replicas, self.max_replicas),
            "0 <= min <= max <= 5000",
        )

    @property
    def start_up_steps(self) -> int:
        """Control steps from asking for a replica until nearly every one serves (1.3 sigma)."""
        slow = scalar(self.params.start_up_s) * math.exp(1.3 * scalar(self.params.start_up_spread))
        return math.ceil((slow + scalar(self.params.readiness_period_s)) / self.sync_period_s)

    def violations(self) -> FloatArray:
        """Share of the trace's requests that violate in step t at r replicas, `[T, R]`."""
        counts = np.arange(self.min_replicas, self.max_replicas + 1, dtype=np.float64)
        base_s, slo_s = (
            scalar(each) / 1000.0 for each in (self.params.base_latency_ms, self.params.slo_latency_ms)
        )
        late = _violations(
            self.rates_rps,
            counts * scalar(self.params.capacity_rps),
            _waits(
                counts,
                scalar(self.params.balancer),
                scalar(self.params.proxies),
                scalar(self.params.pooling),
                scalar(self.params.burstiness),
                scalar(self.params.capacity_rps),
                base_s,
            ),
            slo_s - base_s,
        )
        return np.asarray(late / max(float(self.rates_rps.sum()), 1e-9))


@dataclass(frozen=True)
class Plan:
    """ready `[T]`: replicas that should serve in each step; desired `[T]`: what to ask for at its start."""

    ready: IntArray
    desired: IntArray
    penalty: float


def make_plan(problem: Problem, penalty: float, shares: FloatArray | None = None) -> Plan:
    """The cheapest plan at `penalty`: what all requests violating would cost, in replicas all the time.

    shares: `problem.violations()`, to save making it again. Deterministic.
    """
    late = problem.violations() if shares is None else shares
    counts = np.arange(problem.min_replicas, problem.max_replicas + 1, dtype=np.float64)
    steps = problem.start_up_steps
    drain = scalar(problem.params.drain_s) / problem.sync_period_s
    ready = _programme(counts, late, penalty * len(late), float(steps), drain)
    return Plan(ready, _ahead(ready, steps), penalty)


def _ahead(ready: IntArray, steps: int) -> IntArray:
    """Replicas to ask for so that those wanted up to `steps` later have started; none is dropped between."""
    padded = np.concatenate([ready, np.repeat(ready[-1], steps)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, steps + 1)
    return np.asarray(windows.max(axis=1), dtype=np.int64)


@nb.njit(cache=True)
def _waits(counts, balancer, proxies, pooling, burstiness, capacity, base_s):  # type: ignore[no-untyped-def]
    """Power of rho that P(W > 0) is, decay at rho 0 (1/s) and imbalance of each count, `[3, R]`."""
    waits = np.zeros((3, len(counts)))
    workers = workers_of(capacity, base_s)
    for k in range(len(counts)):
        if counts[k] <= 0.0:
            continue
        if balancer == POOLED:
            waits[0, k] = wait_exponent(counts[k])
            waits[1, k] = wait_decay_per_s(counts[k], 0.0, pooling, burstiness, base_s)
        else:
            found = balanced_wait(counts[k], balancer, proxies, workers, burstiness, workers / capacity)
            waits[0, k], waits[1, k], waits[2, k] = found
    return waits


@nb.njit(cache=True)
def _violations(rates, capacities, waits, slack_s):  # type: ignore[no-untyped-def]
    steps, moments = rates.shape
    result = np.zeros((steps, len(capacities)))
    for t in range(steps):
        for m in range(moments):
            rate = rates[t, m]
            if rate <= 0.0:
                continue
            log_rate = math.log(rate)
            for k in range(len(capacities)):
                rho = rate / capacities[k] if capacities[k] > 0.0 else 2.0
                late = 1.0
                if rho < RHO_MAX and slack_s > 0.0:
                    log_rho = log_rate - math.log(capacities[k])
                    decay = balanced_decay_per_s(waits[1, k], waits[2, k], rho)
                    late = math.exp(waits[0, k] * log_rho - decay * slack_s)
                result[t, k] += rate * late
    return result


@nb.njit(cache=True)
def _programme(counts, late, penalty, up, down):  # type: ignore[no-untyped-def]
    """Backward min-plus recursion; moving costs `up` or `down` a replica, so two sweeps a step are exact."""
    steps, size = late.shape
    choice = np.zeros((steps, size), dtype=np.int32)
    value = np.zeros(size)
    for t in range(steps - 1, -1, -1):
        for k in range(size):
            value[k] += counts[k] + penalty * late[t, k]
        best = value.copy()
        for k in range(size):
            choice[t, k] = k
        for k in range(size - 2, -1, -1):
            if best[k + 1] + up < best[k]:
                best[k] = best[k + 1] + up
                choice[t, k] = choice[t, k + 1]
        for k in range(1, size):
            if best[k - 1] + down < best[k]:
                best[k] = best[k - 1] + down
                choice[t, k] = choice[t, k - 1]
        value = best
    # the replicas before the first step are free to choose: those of the cheapest plan
    state = 0
    for k in range(size):
        if value[k] < value[state]:
            state = k
    ready = np.empty(steps, dtype=np.int64)
    for t in range(steps):
        state = choice[t, state]
        ready[t] = int(counts[state])
    return ready
