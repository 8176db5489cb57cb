"""Replicas of a request-level service: made, started, drained, lost, slowed. Compiled.

Called by `sim.requests.kernel` and the simulator. Whole seconds, as in the fluid: what changes does so at the
start of a second. The start-up time and the capacity of the n-th replica made are the fluid's own draws.
"""

from __future__ import annotations

import math

from sim.compiled import counted, inlined, inner
from sim.noise import binomial, normal, uniform
from sim.physics.layout import (
    STREAM_CAPACITY,
    STREAM_CRASH,
    STREAM_FAILING,
    STREAM_FAILING_ENDS,
    STREAM_NEIGHBOUR,
    STREAM_NODE,
    STREAM_NODE_ROUNDING,
    STREAM_READINESS,
    STREAM_RESTART,
    STREAM_RESTART_READINESS,
    STREAM_SLOW,
    STREAM_SLOW_ENDS,
    STREAM_START_UP,
)
from sim.physics.params import START_UP_SLOTS
from sim.physics.replicas import MAX_SIGMAS, MIN_CAPACITY_SHARE, MOST_REPLICAS
from sim.pools.kernels import _STREAM_RECLAIM as STREAM_RECLAIM
from sim.pools.kernels import _STREAM_SWEEP as STREAM_SWEEP
from sim.requests.balancing import sort_by_requests
from sim.requests.events import lose_requests
from sim.requests.world import (
    CENTRAL,
    EMPTY,
    N_BALANCER,
    N_CHANGED,
    N_CLOCK,
    N_CREATED,
    N_DRAWN,
    N_FAULTY,
    N_HEAP_WORKERS,
    N_READY,
    N_RECLAIMABLE,
    N_STARTING,
    N_TOLD,
    N_VARIED,
    Q_CAPACITY,
    Q_CAPACITY_SPREAD,
    Q_COLD,
    Q_CRASHES,
    Q_DRAIN_S,
    Q_FAILING,
    Q_FAILING_S,
    Q_NEIGHBOUR,
    Q_NEIGHBOUR_S,
    Q_NEIGHBOUR_SHARE,
    Q_NODE_LOSSES,
    Q_NODE_SHARE,
    Q_NOTICE_S,
    Q_READINESS_S,
    Q_RECLAIMS,
    Q_SLOW,
    Q_SLOW_S,
    Q_SLOW_SHARE,
    Q_START_UP,
    Q_START_UP_SPREAD,
    Q_SWEEP_SHARE,
    Q_SWEEPS,
    Q_WARMING_S,
    READY,
    STARTING,
    X_NEIGHBOUR,
    X_REPLICA_S,
)

HOUR_S = 3600.0
STREAM_WHICH = 120


@counted
def change_replicas(w, change, at_once):  # type: ignore[no-untyped-def]
    """So many replicas more (there must be places) or fewer; new ones are ready at once, or start."""
    if change > 0:
        create(w, change, at_once)
    elif change < 0:
        remove(w, -change)


@inner
def create(w, count, at_once):  # type: ignore[no-untyped-def]
    """Make replicas, which are ready at once or after their start-up time. There must be places for them."""
    slot = 0
    for _ in range(count):
        while w.state[slot] != EMPTY:
            slot += 1
        _occupy(w, slot, at_once)
    w.n[N_CHANGED] = 1


@inner
def _occupy(w, slot, at_once):  # type: ignore[no-untyped-def]
    number, seed = w.n[N_CREATED], w.seed[0]
    w.n[N_CREATED] += 1
    share = 1.0 + w.q[Q_CAPACITY_SPREAD] * normal(uniform(seed, number, STREAM_CAPACITY))
    w.number[slot] = number
    w.rps[slot] = w.q[Q_CAPACITY] * max(MIN_CAPACITY_SHARE, share)
    w.slow[slot] = w.failing[slot] = w.fast[slot] = False
    w.pace[slot], w.errors[slot] = 1.0, 0.0
    w.told_count[slot] = 0
    w.goes_at[slot] = 0
    delay = 0
    if not at_once:
        late = uniform(seed, number, STREAM_READINESS)
        delay = _delay(w, uniform(seed, number, STREAM_START_UP), late)
    w.ready_at[slot] = w.n[N_CLOCK] + delay
    w.state[slot] = STARTING
    w.n[N_STARTING] += 1
    if at_once:
        _make_ready(w, slot)


