"""Pictures of a run and of an evaluation, as PNG files; matplotlib without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

if TYPE_CHECKING:
    from training.tasks import Column

OF_ALGORITHMS = {
    "explained_variance": "critic's explained variance",
    "entropy_loss": "entropy loss",
    "approx_kl": "approximate KL divergence",
    "loss": "loss",
    "actor_loss": "actor's loss",
    "critic_loss": "critic's loss",
    "exploration_rate": "share of random choices",
    "steps_per_s": "steps/s",
}


def plot_learning_curves(
    rows: Sequence[dict[str, float]], folder: Path, shown: Sequence[Column] = ()
) -> Path:
    """Draw the metrics rows into `folder`/learning_curves.png: each curve with its running mean.

    shown: the task's columns, between the reward and those of algorithms.
    """
    of_task = {column.name: column.title for column in shown}
    curves = {"reward": "mean reward a control step", **of_task, **OF_ALGORITHMS}
    names = [name for name in curves if rows and any(np.isfinite(row.get(name, np.nan)) for row in rows)]
    columns = 2
    figure, axes = plt.subplots(
        -(-len(names) // columns) or 1, columns, figsize=(11, 2.6 * max(len(names), 2) / 2)
    )
    steps = np.array([row["timesteps"] for row in rows])
    for axis, name in zip(np.ravel(axes), names, strict=False):
        _curve(axis, steps, np.array([row.get(name, np.nan) for row in rows]), curves[name])
    for axis in np.ravel(axes)[len(names) :]:
        axis.set_visible(False)
    path = folder / "learning_curves.png"
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _curve(axis: Axes, steps: np.ndarray, values: np.ndarray, title: str) -> None:
    known = np.isfinite(values)
    # what is measured now and then is a line from point to point
    axis.plot(
        steps[known], values[known], color="0.75", linewidth=0.8, marker="." if known.mean() < 0.5 else ""
    )
    width = max(1, len(values) // 25)
    if known.sum() > width and known.mean() >= 0.5:
        weights = np.convolve(known, np.ones(width), "valid")
        means = np.convolve(np.where(known, values, 0.0), np.ones(width), "valid") / np.maximum(weights, 1)
        axis.plot(steps[width - 1 :], means, color="tab:blue", linewidth=1.6)
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("steps", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)
