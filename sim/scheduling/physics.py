"""`SchedulingPhysics`: the arrays of N clusters and the methods that call the compiled kernels on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.errors import require
from sim.scheduling.events import act, begin
from sim.scheduling.heuristics import HEURISTICS, choose, run_to_the_end
from sim.scheduling.layout import (
    C_FINISHED,
    C_JOBS,
    C_NEXT,
    C_OFFERED,
    C_QUEUED,
    C_REJECTED,
    C_RUNNING,
    FINISHED,
    REJECTED,
    T_BUSY,
    T_CLOCK,
    T_IMBALANCE,
    T_OVERLOAD,
    BoolArray,
    FloatArray,
    IntArray,
    new_arrays,
)
from sim.scheduling.masks import action_masks
from sim.scheduling.params import SchedulingParams, Servers, Workload


@dataclass(frozen=True)
class Outcome:
    """What came of the jobs of one cluster, arrays `[J]`; NaN for jobs that have not started or finished.

    slowdown: (wait + run) over the longer of duration and `bound_s`, at least 1: Feitelson's bounded
    slowdown.
    """

    slowdown: FloatArray
    wait_s: FloatArray
    rejected: BoolArray
    server: IntArray
    utilisation: float
    """Mean over time and servers of cpu taken over cpu there."""
    imbalance: float
    """Mean over time of its standard deviation over servers."""
    overload: float
    """Mean over time and servers of cpu taken beyond what is there."""
    span_s: float
    """From second 0 to the last event."""


class SchedulingPhysics:
    """N clusters of up to `servers` servers with up to `jobs` jobs each.

    `offered` tells which job each cluster is to decide on; `act` decides and lets time pass to the next.
    """

    def __init__(
        self, clusters: int, servers: int, jobs: int, params: SchedulingParams | None = None
    ) -> None:
        for name, value in (("clusters", clusters), ("servers", servers), ("jobs", jobs)):
            require(value >= 1, name, value, "1 or more")
        self.params = params or SchedulingParams()
        self.arrays = new_arrays(clusters, servers, jobs, self.params.max_jobs)
        self.arrays.settings[:] = self.params.columns()

    def __len__(self) -> int:
        return len(self.arrays.seeds)

    @property
    def servers(self) -> int:
        """The most servers that a cluster can have, S."""
        return int(self.arrays.speed.shape[1])

    def load(self, row: int, servers: Servers, workload: Workload, seed: int = 0) -> None:
        """Give a cluster its servers and jobs; `begin` starts it. seed: of heuristics that draw."""
        a = self.arrays
        require(len(servers) <= self.servers, "servers", len(servers), f"at most {self.servers}")
        require(len(workload) <= a.submit_s.shape[1], "jobs", len(workload), f"at most {a.submit_s.shape[1]}")
        for name in ("submit_s", "duration_s", "estimate_s", "cpu", "memory"):
            getattr(a, name)[row, : len(workload)] = getattr(workload, name)
        for name, values in (
            ("has_cpu", servers.cpu), ("has_memory", servers.memory), ("speed", servers.speed),
        ):  # fmt: skip
            getattr(a, name)[row] = 0.0
            getattr(a, name)[row, : len(servers)] = values
        a.counts[row, C_JOBS] = len(workload)
        a.seeds[row] = seed

    def begin(self, rows: IntArray | None = None) -> None:
        """Empty clusters at second 0, and on to the first offer."""
        begin(np.arange(len(self)) if rows is None else np.asarray(rows), self.arrays)

    def act(self, choices: IntArray) -> None:
        """Decide in every cluster that has an offer: a server 0..S-1, S to hold, S + 1 to reject."""
        act(np.asarray(choices, dtype=np.int64), self.arrays)

    def choose(self, heuristic: str) -> IntArray:
        """What a heuristic would decide now, `[N]`."""
        return np.asarray(choose(code_of(heuristic), self.arrays))

    def run(self, heuristic: str, rows: IntArray | None = None, drain: bool = True) -> None:
        """Let a heuristic decide until all jobs are finished, or (without `drain`) until the last has
        come."""
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows)
        run_to_the_end(code_of(heuristic), chosen, drain, self.arrays)

    def masks(self) -> BoolArray:
        """What is allowed now: bool `[N, S + 2]`; only holding where nothing is offered."""
        masks = np.empty((len(self), self.servers + 2), dtype=np.bool_)
        action_masks(self.arrays, masks)
        return masks

    @property
    def offered(self) -> IntArray:
        """The job on offer `[N]`; -1 where the cluster is done."""
        return self.arrays.counts[:, C_OFFERED]

    @property
    def arriving(self) -> BoolArray:
        """Whether jobs are still to come `[N]`."""
        return self.arrays.counts[:, C_NEXT] < self.arrays.counts[:, C_JOBS]

    def counts(self) -> dict[str, IntArray]:
        """How many jobs are in each state, `[N]` each."""
        c = self.arrays.counts
        return {
            "to come": c[:, C_JOBS] - c[:, C_NEXT],
            "queued": c[:, C_QUEUED],
            "running": c[:, C_RUNNING],
            "finished": c[:, C_FINISHED],
            "rejected": c[:, C_REJECTED],
        }

    def outcome(self, row: int) -> Outcome:
        """What came of a cluster's jobs."""
        a, jobs = self.arrays, int(self.arrays.counts[row, C_JOBS])
        submit, duration, status = a.submit_s[row, :jobs], a.duration_s[row, :jobs], a.status[row, :jobs]
        totals, span = a.totals[row], max(float(a.totals[row, T_CLOCK]), 1e-12)
        done = status == FINISHED
        flow = (a.end_s[row, :jobs] - submit) / np.maximum(duration, self.params.bound_s)
        slowdown = np.where(done, np.maximum(flow, 1.0), np.nan)
        return Outcome(
            slowdown,
            a.start_s[row, :jobs] - submit,
            status == REJECTED,
            a.server[row, :jobs].copy(),
            float(totals[T_BUSY] / span),
            float(totals[T_IMBALANCE] / span),
            float(totals[T_OVERLOAD] / span),
            span,
        )


def code_of(heuristic: str) -> int:
    """The number of a heuristic; ParameterError for a name that is none."""
    require(heuristic in HEURISTICS, "heuristic", heuristic, f"one of {', '.join(HEURISTICS)}")
    return list(HEURISTICS).index(heuristic)


def run_heuristic(
    heuristic: str,
    servers: Servers,
    workloads: Sequence[Workload],
    params: SchedulingParams | None = None,
    seed: int = 0,
) -> list[Outcome]:
    """Each workload on a cluster of its own, scheduled by a heuristic to the end."""
    physics = SchedulingPhysics(len(workloads), len(servers), max(map(len, workloads)), params)
    for row, workload in enumerate(workloads):
        physics.load(row, servers, workload, seed + row)
    physics.begin()
    physics.run(heuristic)
    return [physics.outcome(row) for row in range(len(workloads))]
