"""The dashboard of a Q-learning run: how it drives a service now, and how it has learned. One figure.

Drawn into a PNG by `save_dashboard`, and into an open window (`training.qlearning.window`) by `draw`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.qlearning.showcase import PREFERENCE, Showcase, Story

FloatArray = npt.NDArray[np.floating]
SIZE = (13.0, 8.5)
BUSY = 0.9
"""Utilisation above which the picture is shaded: what waits there grows quickly."""
SMOOTH = 25
"""Points of the learning curves: each is the mean of a stretch of episodes."""


def save_dashboard(story: Story, path: Path) -> Path:
    """Draw the dashboard into a PNG file; its path."""
    figure = Figure(figsize=SIZE)
    FigureCanvasAgg(figure)
    draw(figure, story)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path


def draw(figure: Figure, story: Story) -> None:
    """Draw into a figure, over whatever is in it."""
    figure.clear()
    axes: Any = figure.subplots(4, 2, gridspec_kw={"width_ratios": [2.2, 1.0]})
    _draw_showcase(axes[:, 0], story.showcase)
    _draw_learning(axes[:, 1], story)
    episodes = len(story.episodes["return"])
    figure.suptitle(
        f"Q-learning after {episodes:,} episodes   "
        f"(left: one service at preference {PREFERENCE:g}, best choices only; right: training, exploring)",
        fontsize=11,
    )
    figure.tight_layout(rect=(0, 0, 1, 0.98))


def _draw_showcase(axes: Any, shown: Showcase) -> None:
    _utilisation(axes[0], shown)
    _servers(axes[1], shown)
    axes[2].plot(shown.hours, shown.reward, color="C4", linewidth=0.9)
    _label(axes[2], f"reward a control step (mean {shown.reward.mean():.2f})", "reward")
    _actions(axes[3], shown)
    axes[3].set_xlabel("hours", fontsize=9)
    for axis in axes:
        axis.set_xlim(0, shown.hours[-1])


def _utilisation(axis: Axes, shown: Showcase) -> None:
    percent = 100.0 * shown.utilisation
    axis.plot(shown.hours, percent, color="C0", linewidth=1.0)
    axis.fill_between(shown.hours, 100.0 * BUSY, percent, where=percent > 100.0 * BUSY, color="C3", alpha=0.5)
    axis.axhline(100.0 * BUSY, color="C3", linewidth=0.8, linestyle="--")
    axis.set_ylim(0, 105)
    _label(axis, f"CPU utilisation (mean {np.nanmean(percent):.0f} %)", "%")


def _servers(axis: Axes, shown: Showcase) -> None:
    axis.fill_between(shown.hours, shown.load, color="0.85", label="needed by the traffic")
    axis.plot(shown.hours, shown.desired, color="C1", linewidth=0.9, label="asked for")
    axis.plot(shown.hours, shown.ready, color="C2", linewidth=1.3, label="ready")
    axis.set_ylim(0, 1.35 * max(float(shown.desired.max()), float(shown.load.max())))
    axis.legend(fontsize=7, loc="upper right", ncols=3, framealpha=0.6)
    _label(
        axis, f"servers (mean {shown.ready.mean():.1f} ready for {shown.load.mean():.1f} needed)", "servers"
    )


def _actions(axis: Axes, shown: Showcase) -> None:
    change = shown.desired - np.concatenate([shown.desired[:1], shown.desired[:-1]])
    colours = np.where(change > 0, "C3", np.where(change < 0, "C0", "0.6"))
    axis.scatter(shown.hours, shown.choice, s=6, c=list(colours), linewidths=0)
    shown_rows = range(0, len(shown.choices), max(1, len(shown.choices) // 10))
    axis.set_yticks(list(shown_rows), [shown.choices[row] for row in shown_rows])
    axis.set_ylim(-0.5, len(shown.choices) - 0.5)
    _label(axis, "action chosen (red: servers added, blue: removed)", "")
    axis.tick_params(axis="y", labelsize=7)


def _draw_learning(axes: Any, story: Story) -> None:
    episodes = story.episodes
    rewards = "return", "return of an episode", "C4"
    costs = "cost", "cost over the ideal", "C2"
    for axis, (name, title, colour) in zip(axes[:2], (rewards, costs), strict=True):
        _curve(axis, episodes[name], colour)
        _label(axis, title, "")
    _curve(axes[2], 100.0 * episodes["violation"], "C3")
    _label(axes[2], "requests over the objective", "%")
    explored = episodes["exploration_rate"]
    axes[3].plot(np.arange(1, len(explored) + 1), 100.0 * explored, color="0.3")
    axes[3].set_ylim(0, 105)
    _label(axes[3], "choices at random (epsilon)", "%")
    axes[3].set_xlabel("episodes", fontsize=9)


def _curve(axis: Axes, values: FloatArray, colour: str) -> None:
    """Means over stretches of episodes, with the middle half of each shaded."""
    if len(values) == 0:
        return
    parts = np.array_split(np.arange(len(values)), min(SMOOTH, len(values)))
    ends = np.array([part[-1] + 1 for part in parts])
    low, high = (np.array([np.quantile(values[part], share) for part in parts]) for share in (0.25, 0.75))
    axis.fill_between(ends, low, high, color=colour, alpha=0.2, linewidth=0)
    axis.plot(ends, [values[part].mean() for part in parts], color=colour, linewidth=1.5)


def _label(axis: Axes, title: str, unit: str) -> None:
    axis.set_title(title, fontsize=9, loc="left")
    axis.set_ylabel(unit, fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)
