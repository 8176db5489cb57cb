"""The learned table as a picture: the best choice of every state, and what it gains over no change.

Two axes of the table span a map; the dial's cheapest, middle and safest bins are three columns of maps; of
any other axis the bin that was seen most is shown, and named in the title.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm, TwoSlopeNorm
from matplotlib.figure import Figure

from training.qlearning.states import PREFERENCE
from training.qlearning.table import Table

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]
UNSEEN = "0.8"


def save_heat_map(table: Table, path: Path, rows: int | None = None, columns: int | None = None) -> Path:
    """Draw the table into a PNG file; rows, columns: the axes that span it (default: the two with most bins).

    Returns the path.
    """
    figure = heat_map(table, *_spanning(table, rows, columns))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path


def heat_map(table: Table, rows: int, columns: int | None) -> Figure:
    """Best choices above, their advantages below, a column of maps for each of a few bins of the dial."""
    dial = table.states.axis(PREFERENCE)
    bins = [0] if dial is None else sorted({0, table.states.shape[dial] // 2, table.states.shape[dial] - 1})
    cells = table.states.shape[rows]
    figure = Figure(figsize=(1.5 + 5.0 * len(bins), 2.4 + 2 * (0.8 + 0.3 * cells)), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(2, len(bins), squeeze=False)
    fixed = _most_seen(table, rows, columns, dial)
    slices = [_Slice(table, rows, columns, dial, bin_, fixed) for bin_ in bins]
    limit = max(float(np.nanmax(np.where(one.seen, one.gain, 0.0))) for one in slices)
    for place, one in enumerate(slices):
        choices = _draw_choices(axes[0, place], one, place == 0)
        gains = _draw_gains(axes[1, place], one, place == 0, limit)
    figure.colorbar(choices, ax=axes[0], label=_choice_unit(table), shrink=0.9)
    figure.colorbar(gains, ax=axes[1], label=f"gain over {_alternative(table)}, return", shrink=0.9)
    named = ", ".join(
        f"{axis.title}: {axis.labels[fixed[place]]}" for place, axis in _others(table, rows, columns, dial)
    )
    figure.suptitle("The learned table" + (f" at {named}" if named else ""), fontsize=12)
    return figure


class _Slice:
    """The part of a table that one map shows, arrays `[rows, columns]`."""

    def __init__(
        self, table: Table, rows: int, columns: int | None, dial: int | None, bin_: int, fixed: dict[int, int]
    ) -> None:
        states = table.states
        place: list[Any] = [fixed.get(axis, 0) for axis in range(len(states.axes))]
        place[rows] = slice(None)
        if columns is not None:
            place[columns] = slice(None)
        if dial is not None:
            place[dial] = bin_
        turned = columns is not None and columns < rows

        def cut(values: Any) -> Any:
            part = np.asarray(values).reshape(states.shape)[tuple(place)]
            part = part if columns is not None else part[:, None]
            return part.T if turned else part

        values = table.mean
        self.best = cut(table.best)
        self.shown = table.sizes[self.best]
        self.seen = cut(table.updates) > 0
        self.gain = cut(values.max(axis=1) - _compared(table, values))
        self.names = np.array(table.short_choices)[self.best]
        self.rows, self.columns = states.axes[rows], None if columns is None else states.axes[columns]
        self.title = "" if dial is None else f"{PREFERENCE} {states.levels()[bin_]:.0f}"


def _compared(table: Table, values: FloatArray) -> FloatArray:
    """Value `[S]` of what the best choice is compared with: no change, else the mean choice."""
    still = table.no_change
    return np.asarray(values.mean(axis=1) if still is None else values[:, still])


def _alternative(table: Table) -> str:
    return "the mean choice" if table.no_change is None else "no change"


def _draw_choices(axis: Axes, one: _Slice, labelled: bool) -> Any:
    extent = float(np.abs(one.shown).max()) or 1.0
    colours = np.ma.masked_where(~one.seen, one.shown)
    image = axis.imshow(
        colours, cmap="RdBu_r", norm=TwoSlopeNorm(0.0, -extent, extent), aspect="auto", origin="lower"
    )
    for (row, column), name in np.ndenumerate(one.names):
        strong = abs(one.shown[row, column]) > 0.6 * extent and one.seen[row, column]
        text = name if one.seen[row, column] else "never seen"
        colour = "white" if strong else "0.15"
        axis.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    axis.set_title(f"best choice, {one.title}" if one.title else "best choice", fontsize=10)
    _axes(axis, one, labelled)
    return image


def _draw_gains(axis: Axes, one: _Slice, labelled: bool, limit: float) -> Any:
    image = axis.imshow(
        np.ma.masked_where(~one.seen, one.gain), cmap="viridis", norm=PowerNorm(0.4, 0.0, max(limit, 1e-9)),
        aspect="auto", origin="lower",
    )  # fmt: skip
    for (row, column), gain in np.ndenumerate(one.gain):
        if one.seen[row, column]:
            dark = gain < 0.25 * limit
            axis.text(column, row, f"{gain:.2f}", ha="center", va="center", fontsize=7,
                      color="white" if dark else "black")  # fmt: skip
    axis.set_title(f"advantage, {one.title}" if one.title else "advantage", fontsize=10)
    _axes(axis, one, labelled)
    return image


def _axes(axis: Axes, one: _Slice, labelled: bool) -> None:
    axis.set_facecolor(UNSEEN)
    axis.set_yticks(range(one.rows.bins), one.rows.labels if labelled else [], fontsize=8)
    if labelled:
        axis.set_ylabel(one.rows.title, fontsize=8)
    if one.columns is None:
        axis.set_xticks([])
        return
    axis.set_xticks(range(one.columns.bins), one.columns.labels, fontsize=8, rotation=35, ha="right")
    axis.set_xlabel(one.columns.title, fontsize=8)


def _choice_unit(table: Table) -> str:
    return "change of servers" if table.head.schema == "relative-change/v1" else "log headroom over the load"


def _spanning(table: Table, rows: int | None, columns: int | None) -> tuple[int, int | None]:
    """The axes of the maps: those asked for, else those with the most bins, the dial apart."""
    if rows is not None:
        return rows, columns
    dial = table.states.axis(PREFERENCE)
    places = sorted(set(range(len(table.states.axes))) - {dial}, key=lambda place: -table.states.shape[place])
    if not places:
        return 0, None
    return places[0], places[1] if len(places) > 1 else None


def _others(table: Table, rows: int, columns: int | None, dial: int | None) -> list[tuple[int, Any]]:
    shown = {rows, columns, dial}
    return [(place, axis) for place, axis in enumerate(table.states.axes) if place not in shown]


def _most_seen(table: Table, rows: int, columns: int | None, dial: int | None) -> dict[int, int]:
    """The bin that was updated most, of each axis that no map shows."""
    counts = table.updates.reshape(table.states.shape)
    found = {}
    for place, _ in _others(table, rows, columns, dial):
        rest = tuple(other for other in range(counts.ndim) if other != place)
        found[place] = int(counts.sum(axis=rest).argmax())
    return found
