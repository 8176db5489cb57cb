"""Request-rate traces: read from CSV, resampled, cut into windows and scaled to a service.

Used by replay and evaluation, by the cluster twin, and by anybody with a recording of their own.
Between its points, at the bins' starts, a rate is interpolated linearly.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from sim.errors import TraceError

HEADER = ("timestamp_s", "requests_per_s")
FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Trace:
    """`times_s` float `[T]`, ascending seconds; `rate_rps` float `[T]`, requests/s, none negative."""

    times_s: FloatArray
    rate_rps: FloatArray
    name: str = "trace"

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

    def at(self, times_s: npt.ArrayLike) -> FloatArray:
        """Rates in requests/s at `times_s` (s on this trace's clock); held constant beyond either end."""
        return np.asarray(np.interp(np.asarray(times_s, float), self.times_s, self.rate_rps))

    def resample(self, period_s: float) -> Trace:
        """The same trace on a regular grid of `period_s` seconds, interpolated linearly."""
        if not (math.isfinite(period_s) and period_s > 0):
            raise TraceError(f"{self.name}: period_s {period_s!r} is not allowed, must be greater than 0")
        grid = self.times_s[0] + np.arange(max(2, math.floor(self.duration_s / period_s))) * period_s
        return Trace(grid, self.at(grid), self.name)

    def window(self, start_s: float, duration_s: float) -> Trace:
        """The points in `[start_s, start_s + duration_s)`, its clock starting at 0."""
        kept = (self.times_s >= start_s) & (self.times_s < start_s + duration_s)
        if kept.sum() < 2:
            raise TraceError(f"{self.name}: fewer than 2 points in {start_s:g}..{start_s + duration_s:g} s")
        return Trace(self.times_s[kept] - start_s, self.rate_rps[kept], f"{self.name}@{start_s:.0f}s")

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
        content = (",".join(HEADER) + "\n" + text).encode()
        target = Path(path)
        target.write_bytes(gzip.compress(content, mtime=0) if target.suffix == ".gz" else content)


def load_trace(path: str | Path) -> Trace:
    """Read a CSV (or CSV.gz) with the header `timestamp_s,requests_per_s`.

    Raises TraceError with file, line, value and what is allowed.
    """
    source = Path(path)
    try:
        with _open(source) as lines:
            times, rates = _parse(source, csv.reader(lines))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{source}: cannot be read: {error}") from error
    name = source.name.removesuffix(".gz").removesuffix(".csv")
    if len(times) < 2:
        raise TraceError(f"{source}: {len(times)} rows are not enough, at least 2 are needed")
    return Trace(np.array(times), np.array(rates), name)


def load_traces(paths: Iterable[str | Path]) -> list[Trace]:
    """Read several traces, in the order given."""
    return [load_trace(path) for path in paths]


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _parse(path: Path, rows: Iterator[list[str]]) -> tuple[list[float], list[float]]:
    header = [cell.strip().lower() for cell in next(rows, [])]
    if tuple(header[:2]) != HEADER:
        raise TraceError(f"{path}:1: header {','.join(header)!r} is not allowed, must be {','.join(HEADER)}")
    times: list[float] = []
    rates: list[float] = []
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) < 2:
            raise TraceError(f"{path}:{number}: {','.join(row)!r} has {len(row)} column, must have 2")
        time = _number(path, number, "timestamp_s", row[0])
        rate = _number(path, number, "requests_per_s", row[1])
        if rate < 0:
            raise TraceError(f"{path}:{number}: requests_per_s {row[1]!r} is not allowed, must be 0 or more")
        if times and time <= times[-1]:
            allowed = f"greater than the {times[-1]:g} before it"
            raise TraceError(f"{path}:{number}: timestamp_s {row[0]!r} is not allowed, must be {allowed}")
        times.append(time)
        rates.append(rate)
    return times, rates


def _number(path: Path, line: int, field: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TraceError(f"{path}:{line}: {field} {text!r} is not allowed, must be a finite number")
    return value


def _refuse(name: str, field: str, values: FloatArray, accepted: npt.NDArray[np.bool_], allowed: str) -> None:
    if not accepted.all():
        index = int(np.argmin(accepted))
        raise TraceError(f"{name}: {field}[{index}] {values[index]!r} is not allowed, must be {allowed}")