@inner
def _delay(w, start_up, late):  # type: ignore[no-untyped-def]
    """Whole seconds until a replica serves, from two numbers in (0, 1)."""
    sigmas = min(normal(start_up), MAX_SIGMAS)
    delay_s = w.q[Q_START_UP] * math.exp(w.q[Q_START_UP_SPREAD] * sigmas)
    return min(int(delay_s + late * w.q[Q_READINESS_S] + 0.5), START_UP_SLOTS - 1)


@inner
def _make_ready(w, slot):  # type: ignore[no-untyped-def]
    w.state[slot] = READY
    w.free[slot] = float(w.n[N_CLOCK])
    w.in_flight[:, slot] = 0
    w.n[N_STARTING] -= 1
    w.n[N_READY] += 1
    w.n[N_CHANGED] = 1


@inner
def remove(w, count):  # type: ignore[no-untyped-def]
    """Take replicas away: those that would start last, then the youngest ready ones, which drain.

    A draining replica gets nothing new, finishes all that it has, and is billed for `drain_s`.
    """
    for _ in range(count):
        slot = _last_of(w, STARTING if w.n[N_STARTING] > 0 else READY)
        if w.state[slot] == STARTING:
            w.n[N_STARTING] -= 1
        else:
            w.n[N_READY] -= 1
            w.x[X_REPLICA_S] += w.q[Q_DRAIN_S]
            w.n[N_TOLD] -= w.goes_at[slot] > 0
        w.state[slot] = EMPTY
        w.number[slot] = -1
    w.n[N_CHANGED] = 1


@inner
def _reclaim(w):  # type: ignore[no-untyped-def]
    """Tell replicas to go, as many as `sim.pools` draws, and replace them at once; take those whose notice
    is over, which finish what they hold."""
    clock, seed = w.n[N_CLOCK], w.seed[0]
    untold = w.n[N_READY] - w.n[N_TOLD]
    told = 0
    if untold > 0:
        if w.q[Q_SWEEPS] > 0.0 and uniform(seed, clock, STREAM_SWEEP) < w.q[Q_SWEEPS] / HOUR_S:
            told = math.ceil(untold * w.q[Q_SWEEP_SHARE] - 1e-9)
        if w.q[Q_RECLAIMS] > 0.0 and told < untold:
            chance = _within_a_second(w.q[Q_RECLAIMS] / HOUR_S)
            told += int(binomial(float(untold - told), chance, uniform(seed, clock, STREAM_RECLAIM)))
    for _ in range(told):
        slot = _last_of(w, READY)
        w.goes_at[slot] = clock + max(int(w.q[Q_NOTICE_S]), 0) + 1
        w.n[N_TOLD] += 1
    if told > 0:
        create(w, told, False)
    if w.n[N_TOLD] > 0:
        for slot in range(len(w.state)):
            if w.state[slot] == READY and 0 < w.goes_at[slot] <= clock + 1:
                w.state[slot] = EMPTY
                w.number[slot] = -1
                w.n[N_READY] -= 1
                w.n[N_TOLD] -= 1
                w.n[N_CHANGED] = 1


@inner
def _last_of(w, state):  # type: ignore[no-untyped-def]
    """The last to become ready; one that is to go anyway only where there is no other."""
    last = -1
    for slot in range(len(w.state)):
        if w.state[slot] != state:
            continue
        told = state == READY and w.goes_at[slot] > 0
        told_last = last >= 0 and state == READY and w.goes_at[last] > 0
        later = last >= 0 and (w.ready_at[slot], w.number[slot]) > (w.ready_at[last], w.number[last])
        if last < 0 or (told_last and not told) or (told == told_last and later):
            last = slot
    return last


