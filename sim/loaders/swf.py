"""The Standard Workload Format of the Parallel Workloads Archive: jobs of parallel machines.

Format: Chapin et al., "Benchmarks and Standards for the Evaluation of Parallel Job Schedulers", JSSPP 1999;
18 fields a line, parted by blanks, -1 where a value is not known; header lines begin with `;`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from sim.loaders.base import Head, JobRows, Source, Wanted
from sim.traces import Jobs

FIELDS = 18
NAMES = (
    "job number, submit, wait, run time, processors, cpu time, memory, requested processors, requested time, "
    "requested memory, status, user, group, executable, queue, partition, preceding job, think time"
)
SIZES = ("maxprocs", "maxnodes")


class StandardWorkload:
    """One line a job. cpu is the job's processors over the whole machine's (`MaxProcs` of the header)."""

    name = "swf"
    title = "Standard Workload Format (Parallel Workloads Archive)"
    gives: Literal["rates", "jobs"] = "jobs"
    options: Mapping[str, str] = {
        "processors": "processors of the machine; default: MaxProcs or MaxNodes of the header"
    }

    def sniff(self, head: Head) -> bool:
        rows = [line.split() for line in head.lines if not line.startswith(";")]
        return bool(rows) and all(len(row) == FIELDS and row[0].isdigit() for row in rows[:20])

    def load(self, source: Source, wanted: Wanted) -> Jobs:
        machine = wanted.number("processors", 1.0) if "processors" in wanted.options else 0.0
        from_header = machine == 0.0
        rows, stopped = JobRows(), 0
        for line in source.lines():
            if line.startswith(";"):
                machine = max(machine, self._size(source, line)) if from_header else machine
                continue
            if machine == 0.0:
                raise source.error("the header has no MaxProcs and no MaxNodes: give the option processors")
            row = line.split()
            source.columns(row, FIELDS, NAMES)
            submit_s = source.number("submit", row[1], least=0.0)
            run_s = source.number("run time", row[3], least=-1.0)
            counts = [source.number("processors", row[place], least=-1.0) for place in (4, 7)]
            processors = next((count for count in counts if count > 0), math.nan)
            stopped += run_s < 0
            rows.add(submit_s, run_s if run_s >= 0 else math.nan, processors / machine, math.nan)
        notes = (f"{stopped} jobs have no run time: their duration is unknown",) if stopped else ()
        return rows.jobs(source, notes)

    def _size(self, source: Source, line: str) -> float:
        """Processors that a header line says the machine has; 0 if it says something else."""
        name, _, value = line.lstrip("; \t").partition(":")
        if name.strip().lower() not in SIZES or not value.split():
            return 0.0
        return source.number(name.strip(), value.split()[0], least=1.0)
