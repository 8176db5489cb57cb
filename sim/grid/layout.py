"""Where everything is in the arrays of the kernels, and how a `Grid` is laid into them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.errors import require
from sim.grid.parts import Grid

FloatArray = npt.NDArray[np.float64]

# fmt: off
GRID = ("step_h", "peak_kw", "import_kw", "export_kw", "export_share", "unserved", "curtailment", "carbon")
(G_STEP_H, G_PEAK, G_IMPORT, G_EXPORT, G_SHARE, G_UNSERVED, G_CURTAIL, G_CARBON) = range(len(GRID))
DISPATCHABLE = ("present", "min_kw", "max_kw", "cost", "carbon", "ramp_kw")
(D_PRESENT, D_MIN, D_MAX, D_COST, D_CARBON, D_RAMP) = range(len(DISPATCHABLE))
STORAGE = ("present", "energy_kwh", "charge_kw", "discharge_kw", "in", "out", "keep", "wear")
(S_PRESENT, S_ENERGY, S_CHARGE, S_DISCHARGE, S_IN, S_OUT, S_KEEP, S_WEAR) = range(len(STORAGE))
FLOWS = (
    "load", "solar", "wind", "dispatched", "charge", "discharge", "imported", "exported", "unserved",
    "curtailed",
)
(F_LOAD, F_SOLAR, F_WIND, F_DISPATCHED, F_CHARGE, F_DISCHARGE, F_IMPORT, F_EXPORT, F_UNSERVED,
 F_CURTAILED) = range(len(FLOWS))
COSTS = ("imports", "exports", "fuel", "wear", "carbon", "unserved", "curtailment")
(C_IMPORTS, C_EXPORTS, C_FUEL, C_WEAR, C_CARBON, C_UNSERVED, C_CURTAIL) = range(len(COSTS))
# fmt: on
ANY_RAMP = 1e18


class GridArrays(NamedTuple):
    """N grids with room for D dispatchables, S storages and T steps each."""

    grid: FloatArray
    """`[N, G_*]`."""
    dispatchable: FloatArray
    """`[N, D, D_*]`; absent ones are all 0."""
    storage: FloatArray
    """`[N, S, S_*]`; absent ones are all 0."""
    series: FloatArray
    """`[N, T, 5]`: load, solar, wind (kW), price, carbon intensity."""
    clock: npt.NDArray[np.int64]
    """`[N]`: the step that comes next."""
    level: FloatArray
    """`[N, D]`: kW of each dispatchable in the step before."""
    energy: FloatArray
    """`[N, S]`: kWh stored."""


def new_arrays(rows: int, dispatchables: int, storages: int, steps: int) -> GridArrays:
    """Zeroed arrays."""
    return GridArrays(
        grid=np.zeros((rows, len(GRID))),
        dispatchable=np.zeros((rows, dispatchables, len(DISPATCHABLE))),
        storage=np.zeros((rows, storages, len(STORAGE))),
        series=np.zeros((rows, steps, 5)),
        clock=np.zeros(rows, dtype=np.int64),
        level=np.zeros((rows, dispatchables)),
        energy=np.zeros((rows, storages)),
    )


def lay_grid(arrays: GridArrays, row: int, grid: Grid) -> None:
    """Write a grid's constants into a row; its storages start as full as they say, its dispatchables at their
    least level. Raises ParameterError if it has more of them than there is room for."""
    for name, parts, room in (
        ("dispatchables", grid.dispatchables, arrays.level.shape[1]),
        ("storages", grid.storages, arrays.energy.shape[1]),
    ):
        require(len(parts) <= room, name, len(parts), f"at most {room}")
    line, penalties = grid.connection, grid.penalties
    arrays.grid[row] = (
        grid.step_h, grid.peak_kw, line.import_kw, line.export_kw, line.export_share,
        penalties.unserved_per_kwh, penalties.curtailment_per_kwh, penalties.carbon_per_kg,
    )  # fmt: skip
    arrays.dispatchable[row] = arrays.storage[row] = arrays.level[row] = arrays.energy[row] = 0.0
    for place, source in enumerate(grid.dispatchables):
        ramp = ANY_RAMP if source.ramp_kw_per_h is None else source.ramp_kw_per_h * grid.step_h
        arrays.dispatchable[row, place] = (
            1.0, source.min_kw, source.max_kw, source.cost_per_kwh, source.carbon_kg_per_kwh, ramp
        )  # fmt: skip
        arrays.level[row, place] = source.min_kw
    for place, storage in enumerate(grid.storages):
        keep = (1.0 - storage.self_discharge_per_h) ** grid.step_h
        arrays.storage[row, place] = (
            1.0, storage.energy_kwh, storage.charge_kw, storage.discharge_kw, storage.charge_efficiency,
            storage.discharge_efficiency, keep, storage.wear_per_kwh,
        )  # fmt: skip
        arrays.energy[row, place] = storage.initial * storage.energy_kwh
