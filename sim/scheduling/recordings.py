"""Recordings of jobs as workloads: what can be scheduled of them, cut into windows. `training.schedulers`
calls it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sim.errors import TraceError, require
from sim.scheduling.params import Workload
from sim.traces import Jobs

SHORTEST_S = 0.5
"""Durations are counted in seconds in most recordings: 0 is taken as this."""


@dataclass(frozen=True, eq=False)
class Recording:
    """The jobs of a recording that can be scheduled. notes: what was left out, or had to be assumed."""

    workload: Workload
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.workload)

    def windows(self, count: int, jobs: int) -> list[Workload]:
        """`count` windows of `jobs` jobs each, spread evenly over the recording, each from second 0 on.

        Raises TraceError where they would overlap.
        """
        require(count >= 1 and jobs >= 2, "windows, jobs", (count, jobs), "at least 1 window of 2 jobs")
        if count * jobs > len(self):
            most = len(self) // jobs
            raise TraceError(
                f"{self.workload.name}: {count} windows of {jobs} jobs are not allowed, its "
                f"{len(self)} jobs give {most} at most"
            )
        starts = [(len(self) - jobs) * k // max(count - 1, 1) for k in range(count)]
        return [self._cut(start, jobs) for start in starts]

    def _cut(self, start: int, jobs: int) -> Workload:
        whole, part = self.workload, slice(start, start + jobs)
        submit = whole.submit_s[part] - whole.submit_s[start]
        name = f"{whole.name}@{start}"
        return Workload(submit, whole.duration_s[part], whole.cpu[part], whole.memory[part], name=name)


def recording(jobs: Jobs, copies: int = 1) -> Recording:
    """What can be scheduled of `jobs`. Rows without a duration or a demand of cpu, and those that ask for
    more than a machine, are left out, and counted in the notes; an unknown memory is taken as none.

    Servers are as large as the largest job needs, rounded up to a half, a quarter, an eighth (and so on) of a
    machine, and demands are counted in such servers: a few whole machines would hold hundreds of the small
    jobs of some recordings at once, and nobody would ever wait. copies: a job with several instances becomes
    as many jobs, at most these. Raises TraceError if nothing is left.
    """
    require(copies >= 1, "copies", copies, "1 or more")
    unknown = np.isnan(jobs.duration_s)
    aimless = ~unknown & (np.isnan(jobs.cpu) | (jobs.cpu <= 0))
    memory = np.nan_to_num(jobs.memory)
    large = ~unknown & ~aimless & ((jobs.cpu > 1.0) | (memory > 1.0))
    kept = ~(unknown | aimless | large)
    notes = [*jobs.notes]
    for rows, why in (
        (unknown, "without a duration"),
        (aimless, "without a demand of cpu"),
        (large, "larger than a machine"),
    ):  # fmt: skip
        if rows.any():
            notes.append(f"{int(rows.sum())} of {len(jobs)} jobs left out: {why}")
    if not kept.any():
        raise TraceError(f"{jobs.name}: none of its {len(jobs)} jobs can be scheduled: {'; '.join(notes)}")
    if np.isnan(jobs.memory[kept]).any():
        notes.append("memory unknown, taken as none")
    if (jobs.copies[kept] > copies).any():
        notes.append(f"instances beyond {copies} of a job are not counted")
    largest = max(float(jobs.cpu[kept].max()), float(memory[kept].max()))
    parts = 2 ** math.floor(-math.log2(largest) + 1e-9)
    if parts > 1:
        notes.append(f"servers are 1/{parts} of its machines: the largest job takes {largest:.3g} of one")
    times = np.minimum(jobs.copies[kept], copies)
    columns = (jobs.submit_s, np.maximum(jobs.duration_s, SHORTEST_S), jobs.cpu * parts, memory * parts)
    submit, duration, cpu, asked = (np.repeat(column[kept], times) for column in columns)
    workload = Workload(submit - submit[0], duration, cpu, asked, name=jobs.name)
    return Recording(workload, tuple(notes))
