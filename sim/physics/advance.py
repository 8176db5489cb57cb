"""Seconds passing: the compiled kernel that joins arrivals, flow, latency, counters and scrapes.

Seconds are worked on in chunks of CHUNK, in passes of which the costly ones are plain loops over vectors. How
seconds are cut into chunks or calls changes nothing in the results, to the last bit.
"""

from __future__ import annotations

import math

import numpy as np

from sim.compiled import counted, inlined, inner
from sim.elementary import LOWEST_EXPONENT, fast_exp, fast_log
from sim.latency import RHO_MAX, balanced_decay_per_s
from sim.noise import uniform
from sim.physics.faults import is_troubled
from sim.physics.flow import fill_arrivals, fill_rates, flow, flow_troubled, padded
from sim.physics.layout import (
    CHUNK,
    M_ARRIVED,
    M_DROPPED,
    M_IN_FLIGHT,
    M_PSLO,
    M_SERVED,
    M_TIME,
    M_USED,
    NODES,
    S_ARRIVED,
    S_CLOCK,
    S_DRAINING,
    S_DROPPED,
    S_IN_FLIGHT,
    S_P50,
    S_P95,
    S_P99,
    S_PSLO,
    S_REPLICA_S,
    S_SCRAPES,
    S_SERVED,
    S_SLOW,
    S_USED,
    S_VIOLATING,
    STREAM_SCRAPE,
    T_ARRIVED,
    T_BASE,
    T_BEFORE,
    T_DECAY,
    T_DECAY_IDLE,
    T_DROPPED,
    T_ERRORS,
    T_EXPONENT,
    T_FLOOR,
    T_IMBALANCE,
    T_INVERSE,
    T_INVERSE_BUSY,
    T_LATE,
    T_LEFT,
    T_LOG_WAITS,
    T_MAYBE,
    T_P50,
    T_P95,
    T_P99,
    T_PSLO,
    T_RATE,
    T_READY,
    T_SERVED,
    T_SLOW_WEIGHT,
    T_SURE,
    T_WAIT,
    TABLE_SIZE,
)
from sim.physics.params import (
    P_CV2,
    P_IDLE,
    P_LOSS,
    P_PERCENTILE,
    P_PHASE,
    P_SCRAPE,
    P_SLO,
    P_SLOW,
    P_SLOW_SHARE,
    P_TIMEOUT,
    SCRAPES,
)
from sim.physics.servicetimes import fill_tail, mixture_at, mixture_time, prepare_service_times

LOWEST_RHO = 1e-12
_LOG_2, _LOG_20, _LOG_100 = math.log(2.0), math.log(20.0), math.log(100.0)


@counted
def advance_rows(rows, spans, constant_rates, arrays):  # type: ignore[no-untyped-def]
    """Let `spans` int64 `[rows]` seconds pass at `constant_rates` float64 `[rows]` (below 0: the table's)."""
    table = np.zeros(TABLE_SIZE)
    tails = np.empty((2, NODES))
    _advance_each(
        rows, spans, constant_rates, table, tails, arrays.rates, arrays.rate_rows, arrays.rate_period_s,
        arrays.params, arrays.state, arrays.pending, arrays.seeds, arrays.scrapes, arrays.service_times,
        arrays.le_ms, arrays.histogram,
    )  # fmt: skip


@inner
def _advance_each(  # type: ignore[no-untyped-def]
    rows, spans, constant_rates, table, tails, rates, rate_rows, rate_period_s, params, state, pending, seeds,
    scrapes, service_times, le_ms, histogram,
):  # fmt: skip
    for k in range(len(rows)):
        i = rows[k]
        if params[i, P_CV2] > 0.0:
            prepare_service_times(service_times, params, i)
        troubled = is_troubled(params, state, i)
        left = spans[k]
        while left > 0:
            count = min(left, CHUNK)
            left -= count
            clock = int(state[i, S_CLOCK])
            fill_rates(table, count, clock, constant_rates[k], rates, rate_rows[i], rate_period_s[0])
            fill_arrivals(table, count, clock, params, seeds, i)
            pass_seconds(
                table, tails, count, clock, troubled, params, state, pending, seeds, scrapes, service_times,
                le_ms, histogram, i,
            )  # fmt: skip


@inner
def pass_seconds(  # type: ignore[no-untyped-def]
    table, tails, count, clock, troubled, params, state, pending, seeds, scrapes, service_times, le_ms,
    histogram, i,
):  # fmt: skip
    """Let `count` (at most CHUNK) seconds pass, whose rates and arrivals are in the table.

    `sim.pools` calls it too, with arrivals that are a pool's share of those of its set.
    """
    state[i, S_REPLICA_S] += state[i, S_DRAINING]
    state[i, S_DRAINING] = 0.0
    if troubled:
        flow_troubled(table, count, clock, params, state, pending, seeds, i)
    else:
        flow(table, count, clock, params, state, pending, i)
    _fill_latencies(table, count, params, i)
    if params[i, P_CV2] > 0.0 or (troubled and state[i, S_SLOW] + params[i, P_SLOW] > 0.0):
        _fill_spread_latencies(table, count, params, service_times, i, tails)
    if len(le_ms) > 0:
        _fill_histogram(table, count, params, service_times, le_ms, histogram, i, tails)
    _account(table, count, clock, params, state, seeds, scrapes, i)
    if troubled:
        _forget_troubles(table, count)


