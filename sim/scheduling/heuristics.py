"""The schedulers that a learned one has to beat, compiled.

Each takes the offered job to a server that has room for it. Two may hold a job that fits:
`shortest-expected-delay` waits for a faster server where that is expected to be sooner, and `keep-room`,
which is ours, keeps long jobs back while little is free: the plainest form of what a learned scheduler can
do. The order in which waiting jobs are offered is the queue's (`SchedulingParams.order`), not theirs.
"""

from __future__ import annotations

import math

import numpy as np

from sim.compiled import counted, inner
from sim.noise import uniform
from sim.scheduling.events import decide, fits, may_hold, rate_of, to_next_offer
from sim.scheduling.layout import (
    C_DECISIONS,
    C_JOBS,
    C_NEXT,
    C_OFFERED,
    C_TURN,
    P_OVERCOMMIT,
    T_CLOCK,
    T_LOG,
    T_LOG2,
    T_SLOWDOWN,
    TOLERANCE,
)

HEURISTICS = {
    "round-robin": "the next server in turn that has room",
    "random": "any server that has room, drawn evenly",
    "first-fit": "the first server that has room",
    "least-loaded": "the one with the smallest share of cpu or memory taken, whichever is larger",
    "best-fit": "the one that the job leaves the least room on",
    "shortest-expected-delay": "the one where it is expected to end first, waiting for room included",
    "power-of-two": "the less loaded of two that have room, drawn evenly",
    "keep-room": "best-fit, but long jobs wait while that would leave too little room for short ones",
}
(ROUND_ROBIN, RANDOM, FIRST_FIT, LEAST_LOADED, BEST_FIT, SHORTEST_DELAY, POWER_OF_TWO,
 KEEP_ROOM) = range(len(HEURISTICS))  # fmt: skip
KEEP_FROM, KEEP_FULL, KEEP_SHARE = 0.5, 1.5, 0.3
"""`keep-room`: deviations above the mean log estimate from which a job begins to count as long, and at which
it fully does; the share of the cluster that then has to stay free. Chosen on generated workloads."""
_STREAM_PLACE, _STREAM_OTHER = 200, 201
LEAST_VARIANCE = 0.05
"""Of log estimates: below it jobs are all alike."""
OVERRUN = 0.5
"""A job that has run beyond its estimate is expected to run on for this share of what it has run."""


@counted
def choose(code, a):  # type: ignore[no-untyped-def]
    """What a heuristic decides in each cluster: int64 `[N]`, a server, or S to hold (S also where none is
    asked)."""
    choices = np.empty(len(a.seeds), dtype=np.int64)
    for i in range(len(choices)):
        choices[i] = pick(code, i, a) if a.counts[i, C_OFFERED] >= 0 else a.speed.shape[1]
    return choices


@counted
def run_to_the_end(code, rows, drain, a):  # type: ignore[no-untyped-def]
    """Let a heuristic schedule everything that is still to come; drain: and all that waits then, too."""
    for i in rows:
        while a.counts[i, C_OFFERED] >= 0 and (drain or a.counts[i, C_NEXT] < a.counts[i, C_JOBS]):
            decide(i, pick(code, i, a), a)
            to_next_offer(i, a)


@counted
def record_run(code, i, drain, a, times, sums):  # type: ignore[no-untyped-def]
    """The same for one cluster, noting clock and slowdown's integral at each decision; how many were noted.

    times, sums: float64 `[M]`; when they are full, the last place is overwritten.
    """
    noted = 0
    while a.counts[i, C_OFFERED] >= 0 and (drain or a.counts[i, C_NEXT] < a.counts[i, C_JOBS]):
        times[noted], sums[noted] = a.totals[i, T_CLOCK], a.totals[i, T_SLOWDOWN]
        noted = min(noted + 1, len(times) - 1)
        decide(i, pick(code, i, a), a)
        to_next_offer(i, a)
    times[noted], sums[noted] = a.totals[i, T_CLOCK], a.totals[i, T_SLOWDOWN]
    return noted + 1


@counted
def read_runs(clocks, times, sums, noted, marks, out):  # type: ignore[no-untyped-def]
    """What `record_run` noted, at later and later clocks `[N]`, linear in between. marks: where it stood."""
    for i in range(len(clocks)):
        last = noted[i] - 1
        while marks[i] < last - 1 and times[i, marks[i] + 1] <= clocks[i]:
            marks[i] += 1
        k = marks[i]
        span = times[i, min(k + 1, last)] - times[i, k]
        share = min(max((clocks[i] - times[i, k]) / span, 0.0), 1.0) if span > 0.0 else 1.0
        out[i] = sums[i, k] + share * (sums[i, min(k + 1, last)] - sums[i, k])


@inner
def pick(code, i, a):  # type: ignore[no-untyped-def]
    """The server for the offered job, or S to hold it."""
    job = a.counts[i, C_OFFERED]
    if code == ROUND_ROBIN:
        return _in_turn(i, job, a)
    if code == KEEP_ROOM and may_hold(i, a) and _leaves_too_little(i, job, a):
        return a.speed.shape[1]
    if code == RANDOM:
        return _drawn(i, job, _STREAM_PLACE, a)
    if code == SHORTEST_DELAY:
        return _soonest(i, job, a)
    if code == POWER_OF_TWO:
        one, other = _drawn(i, job, _STREAM_PLACE, a), _drawn(i, job, _STREAM_OTHER, a)
        return one if taken(i, one, a) <= taken(i, other, a) else other
    best, where = np.inf, a.speed.shape[1]
    for s in range(a.speed.shape[1]):
        if fits(i, job, s, a):
            if code == FIRST_FIT:
                return s
            cost = taken(i, s, a) if code == LEAST_LOADED else left_after(i, job, s, a)
            if cost < best - TOLERANCE:
                best, where = cost, s
    return where


