"""From a view to what the guard wants to know: the engine's memory as GuardInputs."""

from __future__ import annotations

import numpy as np

from controller.core.flaps import FlapBudget
from controller.core.guard import GuardInputs
from controller.core.hpa import MAX_REPLICAS
from controller.core.memory import Memory
from controller.core.samples import BoolArray, FloatArray, IntArray
from controller.core.view import View


def guard_inputs(
    memory: Memory, view: View, unfamiliar: BoolArray, current: IntArray, flaps: FlapBudget
) -> GuardInputs:
    """The guard's inputs for a view, at `current` replicas int `[N]` with the changes in `flaps`."""
    table, rows = memory.table, view.rows
    changes = table.changes_per_hour[rows]
    held = view.now_s < table.hold_until_s[rows]
    return GuardInputs(
        rows=rows,
        now_s=view.now_s,
        current=current,
        hpa_replicas=view.hpa_replicas,
        usable=view.usable,
        slo_in_danger=view.slo_in_danger,
        unfamiliar=unfamiliar & view.usable,
        idle=view.now_s >= table.busy_until_s[rows],
        wake_replicas=_wake(view, table.activation_rps[rows]),
        min_replicas=table.min_replicas[rows],
        max_replicas=table.max_replicas[rows],
        floor=_set(table.floor[rows]),
        min_step=_set(table.min_step[rows]),
        max_step=_set(table.max_step[rows]),
        used_up=flaps.used_up(rows, view.now_s, changes) if changes.any() else None,
        held=held if held.any() else None,
    )


def _set(values: IntArray) -> IntArray | None:
    """None where no service of the batch has it, so that its stage costs nothing."""
    return values if values.any() else None


def _wake(view: View, activation_rps: FloatArray) -> IntArray:
    """Replicas for a service at zero: enough for its load at the target utilisation, else none."""
    with np.errstate(invalid="ignore"):
        needed = np.ceil(view.load / view.target_utilisation)
    waking = view.usable & (np.nan_to_num(view.samples.request_rate) > activation_rps)
    replicas = np.clip(np.nan_to_num(needed, nan=1.0), 1.0, MAX_REPLICAS)
    return np.where(waking, replicas, 0.0).astype(np.int64)