@inner
def _forget_troubles(table, count):  # type: ignore[no-untyped-def]
    """Zero again what the plain flow does not write."""
    for t in range(count):
        table[T_SLOW_WEIGHT + t] = 0.0
        table[T_ERRORS + t] = 0.0


@inlined
def _fill_latencies(table, count, params, i):  # type: ignore[no-untyped-def]
    """Wait, share over the objective and percentiles (ms, times requests served), service being constant."""
    timeout_s, slo_s = params[i, P_TIMEOUT], params[i, P_SLO] / 1000.0
    percentile_log = -fast_log(1.0 - params[i, P_PERCENTILE] / 100.0)
    for t in range(padded(count)):
        before, inverse = table[T_BEFORE + t], table[T_INVERSE + t]
        rho = min((table[T_RATE + t] + before) * inverse, RHO_MAX)
        logarithm = fast_log(max(rho, LOWEST_RHO))
        table[T_LOG_WAITS + t] = table[T_EXPONENT + t] * logarithm if rho > LOWEST_RHO else LOWEST_EXPONENT
        table[T_DECAY + t] = balanced_decay_per_s(table[T_DECAY_IDLE + t], table[T_IMBALANCE + t], rho)
        queued_s = min(0.5 * (before + table[T_LEFT + t]) * inverse, timeout_s)
        table[T_FLOOR + t] = table[T_BASE + t] + queued_s
    for t in range(padded(count)):
        slack_s = slo_s - table[T_FLOOR + t]
        exponent = table[T_LOG_WAITS + t] - table[T_DECAY + t] * slack_s
        table[T_LATE + t] = fast_exp(exponent if slack_s > 0.0 else 0.0)
    for t in range(padded(count)):
        log_waits, floor_s = table[T_LOG_WAITS + t], table[T_FLOOR + t]
        inverse_decay = 1.0 / table[T_DECAY + t]
        table[T_WAIT + t] = fast_exp(log_waits) * inverse_decay
        longest_s = table[T_BASE + t] + timeout_s
        served = 1000.0 * table[T_SERVED + t]
        table[T_P50 + t] = served * min(floor_s + max(log_waits + _LOG_2, 0.0) * inverse_decay, longest_s)
        table[T_P95 + t] = served * min(floor_s + max(log_waits + _LOG_20, 0.0) * inverse_decay, longest_s)
        table[T_P99 + t] = served * min(floor_s + max(log_waits + _LOG_100, 0.0) * inverse_decay, longest_s)
        table[T_PSLO + t] = served * min(
            floor_s + max(log_waits + percentile_log, 0.0) * inverse_decay, longest_s
        )


@inner
def _prepare_tails(table, t, params, service_times, i, tails):  # type: ignore[no-untyped-def]
    """Tails of the second's latency; P(W > 0), its decay over the mean service time, the slow's weight."""
    waits, decay = math.exp(table[T_LOG_WAITS + t]), table[T_DECAY + t] * table[T_BASE + t]
    slow_weight = table[T_SLOW_WEIGHT + t]
    if params[i, P_CV2] > 0.0:
        fill_tail(service_times[i], waits, decay, tails[0])
        if slow_weight > 0.0:
            fill_tail(service_times[i], waits, decay / params[i, P_SLOW_SHARE], tails[1])
    return waits, decay, slow_weight


@inner
def _fill_spread_latencies(table, count, params, service_times, i, tails):  # type: ignore[no-untyped-def]
    """The same where service times vary."""
    service = service_times[i]
    slowness = 1.0 / params[i, P_SLOW_SHARE]
    quantile = 1.0 - params[i, P_PERCENTILE] / 100.0
    for t in range(count):
        if table[T_SERVED + t] <= 0.0:
            continue
        waits, decay, weight = _prepare_tails(table, t, params, service_times, i, tails)
        if weight <= 0.0 and params[i, P_CV2] <= 0.0:
            continue
        base_s = table[T_BASE + t]
        queued_s = table[T_FLOOR + t] - base_s
        slack = (params[i, P_SLO] / 1000.0 - queued_s) / base_s
        table[T_LATE + t] = mixture_at(service, waits, decay, tails, weight, slowness, slack)
        longest_s = base_s * (slowness if weight > 0.0 else 1.0) + params[i, P_TIMEOUT]
        served = 1000.0 * table[T_SERVED + t]
        for column, share in ((T_P50, 0.5), (T_P95, 0.05), (T_P99, 0.01), (T_PSLO, quantile)):
            time_s = base_s * mixture_time(service, waits, decay, tails, weight, slowness, share)
            table[column + t] = served * min(queued_s + time_s, longest_s)


