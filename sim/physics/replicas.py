"""Replicas: created, started, removed and restarted; compiled, one row at a time.

A replica that is created draws its start-up time and capacity by its number. A restarted one draws by the
second and its place among those that fell in it, so that two runs with different counts see the same delays.
"""

from __future__ import annotations

import math

from sim.compiled import counted, inlined, inner
from sim.noise import normal, uniform
from sim.physics.layout import (
    S_CAPACITY,
    S_CLOCK,
    S_COLD,
    S_CREATED,
    S_DRAINING,
    S_ENTRIES,
    S_FAILING,
    S_FIRST,
    S_PENDING,
    S_READY,
    S_RESTARTED,
    S_SCRAPES,
    S_SLOW,
    STREAM_CAPACITY,
    STREAM_READINESS,
    STREAM_RESTART,
    STREAM_RESTART_READINESS,
    STREAM_START_UP,
)
from sim.physics.params import (
    P_CAPACITY,
    P_CAPACITY_SPREAD,
    P_COLD_SHARE,
    P_DRAIN,
    P_READINESS,
    P_START_UP,
    P_START_UP_SPREAD,
    SCRAPES,
    START_UP_SLOTS,
)

MIN_CAPACITY_SHARE = 0.3
"""No replica has less of the mean capacity: the normal distribution is cut there. A choice of this model."""
MAX_SIGMAS = 4.0
"""Start-up times are cut here, so that they fit into START_UP_SLOTS. A choice of this model."""
_RING = START_UP_SLOTS - 1
MOST_REPLICAS = 8192
"""Room for the restarts of a second in the counter that draws their delays; twice, for node losses too."""


@counted
def reset_rows(rows, arrays):  # type: ignore[no-untyped-def]
    """No replicas, clock 0, empty counters; params and seeds stay."""
    for k in range(len(rows)):
        i = rows[k]
        _remove_pending(arrays.state, arrays.pending, i, arrays.state[i, S_PENDING])
        arrays.scrapes[i, : min(int(arrays.state[i, S_SCRAPES]), SCRAPES)] = 0.0
        arrays.state[i] = 0.0
        arrays.histogram[i] = 0.0


@counted
def place_rows(rows, counts, arrays):  # type: ignore[no-untyped-def]
    """Make exactly `counts` int64 `[rows]` replicas ready at once and warm, none starting."""
    params, state, seeds = arrays.params, arrays.state, arrays.seeds
    for k in range(len(rows)):
        i = rows[k]
        if state[i, S_PENDING] > 0.0:
            _remove_pending(state, arrays.pending, i, state[i, S_PENDING])
        ready = int(state[i, S_READY])
        if counts[k] < ready:
            take_out(state, i, ready - counts[k])
        for _ in range(ready, counts[k]):
            state[i, S_CAPACITY] += _new_capacity(params, state, seeds[i], i)
            state[i, S_CREATED] += 1.0
        state[i, S_READY] = counts[k]


@counted
def scale_rows(rows, counts, arrays):  # type: ignore[no-untyped-def]
    """Ask for `counts` int64 `[rows]` replicas: new ones start up, surplus ones drain."""
    _scale_each(rows, counts, arrays.params, arrays.state, arrays.seeds, arrays.pending)


@inner
def _scale_each(rows, counts, params, state, seeds, pending):  # type: ignore[no-untyped-def]
    for k in range(len(rows)):
        i = rows[k]
        change = counts[k] - int(state[i, S_READY] + state[i, S_PENDING])
        if change > 0:
            _create(params, state, seeds[i], pending, i, change)
        elif change < 0:
            _remove(params, state, pending, i, -change)


@inner
def _new_capacity(params, state, seed, i):  # type: ignore[no-untyped-def]
    spread = params[i, P_CAPACITY_SPREAD]
    if spread <= 0.0:
        return params[i, P_CAPACITY]
    share = 1.0 + spread * normal(uniform(seed, int(state[i, S_CREATED]), STREAM_CAPACITY))
    return params[i, P_CAPACITY] * max(MIN_CAPACITY_SHARE, share)


@inner
def _create(params, state, seed, pending, i, count):  # type: ignore[no-untyped-def]
    clock = int(state[i, S_CLOCK])
    for _ in range(count):
        number = int(state[i, S_CREATED])
        late = 0.0
        if params[i, P_READINESS] > 0.0:
            late = uniform(seed, number, STREAM_READINESS)
        delay = _delay(params, i, uniform(seed, number, STREAM_START_UP), late)
        _add_pending(state, pending, i, clock + delay, _new_capacity(params, state, seed, i))
        state[i, S_CREATED] += 1.0


