"""The project's own files: rates (`timestamp_s,requests_per_s`), jobs (`submit_s,duration_s,cpu,memory`) and
single requests (`arrival_s,...`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from sim.errors import TraceError
from sim.loaders.base import Bins, Head, JobRows, Source, Wanted
from sim.traces import HEADER, JOB_HEADER, Jobs, Trace


class ProjectRates:
    """Rates in requests/s, one row a bin; further columns are ignored."""

    name = "csv"
    title = "rates: timestamp_s,requests_per_s"
    gives: Literal["rates", "jobs"] = "rates"
    options: Mapping[str, str] = {}

    def sniff(self, head: Head) -> bool:
        return tuple(head.header()[:2]) == HEADER

    def load(self, source: Source, wanted: Wanted) -> Trace:
        rows = source.rows()
        first = next(rows, [])
        source.line = max(source.line, 1)
        if tuple(cell.strip().lower() for cell in first[:2]) != HEADER:
            raise source.error(f"header {','.join(first)!r} is not allowed, must be {','.join(HEADER)}")
        times: list[float] = []
        rates: list[float] = []
        for row in rows:
            if source.line == 1:  # the next part's header
                continue
            if len(row) < 2:
                raise source.error(f"{','.join(row)!r} has {len(row)} column, must have 2")
            time = source.number("timestamp_s", row[0])
            rates.append(source.number("requests_per_s", row[1], least=0.0))
            if times and time <= times[-1]:
                raise source.refuse("timestamp_s", row[0], f"greater than the {times[-1]:g} before it")
            times.append(time)
        if len(times) < 2:
            raise TraceError(f"{source.path}: {len(times)} rows are not enough, at least 2 are needed")
        return Trace(np.array(times), np.array(rates), source.name)


class ProjectJobs:
    """Jobs, one row each; an empty cell is unknown. A further column `instances` counts copies of the job."""

    name = "jobs"
    title = "jobs: submit_s,duration_s,cpu,memory (1.0 = one machine)"
    gives: Literal["rates", "jobs"] = "jobs"
    options: Mapping[str, str] = {}

    def sniff(self, head: Head) -> bool:
        return tuple(head.header()[:4]) == JOB_HEADER

    def load(self, source: Source, wanted: Wanted) -> Jobs:
        found = source.rows()
        header = [cell.strip().lower() for cell in next(found, [])]
        source.line = max(source.line, 1)
        if tuple(header[:4]) != JOB_HEADER:
            raise source.error(f"header {','.join(header)!r} is not allowed, must be {','.join(JOB_HEADER)}")
        copies = header.index("instances") if "instances" in header else None
        rows = JobRows()
        for row in found:
            if source.line == 1:
                continue
            if len(row) < 4:
                raise source.error(
                    f"{','.join(row)!r} has {len(row)} columns, must have 4: {','.join(JOB_HEADER)}"
                )
            values = [source.optional(n, cell) for n, cell in zip(JOB_HEADER[1:], row[1:4], strict=True)]
            count = 1.0
            if copies is not None and len(row) > copies:
                count = source.optional("instances", row[copies], least=1.0)
            submit_s = source.number("submit_s", row[0])
            duration_s, cpu, memory = values
            rows.add(submit_s, duration_s, cpu, memory, 1 if math.isnan(count) else int(count))
        return rows.jobs(source)


class ProjectRequests:
    """Single requests, one row each, told by their first column `arrival_s`; the others are ignored."""

    name = "requests"
    title = "requests: arrival_s,..., one row each"
    gives: Literal["rates", "jobs"] = "rates"
    options: Mapping[str, str] = {}

    def sniff(self, head: Head) -> bool:
        return head.header()[:1] == ["arrival_s"]

    def load(self, source: Source, wanted: Wanted) -> Trace:
        rows = source.rows()
        header = next(rows, [])
        source.line = max(source.line, 1)
        if [cell.strip().lower() for cell in header[:1]] != ["arrival_s"]:
            raise source.error(f"header {','.join(header)!r} is not allowed, must begin with arrival_s")
        bins = Bins(wanted.bin_s, str(source.path))
        for row in rows:
            if source.line > 1:
                bins.add(source.number("arrival_s", row[0]))
        times, rates = bins.rates()
        return Trace(times, rates, source.name)
