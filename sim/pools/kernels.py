"""The compiled second of a set of pools: arrivals, their split, what happens to pools, changes of weights.

`PoolsPhysics` is the caller; the kernels can be called from other compiled code. Each pool's own second, its
queue, latency, counters and scrapes, is `sim.physics.advance.pass_seconds`, with arrivals that are given.
"""

from __future__ import annotations

import math

import numpy as np

from sim.compiled import counted, inlined, inner
from sim.noise import SMALL_MEAN, binomial, negative_binomial, normal, poisson, uniform
from sim.physics.advance import pass_seconds
from sim.physics.faults import is_troubled
from sim.physics.flow import rate_at
from sim.physics.layout import (
    CHUNK,
    NODES,
    S_ARRIVED,
    S_BACKLOG,
    S_CAPACITY,
    S_CLOCK,
    S_COLD,
    S_DROPPED,
    S_PENDING,
    S_READY,
    S_VIOLATING,
    T_OFFERED,
    T_RATE,
    TABLE_SIZE,
)
from sim.physics.params import P_BASE, P_CAPACITY, P_CV2
from sim.physics.replicas import next_start_s, scale_rows, take_out
from sim.physics.servicetimes import prepare_service_times
from sim.pools.params import (
    CHANGE_SLOTS,
    E_OUTAGE,
    E_SHORTAGE,
    E_SLOW,
    G_ARRIVED,
    G_CLOCK,
    G_OFFERED,
    G_RECLAIMED,
    G_RETRYING,
    G_UNROUTED,
    K_ERRORS,
    K_FACTOR,
    K_NOTICE,
    K_OUTAGE_S,
    K_OUTAGES,
    K_RECLAIMS,
    K_SHORTAGE,
    K_SLOW_S,
    K_SLOWDOWNS,
    K_SWEEP_SHARE,
    K_SWEEPS,
    MAX_POOLS,
    NOTICE_SLOTS,
    R_DELAY,
    R_DELAY_SPREAD,
    R_DISPERSION,
    R_POISSON,
    R_RETRY,
    R_RETRY_S,
    WEIGHT_TOTAL,
)

# beyond those of sim.physics, whose seeds pools share
_STREAM_ARRIVALS, _STREAM_DISPERSION, _STREAM_SPLIT, _STREAM_DELAY = 100, 101, 102, 103
_STREAM_RECLAIM, _STREAM_SWEEP, _STREAM_SHORTAGE = 104, 105, 106
_STREAM_SLOW, _STREAM_SLOW_ENDS, _STREAM_OUTAGE, _STREAM_OUTAGE_ENDS = 107, 108, 109, 110
_HOUR_S = 3600.0
_LOG_2, _LOG_20, _LOG_100 = math.log(2.0), math.log(20.0), math.log(100.0)


@counted
def advance_sets(rows, spans, constant_rates, services, sets):  # type: ignore[no-untyped-def]
    """Let `spans` int64 `[rows]` seconds pass at `constant_rates` float64 `[rows]` (below 0: the table's).

    services: the `PhysicsArrays` of all pools; sets: the `PoolArrays`.
    """
    pools = sets.present.shape[1]
    numbers, means = np.empty((pools, CHUNK)), np.empty((pools, CHUNK))
    table, tails = np.zeros(TABLE_SIZE), np.empty((2, NODES))
    for k in range(len(rows)):
        s, left = rows[k], spans[k]
        # what fails comes again in the next second, by the weights of then
        block = 1 if sets.route[s, R_RETRY] > 0.0 else CHUNK
        while left > 0:
            count = min(left, block)
            left -= count
            again = _arrive(s, count, constant_rates[k], numbers, means, sets)
            failed = 0.0
            for p in range(pools):
                if sets.present[s, p]:
                    failed += _serve(s, p, count, numbers[p], means[p], table, tails, services, sets)
            sets.totals[s, G_RETRYING] += sets.route[s, R_RETRY] * failed - again
            sets.totals[s, G_CLOCK] += count


