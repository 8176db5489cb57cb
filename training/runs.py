"""The run folder: everything that is needed to read, repeat, resume or publish a training run.

    runs/<time>-<algo>-<seed>/
    ├── config.yaml        the preset with its overrides, as used
    ├── command.txt        the exact command lines, one a session: the first, then each resume
    ├── versions.json      Python and library versions, git commit, platform
    ├── schemas.json       what its policy observes and does
    ├── traces.json        the recordings that it is trained on, with their sha256 (with --trace)
    ├── metrics.csv        one row an update
    ├── checkpoints/       <steps>.zip (the model), <steps>.json (seed, counters), the newest's replay buffer
    ├── plots/             learning curves
    ├── tensorboard/       the same as events
    ├── policy.onnx        the artifact
    └── card.json          what the artifact is and how it did

`train.py` writes it, `export.py` and `evaluate.py` read it.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import platform
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.config import Preset, dump_preset, read_preset
from training.errors import RunError

LIBRARIES = (
    "numpy",
    "torch",
    "stable-baselines3",
    "sb3-contrib",
    "gymnasium",
    "numba",
    "onnx",
    "onnxruntime",
)


@dataclass(frozen=True)
class Checkpoint:
    """One saved moment of a run: the model's zip, and beside it what the zip does not hold."""

    model: Path
    timesteps: int

    @property
    def state(self) -> Path:
        """The JSON with the counters."""
        return self.model.with_suffix(".json")

    @property
    def replay_buffer(self) -> Path:
        """What an off-policy algorithm learns from; only the newest checkpoint has it."""
        return self.model.with_suffix(".buffer")

    def read_state(self) -> dict[str, Any]:
        """The counters written with the checkpoint."""
        return dict(json.loads(self.state.read_text()))


class RunFolder:
    """Paths and records of one run; see the module's docstring for what is where."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, out: Path, preset: Preset, seed: int, command: Sequence[str]) -> RunFolder:
        """Make a new folder `<time>-<algo>-<seed>` under `out` and record what the run is."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        base = f"{stamp}-{preset.algo}-{seed}"
        run = cls(_claim(out, base))
        run.checkpoints.mkdir()
        run.plots.mkdir()
        run.config.write_text(dump_preset(preset))
        run.record_command(command)
        (run.path / "versions.json").write_text(json.dumps(versions(), indent=2) + "\n")
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run; raises RunError where `path` is not one."""
        run = cls(path)
        if not path.is_dir():
            raise RunError(f"{path}: no such run folder")
        if not run.config.is_file():
            raise RunError(f"{path}: not a run folder: config.yaml is missing")
        return run

    @property
    def config(self) -> Path:
        """The preset as used."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.path / "checkpoints"

    @property
    def plots(self) -> Path:
        """Where PNGs are."""
        return self.path / "plots"

    @property
    def metrics(self) -> Path:
        """The CSV with one row an update."""
        return self.path / "metrics.csv"

    @property
    def artifact(self) -> Path:
        """The exported policy."""
        return self.path / "policy.onnx"

    @property
    def card(self) -> Path:
        """What the artifact is and how it did."""
        return self.path / "card.json"

    def preset(self, **overrides: Any) -> Preset:
        """The run's settings; `overrides` that are not None win."""
        return read_preset(self.config, **overrides)

    def schemas(self) -> dict[str, Any]:
        """What its policy observes and does, as it was when the run was started; see `training.stamps`."""
        path = self.path / "schemas.json"
        return dict(json.loads(path.read_text())) if path.is_file() else {}

    def commands(self) -> list[str]:
        """The command lines that made the run, oldest first."""
        return (self.path / "command.txt").read_text().splitlines()

    def record_command(self, command: Sequence[str]) -> None:
        """Append the exact command line."""
        with (self.path / "command.txt").open("a") as file:
            file.write(shlex.join(command) + "\n")

    def checkpoint_at(self, timesteps: int) -> Checkpoint:
        """Where the checkpoint of that step is or will be."""
        return Checkpoint(self.checkpoints / f"{timesteps:012d}.zip", timesteps)

    def latest_checkpoint(self) -> Checkpoint:
        """The newest complete checkpoint; raises RunError where there is none."""
        found = [
            Checkpoint(path, int(path.stem)) for path in self.checkpoints.glob("*.zip") if path.stem.isdigit()
        ]
        complete = [checkpoint for checkpoint in found if checkpoint.state.is_file()]
        if not complete:
            raise RunError(f"{self.path}: no checkpoint to continue from; start the run again")
        return max(complete, key=lambda checkpoint: checkpoint.timesteps)

    def write_card(self, card: Mapping[str, Any]) -> None:
        """Write card.json."""
        self.card.write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")


class MetricsFile:
    """`metrics.csv`: one row an update, flushed at once, continued without a gap or a duplicate on resume."""

    def __init__(self, path: Path, resume_at: int = 0) -> None:
        """Open the file; rows beyond `resume_at` steps belong to a session that was lost, and go."""
        self._path = path
        self._fields: list[str] | None = None
        kept = [row for row in read_metrics(path) if row["timesteps"] <= resume_at] if resume_at else []
        self.elapsed_s = kept[-1]["elapsed_s"] if kept else 0.0
        path.unlink(missing_ok=True)
        for row in kept:
            self.write(row)

    def write(self, row: Mapping[str, float]) -> None:
        """Append one row; the first one decides the columns."""
        new = self._fields is None
        self._fields = self._fields or list(row)
        with self._path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self._fields, extrasaction="ignore", restval="")
            if new:
                writer.writeheader()
            writer.writerow({key: f"{value:.9g}" for key, value in row.items()})


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv as numbers; an empty cell is NaN, a missing file no rows."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{key: float(value or "nan") for key, value in row.items()} for row in csv.DictReader(file)]


def versions() -> dict[str, str]:
    """Python, libraries, platform and git commit of this process."""
    found = {name: _version(name) for name in LIBRARIES}
    return {
        "python": platform.python_version(),
        **found,
        "platform": f"{platform.system()} {platform.machine()}",
        "git_commit": git_commit(),
    }


def git_commit() -> str:
    """The checkout's commit, with `-dirty` where tracked files are changed; `unknown` outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True).returncode != 0
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("-dirty" if dirty else "")


def this_command(script: str, arguments: Sequence[str]) -> list[str]:
    """The command line of `training/<script>`, as somebody would type it in the checkout."""
    return ["python", f"training/{script}", *arguments]


def _claim(out: Path, base: str) -> Path:
    """Make the folder, with a number behind it where another run took the same second."""
    for suffix in ["", *(f".{i}" for i in range(2, 100))]:
        path = out / f"{base}{suffix}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise RunError(f"{out}: a hundred runs named {base}; is the clock stuck?")


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
