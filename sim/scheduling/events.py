"""The compiled life of a cluster: events, offers, placements. `SchedulingPhysics` is the caller.

Time goes from event to event: a job arrives, or one finishes. All jobs of a server progress at one rate (its
speed, less when it is overloaded), so a server keeps one sum of work, and a job the sum at which it ends.
"""

from __future__ import annotations

import math

import numpy as np

from sim.compiled import counted, inner
from sim.scheduling.layout import (
    C_DECISIONS,
    C_END,
    C_FINISHED,
    C_HOLDS,
    C_JOBS,
    C_NEXT,
    C_OFFERED,
    C_QUEUED,
    C_REJECTED,
    C_RUNNING,
    C_SCAN,
    C_SEEN,
    FINISHED,
    P_BOUND,
    P_BY_SIZE,
    P_DEPTH,
    P_FREELY,
    P_LIMIT,
    P_OVERCOMMIT,
    P_STRICT,
    P_THRASH,
    QUEUED,
    REJECTED,
    RUNNING,
    T_BUSY,
    T_CLOCK,
    T_GAP,
    T_IMBALANCE,
    T_LAST,
    T_LOG,
    T_LOG2,
    T_OVERLOAD,
    T_QUEUE_CPU,
    T_QUEUE_WORK,
    T_SHORT_GAP,
    T_SLOWDOWN,
    T_WAITING,
    T_WAITING_WEIGHT,
    T_WORK,
    TOLERANCE,
)

MEMORY_JOBS = 200.0
"""Jobs over which the scheduler's means of what it has seen reach back."""
SHORT_MEMORY_JOBS = 8.0


@counted
def begin(rows, a):  # type: ignore[no-untyped-def]
    """Empty clusters, all jobs to come; then on to the first offer."""
    for i in rows:
        a.counts[i, C_NEXT : C_SEEN + 1] = 0
        a.counts[i, C_OFFERED] = -1
        a.totals[i] = 0.0
        for s in range(a.speed.shape[1]):
            a.used_cpu[i, s] = 0.0
            a.used_memory[i, s] = 0.0
            a.running[i, s] = 0
            a.work[i, s] = 0.0
            a.rate[i, s] = a.speed[i, s]
            a.run_weight[i, s] = 0.0
            a.next_work[i, s] = np.inf
        for j in range(a.counts[i, C_JOBS]):
            a.status[i, j] = 0
            a.server[i, j] = -1
            a.start_s[i, j] = np.nan
            a.end_s[i, j] = np.nan
        to_next_offer(i, a)


@counted
def act(choices, a):  # type: ignore[no-untyped-def]
    """Carry out a decision in each cluster, and go on to the next offer. choices: int64 `[N]`, 0..S + 1.

    What is not allowed becomes what is: holding instead of a server without room, else the first that has it.
    """
    for i in range(len(choices)):
        if a.counts[i, C_OFFERED] >= 0:
            decide(i, choices[i], a)
            to_next_offer(i, a)


@inner
def decide(i, choice, a):  # type: ignore[no-untyped-def]
    """Place, hold or reject the offered job."""
    servers = a.speed.shape[1]
    job = a.counts[i, C_OFFERED]
    a.counts[i, C_DECISIONS] += 1
    if choice > servers and may_reject(i, a):
        _take_from_queue(i, a)
        _reject(i, job, a)
    elif choice < servers and fits(i, job, choice, a):
        _take_from_queue(i, a)
        place(i, job, choice, a)
    elif may_hold(i, a):
        a.counts[i, C_SCAN] += 1
        a.counts[i, C_HOLDS] += 1
    else:
        for s in range(servers):
            if fits(i, job, s, a):
                _take_from_queue(i, a)
                place(i, job, s, a)
                break
    a.counts[i, C_OFFERED] = -1


@inner
def to_next_offer(i, a):  # type: ignore[no-untyped-def]
    """Let time pass until a job can be offered, that is, until one waits that fits on a server."""
    counts = a.counts[i]
    while True:
        if _find_offer(i, a):
            return
        if not _next_event(i, a):
            counts[C_OFFERED] = -1
            return


