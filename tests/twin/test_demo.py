"""The demo's own parts: which window it shows, its figures, its views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim.demo.plan import CAPACITY_RPS, generated_day, make_plan, most_changing_start, parse_duration
from sim.demo.report import FIGURES, table
from sim.demo.state import Totals
from sim.demo.terminal import line, sparkline
from sim.errors import SimulationError
from sim.traces import Trace
from sim.twin.service import Sample


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3h", 10800), ("90m", 5400), ("2h30m", 9000), ("5400", 5400), ("1.5h", 5400), ("30s", 30)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-3h", "0", "3 days", "1h-2m"])
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


def test_the_window_is_where_the_load_changes_most() -> None:
    times = np.arange(0, 86400, 60.0)
    rates = np.where((times > 50_000) & (times < 52_000), 300.0, 100.0)
    start = most_changing_start(Trace(times, rates), 3600)
    assert 48_000 < start < 50_000


def test_a_plan_is_scaled_to_its_peak_and_has_a_warm_up() -> None:
    plan = make_plan(None, 5400, 60)
    window = plan.trace.at(np.arange(plan.warm_up_s, plan.end_s, 15))
    assert window.max() == pytest.approx(40 * CAPACITY_RPS, rel=0.02)
    assert plan.first_replicas * CAPACITY_RPS > plan.trace.at(0.0)
    assert plan.trace.times_s[0] == 0


def test_the_generated_day_is_the_same_each_time_and_changes_a_lot() -> None:
    day = generated_day()
    assert (day.rate_rps == generated_day().rate_rps).all()
    assert day.rate_rps.max() > 4 * np.median(day.rate_rps[day.rate_rps > 0]) / 2


def test_a_window_outside_of_the_trace_is_refused() -> None:
    with pytest.raises(SimulationError, match="--start: 90000 s is not allowed"):
        make_plan(None, 3600, 60, start_s=90_000)


def test_an_unreadable_trace_is_told(tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("not a trace\n")
    with pytest.raises(SimulationError, match=r"bad\.csv:1: 'not a trace' begins no known format"):
        make_plan(bad, 3600, 60)


def sample(time_s: float, desired: int, late: float = 0.0) -> Sample:
    return Sample(time_s, 100.0, desired, desired, desired, 40, 90, 99, 1500, 1500, 0, late, desired * 15.0)


def test_totals_count_cost_violations_changes_and_flaps() -> None:
    totals = Totals()
    for index, desired in enumerate([4, 8, 8, 6, 8]):
        totals.add(sample(15.0 * index, desired, late=15), 15)
    figures = totals.figures(90.0)
    assert figures["replica_hours"] == pytest.approx(34 * 15 / 3600)
    assert figures["cost_over_ideal"] == pytest.approx(34 / (5 * 4))
    assert figures["violation"] == pytest.approx(0.01)
    assert (totals.changes, totals.flaps, totals.max_replicas) == (3, 2, 8)


def test_the_table_names_every_figure() -> None:
    figures = Totals()
    figures.add(sample(0, 4), 15)
    numbers = {name: figures.figures(90.0) for name in ("web", "web-hpa")}
    assert table(numbers).row_count == len(FIGURES)


def test_sparklines_use_their_whole_height() -> None:
    assert sparkline([0, 5, 10, None], 10) == "▁▅█ "


def test_a_line_tells_both_and_the_notes() -> None:
    figures = {"violation": 0.01, "replica_hours": 3.0}
    services = [
        {"label": n, "rows": [[0, 9.0, 9, 10, 12, 80.0, 0]], "figures": figures} for n in ("RL", "HPA")
    ]
    text = line({"elapsed_s": 3661, "services": services, "facts": {"notes": ["Prometheus ended"]}})
    assert text.startswith("1:01:01 | load 9.0 replicas | RL: 9 ready of 12, p95 80 ms, late 1.00 %")
    assert text.endswith("Prometheus ended")