@inner
def begin_second(w):  # type: ignore[no-untyped-def]
    """Start what is due, then what happens to replicas by chance, then the order to choose from."""
    if w.n[N_RECLAIMABLE]:
        _reclaim(w)
    if w.n[N_STARTING] > 0:
        for slot in range(len(w.state)):
            if w.state[slot] == STARTING and w.ready_at[slot] <= w.n[N_CLOCK]:
                _make_ready(w, slot)
    if w.n[N_FAULTY]:
        _faults(w)
    if w.n[N_CHANGED]:
        _arrange(w)
        w.n[N_CHANGED] = 0


@inner
def _arrange(w):  # type: ignore[no-untyped-def]
    """`order` by age; then the structure of this balancer."""
    count = 0
    for slot in range(len(w.state)):
        if w.state[slot] != READY:
            continue
        place = count
        while place > 0 and w.number[w.order[place - 1]] > w.number[slot]:
            w.order[place] = w.order[place - 1]
            place -= 1
        w.order[place] = slot
        count += 1
    if w.n[N_BALANCER] == CENTRAL:
        _arrange_workers(w)
    else:
        sort_by_requests(w)


@inner
def _arrange_workers(w):  # type: ignore[no-untyped-def]
    """central's heap of workers: those that remain with what they have, new ones free from now on."""
    for k in range(w.n[N_HEAP_WORKERS]):
        slot = w.worker_of[k]
        if w.number[slot] == w.worker_number[k]:
            worker = int(w.fill[slot])
            w.free[slot, worker] = w.worker_free[k]
            w.fill[slot] += 1
    w.n[N_HEAP_WORKERS] = 0
    for k in range(w.n[N_READY]):
        slot = w.order[k]
        w.fill[slot] = 0
        for worker in range(w.free.shape[1]):
            _push_worker(w, w.free[slot, worker], slot)


@inner
def _push_worker(w, free, slot):  # type: ignore[no-untyped-def]
    child = w.n[N_HEAP_WORKERS]
    w.n[N_HEAP_WORKERS] += 1
    while child > 0:
        parent = (child - 1) >> 1
        if w.worker_free[parent] <= free:
            break
        w.worker_free[child] = w.worker_free[parent]
        w.worker_of[child] = w.worker_of[parent]
        w.worker_number[child] = w.worker_number[parent]
        child = parent
    w.worker_free[child] = free
    w.worker_of[child] = slot
    w.worker_number[child] = w.number[slot]


@inner
def _faults(w):  # type: ignore[no-untyped-def]
    """What begins and ends in this second: as many crashes, node losses, slow and failing replicas and
    neighbours as the fluid draws (`sim.physics.faults`); here it is drawn which replicas they are."""
    clock, seed = w.n[N_CLOCK], w.seed[0]
    if w.q[Q_CRASHES] > 0.0:
        chance = _within_a_second(w.q[Q_CRASHES] / HOUR_S)
        _lose(w, int(binomial(float(w.n[N_READY]), chance, uniform(seed, clock, STREAM_CRASH))), 0)
    if w.q[Q_NODE_LOSSES] > 0.0:
        chance = _within_a_second(w.q[Q_NODE_LOSSES] / HOUR_S)
        if uniform(seed, clock, STREAM_NODE) < chance:
            there = w.q[Q_NODE_SHARE] * w.n[N_READY] + uniform(seed, clock, STREAM_NODE_ROUNDING)
            _lose(w, min(int(there), w.n[N_READY]), MOST_REPLICAS)
    if w.q[Q_SLOW] > 0.0:
        _spread(w, w.slow, Q_SLOW, Q_SLOW_S, STREAM_SLOW, STREAM_SLOW_ENDS)
    if w.q[Q_FAILING] > 0.0:
        _spread(w, w.failing, Q_FAILING, Q_FAILING_S, STREAM_FAILING, STREAM_FAILING_ENDS)
    if w.q[Q_NEIGHBOUR] > 0.0:
        drawn = uniform(seed, clock, STREAM_NEIGHBOUR)
        if w.x[X_NEIGHBOUR] > 0.0:
            w.x[X_NEIGHBOUR] = 0.0 if drawn < _within_a_second(1.0 / w.q[Q_NEIGHBOUR_S]) else 1.0
        else:
            w.x[X_NEIGHBOUR] = 1.0 if drawn < _within_a_second(w.q[Q_NEIGHBOUR] / HOUR_S) else 0.0


