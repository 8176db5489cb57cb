"""One sitting of `train.py`: a new run or a resumed one, from the arguments to the artifact."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import configure

from training.actions import HeadVecEnv
from training.algorithms import load_model, make_model, one_thread
from training.callbacks import Recorder, StopOnInterrupt, StopTraining, seed_everything
from training.config import Preset, load_preset
from training.environment import make_environment
from training.errors import RunError
from training.plots import plot_learning_curves
from training.progress import make_progress
from training.publish import publish
from training.runs import Checkpoint, MetricsFile, RunFolder, read_metrics, this_command


@dataclass
class Sitting:
    """A run folder with a model that is ready to learn until `preset.timesteps`."""

    run: RunFolder
    preset: Preset
    seed: int
    model: BaseAlgorithm
    env: HeadVecEnv
    done: int


def train(args: argparse.Namespace) -> int:
    """Train as the command line says; see `train.main` for the exit status."""
    if _algorithm(args) == "analytic":
        from training.analytic.run import train as train_analytic

        return train_analytic(args)
    one_thread()
    sitting = _resume(args) if args.resume else _start(args)
    print(f"run folder: {sitting.run.path}", flush=True)
    try:
        checkpoint, finished = _learn(sitting, args.progress)
    finally:
        sitting.env.close()
    if not finished:
        print(
            f"stopped at {checkpoint.timesteps:,} steps and saved; continue with:\n  {_resume_hint(sitting)}"
        )
        return 130
    _finish(sitting, checkpoint)
    return 0


def _algorithm(args: argparse.Namespace) -> str:
    if args.resume:
        return RunFolder.open(args.resume).preset(**_overrides(args)).algo
    return load_preset(args.preset, **_overrides(args)).algo


def _start(args: argparse.Namespace) -> Sitting:
    preset = load_preset(args.preset, **_overrides(args))
    seed = args.seed if args.seed is not None else 0
    seed_everything(seed, 0)
    env = make_environment(preset, seed)
    model = make_model(preset, env, seed, args.device)
    run = RunFolder.create(args.out, preset, seed, this_command("train.py", args.argv))
    return Sitting(run, preset, seed, model, env, 0)


def _resume(args: argparse.Namespace) -> Sitting:
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
    env = make_environment(preset, seed, checkpoint.timesteps)
    model = load_model(checkpoint.model, env, args.device)
    run.record_command(this_command("train.py", args.argv))
    return Sitting(run, preset, seed, model, env, checkpoint.timesteps)


def _learn(sitting: Sitting, bar: bool | None) -> tuple[Checkpoint, bool]:
    run, preset, model = sitting.run, sitting.preset, sitting.model
    model.set_logger(configure(str(run.path / "tensorboard"), ["tensorboard"]))
    metrics = MetricsFile(run.metrics, sitting.done)
    with (
        StopOnInterrupt(_announce_stop) as stop,
        make_progress(preset.timesteps, sitting.done, bar) as progress,
    ):
        recorder = Recorder(sitting.env, run, metrics, progress, stop, sitting.seed, preset)
        try:
            model.learn(
                preset.timesteps - sitting.done,
                callback=recorder,
                log_interval=None,  # type: ignore[arg-type]
                reset_num_timesteps=sitting.done == 0,
            )
            finished = True
        except StopTraining:
            finished = False
        recorder.finish_update()
        return recorder.save(), finished


def _finish(sitting: Sitting, checkpoint: Checkpoint) -> None:
    run = sitting.run
    difference = publish(run, sitting.model, checkpoint)
    plot_learning_curves(read_metrics(run.metrics), run.plots)
    size = run.artifact.stat().st_size
    print(f"done: {checkpoint.timesteps:,} steps")
    print(
        f"artifact: {run.artifact} ({size / 1000:.0f} kB, differs from the model by {difference:.0e} at most)"
    )
    print(f"evaluate: python training/evaluate.py --policy {run.artifact}")


def _overrides(args: argparse.Namespace) -> dict[str, object]:
    return {"env": args.env, "algo": args.algo, "timesteps": args.timesteps, "num_envs": args.num_envs}


def _announce_stop() -> None:
    print("\nstopping after this update (again to stop at once, unsaved) ...", file=sys.stderr, flush=True)


def _resume_hint(sitting: Sitting) -> str:
    return f"python training/train.py --resume {sitting.run.path}"
