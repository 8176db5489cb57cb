"""From an observation to a row of the table: the same cut in numpy, in compiled code and (artifact) in ONNX.

A value belongs to bin k if exactly k edges are below it. Edges are float32, as observations are, so that no
two of the three can round differently.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controller.core import OBSERVATION_SCHEMA
from sim.compiled import inlined
from training.qlearning.settings import Axis

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]
PREFERENCE = "preference"
COLUMNS = OBSERVATION_SCHEMA.names


@dataclass(frozen=True)
class States:
    """The table's rows: every combination of one bin of each axis, the last axis changing fastest."""

    axes: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Bins of each axis."""
        return tuple(axis.bins for axis in self.axes)

    @property
    def size(self) -> int:
        """Number of states S."""
        return int(np.prod(self.shape))

    @property
    def columns(self) -> IntArray:
        """Each axis's column of the observation, int64 `[D]`."""
        return np.array([COLUMNS.index(axis.feature) for axis in self.axes], dtype=np.int64)

    @property
    def over(self) -> IntArray:
        """Columns whose largest is subtracted, int64 `[D, O]`; -1: none."""
        padded = np.full(
            (len(self.axes), max(1, *(len(axis.over) for axis in self.axes))), -1, dtype=np.int64
        )
        for row, axis in enumerate(self.axes):
            padded[row, : len(axis.over)] = [COLUMNS.index(name) for name in axis.over]
        return padded

    @property
    def strides(self) -> IntArray:
        """Rows of the table between neighbouring bins of each axis, int64 `[D]`."""
        return np.array([int(np.prod(self.shape[place + 1 :])) for place in range(len(self.axes))])

    @property
    def edges(self) -> FloatArray:
        """Each axis's edges, float32 `[D, E]`, infinity behind the last one."""
        padded = np.full((len(self.axes), max(len(axis.edges) for axis in self.axes)), np.inf)
        for row, axis in enumerate(self.axes):
            padded[row, : len(axis.edges)] = axis.edges
        return padded.astype(np.float32)

    def index(self, observations: FloatArray) -> IntArray:
        """States `[N]` of observations `[N, F]`."""
        seen = np.asarray(observations, dtype=np.float32)
        picked = seen[:, self.columns]
        for row, axis in enumerate(self.axes):
            if axis.over:
                highest = seen[:, [COLUMNS.index(name) for name in axis.over]].max(axis=1)
                picked[:, row] -= np.maximum(highest, np.float32(0.0))
        return np.asarray((picked[:, :, None] > self.edges).sum(axis=2) @ self.strides)

    def axis(self, feature: str) -> int | None:
        """Place of the axis that cuts this feature."""
        return next((place for place, axis in enumerate(self.axes) if axis.feature == feature), None)

    def levels(self) -> FloatArray:
        """The preference (0..100) that each bin of that axis stands for; without the axis, 50 alone.

        Inner bins: their middle; the outermost two: the ends of the dial.
        """
        place = self.axis(PREFERENCE)
        if place is None:
            return np.array([50.0])
        edges = np.array(self.axes[place].edges) * 100.0
        return np.concatenate([[0.0], 0.5 * (edges[:-1] + edges[1:]), [100.0]])

    def describe(self, state: int) -> dict[str, str]:
        """Feature -> name of the bin, of one state."""
        bins = np.unravel_index(state, self.shape)
        return {axis.feature: axis.labels[int(k)] for axis, k in zip(self.axes, bins, strict=True)}


@inlined
def state_of(observation, columns, over, edges, strides):  # type: ignore[no-untyped-def]
    """The state of one observation float32 `[F]`."""
    state = 0
    for axis in range(len(columns)):
        value = observation[columns[axis]]
        if over[axis, 0] >= 0:
            highest = np.float32(0.0)
            for each in range(over.shape[1]):
                if over[axis, each] >= 0:
                    highest = max(highest, observation[over[axis, each]])
            value -= highest
        for edge in range(edges.shape[1]):
            if value > edges[axis, edge]:
                state += strides[axis]
    return state
