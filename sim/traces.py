"""Request-rate traces: read from recordings, resampled, cut into windows and scaled to a service.

Used by replay and evaluation, by the cluster twin, and by anybody with a recording of their own.
Between its points, at the bins' starts, a rate is interpolated linearly. What a recording does not say (a
lost scrape, a hole) is a gap: its points are absent, never zero, and `Trace.gaps` lists it. `load_trace` and
`load_jobs` read the project's own CSV and the published formats of `sim.loaders` (docs/traces.md).
"""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import TraceError

HEADER = ("timestamp_s", "requests_per_s")
JOB_HEADER = ("submit_s", "duration_s", "cpu", "memory")
FloatArray = npt.NDArray[np.floating[Any]]
GAP = 1.5
"""Two points further apart than this many usual distances have a gap between them."""


@dataclass(frozen=True, eq=False)
class Trace:
    """`times_s` float `[T]`, ascending seconds; `rate_rps` float `[T]`, requests/s, none negative.

    `unit` says what the values are where they are no requests/s (a utilisation, say); `origin_s` is the Unix
    time of this trace's second 0 where the recording tells it; `notes` are what a reader of the recording
    should know, such as lines that were left out.
    """

    times_s: FloatArray
    rate_rps: FloatArray
    name: str = "trace"
    unit: str = "requests/s"
    origin_s: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        times, rates = np.asarray(self.times_s, float), np.asarray(self.rate_rps, float)
        object.__setattr__(self, "times_s", times)
        object.__setattr__(self, "rate_rps", rates)
        if times.ndim != 1 or times.shape != rates.shape:
            raise TraceError(f"{self.name}: times {times.shape} and rates {rates.shape} must be equally long")
        if len(times) < 2:
            raise TraceError(f"{self.name}: {len(times)} points are not enough, at least 2 are needed")
        _refuse(self.name, "timestamp_s", times, np.isfinite(times), "a finite number of seconds")
        _refuse(
            self.name, "requests_per_s", rates, np.isfinite(rates) & (rates >= 0), "finite and not negative"
        )
        rising = np.diff(times, prepend=-np.inf) > 0
        _refuse(self.name, "timestamp_s", times, rising, "greater than the one before")

    def __len__(self) -> int:
        return len(self.times_s)

    @property
    def bin_s(self) -> float:
        """Usual distance between two points, in seconds."""
        return float(np.median(np.diff(self.times_s)))

    @property
    def duration_s(self) -> float:
        """From the start of the first bin to the end of the last, in seconds."""
        return float(self.times_s[-1] - self.times_s[0]) + self.bin_s

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """Where points are missing: (end of the bin before, start of the bin after), in seconds."""
        distances, usual = np.diff(self.times_s), self.bin_s
        before = np.flatnonzero(distances > GAP * usual)
        return [(float(self.times_s[i]) + usual, float(self.times_s[i + 1])) for i in before]

    def at(self, times_s: npt.ArrayLike) -> FloatArray:
        """Rates in requests/s at `times_s` (s on this trace's clock); held constant beyond either end.

        Interpolated linearly between two points, across gaps too.
        """
        return np.asarray(np.interp(np.asarray(times_s, float), self.times_s, self.rate_rps))

    def resample(self, period_s: float) -> Trace:
        """The same trace on a regular grid of `period_s` seconds, interpolated linearly."""
        if not (math.isfinite(period_s) and period_s > 0):
            raise TraceError(f"{self.name}: period_s {period_s!r} is not allowed, must be greater than 0")
        grid = self.times_s[0] + np.arange(max(2, math.floor(self.duration_s / period_s))) * period_s
        return replace(self, times_s=grid, rate_rps=self.at(grid))

    def window(self, start_s: float, duration_s: float) -> Trace:
        """The points in `[start_s, start_s + duration_s)`, its clock starting at 0."""
        kept = (self.times_s >= start_s) & (self.times_s < start_s + duration_s)
        if kept.sum() < 2:
            raise TraceError(f"{self.name}: fewer than 2 points in {start_s:g}..{start_s + duration_s:g} s")
        return replace(
            self,
            times_s=self.times_s[kept] - start_s,
            rate_rps=self.rate_rps[kept],
            name=f"{self.name}@{start_s:.0f}s",
            origin_s=None if self.origin_s is None else self.origin_s + start_s,
        )

    def windows(self, duration_s: float, stride_s: float | None = None) -> list[Trace]:
        """Whole windows of `duration_s`, one every `stride_s` (default: end to end)."""
        if duration_s > self.duration_s * (1 + 1e-9):
            raise TraceError(
                f"{self.name}: a window of {duration_s:g} s is longer than its {self.duration_s:g} s"
            )
        stride = duration_s if stride_s is None else stride_s
        if stride <= 0:
            raise TraceError(f"{self.name}: stride_s {stride!r} is not allowed, must be greater than 0")
        count = math.floor((self.duration_s - duration_s) / stride + 1e-9) + 1
        return [self.window(self.times_s[0] + index * stride, duration_s) for index in range(count)]

    def busiest_start_s(self, duration_s: float) -> float:
        """Where the window of `duration_s` with the most requests begins (the first of equals)."""
        period = min(self.bin_s, duration_s / 2)
        grid = self.resample(period)
        size = round(duration_s / period)
        if size >= len(grid):
            return float(self.times_s[0])
        total = np.cumsum(np.concatenate([[0.0], grid.rate_rps]))
        return float(grid.times_s[int(np.argmax(total[size:] - total[:-size]))])

    def busiest_window(self, duration_s: float) -> Trace:
        """The window of `duration_s` with the most requests."""
        return self.window(self.busiest_start_s(duration_s), duration_s)

    def scale(self, factor: float) -> Trace:
        """Every rate times `factor`."""
        return replace(self, rate_rps=self.rate_rps * factor)

    def scale_to_peak(self, replicas: float, capacity_rps: float) -> Trace:
        """Scaled so that its peak needs `replicas` replicas of `capacity_rps` requests/s each."""
        peak = float(self.rate_rps.max())
        if peak <= 0:
            raise TraceError(f"{self.name}: has no requests at all, so that its peak cannot be scaled")
        return self.scale(replicas * capacity_rps / peak)

    def save(self, path: str | Path) -> None:
        """Write the CSV that `load_trace` reads (gzipped if the name ends in .gz)."""
        text = "".join(
            f"{time:.10g},{rate:.10g}\n" for time, rate in zip(self.times_s, self.rate_rps, strict=True)
        )
        _write(path, ",".join(HEADER) + "\n" + text)


