"""One trial: a preset with the trial's settings, trained by `train.py` in a process of its own, and scored.

A trial is an ordinary run folder, so that its command, its curves and its artifact are there afterwards. How
it does is reported while it runs, and a pruned trial is stopped as Ctrl-C would stop it: saved.

Policies for services (`env: autoscale`) are scored by their frontier on generated windows, in training by the
small one that `train.py` measures now and then: it means the same whatever a trial varies. Other tasks are
scored by their reward, so their spaces may not vary what the reward is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml

from training.config import Preset, dump_preset
from training.errors import ConfigError, RunError
from training.runs import read_metrics
from training.tuning.space import Dimension, with_values
from training.tuning.storage import claim

ROOT = Path(__file__).resolve().parents[2]
RUNGS = 8
POLL_S = 1.0
UNREACHED_COST = 10.0
"""Cost / ideal that stands for a violation level that no setting of the dial reaches."""
LEVELS = (0.005, 0.01)
FRONTIER = ("cost_at_05", "cost_at_1")
"""Columns of metrics.csv with the frontier at LEVELS, NaN where it was not measured or not reached."""
LAST_SHARE = 0.1
"""A task's score is the mean reward over this last share of the rows."""
REFUSED = 2
"""train.py's exit status for a preset that it does not take."""


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
    def by_frontier(self) -> bool:
        """Whether trials are scored by their cost-violation frontier; else by reward."""
        return self.preset.env == "autoscale"

    def check(self) -> None:
        """Raises ConfigError for a space under which scores would not compare."""
        if self.by_frontier:
            return
        for dimension in self.space:
            if dimension.name.startswith("environment"):
                raise ConfigError(
                    f"--space: {dimension.name} is not allowed with env {self.preset.env}: trials are scored "
                    "by their reward, which it would change"
                )


class Objective:
    """Trains and scores; lower is better. trial: the one that runs, or was cut off."""

    def __init__(self, settings: TrialSettings) -> None:
        self.settings = settings
        self.trial: optuna.Trial | None = None
        self._parent = os.getppid()

    @property
    def orphaned(self) -> bool:
        """Whether the tuner that started this worker is gone: what nobody watches must not go on."""
        return os.getppid() != self._parent

    def __call__(self, trial: optuna.Trial) -> float:
        """The score of a trial: `frontier_score`, or minus the reward at its end."""
        self.trial = trial
        try:
            score = self._score(trial)
        except (optuna.TrialPruned, RunError):
            self.trial = None
            raise
        self.trial = None
        return score

    def _score(self, trial: optuna.Trial) -> float:
        claim(trial)
        values = {dimension.name: dimension.suggest(trial) for dimension in self.settings.space}
        home = self.settings.folder / "trials" / f"{trial.number:04d}"
        run = self._train(trial, home, values)
        trial.set_user_attr("run", str(run.relative_to(self.settings.folder)))
        if not self.settings.by_frontier:
            return -last_reward(run)
        costs = score(run / "policy.onnx", self.settings)
        for level, cost in zip(LEVELS, costs, strict=True):
            trial.set_user_attr(f"cost_at_{level:.1%}", cost)
        return frontier_score(costs)

    def _train(self, trial: optuna.Trial, home: Path, values: dict[str, Any]) -> Path:
        home.mkdir(parents=True, exist_ok=True)
        preset = home / "preset.yaml"
        content = with_values(yaml.safe_load(dump_preset(self.settings.preset)), values)
        preset.write_text(yaml.safe_dump(content, sort_keys=False))
        command = [sys.executable, "training/train.py", "--preset", str(preset.resolve())]
        command += [
            "--seed",
            str(self.settings.seed),
            "--out",
            str(home.resolve()),
            "--no-progress",
            "--no-evaluate",
        ]
        with (home / "train.log").open("w") as log:
            # in the worker's process group, which the tuner stops as a whole when the worker has died
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
            try:
                self._watch(trial, home, process)
            finally:
                _stop(process)
        if process.returncode != 0:
            if process.returncode == REFUSED:
                trial.set_user_attr("refused", True)
            last = (home / "train.log").read_text().strip().splitlines()[-1:]
            raise RunError(f"trial {trial.number}: train.py ended with {process.returncode}: {''.join(last)}")
        return _run_folder(home)

    def _watch(self, trial: optuna.Trial, home: Path, process: subprocess.Popen[bytes]) -> None:
        """Report at each rung until training ends; raises TrialPruned."""
        rung = 0
        while process.poll() is None:
            time.sleep(POLL_S)
            if self.orphaned:
                raise KeyboardInterrupt
            rung = self._report(trial, home, rung)
            if trial.should_prune():
                trial.set_user_attr("pruned_at_rung", rung)
                raise optuna.TrialPruned

    def _report(self, trial: optuna.Trial, home: Path, rung: int) -> int:
        rows = read_metrics(_run_folder(home) / "metrics.csv") if _has_run(home) else []
        while rung < RUNGS - 1 and rows:
            due = (rung + 1) / RUNGS * self.settings.preset.timesteps
            if rows[-1]["timesteps"] < due:
                break
            rung += 1
            value = standing([row for row in rows if row["timesteps"] <= due], self.settings.by_frontier)
            if value is not None:
                trial.report(value, rung)
        return rung


def standing(rows: Sequence[Mapping[str, float]], by_frontier: bool) -> float | None:
    """How a trial does after these rows of its metrics.csv, lower is better; None: not known yet."""
    if not by_frontier:
        recent = [row["reward"] for row in rows[-max(1, len(rows) // 4) :] if np.isfinite(row["reward"])]
        return -float(np.mean(recent)) if recent else None
    for row in reversed(rows):
        costs = [row.get(name, np.nan) for name in FRONTIER]
        if np.isfinite(costs).any():
            return frontier_score(costs)
    return None


def frontier_score(costs: Sequence[float]) -> float:
    """Geometric mean of the one-knob costs over the ideal at LEVELS; NaN counts as UNREACHED_COST."""
    known = np.where(np.isfinite(costs), costs, UNREACHED_COST)
    return float(np.exp(np.log(known).mean()))


def last_reward(run: Path) -> float:
    """Mean reward of the last rows of a run. Raises RunError for a run without any."""
    rewards = np.array([row.get("reward", np.nan) for row in read_metrics(run / "metrics.csv")])
    rewards = rewards[np.isfinite(rewards)]
    if len(rewards) == 0:
        raise RunError(f"{run}: metrics.csv has no reward to score it by")
    return float(rewards[-max(1, round(LAST_SHARE * len(rewards))) :].mean())


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
