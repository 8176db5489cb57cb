"""Random grids and weeks: what `rlscaler/SmartGrid-v0` draws its episodes from.

Four families: a home (sun, battery, a tariff), a community (the same, larger and smoother), a microgrid (wind
or sun, perhaps a generator, a connection that may be too thin), an island (no connection: a generator has to
carry what weather and storage do not). Sizes are ratios of the peak load, prices ratios of their mean, so
currency and kilowatts mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sim.errors import require
from sim.grid.parts import (
    CONSUMER_KINDS,
    Connection,
    Consumer,
    Dispatchable,
    Grid,
    Penalties,
    Renewable,
    Storage,
)
from sim.grid.series import GridSeries
from sim.grid.weather import TARIFFS, draw_series

HISTORY_H = 168
"""Hours before an episode that are known when it begins: mean price and load are of these."""
AHEAD_H = 12
"""Hours ahead for which the import price is known: tariffs are, and day-ahead markets publish at least so
much."""


@dataclass(frozen=True)
class FamilyMix:
    """How often each family is drawn; weights, not shares."""

    home: float = 4.0
    community: float = 2.0
    microgrid: float = 3.0
    island: float = 1.0


@dataclass(frozen=True)
class GridScenarioConfig:
    """What random grids look like; ranges are drawn from uniformly, or log-uniformly where they are
    ratios."""

    families: FamilyMix = field(default_factory=FamilyMix)
    peak_kw: tuple[float, float] = (2.0, 5000.0)
    mean_price: tuple[float, float] = (0.03, 0.5)
    storage_h: tuple[float, float] = (0.3, 5.0)
    """Capacity over peak load, hours."""
    storage_rate: tuple[float, float] = (0.15, 1.0)
    """Power over capacity, 1/h."""
    efficiency: tuple[float, float] = (0.85, 1.0)
    """Each way."""
    self_discharge_per_h: tuple[float, float] = (0.0, 0.002)
    wear: tuple[float, float] = (0.0, 0.15)
    """Cost of a kWh discharged over the mean price."""
    solar_share: tuple[float, float] = (0.0, 1.2)
    """Solar peak over peak load."""
    wind_share: tuple[float, float] = (0.0, 1.0)
    """Wind peak over peak load."""
    generator_cost: tuple[float, float] = (0.7, 6.0)
    """Cost of a dispatchable kWh over the mean price."""
    thin_line: tuple[float, float] = (0.3, 0.9)
    """Connection over peak load, where it is thin."""
    unserved: tuple[float, float] = (8.0, 40.0)
    """Price of an unserved kWh over the mean price."""
    step_s: tuple[int, ...] = (3600,)
    """Lengths of a step, one an episode."""

    def __post_init__(self) -> None:
        for name in ("efficiency", "self_discharge_per_h"):
            low, high = getattr(self, name)
            require(0.0 <= low <= high <= 1.0, name, (low, high), "a rising pair in 0..1")
        for name in ("peak_kw", "mean_price", "storage_h", "storage_rate", "generator_cost", "unserved"):
            low, high = getattr(self, name)
            require(0.0 < low <= high, name, (low, high), "a rising pair above 0")
        require(self.unserved[0] >= 6.0, "unserved", self.unserved, "from 6 on: prices have spikes")
        weights = [*vars(self.families).values()]
        usable = min(weights) >= 0 and sum(weights) > 0
        require(usable, "families", weights, "weights of 0 or more, not all 0")


@dataclass(frozen=True)
class GridScenario:
    """One episode: a grid with its series, which begins `start` steps before the episode."""

    grid: Grid
    series: GridSeries
    start: int
    family: str = "given"


def draw_scenario(
    rng: np.random.Generator,
    config: GridScenarioConfig,
    dispatchables: int,
    storages: int,
    horizon_h: int,
) -> GridScenario:
    """A random grid with at most so many dispatchables and storages, and a random week of it."""
    names = list(vars(config.families))
    weights = np.array([getattr(config.families, name) for name in names])
    family = str(rng.choice(names, p=weights / weights.sum()))
    mean_price = _ratio(rng, config.mean_price)
    grid = _draw_grid(rng, config, family, mean_price, dispatchables, storages)
    tariff = str(rng.choice(TARIFFS, p=_TARIFF_SHARES[family]))
    return with_series(rng, grid, tariff, mean_price, horizon_h, family)


_TARIFF_SHARES = {
    "home": (0.1, 0.6, 0.3),
    "community": (0.1, 0.5, 0.4),
    "microgrid": (0.1, 0.2, 0.7),
    "island": (0.8, 0.1, 0.1),
}


def with_series(
    rng: np.random.Generator,
    grid: Grid,
    tariff: str,
    mean_price: float,
    horizon_h: int,
    family: str = "given",
) -> GridScenario:
    """A random week for a grid, with its history before and the known prices after it."""
    per_hour = grid.steps_per_hour
    steps = (HISTORY_H + horizon_h + AHEAD_H) * per_hour + 1
    return GridScenario(grid, draw_series(rng, grid, steps, tariff, mean_price), HISTORY_H * per_hour, family)


def _draw_grid(
    rng: np.random.Generator,
    config: GridScenarioConfig,
    family: str,
    mean_price: float,
    dispatchables: int,
    storages: int,
) -> Grid:
    peak_kw = _ratio(rng, config.peak_kw)
    kind = "homes" if family == "home" else str(rng.choice(CONSUMER_KINDS))
    renewables = _draw_renewables(rng, config, family, peak_kw)
    generators = int(rng.integers(_LEAST_GENERATORS[family], 2) * dispatchables if dispatchables else 0)
    if family == "home":
        generators = int(dispatchables > 0 and rng.random() < 0.1)
    return Grid(
        name=family,
        consumers=(Consumer("load", peak_kw, kind),),
        dispatchables=tuple(
            _draw_generator(rng, config, family, place, generators, peak_kw, mean_price)
            for place in range(generators)
        ),
        renewables=renewables,
        storages=tuple(
            _draw_storage(rng, config, place, peak_kw, mean_price)
            for place in range(max(1, int(rng.integers(1, storages + 1))) if storages else 0)
        ),
        connection=_draw_connection(rng, config, family, peak_kw),
        penalties=Penalties(
            mean_price * _ratio(rng, config.unserved),
            mean_price * float(rng.choice([0.0, 0.0, 0.05])),
            float(rng.choice([0.0, 0.0, 0.1])) * mean_price,
        ),
        step_s=int(rng.choice(config.step_s)),
    )


_LEAST_GENERATORS = {"home": 0, "community": 0, "microgrid": 0, "island": 1}


def _draw_renewables(
    rng: np.random.Generator, config: GridScenarioConfig, family: str, peak_kw: float
) -> tuple[Renewable, ...]:
    solar, wind = rng.uniform(*config.solar_share), rng.uniform(*config.wind_share)
    if family in ("home", "community"):
        wind *= float(rng.random() < 0.1)
    elif rng.random() < 0.4:
        solar = 0.0
    return (Renewable("sun", "solar", solar * peak_kw), Renewable("wind", "wind", wind * peak_kw))


def _draw_generator(
    rng: np.random.Generator,
    config: GridScenarioConfig,
    family: str,
    place: int,
    count: int,
    peak_kw: float,
    mean_price: float,
) -> Dispatchable:
    """On an island generators together carry the peak, nearly always."""
    share = rng.uniform(0.8, 1.2) if family == "island" else rng.uniform(0.2, 1.0)
    max_kw = share * peak_kw / count
    return Dispatchable(
        f"generator {place + 1}",
        max_kw,
        mean_price * _ratio(rng, config.generator_cost),
        min_kw=max_kw * float(rng.choice([0.0, 0.0, 0.2])),
        ramp_kw_per_h=None if rng.random() < 0.5 else max_kw * rng.uniform(0.2, 1.0),
        carbon_kg_per_kwh=rng.uniform(0.0, 0.9),
    )


def _draw_storage(
    rng: np.random.Generator, config: GridScenarioConfig, place: int, peak_kw: float, mean_price: float
) -> Storage:
    energy = peak_kw * _ratio(rng, config.storage_h)
    power = energy * _ratio(rng, config.storage_rate)
    return Storage(
        f"storage {place + 1}",
        energy,
        power,
        power * (1.0 if rng.random() < 0.7 else rng.uniform(0.5, 1.5)),
        rng.uniform(*config.efficiency),
        rng.uniform(*config.efficiency),
        rng.uniform(*config.self_discharge_per_h) * float(rng.random() < 0.5),
        rng.uniform(),
        mean_price * rng.uniform(*config.wear) * float(rng.random() < 0.5),
    )


def _draw_connection(
    rng: np.random.Generator, config: GridScenarioConfig, family: str, peak_kw: float
) -> Connection:
    if family == "island":
        return Connection()
    thin = family == "microgrid" and rng.random() < 0.6
    line_kw = peak_kw * (rng.uniform(*config.thin_line) if thin else 1.5)
    export_kw = 0.0 if rng.random() < 0.15 else line_kw
    share = float(rng.choice([0.0, 1.0])) if rng.random() < 0.3 else rng.uniform(0.0, 1.0)
    return Connection(line_kw, export_kw, share)


def _ratio(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]))))
