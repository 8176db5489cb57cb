"""One sitting of `train.py --algo qlearning`: the run folder and artifact of any algorithm, and pictures.

Beside the usual files the folder has `metrics.npz` (arrays with one entry an episode) and `run_config.json`
(what was run, as plain JSON), and in `plots/` the dashboard and the learned table as heat maps. With `--demo`
nothing is written at all. `training.train` hands over to `train` here, `training.export` to `export`.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.config import Preset
from training.errors import ExportError
from training.interrupt import StopOnInterrupt, announce_stop
from training.measuring import Measuring
from training.progress import make_progress
from training.qlearning.artifact import export_table
from training.qlearning.dashboard import save_dashboard
from training.qlearning.heatmap import save_heat_map
from training.qlearning.learner import Learner
from training.qlearning.showcase import Story, play_showcase
from training.qlearning.window import Window, make_window
from training.runs import Checkpoint, MetricsFile, RunFolder, versions
from training.sitting import Plan, finish, say_stopped, seed_numpy
from training.tasks import Published

METRICS, CONFIG = "metrics.npz", "run_config.json"
SCALARS = ("reward", "cost", "violation", "flaps_per_hour", "exploration_rate", "steps_per_s")


def train(plan: Plan) -> int:
    """Train as planned; 0 done, 130 stopped by Ctrl-C (saved)."""
    seed_numpy(plan.seed, plan.done)
    if plan.args.demo:
        from training.qlearning.demo import demo

        return demo(plan)
    learner = Learner(plan.preset, plan.seed)
    if plan.checkpoint is not None:
        learner.load(read_checkpoint(plan.checkpoint.model))
    run = plan.open()
    print(f"run folder: {run.path}", flush=True)
    _write_config(run, plan)
    with make_window(plan.args.show) as window:
        trainer = Trainer(plan, run, learner, window)
        checkpoint, finished = trainer.learn()
        story = trainer.story()
        episodes: dict[str, Any] = dict(story.episodes)
        np.savez_compressed(run.path / METRICS, **episodes)
        print(f"dashboard: {save_dashboard(story, run.plots / 'dashboard.png')}")
        print(f"table: {save_heat_map(learner.table, run.plots / 'table.png')}")
        if not finished:
            say_stopped(run, checkpoint)
            return 130
        difference = export(run, checkpoint, run.artifact, None)
        finish(plan, run, checkpoint, _published(run, difference), _evaluation(plan, learner))
        window.wait()
    return 0


def export(run: RunFolder, checkpoint: Checkpoint, out: Path, name: str | None) -> float:
    """Write the artifact of a checkpoint's table; the largest difference to it, which is 0."""
    from training.publish import provenance

    preset = run.preset()
    learner = Learner(preset, int(checkpoint.read_state()["seed"]))
    learner.load(read_checkpoint(checkpoint.model))
    return export_table(learner.table, provenance(run, checkpoint, name), out, learner.seen)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The arrays of a checkpoint. Raises ExportError where the file is none of ours."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}
    except FileNotFoundError:
        raise ExportError(f"{path}: no such table") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ExportError(f"{path}: not a checkpoint of --algo qlearning: {error}") from error


class Trainer:
    """A run folder, a learner, and the book-keeping between two rounds of episodes."""

    def __init__(self, plan: Plan, run: RunFolder, learner: Learner, window: Window) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.plan, self.run, self.learner, self.window = plan, run, learner, window
        self.metrics = MetricsFile(run.metrics, learner.steps)
        self._events = SummaryWriter(str(run.path / "tensorboard"), purge_step=learner.steps)
        self._started = time.monotonic() - self.metrics.elapsed_s
        self._measuring = Measuring(plan.task.measured(plan.preset), plan.preset.timesteps)

    def learn(self) -> tuple[Checkpoint, bool]:
        """Play rounds until the preset's steps are reached, or until Ctrl-C; the last checkpoint, whether."""
        learner, plan, every = self.learner, self.plan, self.plan.preset.checkpoint_every
        total = plan.preset.timesteps
        with (
            StopOnInterrupt(announce_stop) as stop,
            make_progress(total, learner.steps, plan.args.progress, plan.task.shown) as progress,
        ):
            while not learner.finished and not stop.requested:
                before = learner.steps
                progress.update(self._round())
                if learner.steps // every > before // every:
                    self.save()
                if self.window.due:
                    self.window.show(self.story())
        self._events.close()
        return self.save(), learner.finished

    def story(self) -> Story:
        """All that the dashboard shows: the episodes so far, and one that the table plays now."""
        return Story(self.learner.episodes(), play_showcase(self.plan.preset, self.learner.table))

    def save(self) -> Checkpoint:
        """Write a checkpoint, unless there is one. The JSON goes last: a zip that has one is whole."""
        checkpoint = self.run.checkpoint_at(self.learner.steps)
        if not checkpoint.state.is_file():
            with checkpoint.model.open("wb") as file:
                np.savez_compressed(file, **self.learner.state())
            state = {
                "timesteps": checkpoint.timesteps,
                "seed": self.plan.seed,
                "updates": self.learner.rounds,
            }
            checkpoint.state.write_text(json.dumps(state) + "\n")
        return checkpoint

    def _round(self) -> dict[str, float]:
        began, before = time.monotonic(), self.learner.steps
        found = self.learner.round()
        now, steps = time.monotonic(), self.learner.steps
        row = {
            "timesteps": float(steps),
            "elapsed_s": now - self._started,
            "steps_per_s": (steps - before) / max(now - began, 1e-9),
            "reward": found.reward,
            "episodes": float(self.learner.played),
            **self.plan.task.columns(found.summaries),
            "exploration_rate": found.exploration_rate,
            "td_error": found.td_error,
        }
        row |= self._measuring.columns(before, steps, self._measure)
        self.metrics.write(row)
        for name in SCALARS:
            self._events.add_scalar(f"{self.plan.task.name}/{name}", row[name], steps)
        return row

    def _measure(self) -> Mapping[str, float]:
        from training.heldout import measure_policy

        return measure_policy(self.learner.table.policy)


def _write_config(run: RunFolder, plan: Plan) -> None:
    """What was run, for readers who have no YAML."""
    content = {
        "command": shlex.join(["python", "training/train.py", *plan.args.argv]),
        "seed": plan.seed,
        "preset": _plain(plan.preset),
        "versions": versions(),
    }
    (run.path / CONFIG).write_text(json.dumps(content, indent=2) + "\n")


def _plain(preset: Preset) -> dict[str, Any]:
    """The preset's sections that this algorithm reads."""
    content = dataclasses.asdict(preset)
    used = ("name", "env", "algo", "timesteps", "num_envs", "checkpoint_every", "environment", "action",
            "qlearning")  # fmt: skip
    return {name: content[name] for name in used}


def _published(run: RunFolder, difference: float) -> Published:
    from training.artifact import read_metadata

    return Published(read_metadata(run.artifact.read_bytes()), difference)


def _evaluation(plan: Plan, learner: Learner) -> dict[str, Any]:
    """As the other algorithms' cards have it."""
    if not plan.args.evaluate:
        return {}
    from training.heldout import evaluate_policy

    return evaluate_policy(learner.table.policy)
