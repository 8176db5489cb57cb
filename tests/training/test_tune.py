"""The real script over a tiny preset: what a study leaves behind, how it goes on, and bad input."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from tests.training.conftest import run_script
from training.config import load_preset, read_preset
from training.errors import ConfigError, RunError
from training.tuning.space import Dimension, check_space, load_space, space_names, with_values
from training.tuning.storage import open_storage, sole_tuner

SPACE = """
ppo.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
ppo.n_epochs: {low: 1, high: 3}
network.actor: {choices: [[8], [16, 16]]}
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "space.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="module")
def study(tiny_preset: Path, space: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of two trials."""
    out = tmp_path_factory.mktemp("studies")
    done = run_script("tune.py", *arguments(tiny_preset, space, out, 2))
    assert done.returncode == 0, done.stderr
    return out / "tune-tiny"


def arguments(preset: Path, space: Path, out: Path, trials: int) -> list[object]:
    return [
        *("--preset", preset, "--space", space, "--out", out, "--trials", trials),
        *("--windows", 1, "--window-hours", 1),
    ]


def test_every_trial_is_a_run_folder_with_its_preset_and_artifact(study: Path) -> None:
    for number in ("0000", "0001"):
        home = study / "trials" / number
        (run,) = (path for path in home.iterdir() if path.is_dir())
        assert (run / "policy.onnx").is_file()
        preset = read_preset(home / "preset.yaml")
        assert 1e-4 <= preset.ppo.learning_rate <= 1e-2
        assert preset.network.actor in ((8,), (16, 16))


def test_the_report_has_all_trials_and_the_best_preset_can_be_trained(study: Path) -> None:
    rows = list(csv.DictReader((study / "trials.csv").open()))
    assert [row["state"] for row in rows] == ["COMPLETE", "COMPLETE"]
    best = min(rows, key=lambda row: float(row["score"]))
    assert load_preset(str(study / "best.yaml")).ppo.n_epochs == int(best["ppo.n_epochs"])
    report = (study / "report.md").read_text()
    assert f"The best is trial {best['trial']}" in report
    for plot in ("history.png", "slices.png"):
        assert (study / plot).stat().st_size > 5_000


def test_the_same_command_goes_on_and_a_finished_study_stays(
    study: Path, tiny_preset: Path, space: Path
) -> None:
    again = run_script("tune.py", *arguments(tiny_preset, space, study.parent, 2))
    assert again.returncode == 0, again.stderr
    assert len(list((study / "trials").iterdir())) == 2
    more = run_script("tune.py", *arguments(tiny_preset, space, study.parent, 3), "--workers", 2)
    assert more.returncode == 0, more.stderr
    assert len(list(csv.DictReader((study / "trials.csv").open()))) >= 3


def test_a_second_tuner_on_the_same_study_is_refused(tmp_path: Path) -> None:
    with sole_tuner(tmp_path), pytest.raises(RunError, match=r"another tune\.py"), sole_tuner(tmp_path):
        pass


def test_sqlite_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"SQLite loses trials of several writers.*postgresql"):
        open_storage("sqlite:///study.db", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ppo.gamma: {low: 0.9}", r"ppo\.gamma: low: 0\.9 and high: None must be numbers"),
        ("ppo.gamma: {low: 2, high: 1}", r"low: 2 and high: 1 must be numbers, low below high"),
        ("ppo.gamma: {low: 0, high: 1, log: true}", r"low: 0 must be above 0 on a log scale"),
        ("ppo.gamma: {lo: 0.5, high: 1}", r"unknown key 'lo'; did you mean low"),
        ("ppo.gamma: {low: 0.5, choices: [1]}", r"either choices, or low and high"),
        ("ppo.gamma: 3", r"a mapping with .* is expected, not 3"),
        ("[]", r"settings with their ranges are expected"),
    ],
)
def test_a_bad_space_is_refused_with_field_and_value(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_space(str(path))


@pytest.mark.parametrize(
    ("dimension", "message"),
    [
        (Dimension("ppo.gama", 0.1, 0.9), r"unknown key 'ppo\.gama'; did you mean gamma"),
        (Dimension("network.activation", choices=("tanh", "step")), r"'step' is not one of tanh"),
        (Dimension("timesteps.more", 1, 2), r"'timesteps' is not a group of settings"),
    ],
)
def test_a_space_over_settings_that_do_not_exist_is_refused(dimension: Dimension, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_space([dimension], load_preset("default"))


@pytest.mark.parametrize("name", space_names())
def test_the_spaces_that_ship_fit_the_default_preset(name: str) -> None:
    check_space(load_space(name), load_preset("default"))


def test_values_replace_settings_and_leave_the_rest() -> None:
    before = {"ppo": {"gamma": 0.9, "n_epochs": 2}, "name": "x"}
    after = with_values(before, {"ppo.gamma": 0.5})
    assert after == {"ppo": {"gamma": 0.5, "n_epochs": 2}, "name": "x"}
    assert before["ppo"]["gamma"] == 0.9


def test_bad_numbers_on_the_command_line_are_refused() -> None:
    refused = run_script("tune.py", "--trials", 0)
    assert refused.returncode == 2
    assert "--trials: 0 is not allowed; 1 or more is" in refused.stderr


def test_the_best_preset_holds_parsed_choices(study: Path) -> None:
    assert isinstance(yaml.safe_load((study / "best.yaml").read_text())["network"]["actor"], list)
