"""One sitting of `train.py --algo analytic`: the same run folder and artifact as any other algorithm's.

`training.session` hands over to `train` here, `training.export` to `export`.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from sim.errors import ParameterError
from sim.scenario import ScenarioConfig
from training.analytic.artifact import export_network
from training.analytic.learner import Learner
from training.analytic.policy import BandNetwork
from training.analytic.traffic import STEP_S
from training.artifact import read_metadata
from training.callbacks import StopOnInterrupt, seed_everything
from training.config import Preset, from_mapping, load_preset
from training.errors import ConfigError, ExportError, RunError
from training.plots import plot_learning_curves
from training.progress import make_progress
from training.publish import provenance
from training.runs import Checkpoint, MetricsFile, RunFolder, read_metrics, this_command

SHOWN = ("reward", "cost", "violation", "flaps_per_hour", "steps_per_s")


class Trainer:
    """A run folder, a learner, and the book-keeping between two updates."""

    def __init__(self, run: RunFolder, preset: Preset, seed: int, learner: Learner) -> None:
        self.run, self.preset, self.seed, self.learner = run, preset, seed, learner
        self.metrics = MetricsFile(run.metrics, self.steps)
        self._events = SummaryWriter(str(run.path / "tensorboard"), purge_step=self.steps)
        self._started = time.monotonic() - self.metrics.elapsed_s

    @property
    def steps(self) -> int:
        """Control steps so far, over all services."""
        return self.learner.done * steps_an_update(self.preset)

    def learn(self, bar: bool | None) -> tuple[Checkpoint, bool]:
        """Update until the preset's steps are reached, or until Ctrl-C; the last checkpoint, and whether."""
        every = self.preset.checkpoint_every
        with (
            StopOnInterrupt(_announce_stop) as stop,
            make_progress(self.preset.timesteps, self.steps, bar) as progress,
        ):
            self.learner.prepare()
            while self.learner.done < self.learner.updates and not stop.requested:
                before = self.steps
                row = self._update()
                progress.update(row)
                if self.steps // every > before // every:
                    self.save()
        self._events.close()
        return self.save(), self.learner.done >= self.learner.updates

    def save(self) -> Checkpoint:
        """Write a checkpoint, unless there is one. The JSON goes last: a zip that has one is whole."""
        checkpoint = self.run.checkpoint_at(self.steps)
        if not checkpoint.state.is_file():
            torch.save(self.learner.state(), checkpoint.model)
            state = {"timesteps": checkpoint.timesteps, "seed": self.seed, "updates": self.learner.done}
            checkpoint.state.write_text(json.dumps(state) + "\n")
        return checkpoint

    def _update(self) -> dict[str, float]:
        began = time.monotonic()
        outcome = self.learner.update()
        now = time.monotonic()
        row = {
            "timesteps": float(self.steps),
            "elapsed_s": now - self._started,
            "steps_per_s": steps_an_update(self.preset) / max(now - began, 1e-9),
            "reward": -outcome["loss"],
            **outcome,
        }
        self.metrics.write(row)
        for name in SHOWN:
            self._events.add_scalar(f"autoscale/{name}", row[name], self.steps)
        return row


def train(args: argparse.Namespace) -> int:
    """Train as the command line says; 0 done, 130 stopped by Ctrl-C (saved)."""
    torch.set_num_threads(1)
    # vanishing probabilities would be computed with a hundred times slower
    torch.set_flush_denormal(True)
    trainer = _resume(args) if args.resume else _start(args)
    run = trainer.run
    print(f"run folder: {run.path}", flush=True)
    checkpoint, finished = trainer.learn(args.progress)
    if not finished:
        print(f"stopped at {checkpoint.timesteps:,} steps and saved; continue with:")
        print(f"  python training/train.py --resume {run.path}")
        return 130
    difference = export(run, checkpoint, run.artifact, None)
    _write_card(run, difference)
    plot_learning_curves(read_metrics(run.metrics), run.plots)
    size = run.artifact.stat().st_size / 1000
    print(f"done: {checkpoint.timesteps:,} steps")
    print(f"artifact: {run.artifact} ({size:.0f} kB, differs from the model by {difference:.0e} at most)")
    print(f"evaluate: python training/evaluate.py --policy {run.artifact}")
    return 0


