"""Where a study is kept: a journal file on one machine, a database server for several.

A worker that dies must not leave its trial running forever. In a database each running trial has a heartbeat:
after two missed ones the next worker that looks fails it and queues its settings again (`give_up_silent`). On
one machine the tuner sees its workers die and does the same (`give_up`).
"""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import OperationalError

from training.errors import ConfigError, RunError

HEARTBEAT_S = 60
RETRIES = 2
STORAGE_VARIABLE = "RLSCALER_STUDY_STORAGE"
"""Environment variable with the storage's URL: a password does not belong on a command line."""
OWNER = "owner"
"""User attribute of a trial: the host and the process that runs it."""
_DRIVERS = {
    "postgresql": ("postgresql+psycopg", "psycopg[binary]"),
    "postgres": ("postgresql+psycopg", "psycopg[binary]"),
    "mysql": ("mysql+pymysql", "pymysql"),
}


class StorageError(RunError):
    """The study's database does not answer, or not to this user: it may later."""


def open_storage(url: str | None, folder: Path, heartbeat_s: int = HEARTBEAT_S) -> BaseStorage:
    """The storage at `url`, or the journal in `folder`. Raises ConfigError, or StorageError."""
    if url is None:
        return JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    if url.startswith("sqlite"):
        raise ConfigError(
            f"--storage: {url!r} is not allowed, since SQLite loses trials of several writers; "
            "leave it out for a journal file, or give a postgresql:// or mysql:// URL"
        )
    scheme, found, rest = url.partition("://")
    if not found:
        raise ConfigError("--storage: a URL such as postgresql://user:password@host/database is expected")
    full, package = _DRIVERS.get(scheme, (scheme, ""))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return RDBStorage(
                f"{full}://{rest}",
                # a server may have closed a connection that waited for a trial's end
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=heartbeat_s,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
            )
    except ImportError as error:
        hint = f"; pip install '{package}'" if package else ""
        raise ConfigError(f"--storage: {scheme}: {error}{hint}") from error
    except Exception as error:  # drivers raise types of their own
        shown = f"--storage: {url.rsplit('@', 1)[-1]!r} cannot be opened: {_first_line(error)}"
        raise (StorageError if isinstance(error, OperationalError) else ConfigError)(shown) from error


@contextmanager
def sole_tuner(folder: Path) -> Iterator[None]:
    """While active, no other `tune.py` of this machine may work on the same folder. Raises RunError."""
    import fcntl

    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{folder}: another tune.py is working on this study") from None
        yield


def owner_of(process: int) -> str:
    """How a trial names the process (by its number, on this host) that runs it."""
    return f"{platform.node()}/{process}"


def claim(trial: optuna.Trial) -> None:
    """Note who runs a trial."""
    trial.set_user_attr(OWNER, owner_of(os.getpid()))


def give_up_stale(study: optuna.Study) -> int:
    """Fail the trials that a killed session left running, and queue their settings again; how many."""
    return _give_up(study, study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def give_up(study: optuna.Study, process: int) -> int:
    """The same for the trials of one process of this host that has died."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return _give_up(study, [trial for trial in running if trial.user_attrs.get(OWNER) == owner_of(process)])


def give_up_silent(study: optuna.Study) -> None:
    """The same for the trials whose heartbeat has stopped, on any machine; a journal has no heartbeats."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


def queue_again(study: optuna.Study, params: dict[str, object], number: int) -> None:
    """Queue the settings of a trial that was cut off."""
    study.enqueue_trial(params, user_attrs={"again": number})


def _give_up(study: optuna.Study, trials: list[FrozenTrial]) -> int:
    for trial in trials:
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            queue_again(study, trial.params, trial.number)
    return len(trials)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
