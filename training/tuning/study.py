"""A study: its workers, its progress, and its report. `tune.py` is the caller."""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
from optuna.trial import TrialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from training.config import load_preset
from training.errors import ConfigError, RunError
from training.tuning.report import write_report
from training.tuning.space import check_space, load_space
from training.tuning.storage import give_up_stale, open_storage, sole_tuner
from training.tuning.trial import RUNGS, Objective, TrialSettings

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


def tune(args: argparse.Namespace) -> int:
    """Run `--trials` trials in all, with `--workers` processes; see `tune.main` for the exit status."""
    settings = trial_settings(args)
    settings.folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = open_study(args, settings)
    if args.worker:
        return work(study, settings, args.trials)
    with sole_tuner(settings.folder):
        if args.storage is None:
            give_up_stale(study)
        interrupted = _with_workers(study, args)
    if not any(trial.state is TrialState.COMPLETE for trial in study.get_trials(deepcopy=False)):
        print("no trial was completed; each one's train.log says why", file=sys.stderr)
        return 130 if interrupted else 1
    print(f"report: {write_report(study, settings)}")
    return 130 if interrupted else 0


def trial_settings(args: argparse.Namespace) -> TrialSettings:
    """What all trials share, checked. Raises ConfigError."""
    for name in ("trials", "workers", "windows", "window_hours"):
        if getattr(args, name) < 1:
            raise ConfigError(
                f"--{name.replace('_', '-')}: {getattr(args, name)} is not allowed; 1 or more is"
            )
    preset = load_preset(args.preset, timesteps=args.timesteps)
    space = load_space(args.space or preset.algo)
    check_space(space, preset)
    folder = args.out / (args.study or f"tune-{preset.name}")
    return TrialSettings(
        folder, preset, tuple(space), args.seed, args.windows, args.window_hours, args.window_seed
    )


def open_study(args: argparse.Namespace, settings: TrialSettings) -> optuna.Study:
    """The study of that name, made if there is none. Samplers of several workers get seeds of their own."""
    return optuna.create_study(
        study_name=settings.folder.name,
        storage=open_storage(args.storage, settings.folder),
        sampler=optuna.samplers.TPESampler(
            seed=args.seed + args.worker, multivariate=True, constant_liar=True, n_startup_trials=8
        ),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=6, n_warmup_steps=RUNGS // 4),
        direction="minimize",
        load_if_exists=True,
    )


def work(study: optuna.Study, settings: TrialSettings, trials: int) -> int:
    """A worker: trials until the study has `trials` that ended."""
    stop = optuna.study.MaxTrialsCallback(trials, states=ENDED)
    if _ended(study) < trials:
        with contextlib.suppress(KeyboardInterrupt):
            study.optimize(Objective(settings), callbacks=[stop, _stop_when_all_fail], catch=(RunError,))
    return 0


def _stop_when_all_fail(study: optuna.Study, _: optuna.trial.FrozenTrial) -> None:
    """What fails three times without a success will fail always."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    if states.count(TrialState.FAIL) >= 3 and not any(state in ENDED for state in states):
        study.stop()


def _ended(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=ENDED))


def _with_workers(study: optuna.Study, args: argparse.Namespace) -> bool:
    """Start the workers and wait for them; whether it was interrupted."""
    command = [sys.executable, str(Path(sys.argv[0]).resolve()), *args.argv]
    workers = [
        subprocess.Popen([*command, "--worker", str(number + 1)], start_new_session=True)
        for number in range(args.workers)
    ]
    try:
        _show(study, args.trials, workers)
        return False
    except KeyboardInterrupt:
        print("\nstopping the trials that run; the same command goes on with the study", file=sys.stderr)
        for worker in workers:
            worker.send_signal(signal.SIGINT)
        return True
    finally:
        for worker in workers:
            worker.wait()


def _show(study: optuna.Study, trials: int, workers: list[subprocess.Popen[bytes]]) -> None:
    columns = (
        TextColumn("trials"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=trials)
        while any(worker.poll() is None for worker in workers):
            time.sleep(1.0)
            progress.update(task, completed=min(_ended(study), trials), description=_best(study))


def _best(study: optuna.Study) -> str:
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return f"best {min(float(trial.value or 0.0) for trial in done):.3f}" if done else ""
