"""The evaluation script on small generated traffic: what it prints, writes and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from sim.baselines import BASELINES
from sim.replay import Protocol
from sim.traces import Trace
from training.artifact import read_metadata
from training.comparison import SCHEMA_FILE, _check_names
from training.contestants import Sweep, contestant, generated_windows, label_of
from training.errors import ConfigError
from training.evaluate import DEFAULT_POLICIES, main


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hours with a wave and a burst."""
    times = np.arange(0, 7200, 30.0)
    rates = 20 + 10 * np.sin(times / 900) + np.where((times > 3000) & (times < 3600), 25, 0)
    path = tmp_path_factory.mktemp("traces") / "wave.csv"
    Trace(times, rates, "wave").save(path)
    return path


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `report` writes."""
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def report(trace: Path, tiny_run: Path, out: Path) -> dict[str, Any]:
    """What `evaluate.py` writes about one trace, two arrival seeds and every kind of contestant."""
    artifact = shutil.copy(tiny_run / "policy.onnx", out / "mine.onnx")
    short = out / "short.csv"
    Trace(np.arange(0, 600, 60.0), np.ones(10), "short").save(short)
    policies = ["hpa", "Forecast", "KEDA", "Static", str(artifact), "clairvoyant", "--card"]
    paths = ["--json", out / "report.json", "--markdown", out / "report.md", "--plots", out / "plots"]
    options = ["--seeds", 2, "--jobs", 1, "--no-cache", "--no-progress"]
    args = ["--trace", trace, short, "--policy", *policies, *paths, *options]
    assert main([str(arg) for arg in args]) == 0
    return dict(json.loads((out / "report.json").read_text()))


def test_the_report_is_what_its_schema_says(report: dict) -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(report, schema)
    assert schema["properties"]["schema"]["const"] == report["schema"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report | {"extra": 1}, schema)


def test_the_report_has_every_policy_at_every_level(report: dict) -> None:
    policies = {"HPA", "Forecast", "KEDA", "Static", "mine", "clairvoyant"}
    assert set(report["policies"]) == policies
    levels = report["groups"]["all"]["levels"]
    assert set(levels) == {"0.1%", "0.5%", "1.0%"}
    for content in levels.values():
        assert set(content) == policies
        assert content["HPA"]["cost"] > content["clairvoyant"]["cost"] > 1.0
        assert content["HPA"]["gap_closed"] == pytest.approx(0.0)
        assert content["clairvoyant"]["gap_closed"] == pytest.approx(1.0)


def test_the_report_has_mean_and_median_violations_of_every_setting(report: dict) -> None:
    for policy in report["policies"].values():
        for setting in policy["settings"]:
            assert 0 <= setting["median_violation"] <= setting["worst_window_violation"] <= 1
            assert setting["worst_window_violation"] <= setting["mean_worst_5_minutes"] + 1e-9
            assert setting["cost"] > 0
            assert 40 <= setting["median_p99_ms"] <= setting["worst_p99_ms"] <= 10_041


def test_every_number_of_every_seed_is_there(report: dict) -> None:
    assert report["protocol"]["seeds"] == [1000, 1001]
    for policy in report["policies"].values():
        for figure in ("cost", "violation", "worst_5_minutes", "p99_ms", "flaps_per_hour"):
            assert np.array(policy[figure]).shape == (len(policy["settings"]), 1, 2)
    hpa = np.array(report["policies"]["HPA"]["violation"])
    assert not np.array_equal(hpa[:, :, 0], hpa[:, :, 1])


def test_the_hpa_pays_for_safety(report: dict) -> None:
    settings = {one["name"]: one for one in report["policies"]["HPA"]["settings"]}
    low, high = settings["hpa-30%-300s"], settings["hpa-90%-300s"]
    assert low["cost"] > high["cost"]
    assert low["mean_violation"] < high["mean_violation"]


def test_a_trace_that_is_too_short_is_named_and_nothing_is_left_out_silently(report: dict, out: Path) -> None:
    assert report["left_out"] == [{"name": "short", "reason": "too short: 10.0 min, at least 30 are needed"}]
    assert report["windows"][0]["shorter_than_asked"] is True
    assert "Left out: short: too short" in (out / "report.md").read_text()


def test_plots_are_drawn(report: dict, out: Path) -> None:
    drawn = {path.name: path.stat().st_size for path in (out / "plots").glob("*.png")}
    assert set(drawn) == {"pareto.png", "pareto-traces.png", "intervals.png", "timeline-1.png"}
    assert min(drawn.values()) > 10_000


def test_the_card_goes_into_the_artifact(report: dict, out: Path) -> None:
    card = read_metadata((out / "mine.onnx").read_bytes())["evaluation"]
    assert card["command"] == report["command"]
    at_one_percent = card["cost_over_ideal_at_mean_violation"]["1.0%"]
    levels = report["groups"]["all"]["levels"]["1.0%"]
    assert at_one_percent["HPA"] == levels["HPA"]["cost"]
    assert at_one_percent["mine"] == levels["mine"]["cost"]


def test_the_report_says_how_to_make_it_again(report: dict, trace: Path) -> None:
    assert report["command"].startswith(f"python training/evaluate.py --trace {trace}")
    assert [window["name"] for window in report["windows"]] == ["wave@0s"]
    assert len(report["versions"]["code_digest"]) == 64


def test_two_artifacts_of_one_name_are_not_mixed_up(tiny_run: Path, tmp_path: Path) -> None:
    assert label_of(str(tiny_run / "policy.onnx")) == tiny_run.name
    with pytest.raises(ConfigError, match="mine would stand for two"):
        _check_names(["hpa", label_of("a/mine.onnx"), label_of("b/mine.onnx")])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        pytest.param(["--policy", "nosuch"], ["nosuch", "HPA", "clairvoyant"], id="unknown policy"),
        pytest.param(["--policy", "nosuch.onnx"], ["nosuch.onnx", "no such file"], id="no such artifact"),
        pytest.param(["--trace", "nosuch.csv"], ["nosuch.csv"], id="no such trace"),
        pytest.param(["--windows", "0"], ["--windows", "0"], id="no windows"),
        pytest.param(["--seeds", "0"], ["--seeds", "0"], id="no seeds"),
        pytest.param(["--seed", "-1"], ["--seed", "-1"], id="a negative seed"),
        pytest.param(["--jobs", "0"], ["--jobs", "0"], id="no processes"),
        pytest.param(["--scale-down-window", "9999"], ["9999", "0..3600"], id="window too long"),
    ],
)
def test_bad_arguments_end_in_one_clear_sentence(
    args: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    policies = [] if "--policy" in args else ["--policy", "hpa"]
    assert main([*args, *policies]) == 2
    said = capsys.readouterr().err
    for word in words:
        assert word in said


def test_generated_windows_are_the_same_for_a_seed_and_peak_where_the_protocol_says() -> None:
    protocol = Protocol(window_s=7200.0)
    first, again = (generated_windows(3, 5, protocol) for _ in range(2))
    other = generated_windows(1, 6, protocol)[0]
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.trace.rate_rps, two.trace.rate_rps)
        assert one.trace.rate_rps.max() == pytest.approx(protocol.peak_replicas * 25.0)
        assert one.history is not None
        assert one.history.times_s[-1] < 0 <= one.trace.times_s[0]
    assert not np.array_equal(other.trace.rate_rps, first[0].trace.rate_rps)


def test_by_default_all_baselines_meet_the_built_in_policy_and_the_bound() -> None:
    assert (*BASELINES, "default", "clairvoyant") == DEFAULT_POLICIES
    for name in DEFAULT_POLICIES:
        assert contestant(name, Sweep(), Protocol()).name == name


def test_formulas_are_known_in_any_case() -> None:
    for name in ("hpa", "HPA", "keda", "CLAIRVOYANT", "static"):
        assert contestant(name, Sweep(), Protocol()).name.lower() == name.lower()


def test_other_recordings_take_part_and_their_unit_is_named(tmp_path: Path) -> None:
    """Utilisation of a cluster and single requests, told apart by their headers; the rest is refused."""
    times = np.arange(0, 3600, 60)
    (tmp_path / "util.csv").write_text(
        "time_s,cpu_pct\n" + "".join(f"{t},{40 + 20 * np.sin(t / 500):.2f}\n" for t in times)
    )
    (tmp_path / "requests.csv").write_text(
        "arrival_s,tokens\n" + "".join(f"{t},7\n" for t in range(0, 3600, 3))
    )
    report_file = tmp_path / "report.json"
    args = ["--policy", "Static", "clairvoyant", "--jobs", "1", "--no-cache", "--json", str(report_file)]
    traces = [str(tmp_path / name) for name in ("util.csv", "requests.csv")]
    assert main(["--trace", *traces, *args]) == 0
    windows = json.loads(report_file.read_text())["windows"]
    assert [window["unit"] for window in windows] == ["cpu_pct", "requests/s"]


def test_a_file_without_any_known_format_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes.md"
    path.write_text("# Notes\n\nNothing to replay.\n")
    assert main(["--trace", str(path), "--policy", "hpa"]) == 2
    said = capsys.readouterr().err
    assert "notes.md" in said
    assert "no known format" in said


def test_a_trace_given_twice_is_refused(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--trace", str(trace), str(trace), "--policy", "hpa"]) == 2
    assert "wave@0s is there twice" in capsys.readouterr().err


def test_a_learned_policy_is_swept_over_its_preference(tiny_run: Path) -> None:
    sweep = Sweep(preferences=(0, 50, 100))
    made = contestant(str(tiny_run / "policy.onnx"), sweep, Protocol())
    assert [setting.spec.preference for setting in made.settings] == [0, 50, 100]
    assert {setting.spec.behavior.scale_down.stabilization_window_s for setting in made.settings} == {300}


def test_a_broken_artifact_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(ConfigError, match=r"broken\.onnx"):
        contestant(str(path), Sweep(), Protocol())
