"""What holds for a service whatever its metrics say: a schedule's floor, a change by somebody else, and how
long its replicas take to start.

Hooks of the turn round the engine's step: `before` tells the engine, `after` puts into words what the engine
knows as numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np

from controller.clamps import worded
from controller.clock import Clock
from controller.core import Engine
from controller.outside import Outsiders

if TYPE_CHECKING:
    from controller.case import Case
    from controller.registry import Entry

START_UP_MOVES: Final = 0.1
"""Share by which the learned start-up time moves before status says so."""


def before(engine: Engine, outsiders: Outsiders, clock: Clock, cases: Iterable[Case]) -> None:
    """Tell the engine of each case's floor and hold."""
    now_unix_s = clock.to_unix(clock.now())
    for case in cases:
        work, timetable = case.work, case.entry.timetable
        if work is None:
            continue
        outsiders.tell(engine, case.entry, work.row)
        if timetable is not None or work.floor is not None:
            work.floor = timetable.floor(now_unix_s) if timetable is not None else None
            engine.set_floor(work.row, work.floor.replicas if work.floor is not None else 0)


def after(engine: Engine, cases: Iterable[Case]) -> None:
    """Words for each decision's clamps, and the start-up times that were learned."""
    decided = [case for case in cases if case.work is not None and case.decision is not None]
    rows = np.array([case.work.row for case in decided if case.work is not None], dtype=np.int64)
    for case, learned_s in zip(decided, engine.learned_start_up_s(rows).tolist(), strict=True):
        case.start_up_s = learned_s
        if case.decision is not None and case.decision.clamps:
            case.decision = worded(case.decision, words_of(case))


def words_of(case: Case) -> dict[str, str]:
    """What clamps of the core's are called, by their names: which schedule, and whose change."""
    known = {}
    if case.work is not None and case.work.floor is not None:
        known["Schedule"] = case.work.floor.words
    if case.entry.outside.hold is not None:
        known["OutsideChange"] = case.entry.outside.hold.words
    return known


def start_up_shown(entry: Entry, learned_s: float) -> int | None:
    """status.startUpSeconds: what it says already, until what was learned has moved off by more than 10 %."""
    shown = entry.status.get("startUpSeconds")
    known = shown if isinstance(shown, int) else None
    if not math.isfinite(learned_s):
        return known
    if known is not None and abs(learned_s - known) <= max(START_UP_MOVES * known, 0.5):
        return known
    return round(learned_s)
