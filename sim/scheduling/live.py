"""One cluster in somebody else's time: jobs come one by one, and nothing of the future is known.

`service` is the caller, for the jobs it is sent and for its demonstration. The rules are those of
`SchedulingPhysics`, by the same kernels; only who lets time pass differs. Places of jobs in the arrays
("slots") are used again once a job is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sim.compiled import counted
from sim.errors import require
from sim.scheduling.events import (
    _arrive,
    _count_waiting,
    _find_offer,
    _finish,
    _pass_time,
    _take_from_queue,
    decide,
    place,
)
from sim.scheduling.layout import (
    C_DECISIONS,
    C_END,
    C_HOLDS,
    C_NEXT,
    C_OFFERED,
    C_QUEUED,
    C_RUNNING,
    C_SCAN,
    C_SEEN,
    C_TURN,
    QUEUED,
    STATES,
    T_BUSY,
    T_CLOCK,
    T_GAP,
    T_LAST,
    T_LOG,
    T_LOG2,
    T_SHORT_GAP,
    T_SLOWDOWN,
    T_WORK,
    SchedulingArrays,
    new_arrays,
)
from sim.scheduling.params import SchedulingParams, Servers

REMEMBERED_TOTALS = (T_LOG, T_LOG2, T_WORK, T_GAP, T_SHORT_GAP, T_LAST)
REMEMBERED_COUNTS = (C_NEXT, C_TURN, C_DECISIONS)


@counted
def submit(job, a):  # type: ignore[no-untyped-def]
    """A job whose columns are filled comes now; whether one is offered."""
    a.counts[0, C_HOLDS], a.counts[0, C_SEEN] = 0, 0
    _arrive(0, job, a)
    return _find_offer(0, a)


@counted
def settle(choice, a):  # type: ignore[no-untyped-def]
    """Carry out a decision on the offered job, as `events.decide`; whether another one is offered."""
    decide(0, choice, a)
    return _find_offer(0, a)


@counted
def next_end(a):  # type: ignore[no-untyped-def]
    """Seconds until the first running job ends, and its server (infinite, -1: nothing runs)."""
    ends, where = np.inf, -1
    for s in range(a.speed.shape[1]):
        if a.running[0, s] > 0:
            left = max(a.next_work[0, s] - a.work[0, s], 0.0) / a.rate[0, s]
            if left < ends:
                ends, where = left, s
    return ends, where


@counted
def pass_until(clock_s, a):  # type: ignore[no-untyped-def]
    """Let time pass up to `clock_s` or to the first end of a job before; the job that has ended, or -1."""
    ends, where = next_end(a)
    left = clock_s - a.totals[0, T_CLOCK]
    if ends > left:
        _pass_time(0, max(left, 0.0), a)
        a.totals[0, T_CLOCK] = max(clock_s, a.totals[0, T_CLOCK])
        return -1
    job = a.slot_job[0, where, a.next_slot[0, where]]
    _pass_time(0, ends, a)
    _finish(0, where, a)
    _offer_again(a)
    return job


@counted
def end_now(job, a):  # type: ignore[no-untyped-def]
    """End a running job at once."""
    s = a.server[0, job]
    for k in range(a.running[0, s]):
        if a.slot_job[0, s, k] == job:
            a.next_slot[0, s] = k
    a.next_work[0, s] = a.work[0, s]
    _finish(0, s, a)
    _offer_again(a)


@counted
def withdraw(job, a):  # type: ignore[no-untyped-def]
    """Take a waiting job out of the queue; others are not offered for that."""
    for k in range(a.counts[0, C_QUEUED]):
        if a.queue[0, k] == job:
            a.counts[0, C_SCAN] = k
            break
    _take_from_queue(0, a)
    a.counts[0, C_END] = a.counts[0, C_SCAN]


@counted
def _offer_again(a):  # type: ignore[no-untyped-def]
    """Search the whole queue, as after every end of a job."""
    a.counts[0, C_HOLDS], a.counts[0, C_SEEN] = 0, 1
    a.counts[0, C_SCAN], a.counts[0, C_END] = 0, a.counts[0, C_QUEUED]
    _find_offer(0, a)


@counted
def _restore_running(job, s, a):  # type: ignore[no-untyped-def]
    place(0, job, s, a)


@counted
def _restore_waiting(job, a):  # type: ignore[no-untyped-def]
    a.queue[0, a.counts[0, C_QUEUED]] = job
    a.counts[0, C_QUEUED] += 1
    a.status[0, job] = QUEUED
    _count_waiting(0, job, 1.0, a)


@dataclass(frozen=True)
class Demand:
    """What a job asks for. duration_s: how long it runs on a server of speed 1, if nobody ends it before."""

    cpu: float
    memory: float
    estimate_s: float
    duration_s: float


class LiveCluster:
    """Servers, a queue, and a clock that the caller moves.

    After `submit`, `pass_until` and `end_now` the caller decides while `offered` is not -1.
    """

    def __init__(self, servers: Servers, params: SchedulingParams, seed: int = 0) -> None:
        slots = len(servers) * params.max_jobs + params.queue_limit + 1
        self.params = params
        self.arrays: SchedulingArrays = new_arrays(1, len(servers), slots, params.max_jobs)
        a = self.arrays
        a.settings[:] = params.columns()
        a.has_cpu[0], a.has_memory[0], a.speed[0] = servers.cpu, servers.memory, servers.speed
        a.seeds[0] = seed
        a.rate[0], a.next_work[0], a.counts[0, C_OFFERED] = servers.speed, np.inf, -1
        self._free = list(range(slots - 1, -1, -1))

    def __len__(self) -> int:
        """Servers."""
        return int(self.arrays.speed.shape[1])

    @property
    def clock_s(self) -> float:
        """Now."""
        return float(self.arrays.totals[0, T_CLOCK])

    @property
    def offered(self) -> int:
        """The slot of the job that is to be decided on; -1: none."""
        return int(self.arrays.counts[0, C_OFFERED])

    @property
    def waiting(self) -> list[int]:
        """Slots of the waiting jobs, in the queue's order."""
        found: list[int] = self.arrays.queue[0, : self.arrays.counts[0, C_QUEUED]].tolist()
        return found

    @property
    def queue_length(self) -> int:
        """Waiting jobs."""
        return int(self.arrays.counts[0, C_QUEUED])

    @property
    def running(self) -> int:
        """Jobs on servers."""
        return int(self.arrays.counts[0, C_RUNNING])

    @property
    def mean_slowdown(self) -> float:
        """Mean bounded slowdown, so far, of all that came: waiting ones count with what they have waited."""
        came = max(int(self.arrays.counts[0, C_NEXT]), 1)
        return 1.0 + float(self.arrays.totals[0, T_SLOWDOWN]) / came

    @property
    def mean_utilisation(self) -> float:
        """Mean over time and servers of cpu taken over cpu there."""
        return float(self.arrays.totals[0, T_BUSY]) / max(self.clock_s, 1e-9)

    def state(self, slot: int) -> str:
        """One of `layout.STATES`."""
        return STATES[int(self.arrays.status[0, slot])]

    def submit(self, demand: Demand) -> int:
        """A job comes now; its slot. It is offered, queued or rejected: see `offered` and `state`."""
        require(bool(self._free), "jobs", self.queue_length, f"{self.params.queue_limit} waiting at most")
        slot = self._fill(demand, self.clock_s)
        submit(slot, self.arrays)
        return slot

    def decide(self, choice: int) -> None:
        """Decide on the offered job: a server 0..S-1, S to hold it, S + 1 to reject it.

        What is not allowed becomes holding, or else the first server with room.
        """
        require(self.offered >= 0, "choice", choice, "given while a job is offered")
        settle(choice, self.arrays)

    def pass_until(self, clock_s: float) -> int:
        """Let time pass to `clock_s`, or to the end of a job before; the slot of the job that ended, or
        -1."""
        require(self.offered < 0, "clock_s", clock_s, "moved when the offered job is decided on")
        return int(pass_until(clock_s, self.arrays))

    def next_end_s(self) -> float:
        """When the next job ends by itself; infinite if none runs."""
        return self.clock_s + float(next_end(self.arrays)[0])

    def end_now(self, slot: int) -> None:
        """A running job ends before its time."""
        require(self.state(slot) == "running", "slot", slot, "a running job's")
        end_now(slot, self.arrays)

    def withdraw(self, slot: int) -> None:
        """A waiting job is taken back."""
        require(self.state(slot) == "queued", "slot", slot, "a waiting job's")
        withdraw(slot, self.arrays)

    def release(self, slot: int) -> None:
        """The slot of a job that is gone may be used again."""
        self._free.append(slot)

    def memory(self) -> dict[str, list[float]]:
        """What the scheduler has in its head besides the jobs: for `restore`."""
        totals, counts = self.arrays.totals[0], self.arrays.counts[0]
        return {
            "totals": [float(totals[k]) for k in REMEMBERED_TOTALS],
            "counts": [float(counts[k]) for k in REMEMBERED_COUNTS],
        }

    def restore(
        self,
        clock_s: float,
        memory: Mapping[str, Sequence[float]],
        running: Sequence[tuple[Demand, float, float, int]],
        waiting: Sequence[tuple[Demand, float]],
    ) -> list[int]:
        """Into an empty cluster: running jobs (demand, submitted, started, server) and waiting ones (demand,
        submitted) in the queue's order; their slots. Jobs that should have ended by `clock_s` end with the
        next `pass_until`."""
        a = self.arrays
        slots = []
        a.totals[0, list(REMEMBERED_TOTALS)] = memory["totals"]
        a.counts[0, list(REMEMBERED_COUNTS)] = np.asarray(memory["counts"], dtype=np.int64)
        for demand, submitted_s, started_s, server in running:
            slot = self._fill(demand, submitted_s)
            a.totals[0, T_CLOCK] = started_s
            a.work[0, server] = started_s * a.speed[0, server]
            _restore_running(slot, server, a)
            slots.append(slot)
        for demand, submitted_s in waiting:
            slots.append(self._fill(demand, submitted_s))
            _restore_waiting(slots[-1], a)
        a.totals[0, T_CLOCK] = clock_s
        a.work[0] = clock_s * a.speed[0]
        return slots

    def _fill(self, demand: Demand, submitted_s: float) -> int:
        slot, a = self._free.pop(), self.arrays
        a.cpu[0, slot], a.memory[0, slot] = demand.cpu, demand.memory
        a.estimate_s[0, slot], a.duration_s[0, slot] = demand.estimate_s, demand.duration_s
        a.submit_s[0, slot] = submitted_s
        a.status[0, slot], a.server[0, slot] = 0, -1
        return slot


__all__ = ["Demand", "LiveCluster"]
