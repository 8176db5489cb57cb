"""What a network's output means: action `[N, A]` -> recommended replicas `[N]`.

Every artifact names its action schema; a new meaning gets a new name, never a new meaning for an
old one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from controller.core.observation import MIN_LOAD
from controller.core.samples import FloatArray, IntArray

NO_CHANGE_BELOW = 1e-3
MAX_LOG_HEADROOM = 10.0


@dataclass(frozen=True, slots=True)
class ActionSchema:
    """Name, number of columns, their meaning, and `decode(action, current, load)` -> replicas."""

    name: str
    size: int
    description: str
    decode: Callable[[FloatArray, IntArray, FloatArray], FloatArray]


def decode_relative_change(action: FloatArray, current: IntArray, load: FloatArray) -> FloatArray:
    """`[N, 1]` signed relative change of the provisioned replicas; any change is at least one."""
    change = action[:, 0].astype(np.float64)
    with np.errstate(invalid="ignore"):
        step = np.sign(change) * np.maximum(1.0, np.rint(np.abs(change) * current))
    moved = np.where(np.abs(change) >= NO_CHANGE_BELOW, np.maximum(current + step, 0.0), current)
    return np.where(np.isfinite(change), moved, np.nan)


def decode_hold_band(action: FloatArray, current: IntArray, load: FloatArray) -> FloatArray:
    """`[N, 2]` log headroom below and above the load (replicas): stay inside the band, else go to it.

    A load below MIN_LOAD counts as MIN_LOAD, as it does in the features, so that a policy can keep replicas
    for a burst while there is no traffic.
    """
    low = np.clip(action[:, 0].astype(np.float64), -MAX_LOG_HEADROOM, MAX_LOG_HEADROOM)
    high = np.clip(action[:, 1].astype(np.float64), -MAX_LOG_HEADROOM, MAX_LOG_HEADROOM)
    base = np.maximum(load, MIN_LOAD)
    floor = np.ceil(base * np.exp(low))
    ceiling = np.ceil(base * np.exp(np.maximum(low, high)))
    return np.where(np.isnan(low) | np.isnan(high), np.nan, np.minimum(np.maximum(current, floor), ceiling))


ACTION_SCHEMAS: dict[str, ActionSchema] = {
    schema.name: schema
    for schema in (
        ActionSchema(
            "relative-change/v1",
            1,
            "signed relative change of the provisioned replicas",
            decode_relative_change,
        ),
        ActionSchema(
            "hold-band/v1", 2, "log headroom round the load: lower and upper edge", decode_hold_band
        ),
    )
}
