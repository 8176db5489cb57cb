"""The replays of an evaluation, cut into parts: in several processes, and kept on disk part by part.

A part is one contestant, with all its settings, on some windows and arrival seeds: ten seconds of work or
so. Which parts there are depends on what is compared alone, so the results are the same for any number of
processes and after any interruption. A finished part is kept in the cache folder under the digest of
everything that decides it (`Part.key`); the same command again reads it from there. `comparison.py` is the
caller.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import signal
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from sim.replay import EngineName, Protocol, Window
from training.contestants import Contestant, Sweep, contestant
from training.frontier import FIGURES, FloatArray, Outcomes

ROWS_AT_ONCE = 600
"""Services that a part simulates side by side: many enough for speed, few enough to lose little."""
FORMAT = 1
CODE = ("controller/core", "controller/policies", "sim")
NOT_CODE = tuple(
    f"sim/{name}"
    for name in ("demo", "twin", "requests", "loaders", "envs", "pool", "scenario", "workloads", "traceinfo")
)
"""Parts of CODE that make traffic, whose numbers are in the key, or that a replay has no use for."""
LIBRARIES = ("numpy", "numba", "onnxruntime")
Figures = dict[str, FloatArray]
Advance = Callable[[str, int], None]


@dataclass(frozen=True)
class Setup:
    """What all parts share."""

    protocol: Protocol
    sweep: Sweep
    engine: EngineName = "fused"
    jobs: int = 2
    """Processes; 1 is this one."""
    cache: Path | None = None
    """Where finished parts are kept; None keeps none."""
    seed: int = 0
    """The first arrival seed, which timelines show."""


@dataclass(frozen=True)
class Part:
    """One contestant on some cases: windows, each with an arrival seed."""

    policy: str
    digest: str
    windows: tuple[Window, ...]
    seeds: tuple[int, ...]
    cases: tuple[int, ...]
    """Where the cases belong among all (window x seed)."""

    def key(self, setup: Setup) -> str:
        """sha256 (hex) over all that decides the result: code, settings, policy, windows, seeds."""
        content = [
            FORMAT,
            code_digest(),
            repr(setup.protocol),
            repr(setup.sweep),
            setup.engine,
            self.policy,
            self.digest,
            [(window.name, window.digest) for window in self.windows],
            self.seeds,
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True)
class Round:
    """Contestants on windows under a setup of their own; an evaluation may play several."""

    names: tuple[str, ...]
    windows: tuple[Window, ...]
    setup: Setup


@dataclass(frozen=True)
class _Piece:
    """A part and where it belongs."""

    number: int
    place: int
    """Among the round's contestants: two runs begun in one second have one label."""
    label: str
    part: Part
    setup: Setup


def play_all(
    names: Sequence[str], windows: Sequence[Window], seeds: Sequence[int], setup: Setup, advance: Advance
) -> list[Outcomes]:
    """Outcomes `[S, W, K]` of every contestant; `advance(label, cases)` is told what has been done.

    On Ctrl-C the parts under way are finished and kept, then KeyboardInterrupt is raised.
    """
    one = Round(tuple(names), tuple(windows), setup)
    return play_rounds([one], seeds, setup.jobs, lambda _, label, cases: advance(label, cases))[0]


def play_rounds(
    rounds: Sequence[Round], seeds: Sequence[int], jobs: int, advance: Callable[[int, str, int], None]
) -> list[list[Outcomes]]:
    """The same for each of several rounds, whose parts share `jobs` processes.

    `advance(round, label, cases)`.
    """
    contestants = [
        [contestant(name, one.setup.sweep, one.setup.protocol) for name in one.names] for one in rounds
    ]
    pieces = [
        _Piece(number, place, made.name, part, one.setup)
        for number, one in enumerate(rounds)
        for place, (name, made) in enumerate(zip(one.names, contestants[number], strict=True))
        for part in split(name, made, one.windows, seeds)
    ]
    found: list[list[Figures]] = [
        [_empty(made, len(one.windows) * len(seeds)) for made in contestants[number]]
        for number, one in enumerate(rounds)
    ]
    for piece, figures in _played(pieces, jobs):
        for figure, values in figures.items():
            found[piece.number][piece.place][figure][:, list(piece.part.cases)] = values
        advance(piece.number, piece.label, len(piece.part.cases))
    return [
        [
            _outcomes(made, figures, len(seeds))
            for made, figures in zip(contestants[number], found[number], strict=True)
        ]
        for number in range(len(rounds))
    ]


def _outcomes(made: Contestant, figures: Figures, seeds: int) -> Outcomes:
    names = tuple(setting.name for setting in made.settings)
    shaped = {figure: values.reshape(len(names), -1, seeds) for figure, values in figures.items()}
    return Outcomes(made.name, names, **shaped)