@inner
def _within_a_second(per_second):  # type: ignore[no-untyped-def]
    return -math.expm1(-per_second)


@inner
def _spread(w, level, often, mean_s, begins, ends):  # type: ignore[no-untyped-def]
    """Replicas enter and leave a state (slow or failing); those that are in the other one don't."""
    clock, seed = w.n[N_CLOCK], w.seed[0]
    inside, outside = 0.0, 0.0
    for slot in range(len(w.state)):
        if w.state[slot] == READY:
            inside += level[slot]
            outside += not (w.slow[slot] or w.failing[slot])
    chance = _within_a_second(1.0 / w.q[mean_s])
    left = int(binomial(inside, chance, uniform(seed, clock, ends))) if inside > 0.0 else 0
    entered = 0
    if outside > 0.0:
        chance = _within_a_second(w.q[often] / HOUR_S)
        entered = int(binomial(outside, chance, uniform(seed, clock, begins)))
    for k in range(left):
        level[_any(w, level, True, inside - k)] = False
    for k in range(entered):
        level[_any(w, level, False, outside - k)] = True


@inner
def _any(w, level, wanted, count):  # type: ignore[no-untyped-def]
    """Place of a ready replica, evenly drawn among the `count` that are in the state, or in none."""
    w.n[N_DRAWN] += 1
    skip = int(uniform(w.seed[0], w.n[N_DRAWN], STREAM_WHICH) * count)
    found = 0
    for slot in range(len(w.state)):
        if w.state[slot] == READY and (level[slot] if wanted else not (w.slow[slot] or w.failing[slot])):
            found = slot
            if skip == 0:
                break
            skip -= 1
    return found


@inner
def _lose(w, count, first):  # type: ignore[no-untyped-def]
    """`count` ready replicas fall out with all that they hold, and start up again, as `sim.physics.replicas`
    has it."""
    clock, seed = w.n[N_CLOCK], w.seed[0]
    for place in range(count):
        w.n[N_DRAWN] += 1
        slot = _ready_place(w)
        lose_requests(w, slot, float(clock))
        number = clock * 2 * MOST_REPLICAS + first + place
        start_up = uniform(seed, number, STREAM_RESTART)
        delay = max(_delay(w, start_up, uniform(seed, number, STREAM_RESTART_READINESS)), 1)
        w.number[slot] = -2 - number
        w.ready_at[slot] = clock + delay
        if w.goes_at[slot] > 0:
            # it was to go, and its successor is there
            w.n[N_TOLD] -= 1
            w.n[N_READY] -= 1
            w.state[slot], w.number[slot], w.n[N_CHANGED] = EMPTY, -1, 1
            continue
        w.slow[slot] = w.failing[slot] = False
        w.state[slot] = STARTING
        w.n[N_READY] -= 1
        w.n[N_STARTING] += 1
        w.n[N_CHANGED] = 1


@inner
def _ready_place(w):  # type: ignore[no-untyped-def]
    skip = int(uniform(w.seed[0], w.n[N_DRAWN], STREAM_WHICH) * w.n[N_READY])
    for slot in range(len(w.state)):
        if w.state[slot] == READY:
            if skip == 0:
                return slot
            skip -= 1
    return -1


@inlined
def speed(w, slot, now):  # type: ignore[no-untyped-def]
    """Share of its capacity that a replica has at `now`."""
    if not w.n[N_VARIED]:
        return 1.0
    share = 1.0
    if w.q[Q_COLD] < 1.0 and w.ready_at[slot] > 0:
        share -= (1.0 - w.q[Q_COLD]) * math.exp(-max(now - w.ready_at[slot], 0.0) / w.q[Q_WARMING_S])
    share *= w.pace[slot]
    if w.slow[slot]:
        share *= w.q[Q_SLOW_SHARE]
    if w.x[X_NEIGHBOUR] > 0.0:
        share *= 1.0 - w.q[Q_NEIGHBOUR_SHARE]
    return share
