"""Generated request rates: parameters in dataclasses, composable, deterministic by their random generator.

A workload is a shape: `rates(times_s, rng)` gives non-negative rates `[T]` in requests/s (or, for the
factors that multiply others, in shares). `sample_workload` draws one at random for training: harsh and
varied on purpose, since a policy learns only the trouble that it has seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numba as nb
import numpy as np
import numpy.typing as npt

from sim.errors import require

FloatArray = npt.NDArray[np.floating[Any]]
HOUR_S = 3600.0
DAY_S = 86400.0
WEEK_S = 7 * DAY_S


class Workload(Protocol):
    """Anything with `rates(times_s [T] ascending, rng) -> [T]`, none negative."""

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Rates at these seconds."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same rate always."""

    level: float = 1.0
    """Requests/s."""

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The level."""
        return np.full(len(times_s), self.level)


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
    """When in the day the wave is highest."""
    period_s: float = DAY_S
    """Length of a "day": shorter ones give the same shape faster."""

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The wave."""
        phase = 2 * math.pi * (times_s - self.peak_s) / self.period_s
        wave = 1 + self.day_amplitude * np.cos(phase) + self.half_day_amplitude * np.cos(2 * phase)
        weekend = np.floor_divide(times_s, self.period_s) % 7 >= 5
        return np.asarray(self.mean * np.maximum(wave, 0.0) * np.where(weekend, 1 - self.weekend_drop, 1.0))


@dataclass(frozen=True)
class Ramp:
    """From one level to another in a straight line."""

    start: float = 0.2
    """Requests/s before."""
    end: float = 1.0
    """Requests/s after."""
    begin_s: float = 0.0
    """When it begins."""
    length_s: float = HOUR_S
    """How long it takes."""

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
    """When."""

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Before, then after."""
        return np.where(times_s < self.at_s, self.before, self.after)


@dataclass(frozen=True)
class Mmpp:
    """Markov-modulated rate: levels held for exponential times, the next drawn evenly among the others."""

    levels: tuple[float, ...] = (0.3, 0.6, 1.0)
    """Requests/s of each state."""
    hold_s: float = 600.0
    """Mean stay in a state."""

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Piecewise constant levels."""
        levels = np.asarray(self.levels)
        stays = _exponential_until(rng, self.hold_s, times_s)
        hops = rng.integers(1, max(len(levels), 2), size=len(stays))
        states = np.cumsum(np.concatenate([[rng.integers(len(levels))], hops])) % len(levels)
        return np.asarray(levels[states[np.searchsorted(stays, times_s, side="right")]])


@dataclass(frozen=True)
class FlashCrowds:
    """A factor of 1 with surges: fast rise, plateau, exponential decay."""

    per_day: float = 4.0
    """Mean surges a day."""
    magnitude: float = 4.0
    """Median factor at the top, over 1."""
    magnitude_spread: float = 0.5
    """Log-normal sigma of the magnitude."""
    rise_s: float = 120.0
    """From nothing to the top."""
    hold_s: float = 300.0
    """At the top."""
    decay_s: float = 900.0
    """Time constant of the way down."""

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """1 plus every surge."""
        starts = _poisson_events(rng, self.per_day, times_s, before_s=5 * self.decay_s)
        tops = self.magnitude * np.exp(self.magnitude_spread * rng.standard_normal(len(starts)))
        factor = np.ones(len(times_s))
        for start, top in zip(starts, tops, strict=True):
            factor += top * self._surge(times_s - start)
        return factor

    def _surge(self, age_s: FloatArray) -> FloatArray:
        rise = np.clip(age_s / max(self.rise_s, 1e-9), 0.0, 1.0)
        late = np.maximum(age_s - self.rise_s - self.hold_s, 0.0)
        return np.asarray(rise * np.exp(-late / self.decay_s))


@dataclass(frozen=True)
class Spiky:
    """Zero-inflated bursts, as serverless functions and batch callers make: nothing, then a lot at once."""

    idle_s: float = 900.0
    """Mean pause between bursts."""
    burst_s: float = 120.0
    """Mean length of a burst."""
    magnitude: float = 1.0
    """Median requests/s in a burst."""
    magnitude_spread: float = 0.8
    """Log-normal sigma of the magnitude."""
    floor: float = 0.0
    """Requests/s in the pauses."""

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The floor, or a burst's level."""
        cycle = _exponential_until(rng, self.idle_s + self.burst_s, times_s)
        starts = np.concatenate([[times_s[0] - rng.exponential(self.idle_s)], cycle])
        lengths = rng.exponential(self.burst_s, len(starts))
        levels = self.magnitude * np.exp(self.magnitude_spread * rng.standard_normal(len(starts)))
        index = np.searchsorted(starts, times_s, side="right") - 1
        active = (index >= 0) & (times_s < starts[index] + lengths[index])
        return np.where(active, np.maximum(levels[index], self.floor), self.floor)


