"""Alibaba's cluster traces: batch tasks of 2017 and 2018, usage of machines and containers of 2018, and call
rates of microservices of 2021 and 2022.

Formats: cluster-trace-v2017/trace_201708.md, cluster-trace-v2018/schema.md and the READMEs of
cluster-trace-microservices-v2021 and -v2022 of the repository alibaba/clusterdata. The batch and usage
files have no header; the microservice files have one, with or without an index before it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from sim.errors import TraceError
from sim.loaders.base import Bins, Head, JobRows, Source, Wanted
from sim.traces import Jobs, Trace

STATES = ("Ready", "Waiting", "Running", "Terminated", "Failed", "Cancelled", "Interrupted")
TASK_2017 = "create_timestamp,modify_timestamp,job_id,task_id,instance_num,status,plan_cpu,plan_mem"
TASK_2018 = "task_name,instance_num,job_name,task_type,status,start_time,end_time,plan_cpu,plan_mem"
MACHINE_USAGE = (
    "machine_id,time_stamp,cpu_util_percent,mem_util_percent,mem_gps,mkpi,net_in,net_out,disk_io_percent"
)
CONTAINER_USAGE = (
    "container_id,machine_id,time_stamp,cpu_util_percent,mem_util_percent,cpi,mem_gps,mpki,net_in,net_out,"
    "disk_io_percent"
)
CORES_OPTION = {"machine_cores": "cores of a machine, by which the cpu asked for is divided"}


class _BatchTasks:
    """What both batch tables share: one row a task, cpu in hundredths of a core, fan-out in instance_num."""

    columns = 0
    names = ""
    cores = 1.0
    places: Mapping[str, int] = {}
    memory_scale = 1.0
    gives: Literal["rates", "jobs"] = "jobs"
    options: Mapping[str, str] = CORES_OPTION

    def sniff(self, head: Head) -> bool:
        rows = head.rows()
        state = self.places["status"]
        return bool(rows) and all(len(row) == self.columns and row[state] in STATES for row in rows)

    def load(self, source: Source, wanted: Wanted) -> Jobs:
        cores = wanted.number("machine_cores", self.cores)
        rows = JobRows()
        before = 0
        for row in source.rows():
            source.columns(row, self.columns, self.names)
            cell = {name: row[place] for name, place in self.places.items()}
            if cell["status"] not in STATES:
                raise source.refuse("status", cell["status"], "one of " + ", ".join(STATES))
            start_s = source.number("start", cell["start"])
            if start_s <= 0:  # it began before the trace
                before += 1
                continue
            end_s = source.optional("end", cell["end"], least=-math.inf)
            over = cell["status"] in ("Terminated", "Failed", "Cancelled") and end_s >= start_s
            cpu = source.optional("plan_cpu", cell["cpu"]) / (100.0 * cores)
            memory = source.optional("plan_mem", cell["memory"]) * self.memory_scale
            count = source.optional("instance_num", cell["instances"])
            instances = 1 if math.isnan(count) else max(int(count), 1)
            rows.add(start_s, end_s - start_s if over else math.nan, cpu, memory, instances)
        return rows.jobs(source, (f"{before} tasks from before the trace are left out",) if before else ())


class AlibabaBatch2017(_BatchTasks):
    """`batch_task.csv` of 2017: 8 columns, no header. A machine has 64 cores, memory is a share of one."""

    name = "alibaba-batch-2017"
    title = "Alibaba 2017, batch_task"
    columns = 8
    names = TASK_2017
    cores = 64.0
    places = {"start": 0, "end": 1, "instances": 4, "status": 5, "cpu": 6, "memory": 7}  # noqa: RUF012


class AlibabaBatch2018(_BatchTasks):
    """`batch_task.csv` of 2018: 9 columns, no header. A machine has 96 cores, memory is in its hundredths."""

    name = "alibaba-batch-2018"
    title = "Alibaba 2018, batch_task"
    columns = 9
    names = TASK_2018
    cores = 96.0
    memory_scale = 0.01
    places = {"start": 5, "end": 6, "instances": 1, "status": 4, "cpu": 7, "memory": 8}  # noqa: RUF012


class AlibabaUsage2018:
    """`machine_usage.csv` (9 columns) and `container_usage.csv` (11 columns) of 2018, no header.

    Gives the mean utilisation over all machines (or containers) in each bin, in percent: no request rate,
    but a load to scale by. A bin without any sample is a gap.
    """

    name = "alibaba-usage-2018"
    title = "Alibaba 2018, machine_usage or container_usage (utilisation, %)"
    gives: Literal["rates", "jobs"] = "rates"
    options: Mapping[str, str] = {
        "measure": "cpu (default) or memory",
        "id": "only the machine or container of this name",
    }

    def sniff(self, head: Head) -> bool:
        rows = head.rows()
        return bool(rows) and all(
            (len(row) == 9 and row[0].startswith("m_") and _is_number(row[1]))
            or (len(row) == 11 and row[0].startswith("c_") and row[1].startswith("m_") and _is_number(row[2]))
            for row in rows
        )

    def load(self, source: Source, wanted: Wanted) -> Trace:
        memory = wanted.choice("measure", ("cpu", "memory")) == "memory"
        only = wanted.text("id")
        sums, counts = Bins(wanted.bin_s, str(source.path)), Bins(wanted.bin_s, str(source.path))
        container = None
        for row in source.rows():
            container = row[0].startswith("c_") if container is None else container
            source.columns(row, 11 if container else 9, CONTAINER_USAGE if container else MACHINE_USAGE)
            if only and row[0] != only:
                continue
            time_s = source.number("time_stamp", row[1 + container])
            text = row[2 + container + memory]
            used = source.optional("util_percent", text, least=-1.0)
            if 0 <= used <= 100:  # -1 and 101 mark what could not be measured
                sums.add(time_s, used)
                counts.add(time_s)
        times, total = sums.sums()
        _, samples = counts.sums()
        seen = samples > 0
        unit = "% memory" if memory else "% cpu"
        return Trace(times[seen], total[seen] / samples[seen], source.name, unit=unit)


class AlibabaMicroservices:
    """Microservices' MSRTQps (2021), MSRTMCR (2022), MSCallGraph or MSResource (both), with a header.

    In MSRTQps a row is one metric of one instance in one minute, in MSRTMCR all of them, the rates there
    normalised to 0..1 by their highest; a minute's rates are added over instances. In MSCallGraph a row is
    a call; those with a negative response time are the callee's copy of a call and are left out. In
    MSResource a row is an instance's utilisation: their mean is given. Stamps are milliseconds.
    """

    name = "alibaba-microservices"
    title = "Alibaba microservices 2021 and 2022: MSRTQps, MSRTMCR, MSCallGraph or MSResource"
    gives: Literal["rates", "jobs"] = "rates"
    options: Mapping[str, str] = {
        "service": "only this microservice (msname, or dm of a call graph)",
        "metric": "call rate to add: providerRPC_MCR (default), HTTP_MCR, consumerRPC_MCR and so on",
    }

    def sniff(self, head: Head) -> bool:
        return self._kind(head.header()) != ""

    def load(self, source: Source, wanted: Wanted) -> Trace:
        rows = source.rows()
        header = [cell.strip().lower() for cell in next(rows, [])]
        kind = self._kind(header)
        if not kind:
            raise source.refuse(
                "header", ",".join(header), "that of MSRTQps, MSRTMCR, MSCallGraph or MSResource"
            )
        place = {name: index for index, name in enumerate(header)}
        if kind == "calls":
            return self._calls(source, wanted, rows, place)
        if kind == "usage":
            return self._usage(source, wanted, rows, place)
        return self._rates(source, wanted, rows, place, kind)

    def _kind(self, header: list[str]) -> str:
        names = set(header)
        if {"timestamp", "traceid", "um", "dm", "rt"} <= names:
            return "calls"
        if {"timestamp", "msname", "msinstanceid", "value"} <= names and names & {"metric", "metrics"}:
            return "long"
        if not {"timestamp", "msname", "msinstanceid"} <= names:
            return ""
        return "wide" if "providerrpc_mcr" in names else ("usage" if _cpu_column(header) >= 0 else "")

    def _calls(self, source: Source, wanted: Wanted, rows, place) -> Trace:  # type: ignore[no-untyped-def]
        only = wanted.text("service")
        bins = Bins(wanted.bin_s, str(source.path))
        for row in rows:
            if source.line == 1:
                continue
            self._long_enough(source, row, place)
            time_s = source.number("timestamp", row[place["timestamp"]], least=0.0) / 1000.0
            rt = source.optional("rt", row[place["rt"]], least=-math.inf)
            if not rt < 0 and (not only or row[place["dm"]] == only):
                bins.add(time_s)
        times, rates = bins.rates()
        return Trace(times, rates, source.name, unit="calls/s")

    def _rates(self, source: Source, wanted: Wanted, rows, place, kind: str) -> Trace:  # type: ignore[no-untyped-def]
        only, metric = wanted.text("service"), wanted.text("metric", "providerRPC_MCR").lower()
        if not metric.endswith("_mcr") or (kind == "wide" and metric not in place):
            known = (
                ", ".join(name for name in place if name.endswith("_mcr")) or "a call rate that ends in _MCR"
            )
            raise TraceError(f"{source.path}: option metric {metric!r} is not allowed, must be {known}")
        which = place.get("metric", place.get("metrics", -1))
        value_at = place[metric] if kind == "wide" else place["value"]
        totals: dict[float, float] = {}
        for row in rows:
            if source.line == 1:
                continue
            self._long_enough(source, row, place)
            if (only and row[place["msname"]] != only) or (kind == "long" and row[which].lower() != metric):
                continue
            value = source.optional(metric, row[value_at])
            if not math.isnan(value):
                time_s = source.number("timestamp", row[place["timestamp"]], least=0.0) / 1000.0
                totals[time_s] = totals.get(time_s, 0.0) + value
        if len(totals) < 2:
            raise TraceError(
                f"{source.path}: {len(totals)} minutes of {metric} are not enough, at least 2 are needed"
            )
        times = np.array(sorted(totals))
        unit = "calls/s" if kind == "long" else "calls (normalised)"
        return Trace(times, np.array([totals[time] for time in times]), source.name, unit=unit)

    def _usage(self, source: Source, wanted: Wanted, rows, place) -> Trace:  # type: ignore[no-untyped-def]
        only, value_at = wanted.text("service"), _cpu_column(list(place))
        sums, counts = Bins(wanted.bin_s, str(source.path)), Bins(wanted.bin_s, str(source.path))
        for row in rows:
            if source.line == 1:
                continue
            self._long_enough(source, row, place)
            value = source.optional("cpu_utilization", row[value_at])
            if (not only or row[place["msname"]] == only) and not math.isnan(value):
                time_s = source.number("timestamp", row[place["timestamp"]], least=0.0) / 1000.0
                sums.add(time_s, value)
                counts.add(time_s)
        times, total = sums.sums()
        _, samples = counts.sums()
        seen = samples > 0
        return Trace(times[seen], total[seen] / samples[seen], source.name, unit="cpu share")

    def _long_enough(self, source: Source, row: list[str], place: Mapping[str, int]) -> None:
        if len(row) < len(place):
            raise source.error(f"{','.join(row)[:80]!r} has {len(row)} columns, must have {len(place)}")


def _cpu_column(header: list[str]) -> int:
    """Where the cpu's utilisation stands: cpu_utilization in the documentation, other names in some files."""
    return next((at for at, name in enumerate(header) if "cpu" in name), -1)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