@counted
def rates_now(rows, sets):  # type: ignore[no-untyped-def]
    """Requests/s of each set at its clock, `[rows]`."""
    result = np.empty(len(rows))
    for k in range(len(rows)):
        s = rows[k]
        clock_s = sets.totals[s, G_CLOCK]
        result[k] = rate_at(sets.rates, sets.rate_rows[s], sets.rate_period_s[0], clock_s)
    return result


@counted
def scale_sets(rows, counts, services, sets):  # type: ignore[no-untyped-def]
    """Ask for `counts` int64 `[rows, P]` replicas."""
    for k in range(len(rows)):
        s = rows[k]
        for p in range(sets.present.shape[1]):
            if sets.present[s, p]:
                sets.asked[s, p] = counts[k, p]
                _reconcile(s, p, services, sets)


@inner
def _reconcile(s, p, services, sets):  # type: ignore[no-untyped-def]
    """Create or remove replicas until those without a notice are as many as were asked for."""
    i = s * sets.present.shape[1] + p
    target = sets.asked[s, p] + sets.told[s, p]
    there = int(services.state[i, S_READY] + services.state[i, S_PENDING])
    if there > target or (there < target and sets.until_s[s, p, E_SHORTAGE] == 0.0):
        sets.scratch[0, 0] = i
        sets.scratch[1, 0] = target
        scale_rows(sets.scratch[0], sets.scratch[1], services)


@counted
def route_sets(rows, weights, sets):  # type: ignore[no-untyped-def]
    """Ask for `weights` int64 `[rows, P]`."""
    pools = sets.present.shape[1]
    for k in range(len(rows)):
        s = rows[k]
        same = True
        for p in range(pools):
            same = same and weights[k, p] == sets.weights_asked[s, p]
        if same:
            continue
        sets.weights_asked[s] = weights[k]
        _send(s, weights[k], sets)


@inner
def _send(s, weights, sets):  # type: ignore[no-untyped-def]
    """Put a change on its way; where too many are, it takes the newest one's place and time."""
    marks, ring = sets.change_marks[s], sets.changes[s]
    spread = sets.route[s, R_DELAY_SPREAD]
    sigmas = normal(uniform(sets.seeds[s], marks[2], _STREAM_DELAY)) if spread > 0.0 else 0.0
    due = int(sets.totals[s, G_CLOCK] + sets.route[s, R_DELAY] * math.exp(spread * sigmas) + 0.5)
    marks[2] += 1
    pools = len(weights)
    newest = ring[(marks[1] - 1) % CHANGE_SLOTS]
    if marks[1] - marks[0] == CHANGE_SLOTS:
        for p in range(pools):
            newest[p] = weights[p]
        return
    slot = ring[marks[1] % CHANGE_SLOTS]
    for p in range(pools):
        slot[p] = weights[p]
    slot[pools] = due
    marks[1] += 1


@inner
def _take_over(s, clock, sets):  # type: ignore[no-untyped-def]
    """Bring into force the latest weights that have arrived; those asked for before them are obsolete."""
    marks, pools = sets.change_marks[s], sets.weights.shape[1]
    for newest in range(marks[1] - 1, marks[0] - 1, -1):
        change = sets.changes[s, newest % CHANGE_SLOTS]
        if change[pools] <= clock:
            for p in range(pools):
                sets.weights[s, p] = change[p]
            marks[0] = newest + 1
            return


@inner
def _arrive(s, count, constant_rate, numbers, means, sets):  # type: ignore[no-untyped-def]
    """Arrivals and mean rates of each pool in the next seconds; returns how many of them are made again."""
    seed, weights, first = sets.seeds[s], sets.weights, int(sets.totals[s, G_CLOCK])
    drawn, dispersion = sets.route[s, R_POISSON] > 0.0, sets.route[s, R_DISPERSION]
    again, offered = 0.0, 0.0
    if sets.totals[s, G_RETRYING] > 0.0:
        again = sets.totals[s, G_RETRYING] * -math.expm1(-1.0 / sets.route[s, R_RETRY_S])
    for t in range(count):
        clock = first + t
        if sets.change_marks[s, 0] < sets.change_marks[s, 1]:
            _take_over(s, clock, sets)
        rate = constant_rate
        if rate < 0.0:
            rate = rate_at(sets.rates, sets.rate_rows[s], sets.rate_period_s[0], float(clock))
        number = rate
        if drawn and dispersion > 1.0:
            other = uniform(seed, clock, _STREAM_DISPERSION)
            number = negative_binomial(rate, dispersion, uniform(seed, clock, _STREAM_ARRIVALS), other)
        elif drawn:
            number = poisson(rate, uniform(seed, clock, _STREAM_ARRIVALS))
        offered += number
        _split(weights, s, seed, t, clock, number, rate, again, drawn, numbers, means)
    sets.totals[s, G_OFFERED] += offered
    sets.totals[s, G_ARRIVED] += offered + again * count
    return again