@inner
def _find_offer(i, a):  # type: ignore[no-untyped-def]
    """Search on in the queue; whether something is to be decided."""
    counts, settings = a.counts[i], a.settings[i]
    if counts[C_SCAN] >= counts[C_END]:
        return False
    room_cpu, room_memory = _most_room(i, a)
    while counts[C_SCAN] < counts[C_END] and counts[C_HOLDS] < settings[P_DEPTH]:
        job = a.queue[i, counts[C_SCAN]]
        if a.cpu[i, job] <= room_cpu and a.memory[i, job] <= room_memory and fits_anywhere(i, job, a):
            counts[C_OFFERED] = job
            return True
        if settings[P_STRICT] > 0.0:
            break
        counts[C_SCAN] += 1
    counts[C_SCAN] = counts[C_END]
    return False


@inner
def _most_room(i, a):  # type: ignore[no-untyped-def]
    """The most that any server has left of each."""
    most_cpu, most_memory = -1.0, -1.0
    for s in range(a.speed.shape[1]):
        if a.running[i, s] < a.slot_job.shape[2]:
            most_cpu = max(most_cpu, room_of_cpu(i, s, a))
            most_memory = max(most_memory, a.has_memory[i, s] - a.used_memory[i, s])
    return most_cpu + TOLERANCE, most_memory + TOLERANCE


@inner
def room_of_cpu(i, s, a):  # type: ignore[no-untyped-def]
    """What may still be placed on a server, overcommitted as far as is allowed."""
    return a.has_cpu[i, s] * a.settings[i, P_OVERCOMMIT] - a.used_cpu[i, s]


@inner
def fits(i, job, s, a):  # type: ignore[no-untyped-def]
    """Whether a server has room for a job."""
    return (
        a.speed[i, s] > 0.0
        and a.running[i, s] < a.slot_job.shape[2]
        and a.cpu[i, job] <= a.has_cpu[i, s] + TOLERANCE
        and a.cpu[i, job] <= room_of_cpu(i, s, a) + TOLERANCE
        and a.memory[i, job] <= a.has_memory[i, s] - a.used_memory[i, s] + TOLERANCE
    )


@inner
def fits_anywhere(i, job, a):  # type: ignore[no-untyped-def]
    """Whether any server has room for a job."""
    for s in range(a.speed.shape[1]):  # noqa: SIM110 (numba knows no generators)
        if fits(i, job, s, a):
            return True
    return False


@inner
def could_fit(i, job, a):  # type: ignore[no-untyped-def]
    """Whether any server would have room for a job if it were empty."""
    for s in range(a.speed.shape[1]):
        if a.speed[i, s] > 0.0:
            most_cpu, most_memory = a.has_cpu[i, s] + TOLERANCE, a.has_memory[i, s] + TOLERANCE
            if a.cpu[i, job] <= most_cpu and a.memory[i, job] <= most_memory:
                return True
    return False


@inner
def may_hold(i, a):  # type: ignore[no-untyped-def]
    """Whether the offered job may wait: there is a place, and something runs whose end wakes the
    scheduler."""
    return a.counts[i, C_RUNNING] > 0 and a.counts[i, C_QUEUED] <= a.settings[i, P_LIMIT]


@inner
def may_reject(i, a):  # type: ignore[no-untyped-def]
    """Whether the offered job may be turned away: always, or only when the queue is full."""
    return a.settings[i, P_FREELY] > 0.0 or a.counts[i, C_QUEUED] > a.settings[i, P_LIMIT]


@inner
def _take_from_queue(i, a):  # type: ignore[no-untyped-def]
    """Remove the job at the search's place."""
    counts, queue = a.counts[i], a.queue[i]
    job = queue[counts[C_SCAN]]
    counts[C_QUEUED] -= 1
    counts[C_END] -= 1
    for k in range(counts[C_SCAN], counts[C_QUEUED]):
        queue[k] = queue[k + 1]
    _count_waiting(i, job, -1.0, a)
    if counts[C_QUEUED] == 0:
        a.totals[i, T_WAITING_WEIGHT], a.totals[i, T_QUEUE_CPU], a.totals[i, T_QUEUE_WORK] = 0.0, 0.0, 0.0


