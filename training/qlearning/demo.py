"""`train.py --algo qlearning --demo`: train briefly, show the dashboard, and leave nothing behind.

In a window where there is a display; always as a few lines in the terminal.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table as Grid

from sim.envs.render import spark
from training.qlearning.learner import Learner
from training.qlearning.showcase import PREFERENCE, Story, play_showcase
from training.qlearning.window import make_window
from training.sitting import Plan

FloatArray = npt.NDArray[np.floating]
EPISODES = 1024
"""Of the demo, unless `--timesteps` says otherwise."""
BESIDE = 52
"""Columns of the terminal that names and numbers take."""
WIDEST = 80


def demo(plan: Plan) -> int:
    """Train for EPISODES and show what came of it; 0, or 130 after Ctrl-C."""
    learner = Learner(plan.preset, plan.seed)
    if plan.args.timesteps is None:
        steps = EPISODES * learner.choices
        learner = Learner(replace(plan.preset, timesteps=steps), plan.seed)
    console = Console()
    began = time.monotonic()
    try:
        with make_window(True) as window:
            while not learner.finished:
                learner.round()
                if window.due:
                    window.show(_story(learner))
            took_s = time.monotonic() - began
            story = _story(learner)
            window.show(story)
            title = f"{learner.played:,} episodes in {took_s:.1f} s"
            console.print(dashboard(story, title, min(max(console.width - BESIDE, 10), WIDEST)))
            console.print("nothing was saved; without --demo the same is kept in a run folder")
            window.wait()
    except KeyboardInterrupt:
        return 130
    return 0


def dashboard(story: Story, title: str, width: int) -> Grid:
    """The dashboard as a table of spark lines of `width` bars, each from 0 to its largest value."""
    shown = story.showcase
    grid = Grid(title=f"Q-learning: {title}; a service at preference {PREFERENCE:g}", title_justify="left")
    grid.add_column("", no_wrap=True)
    grid.add_column(f"{shown.hours[-1]:.0f} hours, best choices", no_wrap=True)
    grid.add_column("mean", justify="right", no_wrap=True)
    grid.add_column("highest", justify="right", no_wrap=True)
    rows = {
        "CPU utilisation, %": 100.0 * shown.utilisation,
        "servers needed": shown.load,
        "servers ready": shown.ready,
        "actions: asked for": shown.desired,
        "penalty (-reward)": -shown.reward,
        "over the objective, %": 100.0 * shown.violation,
    }
    for name, values in rows.items():
        _add(grid, name, values, width)
    grid.add_section()
    _add(grid, "training: penalty", -story.episodes["return"], width)
    return grid


def _add(grid: Grid, name: str, values: FloatArray, width: int) -> None:
    """A row: means of stretches, then the mean and the highest of all."""
    bars = [float(np.nanmean(part)) for part in np.array_split(values, min(width, len(values)))]
    grid.add_row(name, spark(bars), f"{np.nanmean(values):.1f}", f"{np.nanmax(values):.1f}")


def _story(learner: Learner) -> Story:
    return Story(learner.episodes(), play_showcase(learner.preset, learner.table))
