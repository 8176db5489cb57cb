"""One trial: a preset with the trial's settings, trained by `train.py` in a process of its own, and scored.

A trial is an ordinary run folder, so that its command, its curves and its artifact are there afterwards. The
training reward is reported while it runs, and a pruned trial is stopped as Ctrl-C would stop it: saved.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml

from training.config import Preset, dump_preset
from training.errors import RunError
from training.runs import read_metrics
from training.tuning.space import Dimension, with_values

ROOT = Path(__file__).resolve().parents[2]
RUNGS = 8
POLL_S = 1.0
UNREACHED_COST = 10.0
"""Cost / ideal that stands for a violation level that no setting of the dial reaches."""
LEVELS = (0.005, 0.01)


@dataclass(frozen=True)
class TrialSettings:
    """What all trials share."""

    folder: Path
    preset: Preset
    space: tuple[Dimension, ...]
    seed: int
    windows: int
    window_hours: float
    window_seed: int

    @property
    def comparable(self) -> bool:
        """Whether training rewards of two trials mean the same: not if the reward itself is varied."""
        varied = ("environment", "action.hold_ticks", "analytic")
        return not any(dimension.name.startswith(varied) for dimension in self.space)


class Objective:
    """Trains and scores; lower is better."""

    def __init__(self, settings: TrialSettings) -> None:
        self.settings = settings

    def __call__(self, trial: optuna.Trial) -> float:
        """Geometric mean of the one-knob costs at 0.5 and 1 % mean violation on generated windows."""
        values = {dimension.name: dimension.suggest(trial) for dimension in self.settings.space}
        home = self.settings.folder / "trials" / f"{trial.number:04d}"
        run = self._train(trial, home, values)
        trial.set_user_attr("run", str(run.relative_to(self.settings.folder)))
        costs = score(run / "policy.onnx", self.settings)
        for level, cost in zip(LEVELS, costs, strict=True):
            trial.set_user_attr(f"cost_at_{level:.1%}", cost)
        known = np.where(np.isfinite(costs), costs, UNREACHED_COST)
        return float(np.exp(np.log(known).mean()))

    def _train(self, trial: optuna.Trial, home: Path, values: dict[str, Any]) -> Path:
        home.mkdir(parents=True, exist_ok=True)
        preset = home / "preset.yaml"
        content = with_values(yaml.safe_load(dump_preset(self.settings.preset)), values)
        preset.write_text(yaml.safe_dump(content, sort_keys=False))
        command = [sys.executable, "training/train.py", "--preset", str(preset.resolve())]
        command += ["--seed", str(self.settings.seed), "--out", str(home.resolve()), "--no-progress"]
        with (home / "train.log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                self._watch(trial, home, process)
            finally:
                _stop(process)
        if process.returncode != 0:
            last = (home / "train.log").read_text().strip().splitlines()[-1:]
            raise RunError(f"trial {trial.number}: train.py ended with {process.returncode}: {''.join(last)}")
        return _run_folder(home)

    def _watch(self, trial: optuna.Trial, home: Path, process: subprocess.Popen[bytes]) -> None:
        """Report at each rung until training ends; raises TrialPruned."""
        rung = 0
        while process.poll() is None:
            time.sleep(POLL_S)
            rung = self._report(trial, home, rung)
            if self.settings.comparable and trial.should_prune():
                trial.set_user_attr("pruned_at_rung", rung)
                raise optuna.TrialPruned

    def _report(self, trial: optuna.Trial, home: Path, rung: int) -> int:
        rows = read_metrics(_run_folder(home) / "metrics.csv") if _has_run(home) else []
        rows = [row for row in rows if np.isfinite(row.get("reward", np.nan))]
        while rung < RUNGS - 1 and rows:
            due = (rung + 1) / RUNGS * self.settings.preset.timesteps
            if rows[-1]["timesteps"] < due:
                break
            recent = [row["reward"] for row in rows if due * 0.75 <= row["timesteps"] <= due]
            rung += 1
            # the study minimises
            trial.report(-float(np.mean(recent or [rows[-1]["reward"]])), rung)
        return rung


def score(artifact: Path, settings: TrialSettings) -> tuple[float, ...]:
    """One-knob cost / ideal of an artifact at each of LEVELS on generated windows; NaN: out of reach."""
    from sim.replay import Protocol
    from training.contestants import Sweep, generated_windows
    from training.frontier import one_knob
    from training.playing import Setup, play_all

    setup = Setup(Protocol(window_s=3600.0 * settings.window_hours), Sweep(), jobs=1)
    seed = settings.window_seed
    played = generated_windows(settings.windows, seed, setup.protocol)
    (outcomes,) = play_all([str(artifact)], played, [seed], setup, lambda label, cases: None)
    return tuple(one_knob(outcomes, level) for level in LEVELS)


def _has_run(home: Path) -> bool:
    return any(path.is_dir() for path in home.iterdir())


def _run_folder(home: Path) -> Path:
    return max((path for path in home.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C: after the update, with a checkpoint; by force after a minute."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