@inner
def _count_waiting(i, job, sign, a):  # type: ignore[no-untyped-def]
    """Add a job to the sums over the queue, or take it out."""
    a.totals[i, T_WAITING_WEIGHT] += sign * weight(i, job, a)
    a.totals[i, T_QUEUE_CPU] += sign * a.cpu[i, job]
    a.totals[i, T_QUEUE_WORK] += sign * a.cpu[i, job] * a.estimate_s[i, job]


@inner
def _reject(i, job, a):  # type: ignore[no-untyped-def]
    a.status[i, job] = REJECTED
    a.counts[i, C_REJECTED] += 1


@inner
def weight(i, job, a):  # type: ignore[no-untyped-def]
    """How fast a job's bounded slowdown grows, 1/s."""
    return 1.0 / max(a.duration_s[i, job], a.settings[i, P_BOUND])


@inner
def place(i, job, s, a):  # type: ignore[no-untyped-def]
    """Start a job."""
    slot = a.running[i, s]
    a.slot_job[i, s, slot] = job
    a.slot_end[i, s, slot] = a.work[i, s] + a.duration_s[i, job]
    if a.slot_end[i, s, slot] < a.next_work[i, s]:
        a.next_work[i, s] = a.slot_end[i, s, slot]
        a.next_slot[i, s] = slot
    a.running[i, s] += 1
    a.used_cpu[i, s] += a.cpu[i, job]
    a.used_memory[i, s] += a.memory[i, job]
    a.rate[i, s] = rate_of(i, s, a.used_cpu[i, s], a)
    a.status[i, job] = RUNNING
    a.server[i, job] = s
    a.start_s[i, job] = a.totals[i, T_CLOCK]
    a.counts[i, C_RUNNING] += 1
    a.run_weight[i, s] += weight(i, job, a)


@inner
def rate_of(i, s, used, a):  # type: ignore[no-untyped-def]
    """Work a second of each job on a server whose jobs ask for `used` cpu together."""
    load = used / a.has_cpu[i, s]
    if load <= 1.0:
        return a.speed[i, s]
    return a.speed[i, s] / (load * (1.0 + a.settings[i, P_THRASH] * (load - 1.0)))


@inner
def _next_event(i, a):  # type: ignore[no-untyped-def]
    """Arrival or end, whichever is first; at the same moment the end. Whether there was one."""
    counts, clock = a.counts[i], a.totals[i, T_CLOCK]
    arrives = np.inf
    if counts[C_NEXT] < counts[C_JOBS]:
        arrives = max(a.submit_s[i, counts[C_NEXT]] - clock, 0.0)
    ends, where = np.inf, -1
    for s in range(a.speed.shape[1]):
        if a.running[i, s] > 0:
            left = max(a.next_work[i, s] - a.work[i, s], 0.0) / a.rate[i, s]
            if left < ends:
                ends, where = left, s
    counts[C_HOLDS], counts[C_SEEN] = 0, 0
    if where >= 0 and ends <= arrives:
        _pass_time(i, ends, a)
        _finish(i, where, a)
        counts[C_SCAN], counts[C_END], counts[C_SEEN] = 0, counts[C_QUEUED], 1
        return True
    if arrives == np.inf:
        return False
    _pass_time(i, arrives, a)
    _arrive(i, counts[C_NEXT], a)
    return True


@inner
def _pass_time(i, span, a):  # type: ignore[no-untyped-def]
    """Work and integrals over `span` seconds."""
    totals, overload, used, squares, servers = a.totals[i], 0.0, 0.0, 0.0, 0
    growth = totals[T_WAITING_WEIGHT]
    for s in range(a.speed.shape[1]):
        if a.speed[i, s] > 0.0:
            a.work[i, s] += span * a.rate[i, s]
            growth += a.run_weight[i, s] * (1.0 - a.rate[i, s])
            load = a.used_cpu[i, s] / a.has_cpu[i, s]
            overload += max(load - 1.0, 0.0)
            used += load
            squares += load * load
            servers += 1
    mean = used / servers
    totals[T_BUSY] += span * mean
    totals[T_IMBALANCE] += span * math.sqrt(max(squares / servers - mean * mean, 0.0))
    totals[T_OVERLOAD] += span * overload / servers
    totals[T_SLOWDOWN] += span * growth
    totals[T_WAITING] += span * a.counts[i, C_QUEUED]
    totals[T_CLOCK] += span


