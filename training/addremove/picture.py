"""The comparison of `training/discrete.py` as a picture: cost, overloads and stability over violations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from training.frontier import pareto

if TYPE_CHECKING:
    from training.addremove.table import Family

LEAST_SHOWN = 1e-4
COLOURS = ("0.2", "C0", "C3", "C1", "C2", "C4", "C5", "C6", "C8", "C9")


def save_picture(families: Sequence[Family], path: Path) -> Path:
    """Draw the comparison into a PNG file; its path."""
    figure = Figure(figsize=(13, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(1, 3)
    for family, colour in zip(families, COLOURS * len(families), strict=False):
        for seed, one in enumerate(family.played):
            order = pareto(one.cost, one.violation)
            missed = 100.0 * np.maximum(one.violation[order], LEAST_SHOWN)
            label = family.name if seed == 0 else None
            for axis, values in zip(axes, (one.cost, one.overloads, one.changes), strict=True):
                axis.plot(missed, values[order], color=colour, marker=".", lw=1.3, alpha=0.8, label=label)
    titles = ("cost over the ideal", "overload events a day", "changes of direction an hour")
    for axis, title in zip(axes, titles, strict=True):
        _finish(axis, title)
    axes[0].set_yscale("log")
    axes[0].set_yticks([1.5, 2, 3, 4, 6, 8], ["1.5", "2", "3", "4", "6", "8"])
    axes[0].minorticks_off()
    axes[0].legend(fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path


def _finish(axis: Axes, title: str) -> None:
    axis.set_xscale("log")
    axis.set_xlim(100 * LEAST_SHOWN, 30)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_xlabel("violations, % of requests (a line for each training seed)", fontsize=9)
    axis.set_title(title, fontsize=10)
    axis.grid(alpha=0.3)
