"""The evaluation script on small generated traffic: what it prints, writes and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sim.replay import Protocol
from sim.traces import Trace
from training.artifact import read_metadata
from training.comparison import _check_names
from training.contestants import Sweep, contestant, generated_windows, label_of
from training.errors import ConfigError
from training.evaluate import main


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hours with a wave and a burst."""
    times = np.arange(0, 7200, 30.0)
    rates = 20 + 10 * np.sin(times / 900) + np.where((times > 3000) & (times < 3600), 25, 0)
    path = tmp_path_factory.mktemp("traces") / "wave.csv"
    Trace(times, rates, "wave").save(path)
    return path


@pytest.fixture(scope="module")
def report(trace: Path, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What `evaluate.py` writes about one trace and every kind of contestant; its pictures are in `plots`."""
    out = tmp_path_factory.mktemp("evaluation")
    artifact = shutil.copy(tiny_run / "policy.onnx", out / "mine.onnx")
    policies = ["hpa", "forecast", str(artifact), "clairvoyant", "--card"]
    paths = ["--json", str(out / "report.json"), "--plots", str(out / "plots")]
    assert main(["--trace", str(trace), "--policy", *policies, *paths, "--no-progress"]) == 0
    return json.loads((out / "report.json").read_text()) | {"plots": out / "plots"}


def test_the_report_has_every_family_at_every_level(report: dict) -> None:
    families = {"hpa", "forecast", "mine", "clairvoyant"}
    assert set(report["families"]) == families
    assert set(report["levels"]) == {"0.1%", "0.5%", "1.0%"}
    for content in report["levels"].values():
        assert set(content) == families
        assert content["hpa"]["cost"] > content["clairvoyant"]["cost"] > 1.0
        assert content["hpa"]["gap_closed"] == pytest.approx(0.0)
        assert content["clairvoyant"]["gap_closed"] == pytest.approx(1.0)


def test_the_report_has_mean_and_median_violations_of_every_setting(report: dict) -> None:
    for family in report["families"].values():
        for setting in family["settings"]:
            assert 0 <= setting["median_violation"] <= setting["worst_violation"] <= 1
            assert setting["cost"] > 0


def test_the_hpa_pays_for_safety(report: dict) -> None:
    settings = {one["setting"]: one for one in report["families"]["hpa"]["settings"]}
    low, high = settings["hpa-30%-300s"], settings["hpa-90%-300s"]
    assert low["cost"] > high["cost"]
    assert low["mean_violation"] < high["mean_violation"]


def test_pareto_plots_are_drawn(report: dict) -> None:
    assert (report["plots"] / "pareto.png").stat().st_size > 20_000


def test_the_card_goes_into_the_artifact(report: dict) -> None:
    card = read_metadata((report["plots"].parent / "mine.onnx").read_bytes())["evaluation"]
    assert card["command"] == report["command"]
    at_one_percent = card["cost_over_ideal_at_mean_violation"]["1.0%"]
    assert at_one_percent["hpa"] == report["levels"]["1.0%"]["hpa"]["cost"]
    assert at_one_percent["mine"] == report["levels"]["1.0%"]["mine"]["cost"]


def test_the_report_says_how_to_make_it_again(report: dict, trace: Path) -> None:
    assert report["command"].startswith(f"python training/evaluate.py --trace {trace}")
    assert report["protocol"]["windows"] == ["wave@0s"]


def test_two_artifacts_of_one_name_are_not_mixed_up(tiny_run: Path, tmp_path: Path) -> None:
    assert label_of(str(tiny_run / "policy.onnx")) == tiny_run.name
    with pytest.raises(ConfigError, match="mine would stand for two"):
        _check_names(["hpa", label_of("a/mine.onnx"), label_of("b/mine.onnx")])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        pytest.param(["--policy", "nosuch"], ["nosuch", "hpa", "clairvoyant"], id="unknown policy"),
        pytest.param(["--policy", "nosuch.onnx"], ["nosuch.onnx", "no such file"], id="no such artifact"),
        pytest.param(["--trace", "nosuch.csv"], ["nosuch.csv"], id="no such trace"),
        pytest.param(["--windows", "0"], ["--windows", "0"], id="no windows"),
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
