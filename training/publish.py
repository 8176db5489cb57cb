"""Where a policy comes from, as its artifact says it. Tasks and `export.py` call this."""

from __future__ import annotations

from training.artifact import Provenance
from training.runs import Checkpoint, RunFolder, git_commit, versions
from training.sitting import run_traces
from training.stamps import Stamp

VERSION = "1"


def provenance(run: RunFolder, checkpoint: Checkpoint, name: str | None = None) -> Provenance:
    """Where the checkpoint's policy comes from, by what the run folder recorded."""
    preset = run.preset()
    return Provenance(
        name=name or preset.name,
        version=VERSION,
        command=" && ".join(run.commands()),
        seed=int(checkpoint.read_state()["seed"]),
        git_commit=git_commit(),
        timesteps=checkpoint.timesteps,
        workloads=preset.workloads,
        versions=versions(),
        traces=run_traces(run),
    )


def provenance_of(stamp: Stamp, timesteps: int, name: str | None = None) -> Provenance:
    """The same for a model without its run folder, by what its stamp says."""
    preset = stamp.settings()
    return Provenance(
        name=name or preset.name,
        version=VERSION,
        command=" && ".join(stamp.commands),
        seed=stamp.seed,
        git_commit=stamp.git_commit,
        timesteps=timesteps,
        workloads=preset.workloads,
        versions=stamp.versions,
        traces=stamp.traces,
    )
