"""Generated loads, sun, wind and prices: what policies are trained on. Everything is drawn from one
generator.

Shapes are those of published load and price data in words, not fitted to any recording: homes have a morning
and an evening peak and appliances, offices a working day, industry shifts, a data centre a wave on a high
base; the sun follows the day's arc through persistent clouds; wind is an Ornstein-Uhlenbeck process through a
turbine's curve; prices are flat, by time of use, or a spot market's (two humps, persistent noise, spikes).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sim.compiled import counted
from sim.grid.parts import Grid
from sim.grid.series import GridSeries

FloatArray = npt.NDArray[np.floating[Any]]
TARIFFS = ("flat", "time-of-use", "spot")


def draw_series(
    rng: np.random.Generator, grid: Grid, steps: int, tariff: str = "spot", mean_price: float = 0.15
) -> GridSeries:
    """`steps` steps of weather, loads and prices for a grid, from a random hour of a random weekday."""
    start_h = float(rng.integers(24))
    hours = start_h + np.arange(steps) * grid.step_h
    first_day = int(rng.integers(7))
    loads = [consumer.peak_kw * LOADS[consumer.kind](rng, hours, first_day) for consumer in grid.consumers]
    sky, air = _sky(rng, hours), _wind(rng, hours)
    renewables = [
        source.peak_kw * np.clip((sky if source.kind == "solar" else air) * rng.uniform(0.9, 1.0), 0.0, 1.0)
        for source in grid.renewables
    ]
    price = mean_price * PRICES[tariff](rng, hours, first_day)
    carbon = rng.uniform(0.02, 0.6) * _carbon(rng, hours)
    price = np.minimum(price, grid.penalties.unserved_per_kwh - grid.penalties.carbon_per_kg * carbon)
    power = np.stack(renewables) if renewables else np.zeros((0, steps))
    return GridSeries(np.stack(loads), power, price, carbon, grid.step_s, start_h, "generated")


@counted
def persistent(noise, keep):  # type: ignore[no-untyped-def]
    """A stationary AR(1) process of variance 1 from white noise `[T]`; keep: correlation of two
    neighbours."""
    result, scale = np.empty_like(noise), np.sqrt(1.0 - keep * keep)
    value = noise[0]
    for step in range(len(noise)):
        if step:
            value = keep * value + scale * noise[step]
        result[step] = value
    return result


def _noise(rng: np.random.Generator, hours: FloatArray, memory_h: float) -> FloatArray:
    """Persistent noise whose correlation falls to 1/e in `memory_h`."""
    step_h = hours[1] - hours[0] if len(hours) > 1 else 1.0
    return np.asarray(persistent(rng.standard_normal(len(hours)), float(np.exp(-step_h / memory_h))))


def _bump(hours: FloatArray, centre: float, width: float) -> FloatArray:
    """A bell on the clock, 1 at its centre."""
    away = (hours - centre + 12.0) % 24.0 - 12.0
    return np.asarray(np.exp(-0.5 * (away / width) ** 2))


def _weekend(hours: FloatArray, first_day: int) -> npt.NDArray[np.bool_]:
    return np.asarray((np.floor(hours / 24.0) + first_day) % 7 >= 5)


def _of_peak(rng: np.random.Generator, shape: FloatArray, least: float) -> FloatArray:
    """Scaled so that its largest value is a random share of the peak."""
    return np.asarray(shape / shape.max() * rng.uniform(least, 1.0))


def _homes(rng: np.random.Generator, hours: FloatArray, first_day: int) -> FloatArray:
    shape = np.full(len(hours), rng.uniform(0.15, 0.6))
    shape += rng.uniform(0.0, 0.8) * _bump(hours, rng.uniform(6.0, 9.0), rng.uniform(1.0, 2.0))
    shape += rng.uniform(0.2, 1.5) * _bump(hours, rng.uniform(17.0, 21.0), rng.uniform(1.5, 3.5))
    shape += rng.uniform(0.0, 1.2) * _bump(hours, rng.uniform(12.0, 17.0), rng.uniform(1.5, 4.0))
    shape *= np.where(_weekend(hours, first_day), rng.uniform(0.8, 1.4), 1.0)
    shape *= np.exp(rng.uniform(0.03, 0.3) * _noise(rng, hours, 30.0))
    single = rng.uniform(0.0, 1.0)
    shape *= np.exp(single * rng.uniform(0.1, 0.6) * _noise(rng, hours, 1.5))
    appliances = rng.random(len(hours)) < single * rng.uniform(0.0, 0.2) * (hours[1] - hours[0])
    return _of_peak(rng, shape + appliances * rng.exponential(1.2, len(hours)), 0.4)


def _offices(rng: np.random.Generator, hours: FloatArray, first_day: int) -> FloatArray:
    clock = hours % 24.0
    opens, closes = rng.uniform(6.5, 9.0), rng.uniform(16.5, 20.0)
    at_work = 1.0 / (1.0 + np.exp(-3.0 * (clock - opens))) / (1.0 + np.exp(3.0 * (clock - closes)))
    at_work = np.where(_weekend(hours, first_day), rng.uniform(0.0, 0.5), 1.0) * at_work
    shape = rng.uniform(0.15, 0.5) + at_work * np.exp(0.05 * _noise(rng, hours, 3.0))
    return _of_peak(rng, shape * np.exp(rng.uniform(0.02, 0.1) * _noise(rng, hours, 24.0)), 0.7)


def _industry(rng: np.random.Generator, hours: FloatArray, first_day: int) -> FloatArray:
    shifts = int(rng.integers(1, 4))
    working = (hours - rng.uniform(5.0, 8.0)) % 24.0 < 8.0 * shifts
    working &= ~(_weekend(hours, first_day) & (rng.random() < 0.6))
    shape = rng.uniform(0.2, 0.6) + working * np.exp(0.1 * _noise(rng, hours, 2.0))
    return _of_peak(rng, shape, 0.7)


def _datacentre(rng: np.random.Generator, hours: FloatArray, first_day: int) -> FloatArray:
    wave = 0.5 + 0.5 * np.sin(2.0 * np.pi * (hours - rng.uniform(6.0, 12.0)) / 24.0)
    wave *= np.where(_weekend(hours, first_day), rng.uniform(0.5, 1.0), 1.0)
    shape = rng.uniform(0.5, 2.0) + wave * np.exp(rng.uniform(0.02, 0.3) * _noise(rng, hours, 2.0))
    return _of_peak(rng, shape, 0.7)


LOADS = {"homes": _homes, "offices": _offices, "industry": _industry, "datacentre": _datacentre}


def _sky(rng: np.random.Generator, hours: FloatArray) -> FloatArray:
    """Share of a solar plant's peak."""
    noon, length = rng.uniform(11.5, 14.0), rng.uniform(8.0, 16.0)
    away = np.abs((hours - noon + 12.0) % 24.0 - 12.0)
    arc = np.maximum(np.cos(np.pi * away / length), 0.0) ** rng.uniform(0.9, 1.5) * (away < length / 2.0)
    weather = _noise(rng, hours, rng.uniform(15.0, 60.0)) + rng.uniform(-1.0, 2.5)
    clouds = 1.0 / (1.0 + np.exp(-1.5 * weather))
    flicker = np.exp(rng.uniform(0.0, 0.3) * _noise(rng, hours, 1.0))
    return np.asarray(np.clip(rng.uniform(0.6, 1.0) * arc * (0.15 + 0.85 * clouds) * flicker, 0.0, 1.0))


