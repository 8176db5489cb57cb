"""What comes, is served, waits and is lost in each second of a chunk; compiled, one row at a time.

`fill_arrivals`, then one of two flows fills the chunk's table: the plain one, or one for services with
faults, retries or cold starts. Both leave in it what `latencies` and the counters need.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from sim.compiled import inlined, inner
from sim.latency import POOLED, balanced_wait, wait_decay_per_s, wait_exponent, workers_of
from sim.noise import (
    SMALL_MEAN,
    negative_binomial,
    normal_centre,
    normal_is_central,
    normal_tail,
    poisson,
    uniform,
)
from sim.physics.faults import strike, warm_up
from sim.physics.layout import (
    BLOCK,
    S_BACKLOG,
    S_CAPACITY,
    S_COLD,
    S_FAILING,
    S_NEIGHBOUR,
    S_OFFERED,
    S_PENDING,
    S_READY,
    S_REPLICA_S,
    S_RETRYING,
    S_SLOW,
    STREAM_ARRIVALS,
    STREAM_DISPERSION,
    T_ARRIVED,
    T_BASE,
    T_BEFORE,
    T_DECAY_IDLE,
    T_DROPPED,
    T_ERRORS,
    T_EXPONENT,
    T_IMBALANCE,
    T_INVERSE,
    T_INVERSE_BUSY,
    T_LEFT,
    T_MAYBE,
    T_NORMAL,
    T_OFFERED,
    T_RATE,
    T_READY,
    T_SERVED,
    T_SLOW_WEIGHT,
    T_SURE,
    T_UNIFORM,
)
from sim.physics.params import (
    P_BALANCER,
    P_BASE,
    P_BURSTINESS,
    P_CAPACITY,
    P_DISPERSION,
    P_NEIGHBOUR_SHARE,
    P_POISSON,
    P_POOLING,
    P_PROXIES,
    P_RETRY_AFTER,
    P_RETRY_SHARE,
    P_SLOW_SHARE,
    P_TIMEOUT,
)
from sim.physics.replicas import next_start_s, start_pending


@nb.njit(cache=True, error_model="numpy", inline="always")
def padded(count):  # type: ignore[no-untyped-def]
    """How far a vectorised loop over `count` seconds goes; what it does beyond them is never read."""
    return -(-count // BLOCK) * BLOCK


@nb.njit(cache=True, error_model="numpy", inline="always")
def rate_at(rates, row, period_s, clock_s):  # type: ignore[no-untyped-def]
    """Requests/s of a series at `clock_s`, linear between its values; the last holds on."""
    position = clock_s / period_s
    last = rates.shape[1] - 1
    left = int(position)
    if left >= last:
        return float(rates[row, last])
    part = position - left
    return rates[row, left] * (1.0 - part) + rates[row, left + 1] * part


@inlined
def fill_rates(table, count, clock, constant_rate, rates, row, period_s):  # type: ignore[no-untyped-def]
    """Rates of `count` seconds from `clock`: the constant one, or below 0 those of the series `row`."""
    for t in range(padded(count)):
        table[T_RATE + t] = constant_rate
    if constant_rate < 0.0:
        for t in range(count):
            table[T_RATE + t] = rate_at(rates, row, period_s, float(clock + t))


@inlined
def fill_arrivals(table, count, clock, params, seeds, i):  # type: ignore[no-untyped-def]
    """First attempts, round the rates."""
    if params[i, P_POISSON] <= 0.0:
        for t in range(count):
            table[T_OFFERED + t] = table[T_RATE + t]
        return
    for t in range(padded(count)):
        table[T_UNIFORM + t] = uniform(seeds[i], clock + t, STREAM_ARRIVALS)
    if params[i, P_DISPERSION] > 1.0:
        _disperse(table, count, clock, seeds[i], params[i, P_DISPERSION])
    else:
        _poisson(table, count)


@inlined
def _poisson(table, count):  # type: ignore[no-untyped-def]
    """`sim.noise.poisson` of the rates, most of it vectorised."""
    for t in range(padded(count)):
        u = table[T_UNIFORM + t]
        centre, tail = normal_centre(u), normal_tail(u)
        table[T_NORMAL + t] = centre if normal_is_central(u) else tail
    for t in range(padded(count)):
        mean, z = table[T_RATE + t], table[T_NORMAL + t]
        table[T_OFFERED + t] = max(0.0, np.floor(mean + math.sqrt(mean) * z + (z * z - 1.0) / 6.0 + 0.5))
    for t in range(count):
        if table[T_RATE + t] < SMALL_MEAN:
            table[T_OFFERED + t] = poisson(table[T_RATE + t], table[T_UNIFORM + t])


@inner
def _disperse(table, count, clock, seed, dispersion):  # type: ignore[no-untyped-def]
    """Negative binomial round the rates."""
    for t in range(count):
        other = uniform(seed, clock + t, STREAM_DISPERSION)
        table[T_OFFERED + t] = negative_binomial(table[T_RATE + t], dispersion, table[T_UNIFORM + t], other)


@inlined
def flow(table, count, clock, params, state, pending, i):  # type: ignore[no-untyped-def]
    """The plain service: a queue before replicas that are all well."""
    base_s, timeout_s = params[i, P_BASE] / 1000.0, params[i, P_TIMEOUT]
    begin = 0
    while begin < count:
        while next_start_s(state, pending, i) <= clock + begin:
            start_pending(params, state, pending, i)
        end = int(min(float(count), next_start_s(state, pending, i) - clock))
        ready, capacity = state[i, S_READY], state[i, S_CAPACITY]
        if ready > 0.0:
            exponent, decay_idle, imbalance = _waiting(params, i, ready, base_s)
            _set_waiting(table, begin, end, ready, 1.0 / capacity, base_s, exponent, decay_idle, imbalance)
            _queue(table, begin, end, capacity, timeout_s * capacity, state, i)
        else:
            _set_waiting(table, begin, end, 0.0, 0.0, base_s, 1.0, 1.0, 0.0)
            _queue_before_nobody(table, begin, end, timeout_s, state, i)
        state[i, S_REPLICA_S] += (ready + state[i, S_PENDING]) * (end - begin)
        begin = end
    offered = 0.0
    for t in range(count):
        offered += table[T_OFFERED + t]
    state[i, S_OFFERED] += offered


@inlined
def _set_waiting(  # type: ignore[no-untyped-def]
    table, begin, end, ready, inverse, base_s, exponent, decay_idle, imbalance
):
    """What stays the same from `begin` to `end`."""
    for t in range(begin, end):
        table[T_READY + t] = ready
        table[T_INVERSE + t] = inverse
        table[T_INVERSE_BUSY + t] = inverse
        table[T_BASE + t] = base_s
        table[T_EXPONENT + t] = exponent
        table[T_DECAY_IDLE + t] = decay_idle
        table[T_IMBALANCE + t] = imbalance


@inlined
def _queue(table, begin, end, capacity, longest, state, i):  # type: ignore[no-untyped-def]
    """A queue of at most `longest` requests before `capacity` a second."""
    backlog = state[i, S_BACKLOG]
    for t in range(begin, end):
        table[T_BEFORE + t] = backlog
        offered = table[T_OFFERED + t]
        if backlog > 0.0 or offered > capacity:  # the usual case needs no sum to wait for
            backlog = min(max(backlog + offered - capacity, 0.0), longest)
        table[T_LEFT + t] = backlog
    state[i, S_BACKLOG] = backlog
    for t in range(begin, end):
        offered = table[T_OFFERED + t]
        waiting = table[T_BEFORE + t] + offered
        served = min(waiting, capacity)
        dropped = max(waiting - served - longest, 0.0)
        table[T_ARRIVED + t] = offered
        table[T_SERVED + t] = served
        table[T_DROPPED + t] = dropped
        table[T_SURE + t] = dropped
        # who gives up after a scale-down may have counted as late before
        table[T_MAYBE + t] = max(offered - dropped, 0.0)


@inlined
def _queue_before_nobody(table, begin, end, timeout_s, state, i):  # type: ignore[no-untyped-def]
    backlog = state[i, S_BACKLOG]
    for t in range(begin, end):
        offered = table[T_OFFERED + t]
        table[T_BEFORE + t] = backlog
        dropped = abandoned(backlog + offered, timeout_s)
        backlog = backlog + offered - dropped
        table[T_LEFT + t] = backlog
        table[T_ARRIVED + t] = offered
        table[T_SERVED + t] = 0.0
        table[T_DROPPED + t] = dropped
        table[T_SURE + t] = offered
        table[T_MAYBE + t] = 0.0
    state[i, S_BACKLOG] = backlog


@nb.njit(cache=True, error_model="numpy", inline="always")
def abandoned(waiting, timeout_s):  # type: ignore[no-untyped-def]
    """Where nobody serves, who comes is late, and the oldest give up as they reach the time-out."""
    return waiting * min(1.0, 1.0 / timeout_s)


@inner
def flow_troubled(table, count, clock, params, state, pending, seeds, i):  # type: ignore[no-untyped-def]
    """The same with faults, retries and cold starts."""
    seed = seeds[i]
    timeout_s = params[i, P_TIMEOUT]
    back = -math.expm1(-1.0 / params[i, P_RETRY_AFTER])
    for t in range(count):
        while next_start_s(state, pending, i) <= clock + t:
            start_pending(params, state, pending, i)
        strike(params, state, pending, seed, i, clock + t)
        state[i, S_REPLICA_S] += state[i, S_READY] + state[i, S_PENDING]
        retried = state[i, S_RETRYING] * back
        state[i, S_RETRYING] -= retried
        offered = table[T_OFFERED + t]
        state[i, S_OFFERED] += offered
        arrived = offered + retried
        failing = state[i, S_FAILING] / state[i, S_READY] if state[i, S_READY] > 0.0 else 0.0
        errors = arrived * failing
        capacity = _rest(table, t, params, state, i)
        backlog, arriving = state[i, S_BACKLOG], arrived - errors
        waiting = backlog + arriving
        if capacity > 0.0:
            served = min(waiting, capacity)
            left = waiting - served
            dropped = max(0.0, left - timeout_s * capacity)
            table[T_SURE + t] = errors + dropped
            table[T_MAYBE + t] = max(arriving - dropped, 0.0)
        else:
            served, left = 0.0, waiting
            dropped = abandoned(waiting, timeout_s)
            table[T_SURE + t] = arrived
            table[T_MAYBE + t] = 0.0
        state[i, S_BACKLOG] = left - dropped
        state[i, S_RETRYING] += params[i, P_RETRY_SHARE] * (errors + dropped)
        table[T_RATE + t] = (table[T_RATE + t] + retried) * (1.0 - failing)
        table[T_ARRIVED + t] = arrived
        table[T_ERRORS + t] = errors
        table[T_BEFORE + t] = backlog
        table[T_SERVED + t] = served
        table[T_DROPPED + t] = errors + dropped
        table[T_LEFT + t] = state[i, S_BACKLOG]
        warm_up(params, state, i)


@inner
def _rest(table, t, params, state, i):  # type: ignore[no-untyped-def]
    """Capacity (requests/s) that warming, neighbours, slow and failing replicas leave; into the table, what
    it is for latency. Cold and crowded replicas take longer for a request by as much as they have less."""
    ready, capacity = state[i, S_READY], state[i, S_CAPACITY]
    table[T_READY + t] = ready
    serving = ready - state[i, S_FAILING]
    table[T_INVERSE + t] = table[T_INVERSE_BUSY + t] = table[T_SLOW_WEIGHT + t] = 0.0
    table[T_EXPONENT + t] = table[T_DECAY_IDLE + t] = 1.0
    table[T_IMBALANCE + t] = 0.0
    table[T_BASE + t] = params[i, P_BASE] / 1000.0
    if serving <= 0.0 or capacity <= 0.0:
        return 0.0
    share = 1.0 - state[i, S_COLD] / capacity
    table[T_INVERSE_BUSY + t] = 1.0 / (capacity * share)
    if state[i, S_NEIGHBOUR] > 0.0:
        share *= 1.0 - params[i, P_NEIGHBOUR_SHARE]
    slow = state[i, S_SLOW] * params[i, P_SLOW_SHARE]
    well = serving - state[i, S_SLOW]
    left = capacity * share * (well + slow) / ready
    base_s = table[T_BASE + t] / share
    table[T_SLOW_WEIGHT + t] = slow / (well + slow)
    table[T_INVERSE + t] = 1.0 / left
    table[T_BASE + t] = base_s
    exponent, decay_idle, imbalance = _waiting(params, i, serving, base_s)
    table[T_EXPONENT + t], table[T_DECAY_IDLE + t], table[T_IMBALANCE + t] = exponent, decay_idle, imbalance
    return left


@inlined
def _waiting(params, i, replicas, base_s):  # type: ignore[no-untyped-def]
    """Exponent of rho, decay at rho 0 and imbalance of so many replicas; `base_s` is what load made of it."""
    burstiness = params[i, P_BURSTINESS]
    if params[i, P_BALANCER] == POOLED:
        decay_idle = wait_decay_per_s(replicas, 0.0, params[i, P_POOLING], burstiness, base_s)
        return wait_exponent(replicas), decay_idle, 0.0
    usual_s = params[i, P_BASE] / 1000.0
    workers = workers_of(params[i, P_CAPACITY], usual_s)
    service_s = workers / params[i, P_CAPACITY] * base_s / usual_s
    return balanced_wait(
        replicas, params[i, P_BALANCER], params[i, P_PROXIES], workers, burstiness, service_s
    )
