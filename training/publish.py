"""The end of a run: artifact, card and plots. `train.py` and `export.py` are the callers."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from training.actions import make_head
from training.artifact import Provenance, export_policy, read_metadata
from training.runs import Checkpoint, RunFolder, git_commit, read_metrics, versions

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
    )


def publish(run: RunFolder, model: BaseAlgorithm, checkpoint: Checkpoint) -> float:
    """Write policy.onnx and card.json; the largest difference between graph and model."""
    head = make_head(run.preset().action)
    difference = export_policy(model, head, provenance(run, checkpoint), run.artifact)
    run.write_card(_card(run, difference))
    return difference


def _card(run: RunFolder, difference: float) -> dict[str, Any]:
    rows = read_metrics(run.metrics)
    content = read_metadata(run.artifact.read_bytes())
    content["size_bytes"] = run.artifact.stat().st_size
    content["parity"] = difference
    content["last_training_row"] = {
        key: value for key, value in (rows[-1] if rows else {}).items() if value == value
    }
    return content