def _wind(rng: np.random.Generator, hours: FloatArray) -> FloatArray:
    """Share of a wind park's peak: speeds over the rated one, cubed, levelled off."""
    speed = rng.uniform(0.4, 0.8) * np.exp(
        rng.uniform(0.25, 0.5) * _noise(rng, hours, rng.uniform(8.0, 40.0))
    )
    speed *= 1.0 + rng.uniform(-0.15, 0.15) * np.cos(2.0 * np.pi * hours / 24.0)
    return np.asarray(np.minimum(speed, 1.0) ** 3)


def _flat(rng: np.random.Generator, hours: FloatArray, first_day: int) -> FloatArray:
    return np.ones(len(hours))


def _time_of_use(rng: np.random.Generator, hours: FloatArray, first_day: int) -> FloatArray:
    """A dear block, perhaps a night block cheaper than the rest; weekends may have none of it."""
    clock = hours % 24.0
    start, length = rng.choice([7.0, 12.0, 15.0, 16.0, 17.0, 18.0]), rng.integers(3, 7)
    dear = (clock - start) % 24.0 < length
    if rng.random() < 0.4:
        dear &= ~_weekend(hours, first_day)
    night = (clock - rng.choice([21.0, 22.0, 23.0, 0.0])) % 24.0 < rng.integers(6, 9)
    shape = np.where(dear, rng.uniform(1.3, 3.5), np.where(night, rng.uniform(0.5, 1.0), 1.0))
    return np.asarray(shape / shape.mean())


def _spot(rng: np.random.Generator, hours: FloatArray, first_day: int) -> FloatArray:
    """Hourly prices: two humps (a belly of cheap sun between them, perhaps), noise, spikes, rarely below
    0."""
    shape = 1.0 + rng.uniform(0.0, 0.5) * _bump(hours, rng.uniform(7.0, 10.0), 2.0)
    shape += rng.uniform(0.0, 0.8) * _bump(hours, rng.uniform(17.0, 20.0), 2.5)
    shape -= rng.uniform(0.0, 0.9) * _bump(hours, 13.0, 2.5) * (rng.random() < 0.5)
    shape *= np.where(_weekend(hours, first_day), rng.uniform(0.7, 1.0), 1.0)
    shape *= np.exp(rng.uniform(0.05, 0.35) * _noise(rng, hours, rng.uniform(10.0, 60.0)))
    shape += rng.uniform(0.0, 0.15) * _noise(rng, hours, 2.0)
    spikes = rng.random(len(hours)) < rng.choice([0.0, 0.003, 0.01])
    shape += spikes * rng.exponential(2.0, len(hours))
    shape = np.repeat(shape[:: _per_hour(hours)], _per_hour(hours))[: len(hours)]
    return np.asarray(np.maximum(shape, -0.3) / max(float(shape.mean()), 0.2))


PRICES = {"flat": _flat, "time-of-use": _time_of_use, "spot": _spot}


def _per_hour(hours: FloatArray) -> int:
    return max(1, round(1.0 / (hours[1] - hours[0]))) if len(hours) > 1 else 1


def _carbon(rng: np.random.Generator, hours: FloatArray) -> FloatArray:
    """Emissions of imports over their mean: an evening hump, less at noon, persistent noise."""
    shape = (
        1.0
        + rng.uniform(0.0, 0.3) * _bump(hours, 19.0, 3.0)
        - rng.uniform(0.0, 0.5) * _bump(hours, 13.0, 3.0)
    )
    return np.asarray(np.maximum(shape * np.exp(rng.uniform(0.02, 0.2) * _noise(rng, hours, 24.0)), 0.05))
