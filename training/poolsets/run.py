"""One sitting of `train.py --env pools --algo evolution`: the same run folder and card as any other run's.

`training.train` hands over to `train` here, `training.export` to `export`.
"""

from __future__ import annotations

import json
import pickle
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from controller.policies.loader import builtin_names
from sim.envs.pool_batch import PoolsConfig
from training.artifact import read_metadata
from training.callbacks import seed_everything
from training.config import Preset
from training.environment import simulator_config
from training.errors import ConfigError, ExportError
from training.heldout_pools import evaluate_decider
from training.interrupt import StopOnInterrupt, announce_stop
from training.measuring import Measuring
from training.poolsets.export import BUILTIN, ServiceBand, export_pools, pools_metadata
from training.poolsets.learner import Learner, decider_of, loss_of, seen_range
from training.poolsets.network import PoolsNetwork
from training.poolsets.playing import ArtifactDecider, Ejecting, play
from training.progress import make_progress
from training.publish import provenance
from training.runs import Checkpoint, MetricsFile, RunFolder
from training.sitting import Plan, finish, say_stopped
from training.tasks import Published

MEASURED_SEED, MEASURED_EPISODES = 988_003, 128
"""Of the episodes that show how good the policy is while it is trained: no training and no benchmark uses
them."""
MEASURED = ("measured_loss",)


class Trainer:
    """A run folder, a learner, and the book-keeping between two updates."""

    def __init__(self, plan: Plan, run: RunFolder, learner: Learner) -> None:
        self.plan, self.run, self.preset, self.learner = plan, run, plan.preset, learner
        self.metrics = MetricsFile(run.metrics, self.steps)
        self._events = SummaryWriter(str(run.path / "tensorboard"), purge_step=self.steps)
        self._started = time.monotonic() - self.metrics.elapsed_s
        self._updates = _updates(self.preset, self.preset.timesteps)
        self._measuring = Measuring(MEASURED, self.preset.timesteps)

    @property
    def steps(self) -> int:
        """Control steps so far, over all sets."""
        return self.learner.done * steps_an_update(self.preset)

    def learn(self) -> tuple[Checkpoint, bool]:
        """Update until the preset's steps are reached, or until Ctrl-C; the last checkpoint, and whether."""
        every, shown = self.preset.checkpoint_every, self.plan.task.shown
        with (
            StopOnInterrupt(announce_stop) as stop,
            make_progress(self.preset.timesteps, self.steps, self.plan.args.progress, shown) as progress,
        ):
            while self.learner.done < self._updates and not stop.requested:
                before = self.steps
                progress.update(self._update(before))
                if self.steps // every > before // every:
                    self.save()
        self._events.close()
        return self.save(), self.learner.done >= self._updates

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
        """The averaged network's mean loss on held-out episodes, each at its own preference."""
        settings = self.preset.evolution
        act = Ejecting(decider_of(self.learner.average, self.learner.band), settings.ejects)
        played = play(config_of(self.preset), act, MEASURED_EPISODES, MEASURED_SEED)
        return {"measured_loss": float(np.mean(loss_of(played, settings)))}


def train(plan: Plan) -> int:
    """Train as planned; 0 done, 130 stopped by Ctrl-C (saved)."""
    torch.set_num_threads(1)
    trainer = _begin(plan)
    run = trainer.run
    print(f"run folder: {run.path}", flush=True)
    checkpoint, finished = trainer.learn()
    if not finished:
        say_stopped(run, checkpoint)
        return 130
    difference = export(run, checkpoint, run.artifact, None)
    data = run.artifact.read_bytes()
    evaluation = {}
    if plan.args.evaluate:
        decide = ArtifactDecider(data)
        evaluation = evaluate_decider(decide, config_of(plan.preset), plan.preset.evolution.ejects)
    finish(plan, run, checkpoint, Published(read_metadata(data), difference), evaluation)
    return 0


def export(run: RunFolder, checkpoint: Checkpoint, out: Path, name: str | None) -> float:
    """Write the artifact of a checkpoint's averaged parameters; the largest difference to them."""
    state = _read(checkpoint.model)
    network = PoolsNetwork(run.preset().evolution.width)
    try:
        network.load_state_dict(state["average"])
        band = ServiceBand(state["band"])
    except (KeyError, RuntimeError) as error:
        raise ExportError(f"{checkpoint.model}: does not fit the run's preset: {error}") from error
    content = pools_metadata(provenance(run, checkpoint, name), seen=seen_range(state))
    content["provenance"]["service_policy"] = band.digest
    return export_pools(network, out, content, band)


def steps_an_update(preset: Preset) -> int:
    """Control steps of all sets in an episode."""
    return preset.num_envs * config_of(preset).horizon_steps


def config_of(preset: Preset) -> PoolsConfig:
    """The preset's environment: whole episodes, numbers of a Box."""
    for name in ("clones", "levels", "stagger"):
        if name in preset.environment:
            raise ConfigError(f"environment.{name}: not allowed with algo: evolution")
    return simulator_config(PoolsConfig, preset.environment)


def _begin(plan: Plan) -> Trainer:
    """The learner, new or as the checkpoint left it."""
    preset, seed = plan.preset, plan.seed
    seed_everything(seed, plan.done)
    state = None if plan.checkpoint is None else _read(plan.checkpoint.model)
    band = _band(preset.evolution.service_policy) if state is None else ServiceBand(state["band"])
    falls = _updates(preset, preset.evolution.schedule_steps or preset.timesteps)
    learner = Learner(preset, replace(config_of(preset), clones=2), band, seed, falls)
    if state is not None:
        learner.load(state)
    return Trainer(plan, plan.open(), learner)


def _updates(preset: Preset, steps: int) -> int:
    """Updates that make up at least so many control steps."""
    return max(1, -(-steps // steps_an_update(preset)))


def _band(name: str) -> ServiceBand:
    path = BUILTIN.with_name(f"{name}.onnx")
    if not path.is_file():
        known = ", ".join(builtin_names())
        raise ConfigError(f"evolution.service_policy: {name!r} is not one of {known}")
    return ServiceBand.from_file(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(torch.load(path, weights_only=True))
    except FileNotFoundError:
        raise ExportError(f"{path}: no such model") from None
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise ExportError(f"{path}: not a checkpoint of --algo evolution: {error}") from error
