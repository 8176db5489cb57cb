"""Google's cluster-usage traces: task events of 2011 (version 2, CSV) and instance or collection events of
2019 (version 3, JSON lines).

Formats: Reiss, Wilkes and Hellerstein, "Google cluster-usage traces: format + schema", version 2.1 (2014),
and version 3 (2020, with clusterdata_trace_format_v3.proto). Both have stamps in microseconds that begin
600 s before the trace; 0 means before the trace and 2^63 - 1 after it. Resources are relative to the largest
machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sim.loaders.base import Head, JobRows, Source, Wanted
from sim.traces import Jobs

START_S = 600.0
AFTER_US = 2**63 - 1
COLUMNS_2011 = (
    "timestamp,missing info,job ID,task index,machine ID,event type,user,scheduling class,priority,"
    "CPU request,memory request,disk space request,different-machine constraint"
)
EVENTS_2019 = (
    "SUBMIT", "QUEUE", "ENABLE", "SCHEDULE", "EVICT", "FAIL", "FINISH", "KILL", "LOST",
    "UPDATE_PENDING", "UPDATE_RUNNING",
)  # fmt: skip


@dataclass(slots=True)
class _Task:
    """A task under way: when it was submitted, since when it runs (NaN: not), how long it ran before."""

    submit_s: float
    cpu: float
    memory: float
    since_s: float = math.nan
    ran_s: float = 0.0
    started: bool = False


class _Lives:
    """From events to jobs, with memory only for tasks that are not over.

    A task counts once, when it is first submitted, however often it is evicted or fails and is scheduled
    again; its duration is the time it ran in all. Tasks from before the trace are left out; those that do
    not end in it have an unknown duration.
    """

    def __init__(self) -> None:
        self._tasks: dict[Any, _Task] = {}
        self._rows = JobRows()

    def submit(self, key: Any, time_s: float, cpu: float, memory: float) -> None:
        if key not in self._tasks:
            self._tasks[key] = _Task(time_s, cpu, memory)

    def schedule(self, key: Any, time_s: float) -> None:
        task = self._tasks.get(key)
        if task is not None and math.isnan(task.since_s):
            task.since_s, task.started = time_s, True

    def stop(self, key: Any, time_s: float, for_good: bool) -> None:
        task = self._tasks.get(key)
        if task is None:
            return
        if not math.isnan(task.since_s):
            task.ran_s += max(time_s - task.since_s, 0.0)
            task.since_s = math.nan
        if for_good:
            self._close(self._tasks.pop(key), task.ran_s)

    def update(self, key: Any, cpu: float, memory: float) -> None:
        task = self._tasks.get(key)
        if task is not None:
            task.cpu = task.cpu if math.isnan(cpu) else cpu
            task.memory = task.memory if math.isnan(memory) else memory

    def _close(self, task: _Task, duration_s: float) -> None:
        self._rows.add(task.submit_s, duration_s, task.cpu, task.memory)

    def jobs(self, source: Source) -> Jobs:
        for task in self._tasks.values():
            self._close(task, math.nan)
        open_tasks = len(self._tasks)
        self._tasks.clear()
        notes = (f"{open_tasks} tasks have not ended: their duration is unknown",) if open_tasks else ()
        return self._rows.jobs(source, notes)


class GoogleTaskEvents2011:
    """`task_events/part-?????-of-00500.csv.gz`: 13 columns, no header, sorted by time."""

    name = "google-2011"
    title = "Google cluster-usage 2011, task_events"
    gives: Literal["rates", "jobs"] = "jobs"
    options: Mapping[str, str] = {}

    def sniff(self, head: Head) -> bool:
        rows = head.rows()
        return bool(rows) and all(
            len(row) == 13 and row[0].isdigit() and row[2].isdigit() and row[5] in set("012345678")
            for row in rows
        )

    def load(self, source: Source, wanted: Wanted) -> Jobs:
        lives = _Lives()
        for row in source.rows():
            source.columns(row, 13, COLUMNS_2011)
            time_us = source.number("timestamp", row[0], least=0.0)
            if row[5] not in "012345678" or len(row[5]) != 1:
                raise source.refuse("event type", row[5], "0 submit .. 8 update running")
            if 0 < time_us < AFTER_US:
                key = (row[2], row[3])
                self._event(source, lives, key, int(row[5]), time_us / 1e6 - START_S, row)
        return lives.jobs(source)

    def _event(
        self, source: Source, lives: _Lives, key: Any, event: int, time_s: float, row: list[str]
    ) -> None:
        if event == 1:
            lives.schedule(key, time_s)
        elif event in (2, 3, 6):  # evicted, failed or lost: it may be submitted again
            lives.stop(key, time_s, for_good=False)
        elif event in (4, 5):
            lives.stop(key, time_s, for_good=True)
        else:
            cpu = source.optional("CPU request", row[9])
            memory = source.optional("memory request", row[10])
            lives.submit(key, time_s, cpu, memory) if event == 0 else lives.update(key, cpu, memory)


class GoogleEvents2019:
    """`instance_events-*.json.gz` or `collection_events-*.json.gz`: one JSON object a line.

    Whole numbers may be text, as BigQuery exports them; event types numbers or names; a field that is left
    out is 0. Alloc sets (collection_type 1) are reservations, no work, and are left out.
    """

    name = "google-2019"
    title = "Google cluster-usage 2019, instance_events or collection_events"
    gives: Literal["rates", "jobs"] = "jobs"
    options: Mapping[str, str] = {}

    def sniff(self, head: Head) -> bool:
        try:
            event = json.loads(head.first)
        except ValueError:
            return False
        return isinstance(event, dict) and "collection_id" in event and {"time", "type"} & set(event) != set()

    def load(self, source: Source, wanted: Wanted) -> Jobs:
        lives = _Lives()
        for event in self._events(source):
            if self._whole(source, event, "collection_type", ("JOB", "ALLOC_SET")) == 1:
                continue
            time_us = self._whole(source, event, "time")
            if 0 < time_us < AFTER_US:
                self._apply(source, lives, event, time_us / 1e6 - START_S)
        return lives.jobs(source)

    def _events(self, source: Source) -> Iterator[dict[str, Any]]:
        for line in source.lines():
            try:
                event = json.loads(line)
            except ValueError as error:
                raise source.error(f"{line[:60]!r} is no JSON: {error}") from error
            if not isinstance(event, dict) or "collection_id" not in event:
                raise source.refuse("event", line[:60], "an object with time, type and collection_id")
            yield event

    def _apply(self, source: Source, lives: _Lives, event: dict[str, Any], time_s: float) -> None:
        kind = self._whole(source, event, "type", EVENTS_2019)
        key = (event["collection_id"], event.get("instance_index"))
        asked = event.get("resource_request") or {}
        cpu = source.optional("resource_request.cpus", str(asked.get("cpus", "")))
        memory = source.optional("resource_request.memory", str(asked.get("memory", "")))
        if kind == 0:
            lives.submit(key, time_s, cpu, memory)
        elif kind == 3:
            lives.schedule(key, time_s)
        elif kind in (4, 5, 8):
            lives.stop(key, time_s, for_good=False)
        elif kind in (6, 7):
            lives.stop(key, time_s, for_good=True)
        elif kind in (9, 10):
            lives.update(key, cpu, memory)

    def _whole(self, source: Source, event: dict[str, Any], name: str, words: tuple[str, ...] = ()) -> int:
        value = event.get(name, 0)
        if value in words:
            return words.index(value)
        try:
            number = int(value)
        except (TypeError, ValueError):
            number = -1
        if number < 0 or (words and number >= len(words)):
            among = " or one of " + ", ".join(words) if words else ""
            raise source.refuse(name, value, f"0 or more{among}")
        return number
