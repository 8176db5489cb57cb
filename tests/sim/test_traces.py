from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from sim.errors import TraceError
from sim.traces import Jobs, Trace, load_jobs, load_trace


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def hourly() -> Trace:
    """Two days of hours: flat 1 requests/s, but 5 from hour 30 to 35."""
    rates = np.ones(48)
    rates[30:36] = 5.0
    return Trace(np.arange(48) * 3600.0, rates, "hourly")


def test_a_csv_is_read_with_blank_lines_and_further_columns(tmp_path):
    path = write(tmp_path / "day.csv", "timestamp_s,requests_per_s\n0,1.5\n\n60,2.5,ignored\n")
    trace = load_trace(path)
    assert trace.name == "day"
    assert trace.times_s.tolist() == [0.0, 60.0]
    assert trace.rate_rps.tolist() == [1.5, 2.5]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_what_is_saved_is_what_is_loaded(tmp_path, hourly, name):
    hourly.save(tmp_path / name)
    read = load_trace(tmp_path / name)
    assert np.array_equal(read.times_s, hourly.times_s)
    assert np.array_equal(read.rate_rps, hourly.rate_rps)
    assert read.name == "t"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("hello\nworld\n", "1: 'hello' begins no known format; known are csv", id="no format"),
        pytest.param("", "is empty", id="empty file"),
        pytest.param("timestamp_s,requests_per_s\n0,1\n", "1 rows are not enough", id="one row"),
        pytest.param(
            "timestamp_s,requests_per_s\n0,1\n60,-2\n", "3: requests_per_s '-2'", id="negative rate"
        ),
        pytest.param("timestamp_s,requests_per_s\n0,1\n60,nan\n", "3: requests_per_s 'nan'", id="NaN"),
        pytest.param("timestamp_s,requests_per_s\n0,1\n60,\n", "3: requests_per_s ''", id="no value"),
        pytest.param("timestamp_s,requests_per_s\n0,1\n60\n", "3: '60' has 1 column", id="one column"),
        pytest.param("timestamp_s,requests_per_s\n5,1\nx,2\n", "3: timestamp_s 'x'", id="not a number"),
        pytest.param("timestamp_s,requests_per_s\n5,1\ninf,2\n", "3: timestamp_s 'inf'", id="endless time"),
        pytest.param(
            "timestamp_s,requests_per_s\n5,1\n5,2\n", "must be greater than the 5 before it", id="same time"
        ),
    ],
)
def test_a_bad_file_is_refused_with_its_line_and_what_is_allowed(tmp_path, text, message):
    path = write(tmp_path / "bad.csv", text)
    with pytest.raises(TraceError, match=r"bad\.csv") as refused:
        load_trace(path)
    assert message in str(refused.value)


def test_a_wrong_header_is_refused_where_the_format_is_said(tmp_path):
    path = write(tmp_path / "bad.csv", "time,rate\n0,1\n1,1\n")
    with pytest.raises(
        TraceError, match="1: header 'time,rate' is not allowed, must be timestamp_s,requests_per_s"
    ):
        load_trace(path, format="csv")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    (tmp_path / "excel.csv").write_bytes(b"\xef\xbb\xbftimestamp_s,requests_per_s\r\n0,1\r\n60,2\r\n")
    assert load_trace(tmp_path / "excel.csv").rate_rps.tolist() == [1.0, 2.0]


def test_a_file_that_is_not_there_is_a_trace_error(tmp_path):
    with pytest.raises(TraceError, match="cannot be read"):
        load_trace(tmp_path / "nothing.csv")


def test_a_gzip_that_is_cut_off_is_a_trace_error(tmp_path):
    whole = gzip.compress(b"timestamp_s,requests_per_s\n" + b"".join(b"%d,1\n" % i for i in range(5000)))
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TraceError, match="cannot be read"):
        load_trace(tmp_path / "cut.csv.gz")


def test_resampling_interpolates_linearly():
    trace = Trace(np.array([0.0, 60.0, 120.0]), np.array([0.0, 6.0, 0.0])).resample(15.0)
    assert trace.times_s[1] - trace.times_s[0] == 15.0
    assert trace.at(30.0) == pytest.approx(3.0)
    assert trace.rate_rps[:9].tolist() == [0.0, 1.5, 3.0, 4.5, 6.0, 4.5, 3.0, 1.5, 0.0]


def test_windows_lie_end_to_end_and_start_at_zero(hourly):
    first, second = hourly.windows(86400.0)
    assert first.times_s[0] == second.times_s[0] == 0.0
    assert len(first) == len(second) == 24
    assert second.rate_rps[6:12].tolist() == [5.0] * 6
    assert len(hourly.windows(86400.0, stride_s=3600.0)) == 25


def test_the_busiest_window_holds_the_burst(hourly):
    assert hourly.busiest_start_s(6 * 3600.0) == 30 * 3600.0
    assert hourly.busiest_window(6 * 3600.0).rate_rps.tolist() == [5.0] * 6