@dataclass(frozen=True)
class Cron:
    """A factor of 1 with a spike at every full period, as schedulers make."""

    period_s: float = HOUR_S
    """Between two spikes."""
    offset_s: float = 0.0
    """When in the period the spike begins."""
    width_s: float = 120.0
    """Its length."""
    magnitude: float = 2.0
    """Factor in the spike, over 1."""

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """1, or the spike."""
        inside = np.mod(times_s - self.offset_s, self.period_s) < self.width_s
        return np.asarray(1.0 + self.magnitude * inside)


@dataclass(frozen=True)
class Outages:
    """A factor of 1 that drops (a failing upstream, a deploy) and comes back higher while clients retry."""

    per_day: float = 2.0
    """Mean outages a day."""
    length_s: float = 300.0
    """Mean length."""
    depth: float = 0.9
    """Share of the traffic that is gone."""
    rebound: float = 0.5
    """Extra share right after."""
    rebound_s: float = 180.0
    """Time constant with which the extra vanishes."""

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """1, less in an outage, more after it."""
        starts = _poisson_events(rng, self.per_day, times_s, before_s=self.length_s)
        factor = np.ones(len(times_s))
        for start in starts:
            end = start + max(rng.exponential(self.length_s), 15.0)
            factor = np.where((times_s >= start) & (times_s < end), 1.0 - self.depth, factor)
            age = times_s - end
            factor = np.where(
                age >= 0, factor + self.rebound * np.exp(-np.maximum(age, 0) / self.rebound_s), factor
            )
        return factor


@dataclass(frozen=True)
class Noise:
    """A log-normal factor with memory; several time scales at once resemble self-similar traffic."""

    sigma: float = 0.1
    """Standard deviation of the logarithm, over all scales."""
    scales_s: tuple[float, ...] = (30.0, 300.0, 3000.0)
    """Correlation times, equally strong."""

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """exp of a sum of Ornstein-Uhlenbeck processes, mean about 1."""
        each = self.sigma / math.sqrt(len(self.scales_s))
        total = np.zeros(len(times_s))
        for scale_s in self.scales_s:
            total += each * _coloured(times_s, scale_s, rng)
        return np.exp(total - 0.5 * self.sigma**2)