@inner
def _fill_histogram(table, count, params, service_times, le_ms, histogram, i, tails):  # type: ignore[no-untyped-def]
    """Served requests by their latency; timed-out ones by the longest; errors by that without waiting."""
    service = service_times[i]
    slowness = 1.0 / params[i, P_SLOW_SHARE]
    for t in range(count):
        waits, decay, weight = _prepare_tails(table, t, params, service_times, i, tails)
        base_s = table[T_BASE + t]
        queued_s = table[T_FLOOR + t] - base_s
        longest_s = base_s + params[i, P_TIMEOUT]
        errors = table[T_ERRORS + t]
        for b in range(len(le_ms)):
            bound_s = le_ms[b] / 1000.0
            over = mixture_at(service, waits, decay, tails, weight, slowness, (bound_s - queued_s) / base_s)
            histogram[i, b] += table[T_SERVED + t] * (1.0 - over)
            if bound_s >= longest_s:
                histogram[i, b] += table[T_DROPPED + t] - errors
            if bound_s >= base_s:
                histogram[i, b] += errors


@inlined
def _account(table, count, clock, params, state, seeds, scrapes, i):  # type: ignore[no-untyped-def]
    """Add the chunk to the counters, and take the scrapes that fall into it."""
    interval = int(params[i, P_SCRAPE])
    due = (int(params[i, P_PHASE]) - clock - 1) % interval + 1
    begin = 0
    while due <= count:
        _add(table, begin, due, params, state, i)
        if not _is_lost(params[i, P_LOSS], seeds[i], clock + due - 1):
            _scrape(table, due - 1, clock + due, params, state, scrapes, i)
        begin = due
        due += interval
    _add(table, begin, count, params, state, i)
    state[i, S_CLOCK] = clock + count
    state[i, S_IN_FLIGHT] = _in_flight(table, count - 1, params, i)


@inlined
def _add(table, begin, end, params, state, i):  # type: ignore[no-untyped-def]
    idle = params[i, P_IDLE]
    busy = 1.0 - idle
    arrived, served, dropped = state[i, S_ARRIVED], state[i, S_SERVED], state[i, S_DROPPED]
    violating, used, percentile = state[i, S_VIOLATING], state[i, S_USED], state[i, S_PSLO]
    p50, p95, p99 = state[i, S_P50], state[i, S_P95], state[i, S_P99]
    for t in range(begin, end):
        arrived += table[T_ARRIVED + t]
        served += table[T_SERVED + t]
        dropped += table[T_DROPPED + t]
        used += table[T_READY + t] * (idle + busy * table[T_SERVED + t] * table[T_INVERSE_BUSY + t])
        violating = min(violating + (table[T_SURE + t] + table[T_MAYBE + t] * table[T_LATE + t]), arrived)
        p50 += table[T_P50 + t]
        p95 += table[T_P95 + t]
        p99 += table[T_P99 + t]
        percentile += table[T_PSLO + t]
    state[i, S_ARRIVED], state[i, S_SERVED], state[i, S_DROPPED] = arrived, served, dropped
    state[i, S_VIOLATING], state[i, S_USED], state[i, S_PSLO] = violating, used, percentile
    state[i, S_P50], state[i, S_P95], state[i, S_P99] = p50, p95, p99


@inlined
def _scrape(table, t, clock, params, state, ring, i):  # type: ignore[no-untyped-def]
    slot = int(state[i, S_SCRAPES]) & (SCRAPES - 1)
    state[i, S_SCRAPES] += 1.0
    ring[i, slot, M_TIME] = clock
    ring[i, slot, M_ARRIVED] = state[i, S_ARRIVED]
    ring[i, slot, M_DROPPED] = state[i, S_DROPPED]
    ring[i, slot, M_USED] = state[i, S_USED]
    ring[i, slot, M_PSLO] = state[i, S_PSLO]
    ring[i, slot, M_SERVED] = state[i, S_SERVED]
    ring[i, slot, M_IN_FLIGHT] = _in_flight(table, t, params, i)


@inlined
def _is_lost(probability, seed, clock):  # type: ignore[no-untyped-def]
    return probability > 0.0 and uniform(seed, clock, STREAM_SCRAPE) < probability


@inlined
def _in_flight(table, t, params, i):  # type: ignore[no-untyped-def]
    """Requests in the service at the end of a second, by Little's law."""
    slowed = 1.0 + table[T_SLOW_WEIGHT + t] * (1.0 / params[i, P_SLOW_SHARE] - 1.0)
    return table[T_LEFT + t] + table[T_SERVED + t] * (table[T_BASE + t] * slowed + table[T_WAIT + t])
