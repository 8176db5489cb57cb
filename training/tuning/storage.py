"""Where a study is kept: a journal file on one machine, a database server for several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryFailedTrialCallback
from optuna.storages.journal import JournalFileBackend

from training.errors import ConfigError, RunError

HEARTBEAT_S = 60
RETRIES = 2


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """The storage at `url`, or the journal in `folder`. Raises ConfigError.

    Trials of a worker that died are given to others after two missed heartbeats, where the storage has them.
    """
    if url is None:
        return JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    if url.startswith("sqlite"):
        raise ConfigError(
            f"--storage: {url!r} is not allowed, since SQLite loses trials of several writers; "
            "leave it out for a journal file, or give a postgresql:// or mysql:// URL"
        )
    try:
        return RDBStorage(
            url,
            heartbeat_interval=HEARTBEAT_S,
            failed_trial_callback=RetryFailedTrialCallback(max_retry=RETRIES),
        )
    except Exception as error:  # drivers raise types of their own
        raise ConfigError(f"--storage: {url.split('@')[-1]!r} cannot be opened: {error}") from error


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


def give_up_stale(study: optuna.Study) -> int:
    """Fail the trials that a killed session left running, and queue their settings again; how many."""
    stale = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    for trial in stale:
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return len(stale)
