"""What Q-learning learns: a value for every state and choice, and the policy that picks the best one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.core import ActionPolicy
from controller.core.action import NO_CHANGE_BELOW
from training.actions import TableHead
from training.errors import ConfigError
from training.qlearning.states import States

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]


@dataclass
class Table:
    """values float64 `[B, S, A]` and visits int64 alike; B = 1, or 2 with double Q-learning."""

    states: States
    head: TableHead
    values: FloatArray
    visits: IntArray

    @classmethod
    def empty(cls, states: States, head: TableHead, initial: float, double: bool) -> Table:
        """A table that has learned nothing."""
        shape = (1 + int(double), states.size, len(head.table))
        return cls(states, head, np.full(shape, initial), np.zeros(shape, dtype=np.int64))

    @property
    def mean(self) -> FloatArray:
        """Values `[S, A]`."""
        return np.asarray(self.values.mean(axis=0))

    @property
    def updates(self) -> IntArray:
        """How often each state's values were updated, `[S]`."""
        return np.asarray(self.visits.sum(axis=(0, 2)))

    @property
    def best(self) -> IntArray:
        """The best choice of each state, `[S]`."""
        return np.asarray(self.mean.argmax(axis=1))

    @property
    def sizes(self) -> FloatArray:
        """One number for each choice, `[A]`: the relative change, or the band's lower edge."""
        return np.asarray(self.head.table[:, 0], dtype=np.float64)

    @property
    def no_change(self) -> int | None:
        """The choice that leaves the servers as they are, if there is one."""
        if self.head.schema != "relative-change/v1":
            return None
        still = np.flatnonzero(np.abs(self.sizes) < NO_CHANGE_BELOW)
        return int(still[0]) if len(still) else None

    @property
    def choices(self) -> tuple[str, ...]:
        """What the choices are called."""
        if self.head.schema == "relative-change/v1":
            return tuple(_change(size) for size in self.sizes)
        return tuple(
            f"{np.exp(low):.2f} to {np.exp(max(low, high)):.2f} x load" for low, high in self.head.table
        )

    @property
    def short_choices(self) -> tuple[str, ...]:
        """The same, for small fields."""
        if self.head.schema == "relative-change/v1":
            return self.choices
        return tuple(f"{np.exp(low):.2g}-{np.exp(max(low, high)):.2g}" for low, high in self.head.table)

    def load(self, kept: Mapping[str, Any]) -> None:
        """Take over the values of a checkpoint, in place. Raises ConfigError for another shape."""
        for name in ("values", "visits"):
            ours = getattr(self, name)
            if kept[name].shape != ours.shape:
                raise ConfigError(
                    f"qlearning.state: {ours.shape} in the preset, {kept[name].shape} in the checkpoint"
                )
            ours[:] = kept[name]

    def policy(self, name: str = "qlearning") -> TablePolicy:
        """The policy that takes the best choice of each state."""
        return TablePolicy(self, name)


def _change(size: float) -> str:
    """A relative change in words: below one percent it is a single server."""
    if abs(size) < NO_CHANGE_BELOW:
        return "hold"
    return f"{'+' if size > 0 else '-'}1" if abs(size) < 0.01 else f"{100 * size:+.0f} %"


class TablePolicy(ActionPolicy):
    """Core's Policy over a table, in numpy: for replays while training, and to hold the artifact to."""

    def __init__(self, table: Table, name: str) -> None:
        self.name, self.action_schema = name, table.head.schema
        self._states, self._actions = table.states, table.head.table[table.best]

    def act(self, features: FloatArray) -> FloatArray:
        """Actions `[N, A]` at features `[N, F]`."""
        return np.asarray(self._actions[self._states.index(features)])
