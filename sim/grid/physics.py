"""`GridPhysics`: the arrays of N grids and the methods that call the compiled kernels on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import ParameterError, require
from sim.grid.kernels import advance_rows
from sim.grid.layout import COSTS, FLOWS, S_ENERGY, GridArrays, lay_grid, new_arrays
from sim.grid.parts import Grid
from sim.grid.series import GridSeries

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer]

__all__ = ["COSTS", "FLOWS", "GridFlows", "GridPhysics"]


@dataclass(frozen=True, slots=True)
class GridFlows:
    """What happened in one step of the rows that were advanced.

    flows: kW by name (`FLOWS`), `[rows]` each. dispatched_kw `[rows, D]`. storage_kw `[rows, S]`: power on
    the bus, charging above 0. costs: money by name (`COSTS`), `[rows]` each; exports are below 0 where they
    earn. reference: what the step would have cost without storages, dispatchables run in the order of their
    cost.
    """

    flows: dict[str, FloatArray]
    dispatched_kw: FloatArray
    storage_kw: FloatArray
    costs: dict[str, FloatArray]
    reference: FloatArray

    @property
    def cost(self) -> FloatArray:
        """All costs together, `[rows]`."""
        return np.asarray(sum(self.costs.values()))


class GridPhysics:
    """N grids, each with its own series; `rows` (int array) picks some, None is all."""

    def __init__(self, rows: int = 1, dispatchables: int = 1, storages: int = 1) -> None:
        require(rows >= 1, "rows", rows, "1 or more")
        self.rows, self.dispatchables, self.storages = rows, dispatchables, storages
        self.arrays: GridArrays = new_arrays(rows, dispatchables, storages, 1)
        self._all = np.arange(rows)

    @classmethod
    def of(cls, grid: Grid, series: GridSeries) -> GridPhysics:
        """One grid with as many slots as it needs."""
        physics = cls(1, len(grid.dispatchables), len(grid.storages))
        physics.reset([0], [grid], [series.table(grid)])
        return physics

    @property
    def actions(self) -> int:
        """Numbers in an action: a level a dispatchable, then a power a storage."""
        return self.dispatchables + self.storages

    def reset(
        self, rows: Sequence[int], grids: Sequence[Grid], tables: Sequence[FloatArray], start: int = 0
    ) -> None:
        """Put grids with their series (`GridSeries.table`, `[T, 5]`) into rows; the next step is `start`."""
        longest = max(len(table) for table in tables)
        if longest > self.arrays.series.shape[1]:
            series = np.zeros((self.rows, longest, 5))
            series[:, : self.arrays.series.shape[1]] = self.arrays.series
            self.arrays = self.arrays._replace(series=series)
        for row, grid, table in zip(rows, grids, tables, strict=True):
            lay_grid(self.arrays, row, grid)
            self.arrays.series[row, : len(table)] = table
            self.arrays.series[row, len(table) :] = table[-1]
            self.arrays.clock[row] = start

    def advance(self, actions: npt.ArrayLike, rows: IntArray | None = None) -> GridFlows:
        """Let one step pass. actions `[rows, D + S]` in -1..1 (clipped): each dispatchable's level, -1 its
        least and 1 its most; each storage's power, -1 discharging and 1 charging with all it has."""
        picked = self._all if rows is None else np.asarray(rows, dtype=np.int64)
        asked = np.asarray(actions, dtype=np.float64)
        shape = (len(picked), self.actions)
        if asked.shape != shape:
            raise ParameterError("actions", asked.shape, f"of shape {shape}")
        if not np.isfinite(asked).all():
            raise ParameterError("actions", float(asked[~np.isfinite(asked)][0]), "finite")
        late = self.arrays.clock[picked] >= self.arrays.series.shape[1]
        require(not late.any(), "steps", int(self.arrays.clock[picked].max()), "fewer: the series is over")
        flows, costs = np.empty((len(picked), len(FLOWS))), np.empty((len(picked), len(COSTS)))
        power, reference = np.empty(shape), np.empty(len(picked))
        advance_rows(picked, asked, self.arrays, flows, power, costs, reference)
        return GridFlows(
            {name: flows[:, column] for column, name in enumerate(FLOWS)},
            power[:, : self.dispatchables],
            power[:, self.dispatchables :],
            {name: costs[:, column] for column, name in enumerate(COSTS)},
            reference,
        )

    @property
    def energy_kwh(self) -> FloatArray:
        """Stored energy `[N, S]`."""
        return self.arrays.energy.copy()

    @property
    def charge_share(self) -> FloatArray:
        """Stored energy over capacity `[N, S]`; 0 for absent storages."""
        return np.asarray(self.arrays.energy / np.maximum(self.arrays.storage[:, :, S_ENERGY], 1e-300))
