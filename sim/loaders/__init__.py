"""Loaders of recorded traffic, one file a family of formats, behind one registry.

`sim.traces.load_trace` and `load_jobs` call `read`. A new format is a class with the members of
`base.Loader`, added to `LOADERS` before `table`, which takes whatever looks like stamps and values.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sim.errors import TraceError
from sim.loaders import access_log, alibaba, azure, azure_vm, google, project, prometheus, swf, table
from sim.loaders.base import Head, Loader, Source, Wanted
from sim.traces import Jobs, Trace

__all__ = ["LOADERS", "Head", "Loader", "Source", "Wanted", "read", "recognise"]

_IN_ORDER: tuple[Loader, ...] = (
    project.ProjectRates(),
    project.ProjectJobs(),
    project.ProjectRequests(),
    azure.AzureFunctions2019(),
    azure.AzureLlm(),
    alibaba.AlibabaMicroservices(),
    google.GoogleEvents2019(),
    prometheus.PrometheusRange(),
    google.GoogleTaskEvents2011(),
    azure_vm.AzureVms(),
    swf.StandardWorkload(),
    alibaba.AlibabaBatch2018(),
    alibaba.AlibabaBatch2017(),
    alibaba.AlibabaUsage2018(),
    access_log.AccessLog(),
    table.Table(),
)
LOADERS: dict[str, Loader] = {loader.name: loader for loader in _IN_ORDER}
"""Every format by its name, in the order in which they are tried."""


def read(
    path: str | Path,
    format: str = "auto",
    bin_s: float = 60.0,
    progress: bool | None = None,
    options: Mapping[str, Any] | None = None,
) -> Trace | Jobs:
    """Read a recording: rates, or jobs from a format that tells of jobs.

    Raises TraceError for a file that cannot be read, an unknown format or option, and any bad line.
    """
    if format != "auto" and format not in LOADERS:
        raise TraceError(f"format: {format!r} is not allowed, must be auto or {_one_of(format, LOADERS)}")
    source = Source(path, progress)
    head = source.head()
    if not head.lines:
        raise TraceError(f"{source.parts[0]}: is empty")
    loader = LOADERS[format] if format != "auto" else recognise(head, source)
    for name in options or {}:
        if name not in loader.options:
            allowed = _one_of(name, loader.options) if loader.options else "left out: it has none"
            raise TraceError(f"option {name!r} is not allowed, for {loader.name} it must be {allowed}")
    return loader.load(source, Wanted(bin_s, dict(options or {})))


def recognise(head: Head, source: Source) -> Loader:
    """The first format that the file's beginning fits; TraceError if there is none."""
    for loader in LOADERS.values():
        if loader.sniff(head):
            return loader
    raise TraceError(
        f"{source.parts[0]}:1: {head.first[:80]!r} begins no known format; known are {', '.join(LOADERS)}"
    )


def _one_of(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, list(known), 3, 0.5)
    return "one of " + ", ".join(known) + (f"; nearest: {', '.join(near)}" if near else "")
