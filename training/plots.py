"""Pictures of a run and of an evaluation, as PNG files; matplotlib without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

CURVES = {
    "reward": "mean reward a control step",
    "cost": "cost / fluid ideal",
    "violation": "share of requests over the SLO",
    "flaps_per_hour": "changes of direction an hour",
    "explained_variance": "critic's explained variance",
    "entropy_loss": "entropy loss",
    "approx_kl": "approximate KL divergence",
    "steps_per_s": "steps/s",
}


def plot_learning_curves(rows: Sequence[dict[str, float]], folder: Path) -> Path:
    """Draw the metrics rows into `folder`/learning_curves.png: the curve and its running mean."""
    names = [name for name in CURVES if rows and name in rows[0]]
    columns = 2
    figure, axes = plt.subplots(
        -(-len(names) // columns) or 1, columns, figsize=(11, 2.6 * max(len(names), 2) / 2)
    )
    steps = np.array([row["timesteps"] for row in rows])
    for axis, name in zip(np.ravel(axes), names, strict=False):
        _curve(axis, steps, np.array([row[name] for row in rows]), CURVES[name])
    for axis in np.ravel(axes)[len(names) :]:
        axis.set_visible(False)
    path = folder / "learning_curves.png"
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _curve(axis: Axes, steps: np.ndarray, values: np.ndarray, title: str) -> None:
    axis.plot(steps, values, color="0.75", linewidth=0.8)
    width = max(1, len(values) // 25)
    known = np.isfinite(values)
    if known.sum() > width:
        weights = np.convolve(known, np.ones(width), "valid")
        means = np.convolve(np.where(known, values, 0.0), np.ones(width), "valid") / np.maximum(weights, 1)
        axis.plot(steps[width - 1 :], means, color="tab:blue", linewidth=1.6)
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("steps", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)