def split(name: str, one: Contestant, windows: Sequence[Window], seeds: Sequence[int]) -> list[Part]:
    """The parts of a contestant: cases by falling length, so that those which run together end together."""
    cases = [(w, k) for w in range(len(windows)) for k in range(len(seeds))]
    cases.sort(key=lambda case: -windows[case[0]].trace.duration_s)
    size = max(1, ROWS_AT_ONCE // len(one.settings))
    count = -(-len(cases) // size)
    return [
        Part(
            name,
            one.digest,
            tuple(windows[w] for w, _ in chunk),
            tuple(seeds[k] for _, k in chunk),
            tuple(w * len(seeds) + k for w, k in chunk),
        )
        for chunk in (cases[index * len(cases) // count : (index + 1) * len(cases) // count]
                      for index in range(count))
    ]  # fmt: skip


def play(part: Part, setup: Setup) -> Figures:
    """The part's figures `[S, cases]`, from the cache or made now and put there."""
    path = _kept_at(part, setup)
    kept = _read(path)
    if kept is not None:
        return kept
    one = _contestant(part, setup)
    result = one.replay(part.windows, setup.protocol, part.seeds, setup.engine)
    figures = {name: np.asarray(getattr(result, name)) for name in FIGURES}
    if path is not None:
        _write(path, figures)
    return figures


def _kept_at(part: Part, setup: Setup) -> Path | None:
    return None if setup.cache is None else setup.cache / f"{part.key(setup)}.npz"


@lru_cache(maxsize=1)
def code_digest() -> str:
    """sha256 (hex) of the source files and library versions that a replay's numbers can depend on."""
    root = Path(__file__).resolve().parents[1]
    files = [path for folder in CODE for path in sorted((root / folder).rglob("*.py"))]
    files += [root / "training" / "contestants.py"]
    content = hashlib.sha256()
    for path in files:
        name = path.relative_to(root).as_posix()
        if not name.startswith(NOT_CODE):
            content.update(name.encode() + b"\0" + path.read_bytes())
    content.update(json.dumps({name: importlib.metadata.version(name) for name in LIBRARIES}).encode())
    return content.hexdigest()


def _played(pieces: Sequence[_Piece], jobs: int) -> Iterator[tuple[_Piece, Figures]]:
    """Each piece's figures: those kept at once, the others as they get ready."""
    waiting: list[_Piece] = []
    for piece in pieces:
        kept = _read(_kept_at(piece.part, piece.setup))
        if kept is None:
            waiting.append(piece)
        else:
            yield piece, kept
    if jobs == 1 or len(waiting) <= 1:
        for piece in waiting:
            yield piece, play(piece.part, piece.setup)
        return
    yield from _in_processes(waiting, jobs)


def _in_processes(pieces: Sequence[_Piece], jobs: int) -> Iterator[tuple[_Piece, Figures]]:
    # a forked child would inherit ONNX Runtime's and numba's threads half-way
    pool = ProcessPoolExecutor(min(jobs, len(pieces)), get_context("spawn"), initializer=_ignore_interrupts)
    queue = iter(pieces)
    running: dict[Future[Figures], _Piece] = {}
    try:
        for piece in queue:
            running[pool.submit(play, piece.part, piece.setup)] = piece
            if len(running) == jobs:
                yield from _finished(running)
        while running:
            yield from _finished(running)
    finally:
        # no more than the parts under way were handed out: they are finished and kept
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(running: dict[Future[Figures], _Piece]) -> Iterator[tuple[_Piece, Figures]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        yield running.pop(future), future.result()


def _ignore_interrupts() -> None:
    """Ctrl-C goes to the whole process group; only the parent acts on it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


_CONTESTANTS: dict[tuple[str, str, str], Contestant] = {}


def _contestant(part: Part, setup: Setup) -> Contestant:
    """Made once a process: reading an artifact runs a trial of it."""
    key = (part.policy, part.digest, repr((setup.sweep, setup.protocol)))
    if key not in _CONTESTANTS:
        _CONTESTANTS[key] = contestant(part.policy, setup.sweep, setup.protocol)
    return _CONTESTANTS[key]


def _empty(one: Contestant, cases: int) -> Figures:
    return {name: np.full((len(one.settings), cases), np.nan) for name in FIGURES}


def _read(path: Path | None) -> Figures | None:
    """What was kept there, if it is whole."""
    if path is None or not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            return {name: kept[name] for name in FIGURES}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path, figures: dict[str, Any]) -> None:
    """All or nothing: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **figures)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