@inner
def _finish(i, s, a):  # type: ignore[no-untyped-def]
    """End the next job of a server."""
    slot = a.next_slot[i, s]
    job = a.slot_job[i, s, slot]
    a.work[i, s] = max(a.work[i, s], a.next_work[i, s])
    a.running[i, s] -= 1
    last = a.running[i, s]
    a.slot_job[i, s, slot] = a.slot_job[i, s, last]
    a.slot_end[i, s, slot] = a.slot_end[i, s, last]
    a.used_cpu[i, s] = a.used_cpu[i, s] - a.cpu[i, job] if last > 0 else 0.0
    a.used_memory[i, s] = a.used_memory[i, s] - a.memory[i, job] if last > 0 else 0.0
    a.rate[i, s] = rate_of(i, s, a.used_cpu[i, s], a)
    a.next_work[i, s] = np.inf
    for k in range(last):
        if a.slot_end[i, s, k] < a.next_work[i, s]:
            a.next_work[i, s] = a.slot_end[i, s, k]
            a.next_slot[i, s] = k
    a.status[i, job] = FINISHED
    a.end_s[i, job] = a.totals[i, T_CLOCK]
    a.counts[i, C_RUNNING] -= 1
    a.counts[i, C_FINISHED] += 1
    a.run_weight[i, s] = a.run_weight[i, s] - weight(i, job, a) if last > 0 else 0.0


@inner
def _arrive(i, job, a):  # type: ignore[no-untyped-def]
    """Put a job that comes into the queue at its place, and look at it alone."""
    counts, queue = a.counts[i], a.queue[i]
    counts[C_NEXT] += 1
    at = counts[C_QUEUED]
    if a.settings[i, P_BY_SIZE] > 0.0:
        while at > 0 and a.estimate_s[i, queue[at - 1]] > a.estimate_s[i, job]:
            queue[at] = queue[at - 1]
            at -= 1
    queue[at] = job
    counts[C_QUEUED] += 1
    a.status[i, job] = QUEUED
    _count_waiting(i, job, 1.0, a)
    _remember(i, job, a)
    counts[C_SCAN], counts[C_END] = at, at + 1
    blocked = a.settings[i, P_STRICT] > 0.0 and at > 0
    full = counts[C_QUEUED] > a.settings[i, P_LIMIT] and (blocked or not fits_anywhere(i, job, a))
    if full or not could_fit(i, job, a):
        _take_from_queue(i, a)
        _reject(i, job, a)
    elif blocked:
        counts[C_SCAN] = counts[C_END]


@inner
def _remember(i, job, a):  # type: ignore[no-untyped-def]
    """Take a job into the means of what the scheduler has seen."""
    totals, seen = a.totals[i], float(a.counts[i, C_NEXT])
    share, short = 1.0 / min(seen, MEMORY_JOBS), 1.0 / min(seen, SHORT_MEMORY_JOBS)
    size = math.log(a.estimate_s[i, job])
    totals[T_LOG] += share * (size - totals[T_LOG])
    totals[T_LOG2] += share * (size * size - totals[T_LOG2])
    totals[T_WORK] += share * (a.estimate_s[i, job] * a.cpu[i, job] - totals[T_WORK])
    if seen > 1.0:
        gap = a.submit_s[i, job] - totals[T_LAST]
        share, short = 1.0 / min(seen - 1.0, MEMORY_JOBS), 1.0 / min(seen - 1.0, SHORT_MEMORY_JOBS)
        totals[T_GAP] += share * (gap - totals[T_GAP])
        totals[T_SHORT_GAP] += short * (gap - totals[T_SHORT_GAP])
    totals[T_LAST] = a.submit_s[i, job]