@inner
def _split(weights, s, seed, t, clock, left, rate, again, drawn, numbers, means):  # type: ignore[no-untyped-def]
    """Thin a second's first attempts over the pools; later attempts, a fluid, by the weights exactly."""
    left_weight = float(WEIGHT_TOTAL)
    for p in range(numbers.shape[0]):
        weight = float(weights[s, p])
        number = 0.0
        if weight >= left_weight:
            number = left
        elif weight > 0.0 and drawn:
            u = uniform(seed, clock * MAX_POOLS + p, _STREAM_SPLIT)
            number = thinned(left, weight / left_weight, u)
        elif weight > 0.0:
            number = left * weight / left_weight
        left -= number
        left_weight -= weight
        numbers[p, t] = number + again * weight / WEIGHT_TOTAL
        means[p, t] = (rate + again) * weight / WEIGHT_TOTAL


@inner
def thinned(count: float, share: float, u: float) -> float:
    """How many of `count` requests go to a pool that gets `share` of them: the binomial quantile of `u`.

    Exact below a mean of 12 of the rarer outcome, then by Cornish and Fisher's expansion, as in
    `sim.noise.poisson`. `sim.noise.binomial` is exact for longer: too slow for each second of each pool.
    """
    if count <= 0.0 or share <= 0.0:
        return 0.0
    if share >= 1.0:
        return count
    rare = min(share, 1.0 - share)
    v = u if share <= 0.5 else 1.0 - u
    mean = count * rare
    if mean < SMALL_MEAN:
        odds = rare / (1.0 - rare)
        probability = math.exp(count * math.log1p(-rare))
        total, hits = probability, 0.0
        while v > total and hits < count and hits < 80.0:
            probability *= (count - hits) / (hits + 1.0) * odds
            hits += 1.0
            total += probability
    else:
        z = normal(v)
        deviation = math.sqrt(mean * (1.0 - rare))
        skewed = z + (1.0 - 2.0 * rare) / deviation * (z * z - 1.0) / 6.0
        hits = min(max(math.floor(mean + deviation * skewed + 0.5), 0.0), count)
    return hits if share <= 0.5 else count - hits


@inner
def _serve(s, p, count, numbers, means, table, tails, services, sets):  # type: ignore[no-untyped-def]
    """Let one pool live through seconds with given arrivals; returns how many requests failed in them."""
    i = s * sets.present.shape[1] + p
    params, state = services.params, services.state
    if params[i, P_CV2] > 0.0:
        prepare_service_times(services.service_times, params, i)
    troubled = is_troubled(params, state, i)
    before, done = state[i, S_DROPPED], 0
    while done < count:
        clock, calm = int(state[i, S_CLOCK]), count - done
        if sets.eventful[s, p]:
            _events(s, p, clock, services, sets)
            calm = _calm_seconds(s, p, clock, calm, services, sets)
        lost_share = 0.0
        if state[i, S_READY] <= 0.0:
            calm = 1
            if next_start_s(state, services.pending, i) > clock:
                lost_share = 1.0
                _fail_backlog(i, state)
                sets.totals[s, G_UNROUTED] += numbers[done]
        elif sets.until_s[s, p, E_OUTAGE] > 0.0:
            calm = 1
            lost_share = sets.params[s, p, K_ERRORS]
        for t in range(calm):
            table[T_RATE + t] = means[done + t] * (1.0 - lost_share)
            table[T_OFFERED + t] = numbers[done + t] * (1.0 - lost_share)
        if lost_share > 0.0:
            lost = numbers[done] - table[T_OFFERED]
            state[i, S_ARRIVED] += lost
            state[i, S_DROPPED] += lost
            state[i, S_VIOLATING] += lost
        pass_seconds(
            table, tails, calm, clock, troubled, params, state, services.pending, services.seeds,
            services.scrapes, services.service_times, services.le_ms, services.histogram, i,
        )  # fmt: skip
        done += calm
    return state[i, S_DROPPED] - before


