"""The state on disk: jobs, totals, servers and the scheduler's memory in one SQLite file.

One thread owns the connection. Whoever saves waits until it is on disk; all who wait at the same time share
one transaction, so that many requests cost one fsync. Nothing is acknowledged before (`engine.Engine`).
The file is held exclusively: a second process is refused.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.errors import StateError
from service.flags import MEMORY
from service.jobs import COLUMNS, Job, row_of
from service.totals import COLUMNS as TOTALS_COLUMNS
from service.totals import Totals

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x524C5343  # "RLSC"
SCHEMA_VERSION = 1
RETRY_S = 1.0
"""After a write that failed."""
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, cpu REAL NOT NULL, memory REAL NOT NULL,
    estimate_s REAL NOT NULL, strategy TEXT NOT NULL, submitted_s REAL NOT NULL, status TEXT NOT NULL,
    server TEXT, started_s REAL, ended_s REAL, ended_by TEXT, reason TEXT NOT NULL
);
CREATE INDEX jobs_by_status ON jobs (status) WHERE status IN ('running', 'queued');
CREATE TABLE totals (
    strategy TEXT PRIMARY KEY, came INTEGER NOT NULL, rejected INTEGER NOT NULL, withdrawn INTEGER NOT NULL,
    finished INTEGER NOT NULL, slowdown_sum REAL NOT NULL, wait_sum_s REAL NOT NULL,
    longest_wait_s REAL NOT NULL, cpu_s REAL NOT NULL
) WITHOUT ROWID;
"""
_PUT_JOB = f"INSERT OR REPLACE INTO jobs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
_PUT_TOTALS = (
    f"INSERT OR REPLACE INTO totals (strategy, {', '.join(TOTALS_COLUMNS)}) "
    f"VALUES ({', '.join('?' * (1 + len(TOTALS_COLUMNS)))})"
)


@dataclass
class Kept:
    """What was read from the file. epoch_s: unix time at which the cluster's clock began; 0 in a new file."""

    epoch_s: float = 0.0
    next_id: int = 1
    memory: dict[str, Any] = field(default_factory=dict)
    active: list[Job] = field(default_factory=list)
    totals: dict[str, Totals] = field(default_factory=dict)


@dataclass
class _Batch:
    """What is to be written: rows by key, so that only the last state of each is."""

    jobs: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    totals: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    meta: dict[str, str] = field(default_factory=dict)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)


class Store:
    """One state file. Raises StateError for one that is another program's, newer, or in use."""

    def __init__(self, path: str, keep_jobs: int = 100_000) -> None:
        self.path, self.keep_jobs = path, keep_jobs
        self.problem: str | None = None
        """Why the last write failed; None when all is well."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._batch = _Batch()
        self._writing: asyncio.Task[None] | None = None
        self._connection = self._thread.submit(_opened, path).result()

    def read(self) -> Kept:
        """All that is needed to go on."""
        return self._thread.submit(_read, self._connection).result()

    def save(
        self, jobs: Sequence[Job], totals: Mapping[str, Totals], meta: Mapping[str, Any]
    ) -> asyncio.Future[None]:
        """Write soon; the future is done when it is on disk, or fails with StateError (and what was to be
        written stays to be tried again)."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        batch = self._batch
        batch.jobs |= {job.id: row_of(job) for job in jobs}
        batch.totals |= {
            name: (name, *(getattr(one, column) for column in TOTALS_COLUMNS)) for name, one in totals.items()
        }
        batch.meta |= {key: json.dumps(value) for key, value in meta.items()}
        batch.waiting.append(done)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="state")
        return done

    async def job(self, number: int) -> Job | None:
        """A job that is on disk."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, _job, self._connection, number)

    async def close(self) -> None:
        """Write what is left and close the file."""
        if self._writing is not None and self.problem is None:
            await asyncio.wait([self._writing])
        elif self._writing is not None:
            self._writing.cancel()
        self.abandon()

    def abandon(self) -> None:
        """Close the file at once."""
        self._thread.submit(self._connection.close).result()
        self._thread.shutdown()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._batch.waiting or self._batch.jobs:
            batch, self._batch = self._batch, _Batch()
            try:
                await loop.run_in_executor(self._thread, _commit, self._connection, batch, self.keep_jobs)
            except sqlite3.Error as error:
                self._failed(batch, error)
                await asyncio.sleep(RETRY_S)
                continue
            if self.problem is not None:
                logger.info("the state can be written again")
            self.problem = None
            for future in batch.waiting:
                if not future.done():
                    future.set_result(None)

    def _failed(self, batch: _Batch, error: sqlite3.Error) -> None:
        """Tell those who wait, and keep what was to be written, below what has come since."""
        self.problem = f"the state cannot be written to {self.path}: {error}"
        logger.error("%s", self.problem)
        for future in batch.waiting:
            if not future.done():
                future.set_exception(StateError(self.problem))
        newer, self._batch = self._batch, batch
        batch.waiting = newer.waiting
        batch.jobs |= newer.jobs
        batch.totals |= newer.totals
        batch.meta |= newer.meta


def _opened(path: str) -> sqlite3.Connection:
    if path != MEMORY:
        folder = Path(path).expanduser().resolve().parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(f"--state: {path!r} is not allowed, {folder} cannot be made: {error}") from error
    try:
        where = path if path == MEMORY else str(Path(path).expanduser())
        connection = sqlite3.connect(where, timeout=0.5, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        _set_up(connection, path)
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        reason = "another process has it open" if "locked" in str(error) else str(error)
        raise StateError(f"--state: {path!r} cannot be used: {reason}") from error
    return connection


def _set_up(connection: sqlite3.Connection, path: str) -> None:
    """Make the tables of a new file; refuse one that is not ours."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application, version, tables) == (0, 0, 0):
        for statement in _SCHEMA.split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    elif application != APPLICATION_ID:
        raise StateError(f"--state: {path!r} is not allowed, it is another program's database")
    elif version != SCHEMA_VERSION:
        raise StateError(
            f"--state: {path!r} has schema version {version}, this version reads {SCHEMA_VERSION}; "
            "use the version that wrote it, or a new file"
        )


def _read(connection: sqlite3.Connection) -> Kept:
    meta = {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM meta")}
    chosen = f"SELECT {', '.join(COLUMNS)} FROM jobs WHERE status IN ('running', 'queued') ORDER BY id"
    (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM jobs").fetchone()
    totals = connection.execute(f"SELECT strategy, {', '.join(TOTALS_COLUMNS)} FROM totals")
    return Kept(
        float(meta.get("epoch_s", 0.0)),
        max(last + 1, int(meta.get("next_id", 1))),
        meta.get("memory", {}),
        [Job(*row) for row in connection.execute(chosen)],
        {name: Totals(*values) for name, *values in totals},
    )


def _job(connection: sqlite3.Connection, number: int) -> Job | None:
    row = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM jobs WHERE id = ?", (number,)).fetchone()
    return None if row is None else Job(*row)


def _commit(connection: sqlite3.Connection, batch: _Batch, keep_jobs: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany(_PUT_JOB, batch.jobs.values())
        connection.executemany(_PUT_TOTALS, batch.totals.values())
        connection.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", batch.meta.items())
        if batch.jobs:
            # the oldest that are gone; their sums stay in totals
            oldest = max(batch.jobs) - keep_jobs
            connection.execute(
                "DELETE FROM jobs WHERE id <= ? AND status NOT IN ('running', 'queued')", (oldest,)
            )
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
