"""What the demo replays: which piece of which trace, how large, how long.

Without a file it is a generated day. Either way the window is the one that changes most, as that is where
autoscaling is hard, and it is scaled so that its peak needs a given number of replicas.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim.errors import SimulationError
from sim.physics import FloatArray, ServiceParams
from sim.traces import Trace, load_trace
from sim.workloads import DAY_S, Diurnal, FlashCrowds, Noise, Product

CAPACITY_RPS = 25.0
SLO_MS = 250.0
START_UP_S = 60.0
SYNC_PERIOD_S = 15
PEAK_REPLICAS = 40.0
DURATION_S = 9000.0
MIN_REPLICAS, MAX_REPLICAS = 2, 100  # the latter at least two and a half times the peak
WARM_UP_S = 600.0  # replayed before the window and not counted: the operator fills its history
_GRID_S = 60.0
_DAY_SEED = 7


@dataclass(frozen=True)
class Plan:
    """One demo: `trace` starts with the warm-up at second 0 and is scaled already."""

    trace: Trace
    name: str
    start_s: float  # of the window, on the clock of the trace as it was loaded
    duration_s: float
    time_scale: float = 60.0
    peak_replicas: float = PEAK_REPLICAS
    warm_up_s: float = WARM_UP_S

    @property
    def max_replicas(self) -> int:
        return max(MAX_REPLICAS, math.ceil(2.5 * self.peak_replicas))

    @property
    def end_s(self) -> float:
        return self.warm_up_s + self.duration_s

    @property
    def first_replicas(self) -> int:
        """A comfortable size for the first rate: 60 % utilisation."""
        return max(MIN_REPLICAS, math.ceil(float(self.trace.at(0.0)) / CAPACITY_RPS / 0.6))

    @property
    def params(self) -> ServiceParams:
        return ServiceParams(capacity_rps=CAPACITY_RPS, start_up_s=START_UP_S, slo_latency_ms=SLO_MS)


def make_plan(
    trace: Path | None,
    duration_s: float,
    time_scale: float,
    start_s: float | None = None,
    peak_replicas: float = PEAK_REPLICAS,
) -> Plan:
    """Chooses, cuts and scales.

    Raises:
        SimulationError: unreadable trace, a window outside of it, or one without any requests.
    """
    whole = generated_day() if trace is None else load_trace(trace)
    duration_s = min(duration_s, whole.duration_s)
    begin = float(whole.times_s[0])
    if start_s is None:
        start_s = most_changing_start(whole, duration_s)
    elif not 0 <= start_s <= whole.duration_s - duration_s:
        latest = whole.duration_s - duration_s
        raise SimulationError(
            f"--start: {start_s:g} s is not allowed, must be in 0..{latest:g} for this trace"
        )
    grid = np.arange(-WARM_UP_S, duration_s + _GRID_S, min(15.0, whole.bin_s))
    rates = whole.at(begin + start_s + grid)
    peak = float(rates[grid <= duration_s].max())
    if peak <= 0:
        raise SimulationError(f"{whole.name}: no requests from {start_s:g} s on for {duration_s:g} s")
    scaled = rates * peak_replicas * CAPACITY_RPS / peak
    cut = Trace(grid + WARM_UP_S, scaled, whole.name)
    return Plan(cut, whole.name, start_s, duration_s, time_scale, peak_replicas)


def most_changing_start(trace: Trace, duration_s: float) -> float:
    """Start (s from the trace's first point) of the window that is busy and changes most.

    The score is the sum of the moves of ten-minute means, up and down, times the root of the mean load; both
    against the window's own peak (warm-up included), to which it will be scaled, but at least a quarter of
    the trace's peak: the ups and downs of a quiet night are noise.
    """
    grid = trace.resample(max(_GRID_S, trace.bin_s))
    step = float(grid.times_s[1] - grid.times_s[0])
    smooth = _smoothed(grid.rate_rps, max(1, round(600 / step)))
    size, before = max(1, round(duration_s / step)), round(WARM_UP_S / step)
    if size >= len(smooth):
        return 0.0
    moves = np.abs(np.diff(smooth, prepend=smooth[0]))
    padded = np.pad(smooth, (before, 0), "edge")
    peaks = np.lib.stride_tricks.sliding_window_view(padded, size + before).max(axis=1)
    peaks = np.maximum(peaks, max(0.25 * smooth.max(), 1e-9))
    score = _window_sums(moves, size) * np.sqrt(_window_sums(smooth, size) / peaks) / peaks
    return min(float(np.argmax(score) * step), trace.duration_s - duration_s)


def _window_sums(values: FloatArray, size: int) -> FloatArray:
    total = np.cumsum(np.concatenate([[0.0], values]))
    sums: FloatArray = total[size:] - total[:-size]
    return sums


def _smoothed(values: FloatArray, width: int) -> FloatArray:
    return np.convolve(
        np.pad(values, (width // 2, width - 1 - width // 2), "edge"), np.ones(width) / width, "valid"
    )


def generated_day() -> Trace:
    """A day of web traffic with flash crowds, the same every time."""
    rng = np.random.default_rng(_DAY_SEED)
    times = np.arange(0.0, DAY_S, 15.0)
    shape = Product((Diurnal(mean=1.0), FlashCrowds(per_day=5.0, magnitude=1.2), Noise(sigma=0.12)))
    return Trace(times, shape.rates(times, rng), "generated day")


def parse_duration(text: str) -> float:
    """`3h`, `90m`, `2h30m` or plain seconds, as seconds.

    Raises:
        ValueError: not a duration, or not positive.
    """
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    parts = [float(p or 0) for p in match.groups()] if match else [0.0]
    seconds = sum(p * f for p, f in zip(parts, (3600, 60, 1), strict=False))
    if seconds <= 0:
        raise ValueError(f"{text!r} is not a duration such as 3h, 90m, 2h30m or 5400")
    return seconds