@inner
def _fail_backlog(i, state):  # type: ignore[no-untyped-def]
    """Who waited for a replica that is gone fails too."""
    waiting = state[i, S_BACKLOG]
    state[i, S_DROPPED] += waiting
    state[i, S_VIOLATING] = min(state[i, S_VIOLATING] + waiting, state[i, S_ARRIVED])
    state[i, S_BACKLOG] = 0.0


@inlined
def _happens(per_hour, seed, clock, stream):  # type: ignore[no-untyped-def]
    return per_hour > 0.0 and uniform(seed, clock, stream) < per_hour / _HOUR_S


@inlined
def _end_s(clock, mean_s, seed, stream):  # type: ignore[no-untyped-def]
    """When what begins now ends: exponential, in whole seconds."""
    return clock + max(1.0, math.ceil(-math.log(uniform(seed, clock, stream)) * mean_s))


@inner
def _calm_seconds(s, p, clock, most, services, sets):  # type: ignore[no-untyped-def]
    """Seconds from `clock` on, at least 1 and at most `most`, after the first of which nothing can happen."""
    i = s * sets.present.shape[1] + p
    seed = services.seeds[i]
    replicas = services.state[i, S_READY] + services.state[i, S_PENDING]
    slow, failing = sets.until_s[s, p, E_SLOW], sets.until_s[s, p, E_OUTAGE]
    short = sets.until_s[s, p, E_SHORTAGE]
    for later in range(clock + 1, clock + most):
        if short == later or slow == later or failing == later:
            return later - clock
        if _happens(sets.params[s, p, K_SWEEPS], seed, later, _STREAM_SWEEP):
            return later - clock
        if _may_reclaim(sets.params[s, p, K_RECLAIMS], replicas, seed, later):
            return later - clock
        if slow == 0.0 and _happens(sets.params[s, p, K_SLOWDOWNS], seed, later, _STREAM_SLOW):
            return later - clock
        if failing == 0.0 and _happens(sets.params[s, p, K_OUTAGES], seed, later, _STREAM_OUTAGE):
            return later - clock
        if sets.told[s, p] > 0 and sets.told_slots[s, p, later % NOTICE_SLOTS] > 0:
            return later - clock
    return most


@inner
def _events(s, p, clock, services, sets):  # type: ignore[no-untyped-def]
    """Reclaims, slowdowns and outages that begin or end in this second."""
    i = s * sets.present.shape[1] + p
    param, until, seed = sets.params[s, p], sets.until_s[s, p], services.seeds[i]
    for trouble in range(len(until)):
        if until[trouble] > 0.0 and clock >= until[trouble]:
            until[trouble] = 0.0
            if trouble == E_SLOW:
                _slow_down(i, 1.0 / param[K_FACTOR], services)
            elif trouble == E_SHORTAGE:
                _reconcile(s, p, services, sets)
    if until[E_OUTAGE] == 0.0 and _happens(param[K_OUTAGES], seed, clock, _STREAM_OUTAGE):
        until[E_OUTAGE] = _end_s(clock, param[K_OUTAGE_S], seed, _STREAM_OUTAGE_ENDS)
    if until[E_SLOW] == 0.0 and _happens(param[K_SLOWDOWNS], seed, clock, _STREAM_SLOW):
        until[E_SLOW] = _end_s(clock, param[K_SLOW_S], seed, _STREAM_SLOW_ENDS)
        _slow_down(i, param[K_FACTOR], services)
    told = _reclaimed(param, services.state[i, S_READY] - sets.told[s, p], seed, clock)
    if param[K_SHORTAGE] > 0.0 and _happens(param[K_SWEEPS], seed, clock, _STREAM_SWEEP):
        until[E_SHORTAGE] = _end_s(clock, param[K_SHORTAGE], seed, _STREAM_SHORTAGE)
    if told > 0:
        sets.told[s, p] += told
        sets.told_slots[s, p, (clock + int(param[K_NOTICE])) % NOTICE_SLOTS] += told
        sets.totals[s, G_RECLAIMED] += told
        _reconcile(s, p, services, sets)
    due = sets.told_slots[s, p, clock % NOTICE_SLOTS]
    if due > 0:
        sets.told_slots[s, p, clock % NOTICE_SLOTS] = 0
        sets.told[s, p] -= due
        # as far as they were not scaled away in the meantime
        gone = min(float(due), services.state[i, S_READY])
        if gone > 0.0:
            take_out(services.state, i, gone)


