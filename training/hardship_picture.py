"""A robustness test in one picture. `training.hardship` is the caller."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from training.hardship_tables import policies, rows_of
from training.pictures import Look, looks_of
from training.summary import REFERENCES

LOWEST, HIGHEST = 1e-3, 1e2
"""Ratios beyond are drawn at the edge."""


def plot_ratios(report: Mapping[str, Any], path: Path) -> Path:
    """Violations over the HPA's at the cost of three of its settings: a row a condition, with intervals."""
    names, conditions = policies(report), list(report["conditions"])
    looks = looks_of(names)
    figure, axes = plt.subplots(
        1, len(REFERENCES), figsize=(13, 1.6 + 0.34 * len(conditions)), sharey=True, squeeze=False
    )
    for axis, reference in zip(axes[0], REFERENCES, strict=True):
        for place, name in enumerate(names):
            offset = 0.5 * ((place + 0.5) / len(names) - 0.5)
            for row, (_, level) in enumerate(rows_of(report, name, reference)):
                _point(axis, row + offset, level, looks[name])
        axis.axvline(1.0, color="0.2", linewidth=1)
        axis.set_xscale("log")
        axis.set_xlim(LOWEST * 0.8, HIGHEST * 1.2)
        axis.set_title(f"at {reference}'s cost", fontsize=10)
        axis.set_xlabel("mean violations / the HPA's")
        axis.grid(alpha=0.3)
    axes[0][0].set_yticks(range(len(conditions)), conditions)
    axes[0][0].invert_yaxis()
    handles = [Line2D([], [], color=looks[name].colour, marker="o", linewidth=2) for name in names]
    figure.legend(handles, names, loc="lower center", ncol=len(names), frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _point(axis: Axes, row: float, level: Mapping[str, Any] | None, look: Look) -> None:
    if level is None:
        return
    if level["ours"] is None:
        axis.text(HIGHEST, row, "dearer", fontsize=7, color=look.colour, va="center", ha="right")
        return
    low, high = (level["ratio"][end] for end in ("low", "high"))
    span = [_inside(low if low is not None else LOWEST), _inside(high if high is not None else HIGHEST)]
    axis.plot(span, [row, row], color=look.colour, linewidth=2, alpha=0.45)
    ratio = level["ours"] / max(level["theirs"], 1e-6)
    axis.plot([_inside(ratio)], [row], "o", color=look.colour, markersize=4.5)


def _inside(ratio: float) -> float:
    return min(max(ratio, LOWEST), HIGHEST)
