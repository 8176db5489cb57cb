"""Who is due when: a heap of due times over fixed grids, so that nothing ever drifts.

An RLScaler with period p is due at `phase + k p` in control time. The phase comes from its uid, so that a
restarted operator keeps it, and is one of SLOTS parts of the period: objects are spread over the period, and
those of one slot still form a batch.
"""

from __future__ import annotations

import heapq
import math
import zlib
from dataclasses import dataclass

SLOTS = 8


def phase_s(uid: str, period_s: float) -> float:
    """Seconds into the period at which an object is due, in [0, period)."""
    return (zlib.crc32(uid.encode()) % SLOTS) * period_s / SLOTS


def next_due(uid: str, period_s: float, after_s: float) -> float:
    """The first point of the object's grid that is later than `after_s`."""
    phase = phase_s(uid, period_s)
    due = phase + (math.floor((after_s - phase) / period_s) + 1) * period_s
    return due if due > after_s else due + period_s


@dataclass(frozen=True, order=True)
class Turn:
    """One object's turn: when it is due (control seconds) and whose it is."""

    due_s: float
    uid: str


class Schedule:
    """A heap of turns, at most one an object; a later `put` for the same object replaces the earlier."""

    def __init__(self) -> None:
        self._heap: list[Turn] = []
        self._turns: dict[str, Turn] = {}

    def __len__(self) -> int:
        return len(self._turns)

    def put(self, uid: str, due_s: float) -> None:
        turn = Turn(due_s, uid)
        self._turns[uid] = turn
        heapq.heappush(self._heap, turn)

    def remove(self, uid: str) -> None:
        self._turns.pop(uid, None)

    def next_s(self) -> float | None:
        """When the next turn is due, or None when nobody waits."""
        while self._heap and self._turns.get(self._heap[0].uid) is not self._heap[0]:
            heapq.heappop(self._heap)
        return self._heap[0].due_s if self._heap else None

    def pop_due(self, now_s: float) -> list[Turn]:
        """Take every turn that is due at `now_s`, earliest first."""
        due = []
        while (head := self.next_s()) is not None and head <= now_s:
            turn = heapq.heappop(self._heap)
            del self._turns[turn.uid]
            due.append(turn)
        return due
