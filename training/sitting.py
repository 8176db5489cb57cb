"""One sitting of `train.py`, whatever the algorithm: what is trained, from where, and the last words.

`training.session` (Stable-Baselines3), `training.analytic.run` and `training.qlearning.run` share this. It
imports no torch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from training.config import Preset, load_preset
from training.errors import ConfigError, RunError
from training.runs import Checkpoint, RunFolder, read_metrics, this_command
from training.tasks import Published, Task, load_task

TRACES_FILE = "traces.json"


@dataclass(frozen=True)
class Plan:
    """What the command line asks for, checked, before anything is made."""

    args: argparse.Namespace
    """The command line, its words in `args.argv`."""
    preset: Preset
    seed: int
    task: Task
    run: RunFolder | None = None
    """The folder to continue; None: a new run."""
    checkpoint: Checkpoint | None = None
    """Where to continue from; None: a new run."""
    traces: list[dict[str, str]] = field(default_factory=list)
    """The recordings that are trained on: `file` and `sha256` of each."""

    @property
    def done(self) -> int:
        """Control steps that are behind it."""
        return self.checkpoint.timesteps if self.checkpoint else 0

    def open(self) -> RunFolder:
        """The run folder, with this command line in it: made now, or the one to continue.

        Called when nothing can be refused any more: a command that fails leaves no folder.
        """
        command = this_command("train.py", self.args.argv)
        if self.run is not None:
            self.run.record_command(command)
            return self.run
        run = RunFolder.create(self.args.out, self.preset, self.seed, command)
        (run.path / "schemas.json").write_text(json.dumps(self.task.schemas(self.preset), indent=2) + "\n")
        if self.traces:
            (run.path / TRACES_FILE).write_text(json.dumps(self.traces, indent=2) + "\n")
        return run


def make_plan(args: argparse.Namespace) -> Plan:
    """The plan of a command line of `train.py`. Raises ConfigError and RunError."""
    return _resumed(args) if args.resume else _new(args)


def overrides(args: argparse.Namespace) -> dict[str, object]:
    """What the command line says over the preset, by the preset's dotted names; None: nothing."""
    traces = args.trace and tuple(str(path.resolve()) for path in args.trace)
    return {
        "env": args.env,
        "algo": args.algo,
        "timesteps": args.timesteps,
        "num_envs": args.num_envs,
        "action.kind": args.action,
        "traces": traces,
        "trace_share": args.trace_share,
    }


def seed_numpy(seed: int, timesteps: int) -> int:
    """Seed Python's and numpy's generators from the seed and the step; the number that they got."""
    mixed = int(np.random.SeedSequence([seed, timesteps]).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)
    return mixed


def say_stopped(run: RunFolder, checkpoint: Checkpoint) -> None:
    """The last words after Ctrl-C."""
    print(f"stopped at {checkpoint.timesteps:,} steps and saved; continue with:")
    print(f"  python training/train.py --resume {run.path}")


def finish(
    plan: Plan, run: RunFolder, checkpoint: Checkpoint, published: Published, evaluation: dict[str, Any]
) -> None:
    """card.json, the plots, and the last words of a run that has ended."""
    from training.plots import plot_learning_curves

    rows = read_metrics(run.metrics)
    if evaluation and run.artifact.is_file():
        from training.artifact import add_evaluation

        add_evaluation(run.artifact, evaluation)
    run.write_card(whole_card(run, published, rows, evaluation))
    plot_learning_curves(rows, run.plots, plan.task.shown)
    print(f"done: {checkpoint.timesteps:,} steps")
    if published.note:
        print(f"note: {published.note}")
    if run.artifact.is_file():
        size = f"{run.artifact.stat().st_size / 1000:.0f} kB"
        if published.difference is not None:
            size += f", differs from the model by {published.difference:.0e} at most"
        print(f"artifact: {run.artifact} ({size})")


def whole_card(
    run: RunFolder, published: Published, rows: list[dict[str, float]], evaluation: dict[str, Any]
) -> dict[str, Any]:
    """What card.json says: what the task published, and what every run has."""
    card = dict(published.card)
    if run.artifact.is_file():
        card["size_bytes"] = run.artifact.stat().st_size
        card["sha256"] = hashlib.sha256(run.artifact.read_bytes()).hexdigest()
    if published.difference is not None:
        card["parity"] = published.difference
    if published.note:
        card["note"] = published.note
    if evaluation:
        card["evaluation"] = evaluation
    card["last_training_row"] = {
        key: value for key, value in (rows[-1] if rows else {}).items() if value == value
    }
    return card


def run_traces(run: RunFolder) -> list[dict[str, str]]:
    """The recordings that a run was started with."""
    path = run.path / TRACES_FILE
    return list(json.loads(path.read_text())) if path.is_file() else []


def _new(args: argparse.Namespace) -> Plan:
    preset = load_preset(args.preset or _default_preset(args), **overrides(args))
    seed = args.seed if args.seed is not None else 0
    return Plan(args, preset, seed, _checked_task(preset), traces=_fingerprints(preset.traces))


def _resumed(args: argparse.Namespace) -> Plan:
    if args.preset:
        raise RunError("--preset: not allowed with --resume; the run folder has its settings")
    run = RunFolder.open(args.resume)
    preset = run.preset(**overrides(args))
    checkpoint = run.latest_checkpoint()
    seed = int(checkpoint.read_state()["seed"])
    if args.seed not in (None, seed):
        raise RunError(f"--seed {args.seed}: {run.path} was started with seed {seed}; a resumed run keeps it")
    if checkpoint.timesteps >= preset.timesteps:
        raise RunError(
            f"{run.path}: already at {checkpoint.timesteps:,} of {preset.timesteps:,} steps; "
            "give a larger --timesteps to train on"
        )
    traces, before = _fingerprints(preset.traces), run_traces(run)
    if traces != before:
        changed = sorted({one["file"] for one in traces + before if one not in traces or one not in before})
        raise RunError(
            f"traces: {', '.join(changed)} not as when the run was started; a resumed run keeps them"
        )
    return Plan(args, preset, seed, _checked_task(preset), run, checkpoint, traces)


def _default_preset(args: argparse.Namespace) -> str:
    return load_task(args.env or "autoscale").preset_for(args.algo)


def _checked_task(preset: Preset) -> Task:
    task = load_task(preset.env)
    task.check(preset)
    return task


def _fingerprints(files: Sequence[str]) -> list[dict[str, str]]:
    """`file` (its name) and `sha256` of each recording; of a folder, over the files in it.

    Raises ConfigError for a file that is not there.
    """
    return [{"file": Path(file).name, "sha256": _digest(Path(file))} for file in files]


def _digest(path: Path) -> str:
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if not path.is_dir():
        raise ConfigError(f"traces: {path}: no such file")
    content = hashlib.sha256()
    for part in sorted(one for one in path.iterdir() if one.is_file()):
        content.update(part.name.encode() + b"\0" + part.read_bytes())
    return content.hexdigest()