@inner
def _delay(params, i, start_up, late):  # type: ignore[no-untyped-def]
    """Whole seconds until a replica serves, from two numbers in (0, 1)."""
    delay_s = params[i, P_START_UP]
    if params[i, P_START_UP_SPREAD] > 0.0:
        delay_s *= math.exp(params[i, P_START_UP_SPREAD] * min(normal(start_up), MAX_SIGMAS))
    return min(int(delay_s + late * params[i, P_READINESS] + 0.5), START_UP_SLOTS - 1)


@inner
def _add_pending(state, pending, i, start_s, capacity_rps):  # type: ignore[no-untyped-def]
    """One more replica that begins to serve in second `start_s`; entries stay in the order of time."""
    first, place = int(state[i, S_FIRST]), int(state[i, S_ENTRIES])
    while place > 0 and pending[i, (first + place - 1) & _RING, 0] > start_s:
        place -= 1
    here = (first + place - 1) & _RING
    if place == 0 or pending[i, here, 0] < start_s:
        for later in range(int(state[i, S_ENTRIES]), place, -1):
            for column in range(3):
                moved = pending[i, (first + later - 1) & _RING, column]
                pending[i, (first + later) & _RING, column] = moved
        here = (first + place) & _RING
        pending[i, here, 0] = start_s
        pending[i, here, 1] = 0.0
        pending[i, here, 2] = 0.0
        state[i, S_ENTRIES] += 1.0
    pending[i, here, 1] += 1.0
    pending[i, here, 2] += capacity_rps
    state[i, S_PENDING] += 1.0


@inner
def _remove_pending(state, pending, i, count):  # type: ignore[no-untyped-def]
    """Remove `count` of the pending replicas, the last to become ready first."""
    state[i, S_PENDING] -= count
    while count > 0.0:
        last = int(state[i, S_FIRST] + state[i, S_ENTRIES] - 1.0) & _RING
        here = pending[i, last, 1]
        if here <= count:
            pending[i, last] = 0.0
            state[i, S_ENTRIES] -= 1.0
            count -= here
        else:
            pending[i, last, 2] *= (here - count) / here
            pending[i, last, 1] -= count
            count = 0.0


@inner
def _remove(params, state, pending, i, count):  # type: ignore[no-untyped-def]
    """Not ready ones first, as a ReplicaSet does; ready ones drain."""
    starting = min(count, state[i, S_PENDING])
    _remove_pending(state, pending, i, starting)
    count -= starting
    if count > 0.0:
        take_out(state, i, count)
        state[i, S_DRAINING] += count * params[i, P_DRAIN]


@inner
def take_out(state, i, count):  # type: ignore[no-untyped-def]
    """`count` of the ready replicas go; who is slow, cold or failing goes with an even share."""
    ready = state[i, S_READY]
    kept = (ready - count) / ready
    state[i, S_CAPACITY] *= kept
    state[i, S_READY] = ready - count
    state[i, S_COLD] *= kept
    if state[i, S_SLOW] + state[i, S_FAILING] > 0.0:
        slow = math.floor(state[i, S_SLOW] * kept + 0.5)
        state[i, S_SLOW] = min(slow, ready - count)
        state[i, S_FAILING] = min(
            math.floor(state[i, S_FAILING] * kept + 0.5), ready - count - state[i, S_SLOW]
        )


@inlined
def next_start_s(state, pending, i):  # type: ignore[no-untyped-def]
    """The second in which the next pending replica begins to serve; infinite without any."""
    return pending[i, int(state[i, S_FIRST]) & _RING, 0] if state[i, S_ENTRIES] > 0.0 else math.inf


@inner
def start_pending(params, state, pending, i):  # type: ignore[no-untyped-def]
    """Who is next becomes ready, and is cold."""
    first = int(state[i, S_FIRST]) & _RING
    state[i, S_READY] += pending[i, first, 1]
    state[i, S_PENDING] -= pending[i, first, 1]
    state[i, S_CAPACITY] += pending[i, first, 2]
    state[i, S_COLD] += (1.0 - params[i, P_COLD_SHARE]) * pending[i, first, 2]
    pending[i, first] = 0.0
    state[i, S_ENTRIES] -= 1.0
    state[i, S_FIRST] = first + 1 if state[i, S_ENTRIES] > 0.0 else 0.0


@inner
def restart(params, state, pending, seed, i, clock, count, first):  # type: ignore[no-untyped-def]
    """`count` ready replicas fall out in second `clock`, and start up again; they keep their capacity.

    first: number of the first in this second, which draws the delays.
    """
    each_rps = state[i, S_CAPACITY] / state[i, S_READY]
    take_out(state, i, count)
    for place in range(int(count)):
        number = clock * 2 * MOST_REPLICAS + first + place
        start_up = uniform(seed, number, STREAM_RESTART)
        delay = max(_delay(params, i, start_up, uniform(seed, number, STREAM_RESTART_READINESS)), 1)
        _add_pending(state, pending, i, clock + delay, each_rps)
    state[i, S_RESTARTED] += count
