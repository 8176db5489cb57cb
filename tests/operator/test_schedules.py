"""Floors by the clock, against a scan of every minute that knows nothing of the library."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api.types import Schedule
from controller.api.validation import InvalidSpec, parse_spec
from controller.schedules import Times, Timetable, timetable
from tests.api.samples import SMALLEST

PARIS = "Europe/Paris"
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


def unix(year: int, month: int, day: int, hour: int = 0, minute: int = 0, zone: str = "UTC") -> float:
    return datetime(year, month, day, hour, minute, tzinfo=ZoneInfo(zone)).timestamp()


def schedule(start: str, end: str, zone: str = "UTC", replicas: int = 5, name: str | None = None) -> Schedule:
    return Schedule(start=start, end=end, timezone=zone, min_replicas=replicas, name=name)


def table(*schedules: Schedule) -> Timetable:
    made = timetable(schedules)
    assert made is not None
    return made


def floors(made: Timetable, *times: float) -> list[int]:
    return [made.floor(time).replicas for time in times]


def test_office_hours_hold_between_start_and_end_and_on_their_days() -> None:
    office = table(schedule("0 8 * * MON-FRI", "0 18 * * MON-FRI", PARIS))
    friday, saturday = (2026, 11, 20), (2026, 11, 21)
    at = [(friday, 7, 59), (friday, 8, 0), (friday, 17, 59), (friday, 18, 0), (saturday, 12, 0)]
    times = [unix(*day, hour, minute, zone=PARIS) for day, hour, minute in at]
    assert floors(office, *times) == [0, 5, 5, 0, 0]


def test_a_window_over_midnight_belongs_to_the_evening_on_which_it_began() -> None:
    night = table(schedule("0 22 * * FRI", "0 6 * * SAT", PARIS))
    at = [(20, 21, 59), (20, 22, 0), (21, 0, 0), (21, 5, 59), (21, 6, 0), (21, 23, 0), (26, 23, 0)]
    assert floors(night, *[unix(2026, 11, *when, zone=PARIS) for when in at]) == [0, 5, 5, 5, 0, 0, 0]


def test_a_window_may_last_a_weekend_or_over_the_new_year() -> None:
    weekend = table(schedule("0 0 * * SAT", "0 0 * * MON"))
    assert floors(weekend, unix(2026, 11, 22, 23, 59), unix(2026, 11, 23)) == [5, 0]
    season = table(schedule("0 0 20 12 *", "0 0 2 1 *"))
    assert floors(season, unix(2026, 12, 19), unix(2027, 1, 1), unix(2027, 1, 2)) == [0, 5, 0]


def test_of_schedules_that_overlap_the_largest_floor_counts_and_is_named() -> None:
    both = table(
        schedule("0 8 * * *", "0 18 * * *", replicas=5, name="day"),
        schedule("0 12 * * *", "0 13 * * *", replicas=9, name="lunch"),
        schedule("0 12 * * *", "0 20 * * *", replicas=7),
    )
    hours = [both.floor(unix(2026, 11, 20, hour)) for hour in (7, 8, 12, 13, 18, 20)]
    assert [(floor.replicas, floor.schedule) for floor in hours] == [
        (0, ""),
        (5, "day"),
        (9, "lunch"),
        (7, "0 12 * * * to 0 20 * * * UTC"),
        (7, "0 12 * * * to 0 20 * * * UTC"),
        (0, ""),
    ]
    assert hours[2].words == "schedule lunch asks for at least 9"


def test_two_zones_are_two_mornings() -> None:
    east = schedule("0 9 * * *", "0 10 * * *", "Asia/Tokyo", 3)
    west = schedule("0 9 * * *", "0 10 * * *", "America/New_York", 4)
    assert floors(table(east, west), unix(2026, 11, 20, 0, 30), unix(2026, 11, 20, 14, 30)) == [3, 4]


@pytest.mark.parametrize(
    ("month", "day"), [pytest.param(3, 29, id="spring"), pytest.param(10, 25, id="autumn")]
)
def test_days_on_which_the_clock_changes_begin_and_end_by_the_clock(month: int, day: int) -> None:
    office = table(schedule("0 8 * * *", "0 18 * * *", PARIS))
    for of_day in (day - 1, day, day + 1):
        at = [unix(2026, month, of_day, hour, minute, PARIS) for hour, minute in [(7, 59), (8, 0), (17, 59)]]
        assert floors(office, *at, unix(2026, month, of_day, 18, zone=PARIS)) == [0, 5, 5, 0]


def test_what_falls_into_the_gap_happens_at_its_end() -> None:
    night = table(schedule("30 2 * * *", "0 4 * * *", PARIS))
    gap_end = unix(2026, 3, 29, 1)  # 03:00 in Paris, which was 02:00 a second ago
    assert floors(night, gap_end - 1, gap_end, gap_end + 3599, gap_end + 3600) == [0, 5, 5, 0]


def test_what_falls_into_the_repeated_hour_happens_in_the_first_of_the_two() -> None:
    night = table(schedule("30 2 * * *", "45 2 * * *", PARIS))
    first = unix(2026, 10, 25, 0, 30)  # 02:30 summer time
    times = [first - 1, first, first + 899, first + 900, first + 3600, first + 4000]
    assert floors(night, *times) == [0, 5, 5, 0, 0, 0]


def test_where_start_and_end_fall_together_it_ends() -> None:
    hourly = table(schedule("0 * * * *", "0 12 * * *"))
    assert floors(hourly, unix(2026, 1, 1, 11), unix(2026, 1, 1, 12), unix(2026, 1, 1, 13)) == [5, 0, 5]


def test_a_floor_is_looked_up_anew_only_when_it_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    last = Times.last
    monkeypatch.setattr(Times, "last", lambda self, now: asked.append(now) or last(self, now))
    office = table(schedule("0 8 * * *", "0 18 * * *", name="asked-once"))
    start = unix(2026, 11, 20, 9)
    assert floors(office, *(start + 15 * turn for turn in range(2000))) == [5] * 2000
    assert len(asked) == 2
    assert floors(office, unix(2026, 11, 20, 18), unix(2026, 11, 20, 8)) == [0, 5]


def test_same_schedules_are_one_timetable() -> None:
    assert table(schedule("0 8 * * *", "0 9 * * *")) is table(schedule("0 8 * * *", "0 9 * * *"))
    assert timetable(None) is None
    assert timetable([]) is None


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"start": "0 25 * * *"}, 'start: Invalid value: "0 25 * * *"', "Bad hour"),
        ({"end": "0 0 * * 8"}, 'end: Invalid value: "0 0 * * 8"', "Bad day-of-week"),
        ({"start": "0 0 30 2 *"}, 'start: Invalid value: "0 0 30 2 *"', "Bad day-of-month"),
        ({"start": "0 0 5-1 * *"}, 'start: Invalid value: "0 0 5-1 * *"', "Bad day-of-month"),
        (
            {"start": "*/0 0 * * *"},
            'start: Invalid value: "*/0 0 * * *"',
            "must be five fields: minute (0-59)",
        ),
        ({"end": "0 0 L 2 MON#L"}, 'end: Invalid value: "0 0 L 2 MON#L"', "Bad"),
        ({"timezone": "Europe/Pari"}, 'timezone: Invalid value: "Europe/Pari"', "must be an IANA time zone"),
        ({"timezone": "America"}, 'timezone: Invalid value: "America"', "must be an IANA time zone"),
        ({"end": "00 08 * * MON-FRI"}, 'end: Invalid value: "00 08 * * MON-FRI"', "must differ from start"),
        ({"start": "0 8 * * 0", "end": "0 8 * * SUN"}, "end: Invalid value", "must differ from start"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_refused_with_field_value_and_what_is_allowed(
    changes: dict[str, str], field: str, words: str
) -> None:
    entry = {"start": "0 8 * * 1-5", "end": "0 18 * * 1-5", "timezone": PARIS, "minReplicas": 2} | changes
    good = {"start": "0 1 * * *", "end": "0 2 * * *", "minReplicas": 1}
    spec = parse_spec({**SMALLEST, "schedules": [good, entry]})
    with pytest.raises(InvalidSpec) as refused:
        timetable(spec.schedules)
    assert f"spec.schedules[1].{field}" in str(refused.value)
    assert words in str(refused.value)


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(InvalidSpec) as refused:
        timetable([schedule("0 24 * * *", "60 0 * * *", "Mars/Olympus")])
    assert [problem.path for problem in refused.value.problems] == [
        f"spec.schedules[0].{field}" for field in ("timezone", "start", "end")
    ]


# Against a scan of every minute


def happens(expression: str, zone: str, begin_s: float, minutes: int) -> Iterator[float]:
    """Every time of an expression of plain numbers and stars, minute for minute of Unix time."""
    minute, hour, _, _, weekday = expression.split()
    wanted = None if weekday == "*" else WEEKDAYS.index(weekday)
    meant = 60 * int(hour) + int(minute)
    before = None
    for now_s, of_day, of_week, fold, offset in wall_clock(zone, begin_s, minutes):
        gap = before is not None and offset > before[1] and before[0] < meant < of_day
        if wanted in (None, of_week) and ((fold == 0 and of_day == meant) or gap):
            yield now_s
        before = of_day, offset


@lru_cache(maxsize=4)
def wall_clock(zone: str, begin_s: float, minutes: int) -> list[tuple[float, int, int, int, timedelta]]:
    """Unix time, minute of the day, day of the week, fold and offset, minute for minute."""
    tz = ZoneInfo(zone)
    times = [datetime.fromtimestamp(begin_s + 60 * step, UTC).astimezone(tz) for step in range(minutes)]
    return [
        (t.timestamp(), 60 * t.hour + t.minute, t.weekday(), t.fold, t.utcoffset() or timedelta())
        for t in times
    ]


@st.composite
def expressions(draw: st.DrawFn) -> str:
    day = draw(st.sampled_from(["*", "*", "SUN", "MON", "SAT"]))
    return f"{draw(st.sampled_from([0, 1, 29, 30, 59]))} {draw(st.integers(0, 5))} * * {day}"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    start=expressions(),
    end=expressions(),
    change=st.sampled_from(
        [
            (PARIS, "2026-03-29"),
            (PARIS, "2026-10-25"),
            ("America/New_York", "2026-03-08"),
            ("America/New_York", "2026-11-01"),
            ("Australia/Lord_Howe", "2026-04-05"),
            ("Australia/Lord_Howe", "2026-10-04"),
        ]
    ),
)
def test_it_agrees_with_a_scan_of_every_minute_around_changes_of_the_clock(
    start: str, end: str, change: tuple[str, str]
) -> None:
    if start == end:
        return
    zone, day = change
    begin = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() - 8 * 86400
    minutes = 10 * 1440
    starts = set(happens(start, zone, begin, minutes))
    ends = set(happens(end, zone, begin, minutes))
    made = table(schedule(start, end, zone))
    on = False
    for step in range(minutes):
        now = begin + 60 * step
        if now in starts or now in ends:
            on = now not in ends
        if step > 7.2 * 1440 and step % 7 == 0:  # after a week both have happened
            assert (made.floor(now).replicas > 0) is on, (datetime.fromtimestamp(now, UTC), on)
