"""Every family of algorithms leaves the same run folder, and goes on after an interruption as if none was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sim.traces import Trace
from tests.training.conftest import ROOT
from tests.training.test_train import train
from training.algorithms import load_model
from training.export import main as export
from training.runs import RunFolder, read_metrics

FAMILIES = {
    "a2c": "anchored",
    "recurrent-ppo": "anchored",
    "dqn": "discrete",
    "sac": "continuous",
}
PRESET = """
name: tiny
timesteps: 512
num_envs: 8
rows_every: 64
checkpoint_every: 128
network: {actor: [16], critic: [16]}
recurrent_ppo: {n_steps: 8, batch_size: 32, n_epochs: 2, lstm_hidden_size: 8}
a2c: {n_steps: 8}
dqn: {learning_starts: 64, batch_size: 32, buffer_size: 1024, gradient_steps: 2, n_steps: 3}
sac: {learning_starts: 64, batch_size: 32, buffer_size: 1024, gradient_steps: 2}
environment: {horizon_steps: 32, scenario: {histories_s: [0.0, 3600.0]}}
"""


def run(out: Path, algo: str, timesteps: int) -> RunFolder:
    preset = out.parent / "families.yaml"
    preset.write_text(PRESET)
    words = ("--preset", preset, "--algo", algo, "--action", FAMILIES[algo], "--out", out, "--seed", 4)
    assert train(*words, "--timesteps", timesteps) == 0
    (folder,) = out.iterdir()
    return RunFolder.open(folder)


@pytest.mark.parametrize("algo", list(FAMILIES))
def test_a_resumed_run_equals_an_uninterrupted_one_and_goes_on_learning(algo: str, tmp_path: Path) -> None:
    whole, resumed = run(tmp_path / "whole", algo, 512), run(tmp_path / "resumed", algo, 256)
    middle = resumed.latest_checkpoint()
    weights = [one.detach().clone() for one in load_model(middle.model, algo=algo).policy.parameters()]
    assert train("--resume", resumed.path, "--timesteps", 512) == 0

    ours, theirs = read_metrics(resumed.metrics), read_metrics(whole.metrics)
    for rows in (ours, theirs):
        assert [row["timesteps"] for row in rows] == list(range(64, 513, 64))
    assert list(ours[0]) == list(theirs[0])
    for column in ("learning_rate", "exploration_rate"):
        second = [[row.get(column, 0.0) for row in rows[4:]] for rows in (ours, theirs)]
        assert second[0] == pytest.approx(second[1])
    assert resumed.latest_checkpoint().read_state() == whole.latest_checkpoint().read_state()
    assert resumed.latest_checkpoint().read_state()["updates"] > middle.read_state()["updates"]
    assert sorted(path.name for path in resumed.checkpoints.iterdir()) == sorted(
        path.name for path in whole.checkpoints.iterdir()
    )
    model = load_model(resumed.latest_checkpoint().model, algo=algo)
    after = list(model.policy.parameters())
    assert any(not bool((old == new).all()) for old, new in zip(weights, after, strict=True))
    assert len(resumed.commands()) == 2


@pytest.mark.parametrize("algo", ["dqn", "sac"])
def test_a_resumed_run_learns_from_what_was_seen_before_it(algo: str, tmp_path: Path) -> None:
    folder = run(tmp_path / "runs", algo, 256)
    newest = folder.latest_checkpoint()
    assert [path.name for path in folder.checkpoints.glob("*.buffer")] == [newest.replay_buffer.name]
    model = load_model(newest.model, algo=algo)
    model.load_replay_buffer(newest.replay_buffer)
    assert getattr(model.replay_buffer, "n_steps", 1) == (3 if algo == "dqn" else 1)
    seen = model.replay_buffer.observations[: model.replay_buffer.pos].copy()
    assert len(seen) == 256 // 8
    assert train("--resume", folder.path, "--timesteps", 384) == 0
    model.load_replay_buffer(folder.latest_checkpoint().replay_buffer)
    assert model.replay_buffer.pos == 384 // 8
    assert np.array_equal(model.replay_buffer.observations[: len(seen)], seen)


def test_without_its_replay_buffer_a_run_says_so_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path / "runs", "dqn", 256)
    folder.latest_checkpoint().replay_buffer.unlink()
    capsys.readouterr()
    assert train("--resume", folder.path, "--timesteps", 320) == 0
    assert "empty replay buffer" in capsys.readouterr().out


def test_a_recurrent_run_says_that_the_operator_cannot_serve_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path / "runs", "recurrent-ppo", 256)
    assert "not servable by the operator" in capsys.readouterr().out
    card = json.loads(folder.card.read_text())
    assert "not servable by the operator" in card["note"]
    assert card["action_schema"] == "recurrent/hold-band/v1"
    assert export([str(folder.path), "--out", str(tmp_path / "again.onnx")]) == 0
    assert (tmp_path / "again.onnx").is_file()


def test_recordings_are_in_the_card_and_must_not_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / "week.csv"
    times = np.arange(0.0, 7 * 86_400.0, 300.0)
    Trace(times, 2.0 + np.sin(times / 7000.0)).save(recording)
    preset = tmp_path / "families.yaml"
    preset.write_text(PRESET)
    out = tmp_path / "runs"
    words = ("--preset", preset, "--algo", "a2c", "--out", out, "--timesteps", 128)
    assert train(*words, "--trace", recording, "--trace-share", 0.5) == 0
    (folder,) = out.iterdir()
    (told,) = json.loads((folder / "card.json").read_text())["provenance"]["traces"]
    assert told["file"] == "week.csv"
    assert len(told["sha256"]) == 64
    recording.write_text(recording.read_text().replace("300,", "301,", 1))
    capsys.readouterr()
    assert train("--resume", folder, "--timesteps", 256) == 2
    assert "week.csv not as when the run was started" in capsys.readouterr().err
    assert train(*words, "--trace", tmp_path / "absent.csv") == 2
    assert "absent.csv: no such file" in capsys.readouterr().err


def test_a_card_has_a_short_evaluation_if_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.heldout.CARD_WINDOWS", 2)
    monkeypatch.setattr("training.heldout.CARD_HOURS", 1)
    preset = tmp_path / "families.yaml"
    preset.write_text(PRESET)
    assert (
        train(
            "--preset", preset, "--algo", "a2c", "--out", tmp_path / "runs", "--timesteps", 64, "--evaluate"
        )
        == 0
    )
    (folder,) = (tmp_path / "runs").iterdir()
    evaluation = json.loads((folder / "card.json").read_text())["evaluation"]
    assert set(evaluation["frontiers"]) == {"policy", "HPA", "clairvoyant"}
    assert len(evaluation["frontiers"]["policy"]) == 11
    assert set(evaluation["cost_at"]) == {"0.1%", "0.5%", "1.0%"}
    costs = evaluation["cost_at"]["1.0%"]
    assert costs["clairvoyant"] < costs["HPA"]
    assert ROOT.name not in json.dumps(evaluation)
