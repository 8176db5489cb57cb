"""What a restart must not forget of one service, out of the engine's memory and back into it.

`Engine.stabilization_state` and `Engine.restore` are these; the operator keeps the state in status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from controller.core.flaps import HOUR_S
from controller.core.memory import Memory


def state_of(memory: Memory, row: int) -> dict[str, Any]:
    """Recommendations and scale events that still count, the last decision and the learned start-up time.

    Recommendations are thinned to those that can still decide a window: times are seconds. Scale events of
    an hour are kept where the flap budget counts them.
    """
    behavior, table = memory.behavior, memory.table
    now = float(table.last_seen_s[row])
    window_s = max(behavior.up.window_s[row], behavior.down.window_s[row])
    period_s = max(behavior.up.longest_period_s(row), behavior.down.longest_period_s(row))
    events = set(behavior.ups.since(row, now - period_s))
    events |= {(time, -change) for time, change in behavior.downs.since(row, now - period_s)}
    if table.changes_per_hour[row] > 0:
        events |= set(memory.flaps.since(row, now - HOUR_S))
    state: dict[str, Any] = {
        "recommendations": _thinned(behavior.recommendations.since(row, now - window_s)),
        "scaleEvents": sorted(events),
        "desired": int(table.last_desired[row]),
    }
    learned = float(memory.start_up.learned_s(np.array([row]))[0])
    if np.isfinite(learned):
        state["startUpSeconds"] = round(learned, 1)
    return state


def restore(
    memory: Memory, row: int, now_s: float, state: Mapping[str, Any] | None, current_replicas: int
) -> None:
    """Continue from `state_of` after a restart.

    The current replicas count as a recommendation of now, as in a restarted HPA, and a difference
    between them and what was last desired counts as a scale event of now: one may have been made
    and not written down. What is dated later than now, by a node whose clock was ahead, is of now.
    """
    known = dict(state or {})
    rows, now = np.array([row]), np.array([now_s])
    behavior = memory.behavior
    behavior.reset(rows)
    memory.flaps.reset(rows)
    for time, value in known.get("recommendations", ()):
        behavior.recommendations.push(rows, np.array([min(float(time), now_s)]), np.array([int(value)]))
    behavior.recommendations.push(rows, now, np.array([current_replicas]))
    for time, change in known.get("scaleEvents", ()):
        memory.record(rows, np.array([min(float(time), now_s)]), np.array([0]), np.array([int(change)]))
    desired = int(known.get("desired", -1))
    if desired >= 0 and desired != current_replicas:
        memory.record(rows, now, np.array([desired]), np.array([current_replicas]))
        behavior.found(row, now_s, current_replicas - desired)
    memory.table.last_desired[row] = current_replicas
    memory.start_up.restore(row, float(known.get("startUpSeconds", np.nan)))


def _thinned(history: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """The newest of each run of equal recommendations: exact for both windows, and short."""
    kept: list[tuple[float, int]] = []
    for time, value in history:
        if kept and kept[-1][1] == value:
            kept.pop()
        kept.append((time, value))
    return kept