@dataclass(frozen=True, eq=False)
class Jobs:
    """Jobs in the order of their submission, arrays `[J]`.

    submit_s: seconds; duration_s: seconds, NaN where the recording does not tell the end; cpu, memory: what
    one instance asked for, 1.0 = one machine, NaN unknown; instances: how many run at once.
    """

    submit_s: FloatArray
    duration_s: FloatArray
    cpu: FloatArray
    memory: FloatArray
    instances: npt.NDArray[np.integer[Any]] | None = None
    name: str = "jobs"
    origin_s: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(np.asarray(self.submit_s))
        instances = np.ones(count, np.int64) if self.instances is None else self.instances
        object.__setattr__(self, "instances", np.asarray(instances, np.int64))
        for name in JOB_HEADER:
            object.__setattr__(self, name, np.asarray(getattr(self, name), float))
        for name in (*JOB_HEADER, "instances"):
            shape = getattr(self, name).shape
            if shape != (count,):
                raise TraceError(f"{self.name}: {name} {shape} must be as long as submit_s ({count})")
        if count < 1:
            raise TraceError(f"{self.name}: has no jobs at all, at least 1 is needed")
        _refuse(
            self.name, "submit_s", self.submit_s, np.isfinite(self.submit_s), "a finite number of seconds"
        )
        order = np.argsort(self.submit_s, kind="stable")
        for name in (*JOB_HEADER, "instances"):
            object.__setattr__(self, name, getattr(self, name)[order])
        for name in ("duration_s", "cpu", "memory"):
            values = getattr(self, name)
            _refuse(self.name, name, values, ~(values < 0) & ~np.isinf(values), "0 or more, or unknown")

    def __len__(self) -> int:
        return len(self.submit_s)

    @property
    def copies(self) -> npt.NDArray[np.integer[Any]]:
        """`instances`, which are 1 where none were given."""
        return np.asarray(self.instances)

    @property
    def span_s(self) -> float:
        """From the first submission to the last, in seconds."""
        return float(self.submit_s[-1] - self.submit_s[0])

    def arrivals(self, bin_s: float = 60.0, each_instance: bool = False) -> Trace:
        """Jobs submitted each second, in bins of `bin_s` seconds that start at its multiples.

        `each_instance` counts a job once for each of its instances.
        """
        from sim.loaders.base import Bins

        bins = Bins(bin_s, self.name)
        bins.add_many(self.submit_s, self.copies.astype(float) if each_instance else None)
        times, rates = bins.rates()
        unit = "instances/s" if each_instance else "jobs/s"
        return Trace(times, rates, self.name, unit=unit, origin_s=self.origin_s, notes=self.notes)

    def save(self, path: str | Path) -> None:
        """Write the CSV that `load_jobs` reads (gzipped if the name ends in .gz); unknown is empty."""
        columns = (self.submit_s, self.duration_s, self.cpu, self.memory, self.instances)
        lines = [",".join((*JOB_HEADER, "instances"))]
        lines += [
            ",".join("" if math.isnan(value) else f"{value:.10g}" for value in row)
            for row in zip(*columns, strict=True)  # type: ignore[arg-type]
        ]
        _write(path, "\n".join(lines) + "\n")


def load_trace(
    path: str | Path,
    format: str = "auto",
    bin_s: float = 60.0,
    progress: bool | None = None,
    **options: Any,
) -> Trace:
    """Read request rates from a file (plain, gzip, bzip2, xz, tar) or a folder of parts of one recording.

    The project's own CSV has the header `timestamp_s,requests_per_s`; docs/traces.md lists the other formats
    and their `options`. Recordings of single requests or jobs become arrivals/s in bins of `bin_s` seconds.
    progress: show a bar (default: for big files, on a terminal).

    Raises TraceError with file, line, value and what is allowed.
    """
    from sim.loaders import read

    found = read(path, format, bin_s, progress, options)
    return found.arrivals(bin_s) if isinstance(found, Jobs) else found


def load_jobs(path: str | Path, format: str = "auto", progress: bool | None = None, **options: Any) -> Jobs:
    """Read jobs from the project's CSV (`submit_s,duration_s,cpu,memory`) or a published format.

    Raises TraceError with file, line, value and what is allowed; also for a recording of rates.
    """
    from sim.loaders import read

    found = read(path, format, 60.0, progress, options)
    if not isinstance(found, Jobs):
        raise TraceError(f"{path}: holds rates, no jobs; load_trace reads it")
    return found


def _write(path: str | Path, text: str) -> None:
    target, content = Path(path), text.encode()
    target.write_bytes(gzip.compress(content, mtime=0) if target.suffix == ".gz" else content)


def _refuse(name: str, field: str, values: FloatArray, accepted: npt.NDArray[np.bool_], allowed: str) -> None:
    if not accepted.all():
        index = int(np.argmin(accepted))
        raise TraceError(f"{name}: {field}[{index}] {values[index]!r} is not allowed, must be {allowed}")
