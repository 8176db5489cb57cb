"""What the weather, the consumers and the market do over time: a table a grid is driven by.

Drawn by `sim.grid.weather`, or read from the project's energy CSV (`timestamp_s,demand_kw,solar_kw,wind_kw,
price`) by `load_series`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import TraceError, require, require_all
from sim.grid.parts import Grid
from sim.loaders.base import Source

FloatArray = npt.NDArray[np.floating[Any]]
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "demand": ("demand_kw",),
    "solar": ("solar_kw",),
    "wind": ("wind_kw",),
    "price": ("price", "price_per_kwh", "price_eur_mwh"),
    "carbon": ("carbon_kg_per_kwh",),
}
"""Columns of an energy CSV, in the names that each may have."""
PER_MWH = ("price_eur_mwh",)
LOAD, SOLAR, WIND, PRICE, CARBON = range(5)


@dataclass(frozen=True)
class GridSeries:
    """T steps: loads `[C, T]` and renewables `[R, T]` in kW in the grid's order, import price and carbon
    intensity `[T]`. start_h: hour of the day at which step 0 begins."""

    loads_kw: FloatArray
    renewables_kw: FloatArray
    price: FloatArray
    carbon: FloatArray
    step_s: int = 3600
    start_h: float = 0.0
    name: str = "series"

    def __post_init__(self) -> None:
        length = len(self.price)
        shapes = {"loads_kw": self.loads_kw, "renewables_kw": self.renewables_kw, "carbon": self.carbon}
        for name, values in shapes.items():
            require(values.shape[-1] == length, name, values.shape, f"of {length} steps, as the price is")
            require_all(np.isfinite(values) & (values >= 0), name, values, "0 or more")
        require_all(np.isfinite(self.price), "price", self.price, "finite")

    @property
    def steps(self) -> int:
        """Length T."""
        return len(self.price)

    def cut(self, start: int, steps: int) -> GridSeries:
        """Steps `start` to `start + steps`."""
        inside = start >= 0 and steps > 0 and start + steps <= self.steps
        require(inside, "start", start, f"such that {steps} steps from there are in 0..{self.steps}")
        part = slice(start, start + steps)
        return replace(
            self,
            loads_kw=self.loads_kw[:, part],
            renewables_kw=self.renewables_kw[:, part],
            price=self.price[part],
            carbon=self.carbon[part],
            start_h=(self.start_h + start * self.step_s / 3600) % 24.0,
        )

    def table(self, grid: Grid) -> FloatArray:
        """Columns load, solar, wind, price, carbon `[T, 5]`, as the physics takes them; checks the grid."""
        self.check(grid)
        table = np.zeros((self.steps, 5))
        table[:, LOAD] = self.loads_kw.sum(axis=0)
        for source, power in zip(grid.renewables, self.renewables_kw, strict=True):
            table[:, SOLAR if source.kind == "solar" else WIND] += power
        table[:, PRICE], table[:, CARBON] = self.price, self.carbon
        return table

    def check(self, grid: Grid) -> None:
        """Raise ParameterError where this is not a series of that grid."""
        require(self.step_s == grid.step_s, "step_s", self.step_s, f"{grid.step_s}, as the grid's")
        count = len(self.loads_kw)
        require(
            count == len(grid.consumers), "loads_kw", count, f"{len(grid.consumers)} rows, one a consumer"
        )
        count, wanted = len(self.renewables_kw), len(grid.renewables)
        require(count == wanted, "renewables_kw", count, f"{wanted} rows, one a renewable source")
        paid = self.price + grid.penalties.carbon_per_kg * self.carbon
        limit = grid.penalties.unserved_per_kwh
        require_all(paid <= limit, "price", paid, f"at most unserved_per_kwh = {limit:g}")


def load_series(path: str | Path) -> dict[str, Any]:
    """Columns of an energy CSV (plain or gzip): `demand`, `solar`, `wind` (kW), `price` (per kWh), `carbon`
    (kg/kWh), each float `[T]` if the file has it, and `step_s`. Raises TraceError for a file, a header or a
    line that is not of that kind.
    """
    source = Source(path, progress=False)
    rows = source.rows()
    header = [cell.strip().lower() for cell in next(rows, [])]
    if not header or header[0] != "timestamp_s":
        raise source.refuse("header", ",".join(header), "timestamp_s and energy columns")
    places = _places(source, header)
    values: list[list[float]] = []
    for row in rows:
        source.columns(row, len(header), ",".join(header))
        values.append([source.number(header[place], row[place]) for place in (0, *places.values())])
    if len(values) < 2:
        raise TraceError(f"{path}: has {len(values)} steps, 2 or more are needed")
    table = np.array(values)
    result: dict[str, Any] = {"step_s": _step(path, table[:, 0])}
    for column, (name, place) in enumerate(places.items(), start=1):
        scale = 1e-3 if header[place] in PER_MWH else 1.0
        result[name] = table[:, column] * scale
        least = 0.0 if name != "price" else -np.inf
        if (result[name] < least).any():
            raise TraceError(f"{path}: {header[place]} is negative in places, must be 0 or more")
    return result


def save_series(series: GridSeries, grid: Grid, path: str | Path) -> None:
    """Write the sums over consumers and over each kind of renewable as an energy CSV."""
    table = series.table(grid)
    lines = ["timestamp_s,demand_kw,solar_kw,wind_kw,price,carbon_kg_per_kwh"]
    for step, row in enumerate(table):
        lines.append(",".join([str(step * series.step_s), *(f"{value:.10g}" for value in row)]))
    Path(path).write_text("\n".join(lines) + "\n")


def fit_series(grid: Grid, columns: Mapping[str, Any], name: str = "recorded") -> GridSeries:
    """A recording as a series of `grid`: its demand over the consumers by their peaks, its solar and wind
    over the sources of that kind by theirs, taken as they are (no scaling); brought to the grid's step by
    means (coarser) or by repeating (finer). Columns that the file does not have are 0."""
    step_s = int(columns["step_s"])
    steps = len(np.asarray(columns["demand"]))

    def column(key: str) -> FloatArray:
        values = np.asarray(columns.get(key, np.zeros(steps)), dtype=np.float64)
        return resampled(values, step_s, grid.step_s)

    peaks = np.array([consumer.peak_kw for consumer in grid.consumers])
    loads = column("demand") * (peaks / peaks.sum())[:, None]
    kinds = {
        kind: sum(one.peak_kw for one in grid.renewables if one.kind == kind) for kind in ("solar", "wind")
    }
    renewables = [column(one.kind) * one.peak_kw / max(kinds[one.kind], 1e-12) for one in grid.renewables]
    power = np.stack(renewables) if renewables else np.zeros((0, loads.shape[1]))
    return GridSeries(loads, power, column("price"), column("carbon"), grid.step_s, 0.0, name)


def resampled(values: FloatArray, step_s: int, wanted_s: int) -> FloatArray:
    """The same signal at another step: means over whole steps, or repeated values."""
    if wanted_s == step_s:
        return values
    larger, smaller = max(step_s, wanted_s), min(step_s, wanted_s)
    require(larger % smaller == 0, "step_s", wanted_s, f"a multiple or a divisor of the recording's {step_s}")
    count = larger // smaller
    if wanted_s < step_s:
        return np.repeat(values, count)
    whole = len(values) // count * count
    return np.asarray(values[:whole].reshape(-1, count).mean(axis=1))


def _places(source: Source, header: list[str]) -> dict[str, int]:
    """Which column holds what."""
    found = {
        name: next(header.index(one) for one in names if one in header)
        for name, names in COLUMNS.items()
        if any(one in header for one in names)
    }
    if not found:
        known = ", ".join(one for names in COLUMNS.values() for one in names)
        raise source.refuse("header", ",".join(header), f"timestamp_s and any of {known}")
    return found


def _step(path: str | Path, times_s: FloatArray) -> int:
    gaps = np.diff(times_s)
    step = gaps[0]
    if step <= 0 or not np.all(gaps == step) or step != int(step):
        place = int(np.argmax(gaps != step))
        raise TraceError(
            f"{path}: timestamps must be whole seconds at one distance; after {times_s[place]:g} s comes "
            f"{times_s[place + 1]:g} s"
        )
    return int(step)