def export(run: RunFolder, checkpoint: Checkpoint, out: Path, name: str | None) -> float:
    """Write the artifact of a checkpoint's averaged weights; the largest difference to them."""
    network = BandNetwork(run.preset())
    try:
        network.load_state_dict(_read(checkpoint.model)["average"])
    except (KeyError, RuntimeError) as error:
        raise ExportError(f"{checkpoint.model}: does not fit the run's preset: {error}") from error
    return export_network(network, provenance(run, checkpoint, name), out)


def steps_an_update(preset: Preset) -> int:
    """Control steps in one unroll of all services."""
    return preset.num_envs * preset.analytic.unroll_steps


def scenario_of(preset: Preset) -> ScenarioConfig:
    """The services and workloads of the preset's environment; refuses what the twin cannot do."""
    try:
        scenario = from_mapping(
            ScenarioConfig, preset.environment.get("scenario", {}), "environment.scenario."
        )
    except ParameterError as error:
        raise ConfigError(f"environment: {error}") from error
    if set(scenario.sync_periods_s) != {round(STEP_S)}:
        periods = scenario.sync_periods_s
        raise ConfigError(f"environment.scenario.sync_periods_s: {periods} is not allowed; (15,) is")
    if max(scenario.scale_down_windows_s) > 300:
        windows = scenario.scale_down_windows_s
        raise ConfigError(
            f"environment.scenario.scale_down_windows_s: {windows} is not allowed; up to 300 is"
        )
    return scenario


def _start(args: argparse.Namespace) -> Trainer:
    preset = load_preset(args.preset, **_overrides(args))
    seed = args.seed if args.seed is not None else 0
    seed_everything(seed, 0)
    learner = Learner(preset, scenario_of(preset), seed, _updates(preset))
    run = RunFolder.create(args.out, preset, seed, this_command("train.py", args.argv))
    return Trainer(run, preset, seed, learner)


def _resume(args: argparse.Namespace) -> Trainer:
    run = RunFolder.open(args.resume)
    preset = run.preset(**_overrides(args))
    checkpoint = run.latest_checkpoint()
    seed = int(checkpoint.read_state()["seed"])
    if args.seed not in (None, seed):
        raise RunError(f"--seed {args.seed}: {run.path} was started with seed {seed}; a resumed run keeps it")
    if checkpoint.timesteps >= preset.timesteps:
        raise RunError(
            f"{run.path}: already at {checkpoint.timesteps:,} of {preset.timesteps:,} steps; "
            "give a larger --timesteps to train on"
        )
    seed_everything(seed, checkpoint.timesteps)
    learner = Learner(preset, scenario_of(preset), seed, _updates(preset))
    learner.load(_read(checkpoint.model), seed)
    run.record_command(this_command("train.py", args.argv))
    return Trainer(run, preset, seed, learner)


def _updates(preset: Preset) -> int:
    return max(1, -(-preset.timesteps // steps_an_update(preset)))


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(torch.load(path, weights_only=True))
    except FileNotFoundError:
        raise ExportError(f"{path}: no such model") from None
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise ExportError(f"{path}: not a checkpoint of --algo analytic: {error}") from error


def _write_card(run: RunFolder, difference: float) -> None:
    rows = read_metrics(run.metrics)
    content = read_metadata(run.artifact.read_bytes())
    content["size_bytes"] = run.artifact.stat().st_size
    content["parity"] = difference
    content["last_training_row"] = _known(rows[-1] if rows else {})
    run.write_card(content)


def _known(row: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if value == value}


def _overrides(args: argparse.Namespace) -> dict[str, object]:
    return {"env": args.env, "algo": args.algo, "timesteps": args.timesteps, "num_envs": args.num_envs}


def _announce_stop() -> None:
    print("\nstopping after this update (again to stop at once, unsaved) ...", file=sys.stderr, flush=True)