def test_a_window_longer_than_the_trace_is_refused(hourly):
    with pytest.raises(TraceError, match="longer than its 172800 s"):
        hourly.windows(3 * 86400.0)


def test_scaling_puts_the_peak_at_the_replicas_asked_for(hourly):
    scaled = hourly.scale_to_peak(60, 25.0)
    assert scaled.rate_rps.max() == pytest.approx(1500.0)
    assert scaled.rate_rps.min() == pytest.approx(300.0)
    with pytest.raises(TraceError, match="no requests at all"):
        hourly.scale(0.0).scale_to_peak(60, 25.0)


@pytest.mark.parametrize(
    ("times", "rates", "message"),
    [
        ([0.0, 1.0], [1.0], "equally long"),
        ([0.0], [1.0], "at least 2"),
        ([0.0, 0.0], [1.0, 1.0], "greater than the one before"),
        ([0.0, 1.0], [1.0, np.nan], r"requests_per_s\[1\]"),
        ([0.0, 1.0], [-1.0, 1.0], r"requests_per_s\[0\]"),
    ],
)
def test_a_trace_made_of_bad_arrays_is_refused(times, rates, message):
    with pytest.raises(TraceError, match=message):
        Trace(np.array(times), np.array(rates))


def test_gaps_are_listed_and_interpolated_never_zero():
    trace = Trace(np.array([0.0, 60.0, 120.0, 600.0, 660.0]), np.array([4.0, 4.0, 4.0, 8.0, 8.0]))
    assert trace.gaps == [(180.0, 600.0)]
    assert trace.at(360.0) == pytest.approx(6.0)
    assert trace.resample(60.0).rate_rps.min() == 4.0
    assert Trace(np.arange(5) * 60.0, np.ones(5)).gaps == []


def test_a_window_keeps_unit_notes_and_the_clock():
    trace = Trace(np.arange(10) * 60.0, np.ones(10), "t", "jobs/s", 1_000_000.0, ("two lines were left out",))
    cut = trace.window(120.0, 180.0)
    assert (cut.unit, cut.origin_s, cut.notes) == ("jobs/s", 1_000_120.0, trace.notes)
    assert trace.resample(30.0).unit == "jobs/s"


def test_jobs_are_sorted_and_become_arrivals():
    jobs = Jobs([130.0, 10.0, 70.0, 71.0], [5.0, np.nan, 1.0, 2.0], [0.5] * 4, [0.1] * 4, [1, 3, 1, 1])
    assert jobs.submit_s.tolist() == [10.0, 70.0, 71.0, 130.0]
    assert jobs.instances.tolist() == [3, 1, 1, 1]
    assert np.isnan(jobs.duration_s[0])
    arrivals = jobs.arrivals(60.0)
    assert arrivals.times_s.tolist() == [0.0, 60.0, 120.0]
    assert (arrivals.rate_rps * 60).tolist() == [1.0, 2.0, 1.0]
    assert (jobs.arrivals(60.0, each_instance=True).rate_rps * 60).tolist() == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("name", ["jobs.csv", "jobs.csv.gz"])
def test_jobs_that_are_saved_are_the_jobs_that_are_loaded(tmp_path, name):
    jobs = Jobs([1.0, 2.5], [np.nan, 3.0], [0.5, 0.25], [np.nan, 0.125], [2, 1])
    jobs.save(tmp_path / name)
    read = load_jobs(tmp_path / name)
    for field in ("submit_s", "duration_s", "cpu", "memory", "instances"):
        assert np.array_equal(getattr(read, field), getattr(jobs, field), equal_nan=True), field


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([], [], [], []), "no jobs at all"),
        (([1.0], [1.0, 2.0], [1.0], [1.0]), r"duration_s \(2,\) must be as long as submit_s \(1\)"),
        (([np.nan], [1.0], [1.0], [1.0]), r"submit_s\[0\]"),
        (([1.0], [-1.0], [1.0], [1.0]), r"duration_s\[0\]"),
    ],
)
def test_jobs_made_of_bad_arrays_are_refused(arrays, message):
    with pytest.raises(TraceError, match=message):
        Jobs(*arrays)


@pytest.mark.skipif(
    "RLSCALER_TRACES" not in os.environ, reason="RLSCALER_TRACES names no folder of real traces"
)
def test_every_real_trace_is_read():
    files = sorted(Path(os.environ["RLSCALER_TRACES"]).glob("rps_*.csv*"))
    assert files
    for file in files:
        trace = load_trace(file)
        assert trace.duration_s > 0, file
        assert trace.rate_rps.max() > 0, file
        day = trace.busiest_window(min(86400.0, trace.duration_s))
        assert day.rate_rps.mean() >= trace.rate_rps.mean() * 0.99, file