@inner
def _reclaimed(param, untold, seed, clock):  # type: ignore[no-untyped-def]
    """How many of the ready replicas without a notice are told to go in this second."""
    told = 0
    if untold <= 0.0:
        return told
    if _happens(param[K_SWEEPS], seed, clock, _STREAM_SWEEP):
        told = math.ceil(untold * param[K_SWEEP_SHARE] - 1e-9)
    if _may_reclaim(param[K_RECLAIMS], untold, seed, clock):
        share = -math.expm1(-param[K_RECLAIMS] / _HOUR_S)
        told += int(binomial(untold - told, share, uniform(seed, clock, _STREAM_RECLAIM)))
    return told


@inlined
def _may_reclaim(per_hour, replicas, seed, clock):  # type: ignore[no-untyped-def]
    """Whether any of them may be told to go, by Boole's inequality."""
    return per_hour > 0.0 and uniform(seed, clock, _STREAM_RECLAIM) >= 1.0 - replicas * per_hour / _HOUR_S


@inner
def _slow_down(i, factor, services):  # type: ignore[no-untyped-def]
    """Make every replica of a pool, those that start and those to come, `factor` times slower."""
    services.params[i, P_CAPACITY] /= factor
    services.params[i, P_BASE] *= factor
    services.state[i, S_CAPACITY] /= factor
    services.state[i, S_COLD] /= factor
    for slot in range(services.pending.shape[1]):
        services.pending[i, slot, 2] /= factor


@counted
def joint_percentile(known, served, tail):  # type: ignore[no-untyped-def]
    """Latency (ms) that a share `tail` of all requests served exceed, `[N]`; known: its percentiles."""
    sets, pools = served.shape
    result = np.full(sets, np.nan)
    for s in range(sets):
        low, high, requests = math.inf, 0.0, 0.0
        for p in range(pools):
            if served[s, p] > 0.0:
                requests += served[s, p]
                low = min(low, known[0, s, p])
                high = max(high, _quantile_ms(known[:, s, p], tail))
        if requests <= 0.0:
            continue
        for _ in range(50):
            middle = 0.5 * (low + high)
            over = 0.0
            for p in range(pools):
                if served[s, p] > 0.0:
                    over += served[s, p] * math.exp(_log_tail(known[:, s, p], middle))
            if over > tail * requests:
                low = middle
            else:
                high = middle
        result[s] = high
    return result


@inlined
def _quantile_ms(known, tail):  # type: ignore[no-untyped-def]
    """The latency that `tail` (at most 0.5) of one pool's requests exceed."""
    depth = -math.log(tail)
    if depth < _LOG_20:
        return known[0] + (known[1] - known[0]) * (depth - _LOG_2) / (_LOG_20 - _LOG_2)
    return known[1] + (known[2] - known[1]) * (depth - _LOG_20) / (_LOG_100 - _LOG_20)


@inlined
def _log_tail(known, latency_ms):  # type: ignore[no-untyped-def]
    """ln of the share of one pool's requests that take longer: linear between and beyond its percentiles."""
    first, last = known[1] - known[0], known[2] - known[1]
    if latency_ms < known[1]:
        if first <= 0.0:
            return 0.0
        depth = _LOG_2 + (latency_ms - known[0]) / first * (_LOG_20 - _LOG_2)
    elif last <= 0.0:
        return -700.0
    else:
        depth = _LOG_20 + (latency_ms - known[1]) / last * (_LOG_100 - _LOG_20)
    return -max(depth, 0.0)
