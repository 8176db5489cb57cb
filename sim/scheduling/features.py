"""What a scheduler sees of the offered job, its cluster and each server: shares and logarithms of ratios.

Nothing depends on how many servers there are, in which order they stand, or in which units time, cpu and
memory are counted (but for `bound_s`, below which no job can be slowed down by much).
"""

from __future__ import annotations

import math

import numpy as np

from controller.core import Feature, ObservationSchema
from sim.compiled import counted, inner
from sim.scheduling.events import fits, may_hold, rate_of
from sim.scheduling.heuristics import LEAST_VARIANCE, expected_left, log_size
from sim.scheduling.layout import (
    C_HOLDS,
    C_OFFERED,
    C_QUEUED,
    C_SCAN,
    C_SEEN,
    P_BOUND,
    P_DEPTH,
    T_CLOCK,
    T_GAP,
    T_LAST,
    T_LOG,
    T_LOG2,
    T_QUEUE_CPU,
    T_QUEUE_WORK,
    T_SHORT_GAP,
    T_WORK,
)

SERVER_SCHEMA = ObservationSchema(
    "scheduling/v1/server",
    (
        Feature("present", 0, 1, "flag", "whether there is such a server; if not, all its values are 0"),
        Feature("has_room", 0, 1, "flag", "whether the offered job may be placed on it now"),
        Feature("cpu_taken", 0, 4, "share", "cpu that its jobs have asked for, over what it has"),
        Feature("memory_taken", 0, 1, "share", "the same of memory"),
        Feature("cpu_after", -1, 1, "share", "cpu left free with the job on it"),
        Feature("memory_after", -1, 1, "share", "the same of memory"),
        Feature("speed", -4, 0, "ln ratio", "its speed over the fastest server's"),
        Feature("size", -4, 0, "ln ratio", "its cpu over the largest server's"),
        Feature("jobs", 0, 1, "share", "jobs on it, over the most that it can have"),
        Feature(
            "first_end", -6, 6, "ln ratio", "expected time until one of its jobs ends, over the job's run"
        ),
        Feature("outlasting", 0, 1, "share", "cpu of its jobs that are expected to run longer than this one"),
        Feature("long", 0, 1, "share", "cpu of its jobs that run on for more than a deviation above usual"),
        Feature("empty", 0, 1, "flag", "whether nothing runs on it"),
        Feature("slowed", 0, 4, "ln ratio", "its speed over what the job would get there (overload)"),
    ),
)
CLUSTER_SCHEMA = ObservationSchema(
    "scheduling/v1/cluster",
    (
        Feature("size", -4, 4, "deviations", "ln of the job's estimate, against those of the jobs before it"),
        Feature("over_bound", -3, 3, "ln ratio / 3", "the estimate over bound_s"),
        Feature("cpu", 0, 1, "share", "cpu that the job asks for, over the largest server's"),
        Feature("memory", 0, 1, "share", "the same of memory"),
        Feature("work", -6, 6, "ln ratio", "its work (estimate x cpu) over the usual"),
        Feature("waited", 0, 6, "ln(1 + ratio)", "how long it has waited, over its estimate"),
        Feature("spread", 0, 4, "ln", "deviation of the logarithm of estimates"),
        Feature("after_end", 0, 1, "flag", "whether it is offered because a job ended, not because it came"),
        Feature("place", 0, 1, "share", "its place in the queue, over the queue's length"),
        Feature("queue", 0, 8, "ln(1 + jobs)", "waiting jobs"),
        Feature("queue_cpu", 0, 6, "ln(1 + ratio)", "cpu that waiting jobs ask for, over the cluster's"),
        Feature(
            "queue_work", 0, 8, "ln(1 + ratio)", "their work over what the cluster does in a usual job's time"
        ),
        Feature("free_cpu", -1, 1, "share", "cpu of the cluster that is free"),
        Feature("free_memory", 0, 1, "share", "the same of memory"),
        Feature("free_after", -1, 1, "share", "free cpu or memory with the job placed, whichever is less"),
        Feature("able", 0, 1, "share", "servers that have room for it"),
        Feature("empty", 0, 1, "share", "servers on which nothing runs"),
        Feature("outlasting", 0, 1, "share", "cpu of jobs that are expected to run longer than this one"),
        Feature("long", 0, 1, "share", "cpu of jobs that run on for more than a deviation above usual"),
        Feature("ending", 0, 1, "share", "cpu that is expected to become free while the job would run"),
        Feature("load", -3, 3, "ln ratio", "work that comes over what the cluster can do, lately"),
        Feature("burst", -3, 3, "ln ratio", "usual time between jobs over that of the last few"),
        Feature("quiet", 0, 6, "ln(1 + ratio)", "time since a job came, over the usual time between jobs"),
        Feature("held", 0, 1, "share", "jobs held since the last event, over how many may be"),
        Feature("servers", 0, 8, "ln", "number of servers"),
        Feature("first_end", -6, 6, "ln ratio", "expected time until any job ends, over the job's run"),
        Feature("may_hold", 0, 1, "flag", "whether the job may be held"),
    ),
)
SERVER_FEATURES, CLUSTER_FEATURES = SERVER_SCHEMA.size, CLUSTER_SCHEMA.size
_TINY = 1e-12


