"""One sitting of `train.py --algo analytic`: the same run folder and artifact as any other algorithm's.

`training.train` hands over to `train` here, `training.export` to `export`.
"""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from sim.replay import Protocol
from sim.scenario import ScenarioConfig
from training.analytic.artifact import export_network
from training.analytic.judge import judge, window_pool
from training.analytic.learner import Learner, seen_range
from training.analytic.policy import BandNetwork
from training.analytic.traffic import SYNC_PERIODS_S, Pool
from training.artifact import read_metadata
from training.callbacks import seed_everything
from training.config import Preset
from training.contestants import Sweep, generated_windows
from training.environment import simulator_config
from training.errors import ConfigError, ExportError
from training.heldout import LEVELS, MEASURED_HOURS, MEASURED_SEED, MEASURED_WINDOWS, evaluate_artifact
from training.interrupt import StopOnInterrupt, announce_stop
from training.measuring import Measuring
from training.progress import make_progress
from training.publish import provenance
from training.recordings import Recordings
from training.runs import Checkpoint, MetricsFile, RunFolder
from training.sitting import Plan, finish, say_stopped
from training.tasks import Published


class Trainer:
    """A run folder, a learner, and the book-keeping between two updates."""

    def __init__(self, plan: Plan, run: RunFolder, learner: Learner) -> None:
        self.plan, self.run, self.preset, self.learner = plan, run, plan.preset, learner
        self.metrics = MetricsFile(run.metrics, self.steps)
        self._events = SummaryWriter(str(run.path / "tensorboard"), purge_step=self.steps)
        self._started = time.monotonic() - self.metrics.elapsed_s
        self._measuring = Measuring(tuple(LEVELS), self.preset.timesteps)
        self._measured: Pool | None = None

    @property
    def steps(self) -> int:
        """Control steps so far, over all services."""
        return self.learner.done * steps_an_update(self.preset)

    def learn(self) -> tuple[Checkpoint, bool]:
        """Update until the preset's steps are reached, or until Ctrl-C; the last checkpoint, and whether."""
        every, shown = self.preset.checkpoint_every, self.plan.task.shown
        with (
            StopOnInterrupt(announce_stop) as stop,
            make_progress(self.preset.timesteps, self.steps, self.plan.args.progress, shown) as progress,
        ):
            self.learner.prepare()
            while self.learner.done < self.learner.updates and not stop.requested:
                before = self.steps
                progress.update(self._update(before))
                if self.steps // every > before // every:
                    self.save()
        self._events.close()
        return self.save(), self.learner.done >= self.learner.updates

    def save(self) -> Checkpoint:
        """Write a checkpoint, unless there is one. The JSON goes last: a zip that has one is whole."""
        checkpoint = self.run.checkpoint_at(self.steps)
        if not checkpoint.state.is_file():
            torch.save(self.learner.state(), checkpoint.model)
            state = {"timesteps": checkpoint.timesteps, "seed": self.plan.seed, "updates": self.learner.done}
            checkpoint.state.write_text(json.dumps(state) + "\n")
        return checkpoint

    def _update(self, before: int) -> dict[str, float]:
        began = time.monotonic()
        outcome = self.learner.update()
        now = time.monotonic()
        row = {
            "timesteps": float(self.steps),
            "elapsed_s": now - self._started,
            "steps_per_s": steps_an_update(self.preset) / max(now - began, 1e-9),
            "reward": -outcome["loss"],
            **outcome,
            **self._measuring.columns(before, self.steps, self._measure),
        }
        self.metrics.write(row)
        for name in ("reward", "steps_per_s", *(column.name for column in self.plan.task.shown)):
            if row[name] == row[name]:
                self._events.add_scalar(f"{self.plan.task.name}/{name}", row[name], self.steps)
        return row

    def _measure(self) -> dict[str, float]:
        """The averaged network's frontier on a few windows, inside the twin: one batch, a second."""
        if self._measured is None:
            protocol = Protocol(window_s=3600.0 * MEASURED_HOURS)
            windows = generated_windows(MEASURED_WINDOWS, MEASURED_SEED, protocol)
            self._measured = window_pool(windows, protocol)
        judged = judge(self.learner.average, self._measured, Sweep().preferences)
        return {name: judged.cost_at(level) for name, level in LEVELS.items()}


def train(plan: Plan) -> int:
    """Train as planned; 0 done, 130 stopped by Ctrl-C (saved)."""
    torch.set_num_threads(1)
    # vanishing probabilities would be computed with a hundred times slower
    torch.set_flush_denormal(True)
    trainer = _begin(plan)
    run = trainer.run
    print(f"run folder: {run.path}", flush=True)
    checkpoint, finished = trainer.learn()
    if not finished:
        say_stopped(run, checkpoint)
        return 130
    difference = export(run, checkpoint, run.artifact, None)
    evaluation = evaluate_artifact(run.artifact) if plan.args.evaluate else {}
    card = read_metadata(run.artifact.read_bytes())
    finish(plan, run, checkpoint, Published(card, difference), evaluation)
    return 0


def export(run: RunFolder, checkpoint: Checkpoint, out: Path, name: str | None) -> float:
    """Write the artifact of a checkpoint's averaged weights; the largest difference to them."""
    network = BandNetwork(run.preset(), serving=True)
    state = _read(checkpoint.model)
    try:
        network.load_state_dict(state["average"])
    except (KeyError, RuntimeError) as error:
        raise ExportError(f"{checkpoint.model}: does not fit the run's preset: {error}") from error
    return export_network(network, provenance(run, checkpoint, name), out, seen=seen_range(state))


def steps_an_update(preset: Preset) -> int:
    """Control steps in one unroll of all services."""
    return preset.num_envs * preset.analytic.unroll_steps


def scenario_of(preset: Preset) -> ScenarioConfig:
    """The services and workloads of the preset's environment; refuses what the twin cannot do."""
    content = preset.environment.get("scenario", {})
    scenario = simulator_config(ScenarioConfig, content, "environment.scenario.")
    strange = sorted(set(scenario.sync_periods_s) - set(SYNC_PERIODS_S))
    if strange:
        allowed = f"any of {SYNC_PERIODS_S}"
        raise ConfigError(f"environment.scenario.sync_periods_s: {strange} is not allowed; {allowed} is")
    if max(scenario.scale_down_windows_s) > 300:
        windows = scenario.scale_down_windows_s
        raise ConfigError(
            f"environment.scenario.scale_down_windows_s: {windows} is not allowed; up to 300 is"
        )
    return scenario


def _begin(plan: Plan) -> Trainer:
    """The learner, new or as the checkpoint left it."""
    preset, seed = plan.preset, plan.seed
    seed_everything(seed, plan.done)
    updates = max(1, -(-preset.timesteps // steps_an_update(preset)))
    recordings = Recordings.load(preset.traces, preset.trace_share)
    learner = Learner(preset, scenario_of(preset), seed, updates, recordings)
    if plan.checkpoint is not None:
        learner.load(_read(plan.checkpoint.model), seed)
    return Trainer(plan, plan.open(), learner)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(torch.load(path, weights_only=True))
    except FileNotFoundError:
        raise ExportError(f"{path}: no such model") from None
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise ExportError(f"{path}: not a checkpoint of --algo analytic: {error}") from error
