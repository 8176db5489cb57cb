"""The real script: what a run leaves behind, resuming, Ctrl-C, and bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.conftest import ROOT, environment, run_script
from training.runs import RunFolder, read_metrics
from training.train import main


def train(*args: object) -> int:
    """The exit status of `train.py args`, in this process; without an evaluation unless `--evaluate`."""
    try:
        return main(["--no-evaluate", *(str(arg) for arg in args)])
    except SystemExit as leaving:
        return int(str(leaving.code))


def test_a_run_folder_holds_everything_that_the_docs_promise(tiny_run: Path, tiny_preset: Path) -> None:
    assert (
        (tiny_run / "command.txt")
        .read_text()
        .strip()
        .endswith(f"--preset {tiny_preset} --out {tiny_run.parent} --seed 3")
    )
    assert json.loads((tiny_run / "versions.json").read_text())["torch"]
    assert sorted(path.name for path in (tiny_run / "checkpoints").glob("*.zip")) == [
        "000000000256.zip",
        "000000000512.zip",
    ]
    assert (tiny_run / "plots" / "learning_curves.png").stat().st_size > 10_000
    assert list((tiny_run / "tensorboard").iterdir())
    card = json.loads((tiny_run / "card.json").read_text())
    assert card["name"] == "tiny"
    assert card["provenance"]["seed"] == 3
    assert card["provenance"]["timesteps"] == 512
    assert card["parity"] <= 1e-5
    assert card["size_bytes"] == (tiny_run / "policy.onnx").stat().st_size


def test_metrics_have_a_row_for_every_update(tiny_run: Path) -> None:
    rows = read_metrics(tiny_run / "metrics.csv")
    assert [row["timesteps"] for row in rows] == [128, 256, 384, 512]
    assert all(row["reward"] < 0 for row in rows)
    assert all(row["cost"] > 0 and 0 <= row["violation"] <= 1 for row in rows)
    assert rows[-1]["learning_rate"] < rows[0]["learning_rate"]


def test_a_resumed_run_has_the_bookkeeping_of_an_uninterrupted_one(
    tiny_preset: Path, tiny_run: Path, tmp_path: Path
) -> None:
    assert train("--preset", tiny_preset, "--out", tmp_path, "--seed", 3, "--timesteps", 256) == 0
    (folder,) = tmp_path.iterdir()
    # a session that was killed after its last checkpoint leaves a row that must not stay
    with (folder / "metrics.csv").open("a") as file:
        file.write("384" + "," * 19 + "\n")
    assert train("--resume", folder, "--timesteps", 512) == 0

    resumed, whole = (RunFolder.open(path) for path in (folder, tiny_run))
    ours, theirs = read_metrics(resumed.metrics), read_metrics(whole.metrics)
    assert [row["timesteps"] for row in ours] == [row["timesteps"] for row in theirs]
    assert [row["learning_rate"] for row in ours[2:]] == [row["learning_rate"] for row in theirs[2:]]
    assert [row["elapsed_s"] for row in ours] == sorted(row["elapsed_s"] for row in ours)
    assert list(ours[0]) == list(theirs[0])
    assert resumed.latest_checkpoint().read_state() == whole.latest_checkpoint().read_state()
    assert len(resumed.commands()) == 2
    card = json.loads(resumed.card.read_text())
    assert card["provenance"]["timesteps"] == 512
    assert "--resume" in card["provenance"]["command"]


def test_two_runs_of_one_seed_are_equal(tiny_preset: Path, tiny_run: Path, tmp_path: Path) -> None:
    assert train("--preset", tiny_preset, "--out", tmp_path, "--seed", 3) == 0
    (folder,) = tmp_path.iterdir()
    clocks = ("elapsed_s", "steps_per_s")
    ours, theirs = (
        [
            {key: value for key, value in row.items() if key not in clocks}
            for row in read_metrics(path / "metrics.csv")
        ]
        for path in (folder, tiny_run)
    )
    assert str(ours) == str(theirs)


def test_ctrl_c_saves_and_says_how_to_go_on(tiny_preset: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "training" / "train.py"), "--preset", str(tiny_preset)]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path), "--timesteps", "10_000_000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    wait_for_rows(tmp_path, 3)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    (folder,) = tmp_path.iterdir()
    assert f"python training/train.py --resume {folder}" in output

    run = RunFolder.open(folder)
    saved = run.latest_checkpoint().timesteps
    rows = read_metrics(run.metrics)
    assert rows[-1]["timesteps"] == saved
    assert train("--resume", folder, "--timesteps", saved + 128) == 0
    steps = [row["timesteps"] for row in read_metrics(run.metrics)]
    assert steps == list(range(128, saved + 129, 128))


def wait_for_rows(out: Path, rows: int) -> None:
    """Until the only run under `out` has written that many rows of metrics."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for path in out.glob("*/metrics.csv"):
            if len(read_metrics(path)) >= rows:
                return
        time.sleep(0.05)
    raise AssertionError("the run wrote no metrics in five minutes")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        pytest.param(["--preset", "nosuch"], ["'nosuch'", "default"], id="unknown preset"),
        pytest.param(["--resume", "nosuch"], ["nosuch", "no such run folder"], id="nothing to resume"),
        pytest.param(["--algo", "sarsa"], ["sarsa", "ppo"], id="unknown algorithm"),
        pytest.param(["--env", "pong"], ["pong", "autoscale"], id="unknown environment"),
        pytest.param(["--env", "pools", "--algo", "dqn"], ["'dqn'", "ppo, a2c, sac"], id="not together"),
        pytest.param(["--algo", "sac", "--action", "band"], ["'band'", "sac", "continuous"], id="no Box"),
        pytest.param(
            ["--algo", "a2c", "--trace", "nosuch.csv"], ["nosuch.csv", "no such file"], id="no trace"
        ),
        pytest.param(["--timesteps", "many"], ["'many'", "number"], id="no number"),
        pytest.param(["--timesteps", "0"], ["'0'", "at least 1"], id="no steps"),
    ],
)
def test_bad_arguments_end_in_one_clear_sentence(
    args: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(*args) == 2
    said = capsys.readouterr().err
    for word in words:
        assert word in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("timestep: 5", ["timestep", "timesteps"], id="unknown key"),
        pytest.param(
            "environment: {scenario: {peak: 3}}", ["environment.scenario.peak"], id="the simulator's key"
        ),
        pytest.param("environment: {horizon_steps: 0}", ["horizon_steps", "0", "1 or more"], id="its value"),
        pytest.param("environment: {action_table: [[1]]}", ["action_table", "`action`"], id="not there"),
        pytest.param("action: {anchors: [[load]]}", ["action.anchors", "load"], id="no such feature"),
    ],
)
def test_a_bad_preset_file_names_key_and_value(
    text: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert train("--preset", path, "--out", tmp_path / "runs") == 2
    said = capsys.readouterr().err
    for word in words:
        assert word in said
    assert not (tmp_path / "runs").exists()


def test_a_finished_run_cannot_be_resumed_without_more_steps(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--resume", tiny_run) == 2
    assert "already at 512 of 512 steps" in capsys.readouterr().err


def test_help_needs_no_torch_and_no_numba() -> None:
    done = run_script("train.py", "--help")
    assert done.returncode == 0
    assert "--resume" in done.stdout
    code = (
        "import sys; from training.train import build_parser; build_parser().format_help(); "
        "print({'torch', 'numba', 'stable_baselines3'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment()
    )
    assert done.stdout.strip() == "set()", done.stderr


def test_a_resumed_run_keeps_its_preset_and_seed(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--resume", tiny_run, "--preset", "ppo") == 2
    assert "--preset: not allowed with --resume" in capsys.readouterr().err
    assert train("--resume", tiny_run, "--seed", 4, "--timesteps", 600) == 2
    assert "was started with seed 3" in capsys.readouterr().err