def observation_size(servers: int) -> int:
    """Numbers in an observation of `servers` servers: theirs first, the job's and the cluster's last."""
    return servers * SERVER_FEATURES + CLUSTER_FEATURES


@counted
def observe(rows, a, low, high, out):  # type: ignore[no-untyped-def]
    """Write the observations of these clusters into `out`, float32 `[N, S * 14 + 27]`; zeros without an
    offer.

    low, high: float32, the same length as an observation.
    """
    servers = a.speed.shape[1]
    whole = np.zeros(8)
    for i in rows:
        out[i] = 0.0
        if a.counts[i, C_OFFERED] < 0:
            continue
        _whole_cluster(i, a, whole)
        for s in range(servers):
            if a.speed[i, s] > 0.0:
                _of_server(i, s, a, whole, out[i, s * SERVER_FEATURES : (s + 1) * SERVER_FEATURES])
        _of_cluster(i, a, whole, out[i, servers * SERVER_FEATURES :])
        for k in range(out.shape[1]):
            out[i, k] = min(max(out[i, k], low[k]), high[k])


_FASTEST, _LARGEST, _LARGEST_MEMORY, _OUTLASTING, _LONG, _ENDING, _FIRST, _LONG_FROM = range(8)


@inner
def _whole_cluster(i, a, whole):  # type: ignore[no-untyped-def]
    """Maxima over servers into `whole`, and zeros for what `_of_server` adds up."""
    whole[:] = 0.0
    whole[_FIRST] = np.inf
    for s in range(a.speed.shape[1]):
        whole[_FASTEST] = max(whole[_FASTEST], a.speed[i, s])
        whole[_LARGEST] = max(whole[_LARGEST], a.has_cpu[i, s])
        whole[_LARGEST_MEMORY] = max(whole[_LARGEST_MEMORY], a.has_memory[i, s])
    mean = a.totals[i, T_LOG]
    variance = max(a.totals[i, T_LOG2] - mean * mean, LEAST_VARIANCE)
    whole[_LONG_FROM] = math.exp(mean + math.sqrt(variance))


