"""The run folder: what it records, and how a metrics file goes on after an interruption."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from training.config import Preset
from training.errors import RunError
from training.runs import MetricsFile, RunFolder, read_metrics

COMMAND = ["python", "training/train.py", "--preset", "a preset.yaml"]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, Preset(), 7, COMMAND)


def save_checkpoint(run: RunFolder, timesteps: int) -> None:
    checkpoint = run.checkpoint_at(timesteps)
    checkpoint.model.write_bytes(b"zip")
    checkpoint.state.write_text(json.dumps({"timesteps": timesteps, "seed": 7}))


def test_a_new_run_folder_says_what_it_is(run: RunFolder) -> None:
    assert run.path.name.endswith("-ppo-7")
    assert run.preset() == Preset()
    assert run.commands() == ["python training/train.py --preset 'a preset.yaml'"]
    recorded = json.loads((run.path / "versions.json").read_text())
    assert {"python", "torch", "stable-baselines3", "git_commit"} <= set(recorded)


def test_two_runs_in_one_second_get_two_folders(tmp_path: Path) -> None:
    folders = {RunFolder.create(tmp_path, Preset(), 0, COMMAND).path for _ in range(3)}
    assert len(folders) == 3


def test_the_latest_checkpoint_is_the_newest_whole_one(run: RunFolder) -> None:
    for timesteps in (100, 20, 3):
        save_checkpoint(run, timesteps)
    run.checkpoint_at(900).model.write_bytes(b"the process died before the state was written")
    assert run.latest_checkpoint().timesteps == 100


def test_a_run_without_checkpoints_cannot_be_continued(run: RunFolder) -> None:
    with pytest.raises(RunError, match="no checkpoint"):
        run.latest_checkpoint()


@pytest.mark.parametrize("name", ["absent", "."], ids=["no folder", "another folder"])
def test_what_is_not_a_run_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no such run folder|config\.yaml is missing"):
        RunFolder.open(tmp_path / name)


def test_metrics_go_on_from_the_checkpoint_without_a_gap_or_a_duplicate(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    first = MetricsFile(path)
    for step in (10, 20, 30, 40):
        first.write({"timesteps": step, "elapsed_s": step / 10, "cost": float("nan") if step == 10 else 1.5})
    again = MetricsFile(path, resume_at=20)
    assert again.elapsed_s == pytest.approx(2.0)
    again.write({"timesteps": 30, "elapsed_s": 3.5, "cost": 1.25})
    rows = read_metrics(path)
    assert [row["timesteps"] for row in rows] == [10, 20, 30]
    assert math.isnan(rows[0]["cost"])
    assert rows[-1] == {"timesteps": 30, "elapsed_s": 3.5, "cost": 1.25}


def test_a_new_run_starts_its_metrics_from_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    MetricsFile(path).write({"timesteps": 10, "elapsed_s": 1.0})
    MetricsFile(path).write({"timesteps": 5, "elapsed_s": 0.5})
    assert [row["timesteps"] for row in read_metrics(path)] == [5]
