"""The recorded weeks that grid policies are evaluated on, and the generated ones that are held out.

Recordings (`energy_*.csv`, columns in docs/grid.md) are test data: nothing is trained on or chosen by them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sim.grid import Connection, Consumer, Dispatchable, Grid, GridSeries, Penalties, Renewable, Storage
from sim.grid.batch import SmartGridConfig, cut_scenario
from sim.grid.files import load_grid
from sim.grid.scenarios import AHEAD_H, HISTORY_H, GridScenario, draw_scenario
from sim.grid.series import fit_series, load_series, resampled
from training.errors import ConfigError

WEEK_H = 168
HELD_OUT_SEED = 10_000
HOMES = ("home01", "home02", "home09", "home10")
STREET_HOMES = 7


@dataclass(frozen=True)
class Setup:
    """One grid with its recording, cut into weeks one after the other."""

    name: str
    grid: Grid
    weeks: tuple[GridScenario, ...]
    in_bills: bool = False
    """Whether money is counted in each week's usual bill (mean load at the mean price of the week before), so
    that grids of other sizes and currencies can be added."""


def recorded_setups(folder: Path, every: int = 1) -> list[Setup]:
    """Four homes, the street of seven, and a microgrid; every `every`-th week. Raises ConfigError."""
    setups = [_home(folder, name, f"energy_citylearn2022_{name}_3600s.csv", every) for name in HOMES]
    setups.append(_home(folder, "street", "energy_citylearn2022_agg7pub_3600s.csv", every, STREET_HOMES))
    setups.append(_microgrid(folder, every))
    return setups


def generated_weeks(count: int, seed: int = HELD_OUT_SEED) -> list[GridScenario]:
    """Random grids and weeks that training does not see: seeds from `seed` on."""
    config = SmartGridConfig()
    return [
        draw_scenario(np.random.default_rng(seed + one), config.scenario, 1, 1, config.horizon_h)
        for one in range(count)
    ]


def generated_setup(count: int) -> Setup:
    """Held-out generated weeks as a setup."""
    weeks = tuple(generated_weeks(count))
    return Setup("generated", weeks[0].grid, weeks, in_bills=True)


def _home(folder: Path, name: str, file: str, every: int, homes: int = 1) -> Setup:
    """The home of the published grids, as large as this one's demand and panels, with a battery a home."""
    columns = _columns(folder, file)
    example = load_grid("home")
    battery = example.storages[0]
    grid = replace(
        example,
        name=name,
        consumers=(replace(example.consumers[0], peak_kw=math.ceil(columns["demand"].max())),),
        renewables=(replace(example.renewables[0], peak_kw=math.ceil(columns["solar"].max())),),
        storages=(
            replace(
                battery,
                energy_kwh=homes * battery.energy_kwh,
                charge_kw=homes * battery.charge_kw,
                discharge_kw=homes * battery.discharge_kw,
            ),
        ),
        connection=replace(example.connection, import_kw=homes * 20.0, export_kw=homes * 20.0),
    )
    return Setup(name, grid, _weeks(grid, fit_series(grid, columns, name), every))


def _microgrid(folder: Path, every: int) -> Setup:
    """Victoria's demand (2012 on) scaled to a peak of 1 MW, Finland's wind (2018) to one of 800 kW, its spot
    price; a line of 700 kW, a diesel generator and a battery."""
    demand = _columns(folder, "energy_victoria_au_2012-14_1800s.csv.gz")
    market = _columns(folder, "energy_finland2018_wind_price_3600s.csv")
    grid = Grid(
        name="microgrid",
        consumers=(Consumer("town", 1000.0, "homes"),),
        dispatchables=(Dispatchable("diesel", 400.0, 0.25, ramp_kw_per_h=200.0, carbon_kg_per_kwh=0.75),),
        renewables=(Renewable("wind park", "wind", 800.0),),
        storages=(Storage("battery", 1000.0, 500.0, 500.0),),
        connection=Connection(700.0, 700.0, 0.8),
        penalties=Penalties(unserved_per_kwh=5.0),
    )
    load = resampled(demand["demand"], demand["step_s"], 3600)
    steps = min(len(load), len(market["wind"]))
    series = GridSeries(
        1000.0 * load[None, :steps] / load.max(),
        800.0 * market["wind"][None, :steps] / market["wind"].max(),
        market["price"][:steps],
        np.zeros(steps),
        name="microgrid",
    )
    return Setup("microgrid", grid, _weeks(grid, series, every))


def _weeks(grid: Grid, series: GridSeries, every: int) -> tuple[GridScenario, ...]:
    per_hour = grid.steps_per_hour
    length = (WEEK_H + AHEAD_H) * per_hour + 1
    starts = range(HISTORY_H * per_hour, series.steps - length + 1, every * WEEK_H * per_hour)
    return tuple(cut_scenario(grid, series, WEEK_H, start=start) for start in starts)


def _columns(folder: Path, file: str) -> Mapping[str, Any]:
    path = folder / file
    if not path.is_file():
        raise ConfigError(
            f"--traces {folder}: has no {file}; docs/grid.md says where the recordings come from"
        )
    return load_series(path)