@inner
def _of_server(i, s, a, whole, out):  # type: ignore[no-untyped-def]
    job = a.counts[i, C_OFFERED]
    run = a.estimate_s[i, job] / a.speed[i, s]
    first, outlasting, long = np.inf, 0.0, 0.0
    for k in range(a.running[i, s]):
        left, cpu = expected_left(i, s, k, a), a.cpu[i, a.slot_job[i, s, k]]
        first = min(first, left)
        outlasting += cpu if left > run else 0.0
        long += cpu if left > whole[_LONG_FROM] else 0.0
    whole[_OUTLASTING] += outlasting
    whole[_LONG] += long
    whole[_ENDING] += a.used_cpu[i, s] - outlasting
    whole[_FIRST] = min(whole[_FIRST], first)
    has, memory, used = a.has_cpu[i, s], a.has_memory[i, s], a.used_cpu[i, s]
    out[0] = 1.0
    out[1] = fits(i, job, s, a)
    out[2] = used / has
    out[3] = a.used_memory[i, s] / memory
    out[4] = (has - used - a.cpu[i, job]) / has
    out[5] = (memory - a.used_memory[i, s] - a.memory[i, job]) / memory
    out[6] = math.log(a.speed[i, s] / whole[_FASTEST])
    out[7] = math.log(has / whole[_LARGEST])
    out[8] = a.running[i, s] / a.slot_job.shape[2]
    out[9] = math.log(max(first, _TINY) / run) if a.running[i, s] > 0 else -6.0
    out[10] = outlasting / has
    out[11] = long / has
    out[12] = a.running[i, s] == 0
    out[13] = math.log(a.speed[i, s] / rate_of(i, s, used + a.cpu[i, job], a))


@inner
def _of_cluster(i, a, whole, out):  # type: ignore[no-untyped-def]
    """The job and the cluster; after `_of_server` of all servers."""
    job, totals, counts = a.counts[i, C_OFFERED], a.totals[i], a.counts[i]
    has, memory, power, free, free_memory = 0.0, 0.0, 0.0, 0.0, 0.0
    able, empty, servers = 0.0, 0.0, 0.0
    for s in range(a.speed.shape[1]):
        if a.speed[i, s] > 0.0:
            servers += 1.0
            has += a.has_cpu[i, s]
            memory += a.has_memory[i, s]
            power += a.has_cpu[i, s] * a.speed[i, s]
            free += a.has_cpu[i, s] - a.used_cpu[i, s]
            free_memory += a.has_memory[i, s] - a.used_memory[i, s]
            able += fits(i, job, s, a)
            empty += a.running[i, s] == 0
    estimate, usual = a.estimate_s[i, job], math.exp(totals[T_LOG])
    work = estimate * a.cpu[i, job]
    variance = totals[T_LOG2] - totals[T_LOG] * totals[T_LOG]
    out[0] = log_size(i, job, a)
    out[1] = math.log(estimate / a.settings[i, P_BOUND]) / 3.0
    out[2] = a.cpu[i, job] / whole[_LARGEST]
    out[3] = a.memory[i, job] / whole[_LARGEST_MEMORY]
    out[4] = math.log(work / max(totals[T_WORK], _TINY))
    out[5] = math.log1p(max(totals[T_CLOCK] - a.submit_s[i, job], 0.0) / estimate)
    out[6] = math.sqrt(max(variance, 0.0))
    out[7] = counts[C_SEEN]
    out[8] = counts[C_SCAN] / max(counts[C_QUEUED], 1)
    out[9] = math.log1p(counts[C_QUEUED])
    out[10] = math.log1p(totals[T_QUEUE_CPU] / has)
    out[11] = math.log1p(totals[T_QUEUE_WORK] / (power * usual))
    out[12] = free / has
    out[13] = free_memory / memory
    out[14] = min((free - a.cpu[i, job]) / has, (free_memory - a.memory[i, job]) / memory)
    out[15] = able / servers
    out[16] = empty / servers
    out[17] = whole[_OUTLASTING] / has
    out[18] = whole[_LONG] / has
    out[19] = whole[_ENDING] / has
    gap, short = totals[T_GAP], totals[T_SHORT_GAP]
    out[20] = math.log(max(totals[T_WORK], _TINY) / (max(gap, _TINY) * power))
    out[21] = math.log(max(gap, _TINY) / max(short, _TINY))
    out[22] = math.log1p((totals[T_CLOCK] - totals[T_LAST]) / max(gap, _TINY))
    out[23] = counts[C_HOLDS] / a.settings[i, P_DEPTH]
    out[24] = math.log(servers)
    first = whole[_FIRST]
    out[25] = math.log(max(first, _TINY) * whole[_FASTEST] / estimate) if first < np.inf else 6.0
    out[26] = may_hold(i, a)