@dataclass(frozen=True)
class Product:
    """Factors over one another: a base times surges times noise."""

    parts: tuple[Workload, ...]

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

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The parts added."""
        result = np.zeros(len(times_s))
        for part in self.parts:
            result = result + part.rates(times_s, rng)
        return result


@dataclass(frozen=True)
class WorkloadMix:
    """How often `sample_workload` draws each family (any positive scale; 0 never)."""

    smooth: float = 2.0
    """A day's wave (at any speed) with noise."""
    surges: float = 2.5
    """A wave with flash crowds."""
    steps: float = 1.5
    """Jumps between levels and ramps."""
    cron: float = 1.0
    """A wave with regular spikes."""
    spiky: float = 2.0
    """Bursts out of nothing or nearly nothing."""
    outages: float = 1.0
    """A wave with dips and rebounds."""
    anything: float = 1.5
    """Several of these at once."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(math.isfinite(value) and value >= 0, name, value, "0 or more")
        require(sum(vars(self).values()) > 0, "mix", self, "positive for at least one family")


def sample_shape(rng: np.random.Generator, mix: WorkloadMix | None = None) -> Workload:
    """Draw a workload with random parameters; its level is about 1 and only its shape matters."""
    weights = vars(mix or WorkloadMix())
    share = np.array(list(weights.values())) / sum(weights.values())
    family = list(weights)[int(rng.choice(len(share), p=share))]
    return _FAMILIES[family](rng)


def sample_workload(
    rng: np.random.Generator, duration_s: float, dt_s: float, mix: WorkloadMix | None = None
) -> FloatArray:
    """Random rates `[ceil(duration_s / dt_s) + 1]`, one every `dt_s`, scaled to a peak of 1.

    This is the domain randomisation of training. Deterministic by `rng`.
    """
    require(duration_s > 0, "duration_s", duration_s, "greater than 0")
    require(0 < dt_s <= duration_s, "dt_s", dt_s, f"in 0..{duration_s:g}")
    times_s = rng.uniform(0.0, WEEK_S) + np.arange(math.ceil(duration_s / dt_s) + 1) * dt_s
    rates = sample_shape(rng, mix).rates(times_s, rng)
    peak = float(rates.max())
    return rates / peak if peak > 1e-9 else np.full(len(times_s), 0.5)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def _wave(rng: np.random.Generator) -> Workload:
    return Diurnal(
        day_amplitude=rng.uniform(0.0, 0.9),
        half_day_amplitude=rng.uniform(0.0, 0.3),
        weekend_drop=rng.uniform(0.0, 0.6),
        peak_s=rng.uniform(0.0, DAY_S),
        # a wave of two hours makes an episode see what takes others a day
        period_s=DAY_S if rng.random() < 0.5 else _log_uniform(rng, 2 * HOUR_S, DAY_S),
    )


def _noise(rng: np.random.Generator) -> Workload:
    return Noise(
        _log_uniform(rng, 0.01, 0.5), (_log_uniform(rng, 15, 120), 300.0, _log_uniform(rng, 600, 6000))
    )


def _surges(rng: np.random.Generator) -> Workload:
    return FlashCrowds(
        per_day=_log_uniform(rng, 2, 60),
        magnitude=_log_uniform(rng, 0.3, 12),
        magnitude_spread=rng.uniform(0.2, 1.0),
        rise_s=_log_uniform(rng, 5, 900),
        hold_s=_log_uniform(rng, 15, 1800),
        decay_s=_log_uniform(rng, 30, 3600),
    )


def _levels(rng: np.random.Generator) -> Workload:
    count = int(rng.integers(2, 7))
    levels = np.exp(rng.uniform(-2.5, 0.0, count))
    jumps = Mmpp(tuple(float(level) for level in levels), _log_uniform(rng, 60, 3600))
    if rng.random() < 0.5:
        return jumps
    ramp = Ramp(float(levels[0]), float(levels[1]), rng.uniform(0, WEEK_S), _log_uniform(rng, 300, DAY_S))
    return Product((jumps, ramp))


def _cron(rng: np.random.Generator) -> Workload:
    period_s = float(rng.choice([300.0, 600.0, 900.0, 1800.0, 3600.0, 21600.0]))
    width_s = min(_log_uniform(rng, 15, 600), period_s / 2)
    return Cron(period_s, rng.uniform(0, period_s), width_s, _log_uniform(rng, 0.3, 6))


def _spiky(rng: np.random.Generator) -> Workload:
    floor = 0.0 if rng.random() < 0.5 else _log_uniform(rng, 0.002, 0.2)
    burst_s = _log_uniform(rng, 10, 900)
    return Spiky(burst_s * _log_uniform(rng, 0.5, 20), burst_s, 1.0, rng.uniform(0.1, 1.2), floor)


def _outages(rng: np.random.Generator) -> Workload:
    return Outages(
        per_day=_log_uniform(rng, 2, 24),
        length_s=_log_uniform(rng, 30, 1800),
        depth=rng.uniform(0.3, 1.0),
        rebound=rng.uniform(0.0, 1.5),
        rebound_s=_log_uniform(rng, 30, 600),
    )


def _anything(rng: np.random.Generator) -> Workload:
    base = Sum((_wave(rng), _spiky(rng))) if rng.random() < 0.5 else _wave(rng)
    factors = [make(rng) for make in (_surges, _cron, _outages, _levels) if rng.random() < 0.5]
    return Product((base, *factors, _noise(rng)))


_FAMILIES = {
    "smooth": lambda rng: Product((_wave(rng), _noise(rng))),
    "surges": lambda rng: Product((_wave(rng), _surges(rng), _noise(rng))),
    "steps": lambda rng: Product((_levels(rng), _noise(rng))),
    "cron": lambda rng: Product((_wave(rng), _cron(rng), _noise(rng))),
    "spiky": lambda rng: Product((_spiky(rng), _noise(rng))),
    "outages": lambda rng: Product((_wave(rng), _outages(rng), _noise(rng))),
    "anything": _anything,
}


def _exponential_until(rng: np.random.Generator, mean_s: float, times_s: FloatArray) -> FloatArray:
    """Ascending moments with exponential gaps that cover `times_s`."""
    span = times_s[-1] - times_s[0]
    expected = span / max(mean_s, 1e-3)
    gaps = rng.exponential(mean_s, int(expected + 6 * math.sqrt(expected) + 10))
    moments = times_s[0] + np.cumsum(gaps)
    return np.asarray(moments[moments <= times_s[-1]])


def _poisson_events(
    rng: np.random.Generator, per_day: float, times_s: FloatArray, before_s: float
) -> FloatArray:
    span = times_s[-1] - times_s[0] + before_s
    count = rng.poisson(per_day * span / DAY_S)
    return np.sort(rng.uniform(times_s[0] - before_s, times_s[-1], count))


def _coloured(times_s: FloatArray, scale_s: float, rng: np.random.Generator) -> FloatArray:
    """A stationary Ornstein-Uhlenbeck process of variance 1, drawn coarsely and interpolated."""
    step = max(scale_s / 3.0, float(times_s[1] - times_s[0]))
    count = math.ceil((times_s[-1] - times_s[0]) / step) + 2
    keep = math.exp(-step / scale_s)
    shocks = rng.standard_normal(count)
    shocks[1:] *= math.sqrt(1.0 - keep**2)
    return np.asarray(np.interp(times_s, times_s[0] + np.arange(count) * step, _filter(shocks, keep)))


@nb.njit(cache=True)
def _filter(shocks, keep):  # type: ignore[no-untyped-def]
    result = np.empty_like(shocks)
    value = 0.0
    for index in range(len(shocks)):
        value = keep * value + shocks[index]
        result[index] = value
    return result
