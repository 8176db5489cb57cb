from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from controller import cli
from sim.errors import TraceError
from sim.loaders import LOADERS
from sim.traceinfo import (
    DAY_S,
    HOUR_S,
    WEEK_S,
    autocorrelation,
    autocorrelations,
    best_period,
    day_profile,
    describe,
    dispersions,
    hurst,
    largest_rise,
    season,
)
from sim.traceplot import chart, duration, envelope, nice_ceiling, short, sparkline
from sim.traces import Jobs, Trace, load_jobs, load_trace
from sim.workloads import WORKLOADS, Diurnal, Noise, Product, Weekly


def poisson(mean: float, bins: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(mean, bins).astype(float)


@pytest.fixture(scope="module")
def fortnight() -> Trace:
    """Two weeks of minutes: a week's profile with Poisson noise."""
    times = np.arange(0.0, 2 * WEEK_S, 60.0)
    rates = Weekly(mean=20.0).rates(times, np.random.default_rng(0))
    return Trace(times, np.random.default_rng(1).poisson(rates * 60) / 60, "fortnight")


def test_a_constant_poisson_stream_has_dispersion_one_and_no_memory():
    values = poisson(10.0, 50_000)
    for each in dispersions(values, 1.0):
        if each.scale_s <= 300:
            assert each.index == pytest.approx(1.0, abs=0.25)
            assert each.allan == pytest.approx(1.0, abs=0.25)
    assert hurst(values, 1.0)[0] == pytest.approx(0.5, abs=0.05)
    assert autocorrelation(values, 1) == pytest.approx(0.0, abs=0.02)
    assert season(values, 60.0, HOUR_S).strength < 0.02
    assert math.isnan(best_period(values, 1.0))


def test_rates_in_bins_of_any_length_have_the_dispersion_of_their_counts():
    values = poisson(600.0, 5000) / 60.0
    assert dispersions(values, 60.0)[0].index == pytest.approx(1.0, abs=0.1)


def test_slow_change_raises_the_dispersion_but_not_the_allan_factor():
    times = np.arange(0.0, 4 * DAY_S, 60.0)
    counts = np.random.default_rng(2).poisson(60 * Diurnal(mean=2.0).rates(times, np.random.default_rng(0)))
    found = {each.scale_s: each for each in dispersions(counts / 60.0, 60.0)}
    assert found[300.0].index > 50
    assert found[300.0].allan == pytest.approx(1.0, abs=0.2)


def test_a_straight_trend_does_not_pass_for_memory():
    values = poisson(20.0, 8192) + np.linspace(0, 200, 8192)
    assert hurst(values, 1.0)[0] == pytest.approx(0.5, abs=0.06)


def test_seasons_are_found_with_their_strength(fortnight):
    info = describe(fortnight)
    assert info.seasons["day"].strength > 0.85
    assert info.seasons["day"].autocorrelation > 0.6
    assert info.seasons["week"].strength > 0.7, "weekends are most of what the days leave"
    assert info.seasons["hour"].strength < 0.1
    assert info.best_period_s % DAY_S == 0
    steady = Product((Diurnal(weekend_drop=0.0), Noise(0.05)))
    times = np.arange(0.0, 6 * DAY_S, 300.0)
    assert best_period(steady.rates(times, np.random.default_rng(3)), 300.0) == DAY_S


def test_a_week_is_told_from_its_days():
    times = np.arange(0.0, 6 * WEEK_S, 1800.0)
    rng = np.random.default_rng(4)
    with_weekends = Weekly(days=(1, 1, 1, 1, 1, 0.4, 0.4)).rates(times, rng) + 0.02 * rng.standard_normal(
        len(times)
    )
    without = Weekly(days=(1.0,) * 7).rates(times, rng) + 0.02 * rng.standard_normal(len(times))
    assert season(with_weekends, 1800.0, WEEK_S).strength > 0.8
    assert season(without, 1800.0, WEEK_S).strength < 0.1


def test_what_a_trace_is_too_short_or_coarse_for_is_unknown():
    info = describe(Trace(np.arange(20) * 3600.0, np.arange(20.0)))
    assert math.isnan(info.seasons["day"].strength)
    assert math.isnan(info.hurst)
    assert info.rises == ()
    plain = info.to_json()
    assert plain["hurst"] is None
    assert json.loads(json.dumps(plain)) == plain


def test_levels_idle_share_gaps_and_rises_are_counted():
    rates = np.zeros(100)
    rates[50:60] = 6.0
    times = np.arange(100) * 60.0
    kept = np.ones(100, bool)
    kept[80:90] = False
    info = describe(Trace(times[kept], rates[kept]))
    assert info.bins == 90
    assert info.highest == 6.0
    assert info.mean == pytest.approx(60 / 90)
    assert info.peak_to_mean == pytest.approx(9.0)
    assert info.total == pytest.approx(3600.0)
    assert info.idle_share == pytest.approx(80 / 90)
    assert (info.gaps, info.gap_s) == (1, 600.0)
    assert info.rises[0].by == 6.0
    assert info.rises[0].at_s == 49 * 60.0
    assert info.rises[1].within_s == 300.0


def test_the_largest_rise_is_between_moments_exactly_so_far_apart():
    values = np.array([0.0, 1.0, 3.0, 4.0, 10.0, 2.0])
    assert largest_rise(values, 30.0, 60.0).by == 7.0
    assert largest_rise(values, 30.0, 60.0).start == 3.0
    assert largest_rise(values, 60.0, 30.0) is None
    assert largest_rise(values[::-1].cumsum() * -1.0, 60.0, 60.0).by == 0.0


def test_autocorrelations_agree_with_the_definition():
    values = poisson(5.0, 500)
    fast = autocorrelations(values, 20)
    assert fast[0] == pytest.approx(1.0)
    assert fast[7] == pytest.approx(autocorrelation(values, 7))
    assert (autocorrelations(np.ones(50), 5) == 0).all()


def test_a_trace_without_any_request_is_described():
    info = describe(Trace(np.arange(300) * 60.0, np.zeros(300)))
    assert info.idle_share == 1.0
    assert math.isnan(info.peak_to_mean)
    assert info.dispersions == ()


def test_a_day_profile_is_on_the_clock_of_the_recording(fortnight):
    hours, quantiles = day_profile(fortnight, 24)
    assert hours.tolist() == [h + 0.5 for h in range(24)]
    assert quantiles[1].argmin() in (3, 4)
    assert (quantiles[0] <= quantiles[2]).all()
    shifted = Trace(fortnight.times_s, fortnight.rate_rps, origin_s=6 * HOUR_S)
    assert day_profile(shifted, 24)[1][1].argmin() in (9, 10)
    with pytest.raises(TraceError, match="shorter than a day"):
        day_profile(fortnight.window(0, HOUR_S))


def test_a_column_of_the_chart_has_the_mean_and_the_highest_and_a_gap_none():
    times = np.concatenate([np.arange(100), np.arange(300, 400)]) * 60.0
    rates = np.ones(200)
    rates[10] = 5.0
    means, peaks = envelope(Trace(times, rates), 40)
    assert means[0] == pytest.approx(1.0)
    assert peaks[1] == 5.0
    assert 1.0 < means[1] < 5.0
    assert np.isnan(means[12:29]).all()
    few, _ = envelope(Trace(np.array([0.0, 60.0, 120.0, 600.0]), np.array([1.0, 2.0, 3.0, 4.0])), 44)
    assert few[0] == 1.0
    assert few[-1] == 4.0
    assert np.isnan(few[20])


@pytest.mark.parametrize("width", [40, 80, 173])
@pytest.mark.parametrize("colour", [True, False])
def test_the_chart_keeps_to_its_width_and_is_as_high_as_its_values(fortnight, width, colour):
    lines = chart(fortnight, width, 10, colour).plain.splitlines()
    assert len(lines) == 12
    assert max(map(len, lines)) <= width
    assert "days" in lines[-1]
    assert lines[0].lstrip().startswith(short(nice_ceiling(fortnight.rate_rps.max())))
    full = sum(line.count("█") for line in lines[:10])
    assert full / (10 * (width - 9)) == pytest.approx(20.0 / nice_ceiling(fortnight.rate_rps.max()), abs=0.12)


def test_numbers_and_times_are_short():
    assert [short(v) for v in (0, 0.0583, 12.44, 999.9, 1000, 3554, 2.1e7, math.nan)] == [
        "0", "0.0583", "12.4", "1k", "1k", "3.55k", "21M", "-",
    ]  # fmt: skip
    assert [duration(s) for s in (15, 90, 659.9, 3600, 5400, 86400, 13 * 86400 + 3600)] == [
        "15 s", "1 min 30 s", "11 min", "1 h", "1 h 30 min", "1 d", "13 d 1 h",
    ]  # fmt: skip
    assert [nice_ceiling(v) for v in (0, 1, 3553, 0.017, 9)] == [1.0, 1, 4000, pytest.approx(0.02), 10]
    assert sparkline(np.array([0.0, 1.0, np.nan, 8.0])) == " ▁ █"


# --- the command


def run(capsys, *words: object) -> tuple[int, str, str]:
    code = cli.main(["trace", *map(str, words)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.fixture
def recorded(tmp_path, fortnight):
    path = tmp_path / "week.csv.gz"
    fortnight.save(path)
    return path


def test_info_prints_and_draws(capsys, tmp_path, recorded):
    picture = tmp_path / "week.png"
    code, out, err = run(capsys, "info", recorded, "--plot", picture)
    assert code == 0
    for words in (
        "week",
        "length",
        "14 d",
        "20,160 of 1 min",
        "variance/mean 1 min",
        "Hurst",
        "largest rise",
        "█",
    ):
        assert words in out, words
    assert str(picture) in err
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(picture.read_bytes()[at : at + 4], "big") for at in (16, 20))
    assert width > 1000
    assert height > 600


def test_info_prints_json_and_nothing_else(capsys, recorded):
    code, out, _ = run(capsys, "info", recorded, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["bins"] == 20160
    assert told["mean"] == pytest.approx(20.0, rel=0.01)
    assert told["seasons"]["day"]["strength"] > 0.8
    assert told["file"] == str(recorded)


def test_info_takes_jobs_and_several_files(capsys, tmp_path, recorded):
    jobs = tmp_path / "jobs.csv"
    Jobs(np.arange(50) * 30.0, np.full(50, 10.0), np.full(50, 0.5), np.full(50, np.nan)).save(jobs)
    code, out, _ = run(capsys, "info", jobs, recorded, "--json")
    first, second = json.loads(out)
    assert code == 0
    assert first["jobs"]["count"] == 50
    assert first["jobs"]["duration_s_p50"] == 10.0
    assert first["jobs"]["memory_p50"] is None
    assert first["unit"] == "jobs/s"
    assert second["bins"] == 20160
    code, out, _ = run(capsys, "info", jobs)
    assert "10 / 10 s" in out
    assert "unknown / unknown machines" in out


def test_info_chooses_series_and_columns(capsys, tmp_path):
    result = [{"metric": {"pod": p}, "values": [[60 * k, str(k)] for k in range(5)]} for p in "ab"]
    path = tmp_path / "q.json"
    path.write_text(json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}))
    assert json.loads(run(capsys, "info", path, "--label", "pod=a", "--json")[1])["highest"] == 4.0
    assert json.loads(run(capsys, "info", path, "--sum", "--json")[1])["highest"] == 8.0
    code, _, err = run(capsys, "info", path)
    assert code == 2
    assert "2 series are not allowed" in err
    table = tmp_path / "t.csv"
    table.write_text("t,a,b\n0,1,2\n60,3,4\n")
    assert json.loads(run(capsys, "info", table, "--column", "b", "--json")[1])["highest"] == 4.0
    assert json.loads(run(capsys, "info", table, "-o", "values=count", "--json")[1])["highest"] == 3 / 60


def test_convert_writes_the_projects_csv(capsys, tmp_path):
    log = tmp_path / "access.log"
    line = '10.0.0.1 - - [10/Oct/2000:13:{:02d}:00 +0000] "GET / HTTP/1.0" 200 1\n'
    log.write_text("".join(line.format(minute) * (minute + 1) for minute in range(10)))
    out = tmp_path / "out.csv.gz"
    assert run(capsys, "convert", log, out, "--scale-to-peak", 100)[0] == 0
    made = load_trace(out, format="csv")
    assert made.rate_rps.tolist() == pytest.approx([10.0 * (k + 1) for k in range(10)])
    assert run(capsys, "convert", log, out, "--busiest", 120, "--scale", 60)[0] == 0
    assert load_trace(out).rate_rps.tolist() == [9.0, 10.0]
    assert run(capsys, "convert", log, out, "--start", 60, "--duration", 180, "--resample", 30)[0] == 0
    assert len(load_trace(out)) == 6
    jobs = tmp_path / "jobs.csv"
    jobs.write_text("100,160,2,20,3,Terminated,50.0,0.016\n")
    assert run(capsys, "convert", jobs, tmp_path / "j.csv", "--jobs")[0] == 0
    assert load_jobs(tmp_path / "j.csv").duration_s.tolist() == [60.0]
    code, _, err = run(capsys, "convert", log, out, "--jobs")
    assert code == 2
    assert "holds rates, no jobs" in err


def test_generate_writes_what_the_generator_makes(capsys, tmp_path):
    out = tmp_path / "g.csv"
    words = [
        "generate",
        "Mmpp",
        out,
        "-p",
        "levels=[1, 5]",
        "-p",
        "hold_s=3e2",
        "--duration",
        7200,
        "--step",
        60,
    ]
    assert run(capsys, *words, "--seed", 3)[0] == 0
    made = load_trace(out)
    assert len(made) == 120
    assert set(made.rate_rps) == {1.0, 5.0}
    assert run(capsys, *words, "--seed", 3, "--scale-to-peak", 40)[0] == 0
    assert load_trace(out).rate_rps.tolist() == (made.rate_rps * 8).tolist()
    assert run(capsys, *words, "--seed", 3, "--poisson")[0] == 0
    assert len(set(load_trace(out).rate_rps)) > 5
    nested = tmp_path / "both.yaml"
    nested.write_text(
        "kind: Sum\nparts:\n- {kind: Constant, level: 2}\n- {kind: Step, at_s: 60, before: 0, after: 3}\n"
    )
    assert run(capsys, "generate", nested, out, "--duration", 120, "--step", 60)[0] == 0
    assert load_trace(out).rate_rps.tolist() == [2.0, 5.0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["info", "nothing.csv"], "nothing.csv: cannot be read: No such file or directory"),
        (["info", "nothing.csv", "--format", "cvs"], "format: 'cvs' is not allowed"),
        (["generate", "Diurnl", "out.csv"], "nearest: Diurnal"),
        (
            ["generate", "Diurnal", "out.csv", "-p", "mean"],
            "--param: 'mean' is not allowed, must be FIELD=VALUE",
        ),
        (["generate", "Diurnal", "out.csv", "-p", "mean=-1"], "workload.mean: -1.0 is not allowed"),
        (["generate", "nothing.yaml", "out.csv"], "nothing.yaml: cannot be read"),
        (["generate", "Diurnal", "no/such/folder.csv"], "no/such/folder.csv: cannot be written"),
        (["generate", "Diurnal", "out.csv", "--step", "0"], "--step: 0.0 is not allowed"),
        (["info", "a", "b", "--plot", "x.png"], "--plot: 'x.png' is not allowed for several files"),
        (["info", "a", "-o", "x"], "--option: 'x' is not allowed, must be NAME=VALUE"),
    ],
)
def test_a_command_that_cannot_be_done_says_why_and_ends_with_two(
    capsys, tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("rl-scaler: ")
    assert message in err


def test_formats_lists_every_format_option_and_generator(capsys):
    code, out, _ = run(capsys, "formats")
    assert code == 0
    for name in (*LOADERS, *WORKLOADS):
        assert re.search(rf"^  {name}\b", out, re.MULTILINE), name
    for loader in LOADERS.values():
        for option in loader.options:
            assert f"{option}:" in out


# --- how the command line finds it


def test_a_part_that_is_not_installed_becomes_a_command_that_says_so(capsys, monkeypatch):
    missing = EntryPoint("elsewhere", "no_such_package.commands:add", cli.PLUGINS)
    monkeypatch.setattr(cli, "found_plugins", lambda: [missing])
    assert cli.main(["elsewhere", "--any", "flag"]) == 2
    assert "elsewhere needs no_such_package, which is not installed" in capsys.readouterr().err
    assert cli.main(["version"]) == 0


def test_a_part_cannot_replace_a_command_of_the_operator(monkeypatch):
    stolen = EntryPoint("crd", "no_such_package.commands:add", cli.PLUGINS)
    monkeypatch.setattr(cli, "found_plugins", lambda: [stolen])
    assert cli.parser().parse_args(["crd"]).run is cli._crd


def test_a_missing_extra_is_told_by_its_name(capsys, recorded, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    code, _, err = run(capsys, "info", recorded)
    assert code == 2
    assert "pip install 'rl-scaler[sim]'" in err


def test_finding_the_command_imports_nothing_heavy():
    script = (
        "import sys; from controller.cli import parser; parser(); "
        "print([m for m in ('numba', 'matplotlib', 'rich', 'numpy', 'sim.traces') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "numba" not in shown.stdout
    assert "matplotlib" not in shown.stdout
    assert "sim.traces" not in shown.stdout
