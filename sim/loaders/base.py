"""What all loaders share: the protocol, opening and streaming of files, bins, stamps, errors, progress.

Files are read line by line, so that memory depends on the recording's length in bins and on the jobs that are
under way, not on the file's size.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import math
import sys
import tarfile
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import numpy as np

from sim.errors import TraceError
from sim.traces import FloatArray, Jobs, Trace

HEAD_BYTES = 65_536
MAX_BINS = 20_000_000
"""More bins than these (231 days of seconds) are refused: a wrong stamp would otherwise fill the memory."""
PROGRESS_FROM_BYTES = 16_000_000
UNREADABLE = (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error, lzma.LZMAError, tarfile.TarError)


@dataclass(frozen=True)
class Head:
    """The beginning of a file, unpacked: what a loader tells its format by. Whole `lines`, no blank ones."""

    name: str
    lines: tuple[str, ...]

    @property
    def first(self) -> str:
        """The first line, or nothing."""
        return self.lines[0] if self.lines else ""

    def rows(self, count: int = 20) -> list[list[str]]:
        """The first lines as cells of a CSV."""
        return [row for row in csv.reader(self.lines[:count]) if row]

    def header(self) -> list[str]:
        """The first line's cells, trimmed, in lower case."""
        return [cell.strip().lower() for cell in next(csv.reader([self.first]), [])]


@dataclass(frozen=True)
class Wanted:
    """What the caller asked for: bins of `bin_s` seconds, and the format's own `options`."""

    bin_s: float = 60.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def text(self, name: str, default: str = "") -> str:
        """An option that is text."""
        value = self.options.get(name, default)
        if not isinstance(value, str):
            raise TraceError(f"option {name}: {value!r} is not allowed, must be text")
        return value

    def number(self, name: str, default: float) -> float:
        """An option that is a number above 0."""
        value = self.options.get(name, default)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not (math.isfinite(number) and number > 0):
            raise TraceError(f"option {name}: {value!r} is not allowed, must be a number greater than 0")
        return number

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """An option that is one of these words; the first by default."""
        value = self.options.get(name, allowed[0])
        if value not in allowed:
            raise TraceError(f"option {name}: {value!r} is not allowed, must be one of {', '.join(allowed)}")
        return str(value)


class Loader(Protocol):
    """One format. `options` are its own, each with a sentence that says what it does."""

    name: str
    title: str
    gives: Literal["rates", "jobs"]
    options: Mapping[str, str]

    def sniff(self, head: Head) -> bool:
        """Whether a file that begins so is of this format."""
        ...

    def load(self, source: Source, wanted: Wanted) -> Trace | Jobs:
        """Read all of it; raises TraceError with file, line, value and what is allowed."""
        ...


