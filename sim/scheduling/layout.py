"""Where everything of a batch of schedulers is, in the arrays that the kernels work on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]
BoolArray = npt.NDArray[np.bool_]

STATES = ("to come", "queued", "running", "finished", "rejected")
TO_COME, QUEUED, RUNNING, FINISHED, REJECTED = range(len(STATES))
COUNTS = (
    "jobs", "next", "queued", "running", "finished", "rejected",
    "offered", "scan", "end", "holds", "turn", "decisions", "seen",
)  # fmt: skip
(C_JOBS, C_NEXT, C_QUEUED, C_RUNNING, C_FINISHED, C_REJECTED,
 C_OFFERED, C_SCAN, C_END, C_HOLDS, C_TURN, C_DECISIONS, C_SEEN) = range(len(COUNTS))  # fmt: skip
"""Columns of `counts`: jobs in all, the next to arrive, how many are in each state, the job that is offered
(-1: none), where in the queue the search for the next offer stands and ends, jobs held since the last event,
where round robin stands, decisions so far, whether the last event was the end of a job."""
SETTINGS = ("overcommit", "thrash", "bound_s", "depth", "queue_limit", "by_size", "strict", "reject_freely")
(P_OVERCOMMIT, P_THRASH, P_BOUND, P_DEPTH, P_LIMIT, P_BY_SIZE, P_STRICT, P_FREELY) = range(len(SETTINGS))
TOTALS = (
    "clock_s", "slowdown", "waiting_s", "waiting_weight", "imbalance_s", "overload_s", "busy_s",
    "queue_cpu", "queue_work", "mean_log", "mean_log2", "mean_work", "gap_s", "short_gap_s", "last_submit_s",
)  # fmt: skip
(T_CLOCK, T_SLOWDOWN, T_WAITING, T_WAITING_WEIGHT, T_IMBALANCE, T_OVERLOAD, T_BUSY,
 T_QUEUE_CPU, T_QUEUE_WORK, T_LOG, T_LOG2, T_WORK, T_GAP, T_SHORT_GAP,
 T_LAST) = range(len(TOTALS))  # fmt: skip
"""Columns of `totals`: the clock; integrals over it of the slowdown's growth beyond running at speed 1, of
jobs waiting, of the imbalance, of the overload and of the utilisation; the sum of the waiting jobs' weights
(1 / duration), their cpu and their work; and what the scheduler remembers of the jobs that it has seen (means
of the logarithm of their estimates, of its square, of their work and of the gaps between them)."""
TOLERANCE = 1e-9
"""Of what a server has left: sums of demands are rounded."""


class SchedulingArrays(NamedTuple):
    """N clusters of up to S servers, J jobs and R jobs on a server at once."""

    submit_s: npt.NDArray[np.float64]
    """`[N, J]`, rising."""
    duration_s: npt.NDArray[np.float64]
    """`[N, J]`: how long a job runs alone on a server of speed 1; never shown to the scheduler."""
    estimate_s: npt.NDArray[np.float64]
    """`[N, J]`: what the scheduler is told of it."""
    cpu: npt.NDArray[np.float64]
    """`[N, J]`: what a job asks for; 1 is a whole machine."""
    memory: npt.NDArray[np.float64]
    """`[N, J]`."""
    status: npt.NDArray[np.int8]
    """`[N, J]`: one of STATES."""
    server: npt.NDArray[np.int32]
    """`[N, J]`: where it was placed; -1: nowhere yet."""
    start_s: npt.NDArray[np.float64]
    """`[N, J]`: when it was placed."""
    end_s: npt.NDArray[np.float64]
    """`[N, J]`: when it finished."""
    has_cpu: npt.NDArray[np.float64]
    """`[N, S]`: capacity of a server; 0: there is no such server."""
    has_memory: npt.NDArray[np.float64]
    """`[N, S]`."""
    speed: npt.NDArray[np.float64]
    """`[N, S]`: how many seconds of a job a server works off in one."""
    used_cpu: npt.NDArray[np.float64]
    """`[N, S]`."""
    used_memory: npt.NDArray[np.float64]
    """`[N, S]`."""
    running: npt.NDArray[np.int64]
    """`[N, S]`: jobs on it."""
    work: npt.NDArray[np.float64]
    """`[N, S]`: seconds of work that each of its jobs has had since the episode began."""
    rate: npt.NDArray[np.float64]
    """`[N, S]`: how fast `work` rises."""
    run_weight: npt.NDArray[np.float64]
    """`[N, S]`: sum of the weights of its jobs."""
    next_work: npt.NDArray[np.float64]
    """`[N, S]`: `work` at which the next of its jobs finishes; infinite without a job."""
    next_slot: npt.NDArray[np.int64]
    """`[N, S]`: which one that is."""
    slot_job: npt.NDArray[np.int32]
    """`[N, S, R]`: jobs on a server, the first `running` places."""
    slot_end: npt.NDArray[np.float64]
    """`[N, S, R]`: `work` at which each finishes."""
    queue: npt.NDArray[np.int32]
    """`[N, J + 1]`: waiting jobs in their order, the first `queued` places."""
    counts: npt.NDArray[np.int64]
    """`[N, 13]`: columns C_*."""
    totals: npt.NDArray[np.float64]
    """`[N, 15]`: columns T_*."""
    settings: npt.NDArray[np.float64]
    """`[N, 8]`: columns P_*."""
    seeds: npt.NDArray[np.uint64]
    """`[N]`: of the heuristics that draw."""


def new_arrays(clusters: int, servers: int, jobs: int, slots: int) -> SchedulingArrays:
    """Zeroed arrays."""
    by_job, by_server = (clusters, jobs), (clusters, servers)
    floats = {name: np.zeros(by_job) for name in ("submit_s", "duration_s", "estimate_s", "cpu", "memory")}
    of_servers = (
        "has_cpu", "has_memory", "speed", "used_cpu", "used_memory", "work", "rate", "run_weight",
        "next_work",
    )  # fmt: skip
    return SchedulingArrays(
        **floats,
        **{name: np.zeros(by_server) for name in of_servers},
        status=np.zeros(by_job, dtype=np.int8),
        server=np.full(by_job, -1, dtype=np.int32),
        start_s=np.full(by_job, np.nan),
        end_s=np.full(by_job, np.nan),
        running=np.zeros(by_server, dtype=np.int64),
        next_slot=np.zeros(by_server, dtype=np.int64),
        slot_job=np.zeros((*by_server, slots), dtype=np.int32),
        slot_end=np.zeros((*by_server, slots)),
        queue=np.zeros((clusters, jobs + 1), dtype=np.int32),
        counts=np.zeros((clusters, len(COUNTS)), dtype=np.int64),
        totals=np.zeros((clusters, len(TOTALS))),
        settings=np.zeros((clusters, len(SETTINGS))),
        seeds=np.zeros(clusters, dtype=np.uint64),
    )
