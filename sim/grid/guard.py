"""Nobody goes without while a source or a storage has power left: what a generator's governor and a storage's
inverter do by themselves, whatever the agent asked for. Called by `sim.grid.batch`.

Where a step's load is more than local production, discharge and the line can carry (charging aside: that
gives way by itself), dispatchables are raised within their ramps, then storages discharge, first ones first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sim.grid.layout import D_MAX, D_MIN, D_RAMP, G_IMPORT, S_DISCHARGE, S_KEEP, S_OUT
from sim.grid.physics import GridPhysics
from sim.grid.series import LOAD, SOLAR, WIND

FloatArray = npt.NDArray[np.floating]


def guarded(physics: GridPhysics, actions: FloatArray) -> FloatArray:
    """Actions `[N, D + S]`, changed in the rows where somebody would go without."""
    arrays, rows = physics.arrays, np.arange(physics.rows)
    now = arrays.series[rows, np.minimum(arrays.clock, arrays.series.shape[1] - 1)]
    source, store, count = arrays.dispatchable, arrays.storage, physics.dispatchables
    span = source[:, :, D_MAX] - source[:, :, D_MIN]
    wanted = source[:, :, D_MIN] + (np.clip(actions[:, :count], -1.0, 1.0) + 1.0) / 2.0 * span
    highest = np.minimum(source[:, :, D_MAX], arrays.level + source[:, :, D_RAMP])
    level = np.clip(wanted, arrays.level - source[:, :, D_RAMP], highest)
    kept = store[:, :, S_KEEP] * arrays.energy
    most = np.minimum(store[:, :, S_DISCHARGE], kept * store[:, :, S_OUT] / arrays.grid[:, :1])
    given = np.minimum(np.clip(-actions[:, count:], 0.0, 1.0) * store[:, :, S_DISCHARGE], most)
    local = now[:, SOLAR] + now[:, WIND] + level.sum(axis=1) + given.sum(axis=1)
    missing = now[:, LOAD] - local - arrays.grid[:, G_IMPORT]
    if not (missing > 0.0).any():
        return actions
    result = actions.copy()
    for place in range(count):
        more = np.clip(missing, 0.0, highest[:, place] - level[:, place])
        raised = (
            2.0 * (level[:, place] + more - source[:, place, D_MIN]) / np.maximum(span[:, place], 1e-12) - 1.0
        )
        result[:, place] = np.where(more > 0.0, raised, result[:, place])
        missing = missing - more
    for place in range(physics.storages):
        more = np.clip(missing, 0.0, most[:, place] - given[:, place])
        asked = -(given[:, place] + more) / np.maximum(store[:, place, S_DISCHARGE], 1e-12)
        result[:, count + place] = np.where(more > 0.0, asked, result[:, count + place])
        missing = missing - more
    return result
