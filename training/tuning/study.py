"""A study: its workers, its progress, and its report. `tune.py` is the caller."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.trial import TrialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from training.config import load_preset
from training.errors import ConfigError, RunError
from training.tuning.report import write_report
from training.tuning.space import check_space, load_space
from training.tuning.storage import (
    STORAGE_VARIABLE,
    give_up,
    give_up_silent,
    give_up_stale,
    open_storage,
    queue_again,
    sole_tuner,
)
from training.tuning.trial import RUNGS, Objective, TrialSettings

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
WAIT_S = 5.0
SEEDS_A_MACHINE = 1000
"""Workers of machine m draw with seeds from m times this on."""
FAILURES_AT_FIRST = 3
"""What fails so often without a success will fail always."""


def tune(args: argparse.Namespace) -> int:
    """Run `--trials` trials in all, with `--workers` processes; see `tune.main` for the exit status."""
    settings = trial_settings(args)
    settings.folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = open_study(args, settings)
    if args.report:
        return _report(study, settings, False)
    if args.worker:
        return work(study, Objective(settings), args.trials)
    if storage_url(args) is not None:
        # a folder that machines share holds trials of all of them, under different numbers
        interrupted = _with_workers(study, args)
    else:
        with sole_tuner(settings.folder):
            give_up_stale(study)
            interrupted = _with_workers(study, args)
    if args.machine:
        # the first machine writes the report: several would write into one folder at once
        return 130 if interrupted else _status(study, args.trials)
    return _report(study, settings, interrupted) or _status(study, args.trials)


def storage_url(args: argparse.Namespace) -> str | None:
    """`--storage`, or what the environment says; None: a journal in the study's folder."""
    return args.storage or os.environ.get(STORAGE_VARIABLE) or None


def trial_settings(args: argparse.Namespace) -> TrialSettings:
    """What all trials share, checked. Raises ConfigError."""
    for name in ("trials", "workers", "windows", "window_hours"):
        if getattr(args, name) < 1:
            raise ConfigError(
                f"--{name.replace('_', '-')}: {getattr(args, name)} is not allowed; 1 or more is"
            )
    if args.machine < 0:
        raise ConfigError(f"--machine: {args.machine} is not allowed; 0 or more is")
    preset = load_preset(args.preset, timesteps=args.timesteps)
    space = load_space(args.space or preset.algo)
    check_space(space, preset)
    folder = args.out / (args.study or f"tune-{preset.name}")
    settings = TrialSettings(
        folder, preset, tuple(space), args.seed, args.windows, args.window_hours, args.window_seed
    )
    settings.check()
    return settings


def open_study(args: argparse.Namespace, settings: TrialSettings) -> optuna.Study:
    """The study of that name, made if there is none. Samplers of several workers get seeds of their own."""
    return optuna.create_study(
        study_name=settings.folder.name,
        storage=open_storage(storage_url(args), settings.folder),
        sampler=optuna.samplers.TPESampler(
            seed=args.seed + SEEDS_A_MACHINE * args.machine + args.worker,
            multivariate=True,
            constant_liar=True,
            n_startup_trials=8,
        ),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=6, n_warmup_steps=RUNGS // 4),
        direction="minimize",
        load_if_exists=True,
    )


def work(study: optuna.Study, objective: Objective, trials: int, wait_s: float = WAIT_S) -> int:
    """A worker: trials until the study has `trials` that ended, those of others that died included.

    While the others' running trials would make up the number it waits: one of them may fail.
    """
    while not _over(study, trials):
        if objective.orphaned:
            return 130
        give_up_silent(study)
        if _ended(study) + _running(study) >= trials:
            time.sleep(wait_s)
            continue
        try:
            study.optimize(objective, n_trials=1, catch=(RunError,))
        except KeyboardInterrupt:
            if objective.trial is not None:
                queue_again(study, objective.trial.params, objective.trial.number)
            return 130
    return 0


def _over(study: optuna.Study, trials: int) -> bool:
    return _ended(study) >= trials or _hopeless(study)


def _hopeless(study: optuna.Study) -> bool:
    """What training refuses from the first is a mistake in the preset or the space."""
    found = study.get_trials(deepcopy=False)
    refused = sum(trial.state is TrialState.FAIL and "refused" in trial.user_attrs for trial in found)
    return refused >= FAILURES_AT_FIRST and not any(trial.state in ENDED for trial in found)


def _ended(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=ENDED))


def _running(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def _status(study: optuna.Study, trials: int) -> int:
    """0 where the study is complete; 1, with a word, where workers ended before it was."""
    ended = _ended(study)
    if ended >= trials:
        return 0
    print(f"{ended} of {trials} trials ended; the same command goes on", file=sys.stderr)
    return 1


def _report(study: optuna.Study, settings: TrialSettings, interrupted: bool) -> int:
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        print("no trial was completed; each one's train.log says why", file=sys.stderr)
        return 130 if interrupted else 1
    print(f"report: {write_report(study, settings)}")
    return 130 if interrupted else 0


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
    """A bar until all workers have ended; a dead worker's trial goes to the others."""
    columns = (
        TextColumn("trials"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    alive = list(workers)
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=trials)
        while alive:
            time.sleep(1.0)
            for worker in [one for one in alive if one.poll() is not None]:
                alive.remove(worker)
                if worker.returncode < 0:
                    _lost(study, worker, progress.console.print)
            progress.update(task, completed=min(_ended(study), trials), description=_best(study))


def _lost(study: optuna.Study, worker: subprocess.Popen[bytes], say: Callable[[str], None]) -> None:
    name = signal.Signals(-worker.returncode).name
    with contextlib.suppress(ProcessLookupError):
        # the training that it had started
        os.killpg(worker.pid, signal.SIGINT)
    given = give_up(study, worker.pid)
    say(f"a worker was ended by {name}" + (f"; {given} trial is queued again" if given else ""))


def _best(study: optuna.Study) -> str:
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return f"best {min(float(trial.value or 0.0) for trial in done):.3f}" if done else ""
