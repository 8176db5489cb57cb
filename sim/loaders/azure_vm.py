"""Azure's virtual machines: `vmtable.csv` of the traces of 2017 (V1) and 2019 (V2), a machine being a job.

Format: AzurePublicDatasetV1.md and ...V2.md of the repository Azure/AzurePublicDataset; 11 columns, no
header.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from sim.loaders.base import Head, JobRows, Source, Wanted
from sim.traces import Jobs

COLUMNS = (
    "vmid,subscriptionid,deploymentid,vmcreated,vmdeleted,maxcpu,avgcpu,p95maxcpu,vmcategory,"
    "vmcorecount,vmmemory"
)
CATEGORIES = ("Delay-insensitive", "Interactive", "Unknown")
LAST_S = 2_591_400.0
"""Stamps from here on are the trace's end: the machine still ran."""


class AzureVms:
    """One row a virtual machine; cores and memory (GB) over the host's. A bucket `>24` counts as 30 cores."""

    name = "azure-vm"
    title = "Azure virtual machines 2017 and 2019, vmtable"
    gives: Literal["rates", "jobs"] = "jobs"
    options: Mapping[str, str] = {
        "machine_cores": "cores of a host; default: 16 (the largest flavour of 2017)",
        "machine_memory": "memory of a host in GB; default: 112",
        "last": "seconds from which on an end means that the trace ended; default: 2591400",
    }

    def sniff(self, head: Head) -> bool:
        rows = head.rows()
        return bool(rows) and all(len(row) == 11 and row[8] in CATEGORIES for row in rows)

    def load(self, source: Source, wanted: Wanted) -> Jobs:
        cores, memory_gb = wanted.number("machine_cores", 16.0), wanted.number("machine_memory", 112.0)
        last = wanted.number("last", LAST_S)
        rows, running = JobRows(), 0
        for row in source.rows():
            source.columns(row, 11, COLUMNS)
            created = source.number("vmcreated", row[3], least=0.0)
            deleted = source.number("vmdeleted", row[4], least=created)
            cpu = source.number("vmcorecount", self._bucket(row[9], "30"), least=0.0) / cores
            memory = source.number("vmmemory", self._bucket(row[10], "70"), least=0.0) / memory_gb
            running += deleted >= last
            rows.add(created, deleted - created if deleted < last else math.nan, cpu, memory)
        notes = (f"{running} machines still ran at the end: their duration is unknown",) if running else ()
        return rows.jobs(source, notes)

    def _bucket(self, text: str, open_end: str) -> str:
        """V2 gives buckets; the last of them has no end."""
        return open_end if text.startswith(">") else text