class Source:
    """A recording: one file or a folder of its parts, read as text line by line, with progress."""

    def __init__(self, path: str | Path, progress: bool | None = None) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            parts = [p for p in sorted(self.path.iterdir()) if p.is_file() and not p.name.startswith(".")]
            if not parts:
                raise TraceError(f"{self.path}: the folder has no files")
            self.parts = parts
        else:
            self.parts = [self.path]
        self.line = 0
        self.part = str(self.parts[0])
        self._progress = progress

    @property
    def name(self) -> str:
        """The file's name without its endings."""
        name = self.path.name
        for ending in (".gz", ".bz2", ".xz", ".tar", ".csv", ".jsonl", ".json", ".log", ".txt"):
            name = name.removesuffix(ending)
        return name

    def head(self) -> Head:
        """The beginning of the first part."""
        with self._guarded(), _opened(self.parts[0]) as raw:
            for stream in _texts(raw, self.parts[0]):
                lines = stream.read(HEAD_BYTES)
                whole = lines.splitlines()
                if len(lines) == HEAD_BYTES and len(whole) > 1:
                    whole.pop()
                return Head(self.parts[0].name, tuple(line for line in whole if line.strip()))
        return Head(self.parts[0].name, ())

    def lines(self) -> Iterator[str]:
        """Every line that is not blank, without its end; `at` tells where the last one stands."""
        for text in self._texts():
            with self._guarded():
                for line in text:
                    self.line += 1
                    stripped = line.strip()
                    if stripped:
                        yield stripped

    def rows(self, delimiter: str = ",") -> Iterator[list[str]]:
        """Every row of a CSV that is not blank."""
        for text in self._texts():
            with self._guarded():
                reader = csv.reader(text, delimiter=delimiter)
                for row in reader:
                    self.line = reader.line_num
                    if row:
                        yield row

    def text(self) -> str:
        """All of it at once: for formats that are one document."""
        with self._guarded():
            return "".join(text.read() for text in self._texts())

    def _texts(self) -> Iterator[io.TextIOBase]:
        """Each part's text (each file of an archive), to be read to its end; `line` starts anew."""
        with self._guarded(), _bar(self.parts, self._progress) as advanced:
            for path in self.parts:
                self.part = str(path)
                with _opened(path, advanced) as raw:
                    for text in _texts(raw, path):
                        self.line = 0
                        yield text

    @property
    def at(self) -> str:
        """File and line of what was read last."""
        return f"{self.part}:{self.line}"

    def error(self, message: str) -> TraceError:
        """An error at the line that was read last."""
        return TraceError(f"{self.at}: {message}")

    def refuse(self, name: str, value: object, allowed: str) -> TraceError:
        """The error for a value that is not allowed."""
        return self.error(f"{name} {value!r} is not allowed, must be {allowed}")

    def number(self, name: str, text: str, least: float = -math.inf) -> float:
        """A cell as a finite number of at least `least`."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.refuse(name, text, "a finite number")
        if value < least:
            raise self.refuse(name, text, f"{least:g} or more")
        return value

    def optional(self, name: str, text: str, least: float = 0.0) -> float:
        """The same, or NaN for an empty cell: the recording does not know it."""
        return math.nan if not text.strip() else self.number(name, text, least)

    def columns(self, row: list[str], count: int, names: str) -> None:
        """Refuse a row with any other number of columns."""
        if len(row) != count:
            raise self.error(f"{','.join(row)[:80]!r} has {len(row)} columns, must have {count}: {names}")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except UNREADABLE as error:
            said = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise TraceError(f"{self.part}: cannot be read: {said}") from error


class Bins:
    """Counts (or sums) in bins of `bin_s` seconds that start at its multiples, in any order of arrival."""

    def __init__(self, bin_s: float, name: str) -> None:
        if not (math.isfinite(bin_s) and bin_s > 0):
            raise TraceError(f"{name}: bin_s {bin_s!r} is not allowed, must be greater than 0")
        self.bin_s = float(bin_s)
        self.name = name
        self._sums: dict[int, float] = {}

    def add(self, time_s: float, weight: float = 1.0) -> None:
        """One arrival (or `weight` of them)."""
        index = math.floor(time_s / self.bin_s)
        self._sums[index] = self._sums.get(index, 0.0) + weight

    def add_many(self, times_s: FloatArray, weights: FloatArray | None = None) -> None:
        """Arrivals `[K]` at once."""
        indices = np.floor(np.asarray(times_s) / self.bin_s).astype(np.int64)
        found, inverse = np.unique(indices, return_inverse=True)
        sums = np.bincount(inverse, weights)
        for index, total in zip(found.tolist(), sums.tolist(), strict=True):
            self._sums[index] = self._sums.get(index, 0.0) + total

    def sums(self, start_s: float | None = None) -> tuple[FloatArray, FloatArray]:
        """(bins' starts in seconds, sums): every bin from the first (or `start_s`) on, empty ones too.

        Raises TraceError for fewer than two bins or too many of them.
        """
        if not self._sums:
            raise TraceError(f"{self.name}: has no arrivals at all")
        last = max(self._sums)
        first = min(self._sums) if start_s is None else math.floor(start_s / self.bin_s)
        count = last - first + 1
        if count < 2:
            raise TraceError(
                f"{self.name}: lies within one bin of {self.bin_s:g} s, 2 are needed: take a smaller bin_s"
            )
        if count > MAX_BINS:
            raise TraceError(
                f"{self.name}: {count} bins of {self.bin_s:g} s are not allowed, at most {MAX_BINS}: take a "
                "larger bin_s, or look for a wrong stamp"
            )
        sums = np.zeros(count)
        indices = np.fromiter(self._sums, np.int64, len(self._sums)) - first
        sums[indices] = np.fromiter(self._sums.values(), float, len(self._sums))
        return (first + np.arange(count)) * self.bin_s, sums

    def rates(self, start_s: float | None = None) -> tuple[FloatArray, FloatArray]:
        """The same over the bins' length: arrivals/s."""
        times, sums = self.sums(start_s)
        return times, sums / self.bin_s


class JobRows:
    """Jobs as they are read, in flat arrays: 36 bytes each."""

    def __init__(self) -> None:
        self._columns = tuple(array("d") for _ in range(4))
        self._instances = array("i")

    def add(self, submit_s: float, duration_s: float, cpu: float, memory: float, instances: int = 1) -> None:
        """One more; NaN is unknown."""
        for column, value in zip(self._columns, (submit_s, duration_s, cpu, memory), strict=True):
            column.append(value)
        self._instances.append(instances)

    def __len__(self) -> int:
        return len(self._instances)

    def jobs(self, source: Source, notes: tuple[str, ...] = ()) -> Jobs:
        """All of them."""
        if not len(self):
            raise TraceError(f"{source.path}: has no jobs at all")
        submit_s, duration_s, cpu, memory = (np.frombuffer(column, float) for column in self._columns)
        instances = np.frombuffer(self._instances, np.int32)
        return Jobs(submit_s, duration_s, cpu, memory, instances, source.name, None, notes)


def from_epoch(name: str, bins: Bins, notes: Iterable[str] = ()) -> Trace:
    """A trace of arrivals at Unix times: its second 0 is the first bin's start."""
    times, rates = bins.rates()
    return Trace(times - times[0], rates, name, origin_s=float(times[0]), notes=tuple(notes))


def iso_seconds(text: str) -> float:
    """Unix time of an ISO 8601 stamp (a blank or T in the middle, any fraction, UTC without an offset).

    Raises ValueError if it is none.
    """
    text = text.strip()
    whole, dot, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    fraction = float(f"0.{rest[:digits]}") if dot and digits else 0.0
    stamp = datetime.fromisoformat(whole + rest[digits:] if dot else text)
    return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp() + fraction


@contextmanager
def _opened(path: Path, advanced: Callable[[int], None] | None = None) -> Iterator[IO[bytes]]:
    """The file's unpacked bytes; told by its first bytes how it is packed, not by its name."""
    with path.open("rb") as file, ExitStack() as opened:
        buffered = file if advanced is None else io.BufferedReader(_Counted(file, advanced), 1 << 18)
        start = buffered.peek(6)[:6]
        if start[:2] == b"\x1f\x8b":
            yield opened.enter_context(gzip.open(buffered))  # type: ignore[arg-type]
        elif start[:3] == b"BZh":
            yield opened.enter_context(bz2.open(buffered))
        elif start == b"\xfd7zXZ\x00":
            yield opened.enter_context(lzma.open(buffered))
        else:
            yield buffered


def _texts(raw: IO[bytes], path: Path) -> Iterator[io.TextIOBase]:
    """The text, or each regular file's text of a tar archive.

    Bytes that are no UTF-8 are replaced: logs hold what attackers sent, and a number with one is refused.
    """
    buffered = io.BufferedReader(raw, 1 << 18)  # type: ignore[type-var]
    if buffered.peek(512)[257:262] == b"ustar":
        with tarfile.open(fileobj=buffered, mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    raw_member = io.BufferedReader(_Counted(content, lambda count: None), 1 << 18)
                    yield io.TextIOWrapper(raw_member, "utf-8-sig", "replace", newline="")
        return
    yield io.TextIOWrapper(buffered, "utf-8-sig", "replace", newline="")


class _Counted(io.RawIOBase):
    """A stream that is read once, from front to back, and reports how far it has been."""

    def __init__(self, file: IO[bytes], advanced: Callable[[int], None]) -> None:
        self._file, self._advanced = file, advanced

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self._advanced(count)
        return int(count)


@contextmanager
def _bar(parts: list[Path], wanted: bool | None) -> Iterator[Callable[[int], None] | None]:
    """A progress bar over the packed bytes: for big files on a terminal, or if it is asked for."""
    size = sum(part.stat().st_size for part in parts)
    shown = (size >= PROGRESS_FROM_BYTES and sys.stderr.isatty()) if wanted is None else wanted
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=size)
        yield lambda count: progress.advance(task, count)
