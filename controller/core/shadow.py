"""What a second policy would have done beside the one that decides: a canary's replicas, never acted on.

It is asked with the same views, and its answers go through the same guard, with windows, rate rules and a
flap budget that remember its own past, at the replicas that it would have by now. Rows start from the
replicas that are there, and so again whenever another policy is asked for them.
"""

from __future__ import annotations

import numpy as np

from controller.core.behavior import BehaviorState
from controller.core.flaps import FlapBudget
from controller.core.guard import guard
from controller.core.guarding import guard_inputs
from controller.core.memory import Memory
from controller.core.policy import Policy, ask
from controller.core.samples import IntArray
from controller.core.view import View

_NONE = -1


class Shadow:
    """The pasts that N services would have under the policies that are asked for them."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._behavior = BehaviorState(0)
        self._behavior.up, self._behavior.down = memory.behavior.up, memory.behavior.down
        self._flaps = FlapBudget(0)
        self._replicas = np.zeros(0, dtype=np.int64)
        self._asked: dict[int, Policy] = {}

    def reset(self, rows: IntArray) -> None:
        """Forget what was asked for these rows."""
        for row in rows.tolist():
            self._asked.pop(row, None)

    def desired(self, policy: Policy, view: View) -> IntArray:
        """Replicas int `[N]` that `policy` would have these services at; they hold where it says nothing."""
        self._take_on(policy, view)
        memory, rows = self._memory, view.rows
        recommended, unfamiliar = ask([policy], np.zeros(len(view), dtype=np.int64), view)
        # where somebody else has set the replicas, or nothing can be decided, it has what is there
        follows = (view.now_s < memory.table.hold_until_s[rows]) | (view.current == 0)
        current = np.where(follows, view.current, self._replicas[rows])
        inputs = guard_inputs(memory, view, unfamiliar, current, self._flaps)
        desired = guard(inputs, recommended, self._behavior).desired
        self._behavior.record(rows, view.now_s, current, desired)
        self._flaps.record(rows, view.now_s, desired - current)
        self._replicas[rows] = desired
        return desired

    def _take_on(self, policy: Policy, view: View) -> None:
        self._fit()
        new = np.array([self._asked.get(row) is not policy for row in view.rows.tolist()], dtype=bool)
        fresh = view.rows[new]
        self._behavior.reset(fresh)
        self._flaps.reset(fresh)
        self._replicas[fresh] = view.current[new]
        self._asked.update(dict.fromkeys(fresh.tolist(), policy))

    def _fit(self) -> None:
        """As many rows, and rings as long, as the engine has."""
        theirs, mine = self._memory.behavior, self._behavior
        extra = len(self._memory) - len(self._replicas)
        if extra > 0:
            mine.grow_past(len(self._memory))
            self._flaps.grow(len(self._memory))
            self._replicas = np.concatenate([self._replicas, np.full(extra, _NONE, dtype=np.int64)])
        for ring, other in (
            (mine.recommendations, theirs.recommendations),
            (mine.ups, theirs.ups),
            (mine.downs, theirs.downs),
            (self._flaps.changes, self._memory.flaps.changes),
        ):
            ring.lengthen(other.times.shape[1])
