"""Workloads made of workloads: sums, products, overlays, one after another, shifted, scaled, recorded."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim.errors import ParameterError, require
from sim.traces import Trace, load_trace
from sim.workloads.base import FloatArray, Workload, check, check_each, is_number

OVERLAYS = ("add", "replace", "maximum", "multiply")


def _check_parts(workload: object, parts: object) -> None:
    name = f"{type(workload).__name__}.parts"
    fits = isinstance(parts, tuple) and len(parts) > 0 and all(isinstance(part, Workload) for part in parts)
    require(fits, name, parts, "a tuple of one or more workloads")


def _check_part(workload: object, name: str) -> None:
    part = getattr(workload, name)
    require(isinstance(part, Workload), f"{type(workload).__name__}.{name}", part, "a workload")


@dataclass(frozen=True)
class Product:
    """Factors over one another: a base times surges times noise."""

    parts: tuple[Workload, ...]

    def __post_init__(self) -> None:
        _check_parts(self, self.parts)

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The parts multiplied."""
        result = np.ones(len(times_s))
        for part in self.parts:
            result = result * part.rates(times_s, rng)
        return result


@dataclass(frozen=True)
class Sum:
    """Several traffics into one service."""

    parts: tuple[Workload, ...]

    def __post_init__(self) -> None:
        _check_parts(self, self.parts)

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The parts added."""
        result = np.zeros(len(times_s))
        for part in self.parts:
            result = result + part.rates(times_s, rng)
        return result


@dataclass(frozen=True)
class Overlay:
    """One workload laid over another for a while; outside it the base alone."""

    base: Workload
    over: Workload
    start_s: float = 0.0
    """When it begins, s; `over`'s own clock starts there at 0."""
    length_s: float = math.inf
    """How long it lasts, s."""
    how: str = "add"
    """add, replace, maximum or multiply."""

    def __post_init__(self) -> None:
        check(self, finite=("start_s",))
        _check_part(self, "base")
        _check_part(self, "over")
        endless = self.length_s == math.inf
        require(
            endless or (is_number(self.length_s) and self.length_s > 0),
            "Overlay.length_s",
            self.length_s,
            "greater than 0, or .inf",
        )
        require(self.how in OVERLAYS, "Overlay.how", self.how, "one of " + ", ".join(OVERLAYS))

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The base, changed where the other lies over it."""
        result = np.array(self.base.rates(times_s, rng), float)
        inside = (times_s >= self.start_s) & (times_s < self.start_s + self.length_s)
        if inside.any():
            over = self.over.rates(times_s[inside] - self.start_s, rng)
            result[inside] = self._combine(result[inside], over)
        return result

    def _combine(self, base: FloatArray, over: FloatArray) -> FloatArray:
        if self.how == "add":
            return base + over
        if self.how == "multiply":
            return base * over
        return np.asarray(np.maximum(base, over)) if self.how == "maximum" else over


@dataclass(frozen=True)
class Concatenation:
    """One workload after another; each one's own clock starts at 0."""

    parts: tuple[Workload, ...]
    lengths_s: tuple[float, ...]
    """How long each lasts, s; the last goes on, unless all `repeat`."""
    start_s: float = 0.0
    """When the first begins, s; it holds before, too."""
    repeat: bool = False
    """Whether the first follows the last again."""

    def __post_init__(self) -> None:
        check(self, finite=("start_s",))
        _check_parts(self, self.parts)
        check_each(self, "lengths_s", least=1e-3)
        same = len(self.lengths_s) == len(self.parts)
        require(same, "Concatenation.lengths_s", self.lengths_s, f"as many as parts ({len(self.parts)})")

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Each part in its turn."""
        ends = np.cumsum(self.lengths_s)
        age = times_s - self.start_s
        turn = np.floor_divide(age, ends[-1]) if self.repeat else np.zeros(len(age))
        within = age - turn * ends[-1]
        index = np.clip(np.searchsorted(ends, within, side="right"), 0, len(ends) - 1)
        result = np.empty(len(times_s))
        pieces = turn * len(ends) + index
        for piece in np.unique(pieces):
            chosen = pieces == piece
            part = int(piece % len(ends))
            begin = ends[part] - self.lengths_s[part]
            result[chosen] = self.parts[part].rates(within[chosen] - begin, rng)
        return result


@dataclass(frozen=True)
class TimeShift:
    """The same, later."""

    part: Workload
    by_s: float = 0.0
    """Seconds later; negative: earlier."""

    def __post_init__(self) -> None:
        check(self, finite=("by_s",))
        _check_part(self, "part")

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The part's rates `by_s` seconds before."""
        return self.part.rates(times_s - self.by_s, rng)


@dataclass(frozen=True)
class Scale:
    """The same, higher or lower, faster or slower, and within bounds."""

    part: Workload
    factor: float = 1.0
    """Every rate times this."""
    peak: float = 0.0
    """Above 0: scaled so that the highest rate of the times asked for is this many requests/s."""
    speed: float = 1.0
    """Above 1: everything happens that much faster."""
    low: float = 0.0
    """Requests/s below which it never falls."""
    high: float = math.inf
    """Requests/s above which it never rises."""

    def __post_init__(self) -> None:
        check(self, not_negative=("factor", "peak", "low"), positive=("speed",))
        _check_part(self, "part")
        high = self.high
        number = isinstance(high, (int, float)) and not isinstance(high, bool) and not math.isnan(high)
        require(number and high >= self.low, "Scale.high", high, f"at least low ({self.low!r}), or .inf")

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The part, scaled, then held within the bounds."""
        rates = self.part.rates(times_s * self.speed, rng) * self.factor
        highest = float(rates.max())
        if self.peak > 0 and highest > 0:
            rates = rates * (self.peak / highest)
        return np.asarray(np.clip(rates, self.low, self.high))


@dataclass(frozen=True)
class Recording:
    """A recorded trace as a workload: any file that `sim.traces.load_trace` reads."""

    path: str = ""
    """The file."""
    format: str = "auto"
    """Its format; docs/traces.md lists them."""
    start_s: float = 0.0
    """What of the recording is played at time 0, s after its start."""
    repeat: bool = True
    """Whether it starts again when it ends; else its last rate is held."""
    factor: float = 1.0
    """Every rate times this."""

    def __post_init__(self) -> None:
        check(self, not_negative=("factor",), finite=("start_s",))
        if not isinstance(self.path, str) or not self.path:
            raise ParameterError("Recording.path", self.path, "the name of a file")

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The recorded rates, interpolated linearly."""
        file = Path(self.path)
        changed = file.stat().st_mtime_ns if file.exists() else 0
        trace = _recorded(self.path, self.format, changed)
        age = times_s + self.start_s
        if self.repeat:
            age = np.mod(age, trace.duration_s)
        return np.asarray(self.factor * trace.at(trace.times_s[0] + age))


@functools.lru_cache(maxsize=8)
def _recorded(path: str, format: str, changed: int) -> Trace:
    """Read once, and again when the file has `changed`."""
    return load_trace(path, format=format)
