"""Learning curves of any run: one small chart for each column of its metrics.csv that has numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from training.reporting.theme import WIDTH_IN, inline, styled

NOT_CURVES = ("timesteps", "elapsed_s", "updates", "episodes")
COLUMNS = 3
FEW = 12
"""Below so many rows each is a point, and there is no running mean."""
FIRST = ("reward", "cost", "violation", "flaps_per_hour", "cost_at_05", "cost_at_1")
LAST = ("steps_per_s",)
Rows = Sequence[Mapping[str, float]]


def names_of(rows: Rows) -> list[str]:
    """Columns worth a curve: at least two different numbers. The best known come first."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    found = [name for name in columns if name not in NOT_CURVES and len(_numbers(rows, name)) > 1]
    middle = [name for name in found if name not in FIRST + LAST]
    return [*(n for n in FIRST if n in found), *middle, *(n for n in LAST if n in found)]


def learning_curves(rows: Rows, names: Sequence[str], titles: Mapping[str, str]) -> str:
    """These columns over the steps, as one SVG of small charts; grey is each row, blue the running mean."""
    steps = np.array([row["timesteps"] for row in rows])
    count = -(-len(names) // COLUMNS)
    with styled():
        figure, axes = plt.subplots(
            count, COLUMNS, figsize=(WIDTH_IN, 1.75 * count + 0.2), squeeze=False, layout="constrained"
        )
        for axis, name in zip(axes.flat, names, strict=False):
            _curve(
                axis,
                steps,
                np.array([row.get(name, np.nan) for row in rows]),
                titles.get(name, name.replace("_", " ")),
            )
        for axis in list(axes.flat)[len(names) :]:
            axis.set_visible(False)
        return inline(figure, "Learning curves", f"{', '.join(names)} over control steps")


def first_and_last(rows: Rows, names: Sequence[str]) -> list[tuple[str, float, float]]:
    """(name, mean of its first tenth, mean of its last tenth): what the curves say, for a table."""
    found = []
    for name in names:
        values = np.array([row.get(name, np.nan) for row in rows])
        known = values[np.isfinite(values)]
        part = max(1, len(known) // 10)
        found.append((name, float(known[:part].mean()), float(known[-part:].mean())))
    return found


def _curve(axis: Axes, steps: np.ndarray, values: np.ndarray, title: str) -> None:
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    if len(values) < FEW:
        axis.plot(steps, values, color="C0", linewidth=1.4, marker="o", markersize=3)
    else:
        width = max(3, len(values) // 20)
        means = np.convolve(values, np.full(width, 1 / width), "valid")
        axis.plot(steps, values, color="0.6", linewidth=0.8)
        axis.plot(steps[width - 1 :], means, color="C0", linewidth=1.7)
    axis.set_title(title)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axis.yaxis.set_major_locator(MaxNLocator(4))
    axis.margins(x=0.02, y=0.12)


def _numbers(rows: Rows, name: str) -> set[float]:
    return {row[name] for row in rows if name in row and np.isfinite(row[name])}


def _short(value: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"