@inner
def log_size(i, job, a):  # type: ignore[no-untyped-def]
    """A job's estimate against those seen before: deviations of the logarithm from its mean."""
    mean = a.totals[i, T_LOG]
    variance = a.totals[i, T_LOG2] - mean * mean
    return (math.log(a.estimate_s[i, job]) - mean) / math.sqrt(max(variance, LEAST_VARIANCE))


@inner
def _leaves_too_little(i, job, a):  # type: ignore[no-untyped-def]
    """Whether a long job would leave less of the cluster free than is kept for short ones."""
    has, free = 0.0, 0.0
    for s in range(a.speed.shape[1]):
        if a.speed[i, s] > 0.0:
            has += a.has_cpu[i, s]
            free += a.has_cpu[i, s] * (1.0 - taken(i, s, a))
    length = min(max((log_size(i, job, a) - KEEP_FROM) / (KEEP_FULL - KEEP_FROM), 0.0), 1.0)
    return free - max(a.cpu[i, job], a.memory[i, job]) < KEEP_SHARE * length * has


@inner
def taken(i, s, a):  # type: ignore[no-untyped-def]
    """Share of a server's cpu or memory that is taken, whichever is larger."""
    return max(a.used_cpu[i, s] / a.has_cpu[i, s], a.used_memory[i, s] / a.has_memory[i, s])


@inner
def left_after(i, job, s, a):  # type: ignore[no-untyped-def]
    """Cpu and memory that a server would have left with a job on it, added (in whole machines)."""
    cpu = a.has_cpu[i, s] - a.used_cpu[i, s] - a.cpu[i, job]
    return cpu + a.has_memory[i, s] - a.used_memory[i, s] - a.memory[i, job]


@inner
def _in_turn(i, job, a):  # type: ignore[no-untyped-def]
    servers = a.speed.shape[1]
    for k in range(servers):
        s = (a.counts[i, C_TURN] + k) % servers
        if fits(i, job, s, a):
            a.counts[i, C_TURN] = (s + 1) % servers
            return s
    return servers


@inner
def _drawn(i, job, stream, a):  # type: ignore[no-untyped-def]
    """One of the servers that have room, each as likely."""
    servers, able = a.speed.shape[1], 0
    for s in range(servers):
        able += fits(i, job, s, a)
    left = int(uniform(a.seeds[i], a.counts[i, C_DECISIONS], stream) * able)
    for s in range(servers):
        if fits(i, job, s, a):
            if left == 0:
                return s
            left -= 1
    return servers


@inner
def _soonest(i, job, a):  # type: ignore[no-untyped-def]
    """Where the job would end first by the estimates; S if it would have to wait there."""
    servers = a.speed.shape[1]
    best, where, waits = np.inf, servers, False
    least = np.inf
    for s in range(servers):
        if a.speed[i, s] <= 0.0 or a.cpu[i, job] > a.has_cpu[i, s] + TOLERANCE:
            continue
        if a.memory[i, job] > a.has_memory[i, s] + TOLERANCE:
            continue
        able = fits(i, job, s, a)
        delay = (
            a.estimate_s[i, job] / rate_of(i, s, a.used_cpu[i, s] + a.cpu[i, job], a)
            if able
            else (a.estimate_s[i, job] / a.speed[i, s])
        )
        if not able and (delay >= best or not may_hold(i, a)):
            continue
        if not able:
            delay += until_room(i, job, s, a)
        load = taken(i, s, a)
        if delay < best - TOLERANCE or (delay < best + TOLERANCE and able and load < least):
            best, where, waits, least = delay, s, not able, load
    return servers if waits else where


@inner
def until_room(i, job, s, a):  # type: ignore[no-untyped-def]
    """Seconds until enough jobs of a server are expected to have ended for another one to fit."""
    cpu = a.used_cpu[i, s] + a.cpu[i, job] - a.has_cpu[i, s] * a.settings[i, P_OVERCOMMIT]
    memory = a.used_memory[i, s] + a.memory[i, job] - a.has_memory[i, s]
    jobs, past = a.running[i, s], -1.0
    for _ in range(jobs):
        if cpu <= TOLERANCE and memory <= TOLERANCE and jobs < a.slot_job.shape[2]:
            break
        soonest = np.inf
        for k in range(a.running[i, s]):
            left = expected_left(i, s, k, a)
            if past < left < soonest:
                soonest = left
        for k in range(a.running[i, s]):
            if expected_left(i, s, k, a) == soonest:
                cpu -= a.cpu[i, a.slot_job[i, s, k]]
                memory -= a.memory[i, a.slot_job[i, s, k]]
                jobs -= 1
        past = soonest
    return max(past, 0.0)


@inner
def expected_left(i, s, k, a):  # type: ignore[no-untyped-def]
    """Seconds that the job in place `k` of a server is expected to run on."""
    job = a.slot_job[i, s, k]
    had = a.work[i, s] - a.slot_end[i, s, k] + a.duration_s[i, job]
    left = a.estimate_s[i, job] - had
    if left <= 0.0:
        left = OVERRUN * had
    return left / a.rate[i, s]
