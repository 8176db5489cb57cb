"""Floors of replicas by the clock: which of `spec.schedules` is in force, and until when that holds.

The registry makes a `Timetable` of a spec; the control loop asks it before each decision and hands the floor
to the engine. A schedule is in force from each time of its `start` to the next of its `end`, so windows over
midnight, or over a weekend, need nothing special; where both fall on one instant, it ends. Times are those of
the schedule's zone: where clocks go forward, what falls into the gap happens at its end, and where they go
back, what falls into the repeated hour happens in the first of the two (as in Debian's cron).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from controller.api.types import Schedule
from controller.api.validation import FieldProblem, InvalidSpec

MOST_SHARED: Final = 1024
NEAR_SHIFT: Final = timedelta(hours=3)
"""More than any zone's clocks are put back."""
CRON_HELP: Final = (
    "must be five fields: minute (0-59), hour (0-23), day of month (1-31 or L), month (1-12 or JAN-DEC) and "
    "day of week (0-7 or SUN-SAT), each a value, a range a-b, a list a,b, a step */n or *"
)
ZONE_HELP: Final = "must be an IANA time zone, such as UTC or Europe/Paris"


@dataclass(frozen=True, slots=True)
class Floor:
    """Fewest replicas by the clock, and the schedule that says so; holds until `until_unix_s`."""

    replicas: int
    schedule: str
    until_unix_s: float

    @property
    def words(self) -> str:
        """What a clamp says of it."""
        return f"schedule {self.schedule} asks for at least {self.replicas}"


class Times:
    """The times of one cron expression in one zone."""

    def __init__(self, expression: str, zone: tzinfo) -> None:
        """Raises ValueError, which says what is wrong with the expression."""
        self._expression, self._zone = expression, zone
        try:
            next(CronSim(expression, datetime(2024, 1, 1, tzinfo=zone)))
        except CronSimError as error:
            raise ValueError(str(error)) from None
        except StopIteration:
            raise ValueError("never happens") from None

    def same_as(self, other: Times) -> bool:
        """Whether the two are one expression in other letters."""
        return self._fields() == other._fields()

    def _fields(self) -> tuple[object, ...]:
        read = CronSim(self._expression, datetime(2024, 1, 1, tzinfo=self._zone))
        return read.minutes, read.hours, read.days, read.months, {_monday_first(d) for d in read.weekdays}

    def last(self, now_unix_s: float) -> float:
        """Unix seconds of the last one that is not after now; -inf if there is none in 50 years."""
        now = math.floor(now_unix_s)
        found = (time for time in self._from(now + 1, backwards=True) if time <= now)
        return next(found, -math.inf)

    def next(self, now_unix_s: float) -> float:
        """Unix seconds of the first one after now; inf if there is none in 50 years."""
        found = (time for time in self._from(math.floor(now_unix_s), backwards=False) if time > now_unix_s)
        return next(found, math.inf)

    def _from(self, unix_s: float, backwards: bool) -> _Found:
        """From that time on; from somewhat earlier where clocks are put back meanwhile, as the library then
        knows the first of two equal hours only.
        """
        at = datetime.fromtimestamp(unix_s, UTC)
        offsets = {(at + shift).astimezone(self._zone).utcoffset() for shift in (-NEAR_SHIFT, NEAR_SHIFT)}
        if len(offsets) > 1:
            at += NEAR_SHIFT if backwards else -NEAR_SHIFT
        return _Found(CronSim(self._expression, at.astimezone(self._zone), reverse=backwards))


def _monday_first(day: object) -> object:
    """Cron's Sunday is 0 and 7."""
    return 7 if day == 0 else day


@dataclass(slots=True)
class _Found:
    """Unix seconds instead of the library's datetimes."""

    found: CronSim

    def __iter__(self) -> _Found:
        return self

    def __next__(self) -> float:
        return next(self.found).timestamp()


@dataclass(frozen=True, slots=True)
class _Window:
    """One schedule, read."""

    name: str
    replicas: int
    start: Times
    end: Times

    def at(self, now_unix_s: float) -> tuple[bool, float]:
        """(whether it is in force, until when that stays so)."""
        on = self.start.last(now_unix_s) > self.end.last(now_unix_s)
        return on, (self.end if on else self.start).next(now_unix_s)


@dataclass(slots=True)
class Timetable:
    """The schedules of one RLScaler. Asking again before anything changes costs a comparison."""

    windows: tuple[_Window, ...]
    _known: Floor = field(default=Floor(0, "", -math.inf))
    _known_from_s: float = math.inf

    def floor(self, now_unix_s: float) -> Floor:
        """The largest floor in force at a time; of 0 replicas if there is none."""
        if not self._known_from_s <= now_unix_s < self._known.until_unix_s:
            self._known, self._known_from_s = self._look(now_unix_s), now_unix_s
        return self._known

    def _look(self, now_unix_s: float) -> Floor:
        replicas, name, until = 0, "", math.inf
        for window in self.windows:
            on, changes = window.at(now_unix_s)
            until = min(until, changes)
            if on and window.replicas > replicas:
                replicas, name = window.replicas, window.name
        return Floor(replicas, name, until)


def timetable(schedules: Sequence[Schedule] | None) -> Timetable | None:
    """The schedules of a spec, or None where it has none. Raises InvalidSpec that names every wrong field.

    RLScalers with the same schedules share one.
    """
    return _timetable(tuple(schedules)) if schedules else None


@lru_cache(maxsize=MOST_SHARED)
def _timetable(schedules: tuple[Schedule, ...]) -> Timetable:
    problems: list[FieldProblem] = []
    windows = [_window(f"spec.schedules[{i}]", one, problems) for i, one in enumerate(schedules)]
    if problems:
        raise InvalidSpec(problems)
    return Timetable(tuple(window for window in windows if window is not None))


def _window(path: str, schedule: Schedule, problems: list[FieldProblem]) -> _Window | None:
    zone = _zone(f"{path}.timezone", schedule.timezone, problems)
    start = _times(f"{path}.start", schedule.start, zone, problems)
    end = _times(f"{path}.end", schedule.end, zone, problems)
    if zone is None or start is None or end is None:
        return None
    if start.same_as(end):
        problems.append(
            FieldProblem(f"{path}.end", schedule.end, f"must differ from start ({schedule.start})")
        )
        return None
    name = schedule.name or f"{schedule.start} to {schedule.end} {schedule.timezone}"
    return _Window(name, schedule.min_replicas, start, end)


def _zone(path: str, name: str, problems: list[FieldProblem]) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: a folder of zones, such as America
        problems.append(FieldProblem(path, name, ZONE_HELP))
        return None


def _times(path: str, text: str, zone: tzinfo | None, problems: list[FieldProblem]) -> Times | None:
    try:
        return Times(text, zone or UTC)
    except ValueError as error:
        problems.append(FieldProblem(path, text, f"{CRON_HELP} ({error})"))
        return None
