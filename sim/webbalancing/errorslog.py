"""errors.log: what goes wrong with real servers is written down and counted, and never ends a run.

A server that has died says the same thing hundreds of times a second: of each kind and server one line a
second is written, which tells how many like it were left out. `sim.webbalancing.real` is the caller.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

EVERY_S = 1.0


class ErrorsLog:
    """Counts errors by kind, and writes them to a file once there is one. Any thread may note.

    counts: how often each kind was noted. clock: seconds, for the lines a second.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[str] = Counter()
        self._clock, self._lock = clock, threading.Lock()
        self._path: Path | None = None
        self._kept: list[str] = []
        self._written: dict[tuple[str, str], float] = {}
        self._left_out: Counter[tuple[str, str]] = Counter()

    @property
    def total(self) -> int:
        """How many errors were noted, those left out of the file included."""
        return sum(self.counts.values())

    def write_to(self, path: Path) -> None:
        """Append to a file from now on, first what was noted before; it is made if it is not there."""
        with self._lock:
            self._path, kept, self._kept = path, self._kept, []
            self._append("".join(kept))

    def note(self, kind: str, server: str, error: object) -> None:
        """One error: of what kind (scrape, request, control, process), of which server, and what was said."""
        with self._lock:
            self.counts[kind] += 1
            key, now = (kind, server), self._clock()
            if now - self._written.get(key, -EVERY_S) < EVERY_S:
                self._left_out[key] += 1
                return
            self._written[key] = now
            more = self._left_out.pop(key, 0)
            said = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error)
            said = " ".join(said.split())
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
            repeated = f" ({more} more like the last)" if more else ""
            line = f"{stamp}Z {kind} {server}: {said}{repeated}\n"
            if self._path is None:
                self._kept.append(line)
            else:
                self._append(line)

    def _append(self, text: str) -> None:
        assert self._path is not None
        # a full disk must not end the run either; the counts still tell
        with contextlib.suppress(OSError), self._path.open("a") as file:
            file.write(text)
