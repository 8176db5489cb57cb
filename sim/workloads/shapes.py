"""Rates without chance: levels, waves of a day and a week, ramps, steps, spikes at full hours.

Their defaults are round numbers that show the shape, unless a line names a source; set them to yours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sim.errors import require
from sim.workloads.base import DAY_S, HOUR_S, WEEK_S, FloatArray, check, check_each


@dataclass(frozen=True)
class Constant:
    """The same rate always."""

    level: float = 1.0
    """Requests/s."""

    def __post_init__(self) -> None:
        check(self, not_negative=("level",))

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The level."""
        return np.full(len(times_s), float(self.level))


@dataclass(frozen=True)
class Diurnal:
    """A day's wave with an optional second harmonic and a quieter weekend."""

    mean: float = 1.0
    """Requests/s."""
    day_amplitude: float = 0.6
    """Share of the mean by which the day swings."""
    half_day_amplitude: float = 0.15
    """The same for two peaks a day."""
    weekend_drop: float = 0.3
    """Share by which days 5 and 6 of a week are lower."""
    peak_s: float = 15 * HOUR_S
    """When in the day the wave is highest, s."""
    period_s: float = DAY_S
    """Length of a "day", s: shorter ones give the same shape faster."""

    def __post_init__(self) -> None:
        check(
            self,
            not_negative=("mean", "day_amplitude", "half_day_amplitude"),
            share=("weekend_drop",),
            finite=("peak_s",),
            positive=("period_s",),
        )

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The wave."""
        phase = 2 * math.pi * (times_s - self.peak_s) / self.period_s
        wave = 1 + self.day_amplitude * np.cos(phase) + self.half_day_amplitude * np.cos(2 * phase)
        weekend = np.floor_divide(times_s, self.period_s) % 7 >= 5
        return np.asarray(self.mean * np.maximum(wave, 0.0) * np.where(weekend, 1 - self.weekend_drop, 1.0))


@dataclass(frozen=True)
class Weekly:
    """A week from two profiles that anybody can read off a dashboard: hours of a day, days of a week.

    Hours are interpolated linearly between their middles, days blended round midnight; the profiles are
    scaled so that a week's mean is `mean`.
    """

    mean: float = 1.0
    """Requests/s over a whole week."""
    hours: tuple[float, ...] = (
        0.6, 0.45, 0.35, 0.3, 0.3, 0.35, 0.5, 0.75, 1.0, 1.2, 1.3, 1.3,
        1.25, 1.3, 1.35, 1.35, 1.3, 1.25, 1.2, 1.25, 1.3, 1.25, 1.05, 0.8,
    )  # fmt: skip
    """24 relative levels, from midnight."""
    days: tuple[float, ...] = (1.0, 1.05, 1.05, 1.05, 1.0, 0.75, 0.7)
    """7 relative levels, day 0 first (a Monday)."""
    blend_s: float = 2 * HOUR_S
    """How long the change from one day's level to the next takes, s."""

    def __post_init__(self) -> None:
        check(self, not_negative=("mean",), positive=("blend_s",))
        check_each(self, "hours")
        check_each(self, "days")
        require(len(self.hours) == 24, "Weekly.hours", self.hours, "24 numbers, one for each hour of a day")
        require(len(self.days) == 7, "Weekly.days", self.days, "7 numbers, one for each day of a week")
        require(self.blend_s <= DAY_S, "Weekly.blend_s", self.blend_s, f"at most {DAY_S:g}")
        require(sum(self.hours) * sum(self.days) > 0, "Weekly.hours", self.hours, "above 0 somewhere")

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The week."""
        grid = np.arange(0.0, WEEK_S, 300.0) + 150.0
        return np.asarray(self.mean * self._profile(times_s) / self._profile(grid).mean())

    def _profile(self, times_s: FloatArray) -> FloatArray:
        middles = (np.arange(24) + 0.5) * HOUR_S
        hours = np.interp(np.mod(times_s, DAY_S), middles, self.hours, period=DAY_S)
        starts = np.arange(7) * DAY_S
        knots = np.stack([starts + self.blend_s / 2, starts + DAY_S - self.blend_s / 2], axis=1).ravel()
        levels = np.repeat(self.days, 2)
        return np.asarray(hours * np.interp(np.mod(times_s, WEEK_S), knots, levels, period=WEEK_S))


@dataclass(frozen=True)
class Ramp:
    """From one level to another in a straight line."""

    start: float = 0.2
    """Requests/s before."""
    end: float = 1.0
    """Requests/s after."""
    begin_s: float = 0.0
    """When it begins, s."""
    length_s: float = HOUR_S
    """How long it takes, s."""

    def __post_init__(self) -> None:
        check(self, not_negative=("start", "end", "length_s"), finite=("begin_s",))

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The line."""
        part = np.clip((times_s - self.begin_s) / max(self.length_s, 1e-9), 0.0, 1.0)
        return np.asarray(self.start + (self.end - self.start) * part)


@dataclass(frozen=True)
class Step:
    """A sudden change at one moment."""

    before: float = 0.2
    """Requests/s before."""
    after: float = 1.0
    """Requests/s after."""
    at_s: float = HOUR_S
    """When, s."""

    def __post_init__(self) -> None:
        check(self, not_negative=("before", "after"), finite=("at_s",))

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Before, then after."""
        return np.where(times_s < self.at_s, self.before, self.after)


@dataclass(frozen=True)
class Staircase:
    """Levels one after another, each held for the same time, joined by jumps or by ramps; repeats."""

    levels: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 0.5)
    """Requests/s, in order."""
    hold_s: float = 1800.0
    """How long each level is held, s."""
    ramp_s: float = 0.0
    """How long the way to the next level takes, s; 0: a jump."""
    start_s: float = 0.0
    """When the first level begins, s."""

    def __post_init__(self) -> None:
        check(self, positive=("hold_s",), not_negative=("ramp_s",), finite=("start_s",))
        check_each(self, "levels")

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The stairs."""
        levels = np.asarray(self.levels, float)
        length_s = self.hold_s + self.ramp_s
        age = np.mod(times_s - self.start_s, length_s * len(levels))
        index = np.minimum((age / length_s).astype(np.int64), len(levels) - 1)
        part = np.clip((age - index * length_s - self.hold_s) / max(self.ramp_s, 1e-9), 0.0, 1.0)
        following = levels[(index + 1) % len(levels)]
        return np.asarray(levels[index] + (following - levels[index]) * (part if self.ramp_s > 0 else 0.0))


@dataclass(frozen=True)
class Cron:
    """A factor of 1 with a spike at every full period, as schedulers make."""

    period_s: float = HOUR_S
    """Between two spikes, s."""
    offset_s: float = 0.0
    """When in the period the spike begins, s."""
    width_s: float = 120.0
    """Its length, s."""
    magnitude: float = 2.0
    """Factor in the spike, over 1."""

    def __post_init__(self) -> None:
        check(self, positive=("period_s",), not_negative=("width_s", "magnitude"), finite=("offset_s",))

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """1, or the spike."""
        inside = np.mod(times_s - self.offset_s, self.period_s) < self.width_s
        return np.asarray(1.0 + self.magnitude * inside)
