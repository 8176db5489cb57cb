"""Pictures of a grid: its network with the flows of a step above the last days, or lines of text.

Called by the environment's `render` and by `training/grid.py pictures`. matplotlib is imported when asked
for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.grid.parts import Grid
from sim.grid.scenarios import GridScenario

SIZE_INCHES, DPI = (6.4, 4.8), 100
SHOWN = 72
_BARS = "▁▂▃▄▅▆▇█"
COLOURS = {
    "load": "#444444", "solar": "#f2b705", "wind": "#3ba3d0", "dispatchable": "#a05a2c",
    "storage": "#2e9e5b", "line": "#7d5ba6", "unserved": "#d62728",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GridFrame:
    """One step: powers in kW in the grid's order, stored shares, price, money and time of day."""

    consumers_kw: tuple[float, ...]
    served_kw: tuple[float, ...]
    renewables_kw: tuple[float, ...]
    dispatched_kw: tuple[float, ...]
    storages_kw: tuple[float, ...]
    stored: tuple[float, ...]
    imported_kw: float
    exported_kw: float
    curtailed_kw: float
    price: float
    cost: float
    hour: float

    @staticmethod
    def of(info: dict[str, Any], scenario: GridScenario, step: int) -> GridFrame:
        """From a step's `info` and its place in the scenario's series."""
        grid = scenario.grid
        loads = scenario.series.loads_kw[:, step]
        return GridFrame(
            tuple(loads.tolist()),
            served(loads, float(info["unserved_kw"])),
            tuple(scenario.series.renewables_kw[:, step].tolist()),
            tuple(np.asarray(info["dispatchable_kw"])[: len(grid.dispatchables)].tolist()),
            tuple(np.asarray(info["storage_kw"])[: len(grid.storages)].tolist()),
            tuple(np.asarray(info["charge_share"])[: len(grid.storages)].tolist()),
            float(info["imported_kw"]),
            float(info["exported_kw"]),
            float(info["curtailed_kw"]),
            float(info["price"]),
            float(info["cost"]),
            float(info["hour"]),
        )


def served(loads_kw: npt.NDArray[np.floating], unserved_kw: float) -> tuple[float, ...]:
    """What each consumer gets: the last ones go without first."""
    left, result = unserved_kw, []
    for load in loads_kw[::-1].tolist():
        missing = min(left, load)
        left -= missing
        result.append(load - missing)
    return tuple(result[::-1])


def tell(grid: Grid, frames: Sequence[GridFrame]) -> str:
    """The grid now and its last hours, a line a part."""
    if not frames:
        return "no steps yet"
    last, shown = frames[-1], frames[-SHOWN:]
    minutes = round(last.hour % 1 * 60)
    lines = [f"{grid.name}  {int(last.hour):02d}:{minutes:02d}  price {last.price:.3g}  cost {last.cost:.3g}"]
    rows: list[tuple[str, list[float], str]] = []
    for place, consumer in enumerate(grid.consumers):
        missing = last.consumers_kw[place] - last.served_kw[place]
        note = f"  {missing:.3g} kW unserved" if missing > 1e-9 else ""
        rows.append(
            (
                consumer.name,
                [f.consumers_kw[place] for f in shown],
                f"{last.consumers_kw[place]:.4g} kW{note}",
            )
        )
    for place, source in enumerate(grid.renewables):
        rows.append(
            (source.name, [f.renewables_kw[place] for f in shown], f"{last.renewables_kw[place]:.4g} kW")
        )
    for place, unit in enumerate(grid.dispatchables):
        rows.append(
            (unit.name, [f.dispatched_kw[place] for f in shown], f"{last.dispatched_kw[place]:.4g} kW")
        )
    for place, storage in enumerate(grid.storages):
        power = last.storages_kw[place]
        doing = "charging" if power > 0 else "discharging" if power < 0 else "idle"
        told = f"{last.stored[place]:.0%} full, {doing} {abs(power):.4g} kW"
        rows.append((storage.name, [f.stored[place] for f in shown], told))
    exchange = [f.imported_kw for f in shown]
    told = (
        f"{last.imported_kw:.4g} kW in, {last.exported_kw:.4g} kW out, {last.curtailed_kw:.4g} kW curtailed"
    )
    rows.append(("line", exchange, told))
    width = max(len(name) for name, _, _ in rows)
    lines += [f"{name:<{width}} {spark_line(values):>{SHOWN}} {told}" for name, values, told in rows]
    return "\n".join(lines)


def spark_line(values: Sequence[float]) -> str:
    """Bars from 0 to the largest."""
    highest = max(values, default=0.0)
    scale = (len(_BARS) - 1) / highest if highest > 0 else 0.0
    return "".join(_BARS[round(value * scale)] for value in values)


def draw_state(grid: Grid, frames: Sequence[GridFrame]) -> npt.NDArray[np.uint8]:
    """The network with the last step's flows, and the last days below it, uint8 `[480, 640, 3]`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    network = figure.add_axes((0.01, 0.33, 0.98, 0.66))
    days = figure.add_axes((0.09, 0.09, 0.82, 0.22))
    draw_network(network, grid, frames[-1] if frames else None)
    draw_days(days, grid, frames[-SHOWN:])
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def draw_network(axis: Any, grid: Grid, frame: GridFrame | None) -> None:
    """A bus in the middle, sources above it, storages and consumers below, the public grid at its left; flows
    are arrows, as thick as their power."""
    axis.set_xlim(0, 10)
    axis.set_ylim(0, 6)
    axis.axis("off")
    axis.plot([2.2, 9.6], [3.0, 3.0], color="#222222", linewidth=5, solid_capstyle="round", zorder=2)
    above: list[Any] = [*grid.renewables, *grid.dispatchables]
    below: list[Any] = [*grid.storages, *grid.consumers]
    width = min(1.5, 6.6 / max(len(above), len(below)) - 0.25)
    if frame is None:
        return
    sources = [*frame.renewables_kw, *frame.dispatched_kw]
    for place, part in enumerate(above):
        kind = getattr(part, "kind", "dispatchable")
        where = _place(place, len(above))
        _flow(axis, (where, 4.7), (where, 3.0), sources[place], grid.peak_kw, COLOURS[kind])
        _node(axis, where, 5.05, part.name, f"{sources[place]:.3g} kW", COLOURS[kind], width=width)
    for place, part in enumerate(below):
        where = _place(place, len(below))
        if place < len(grid.storages):
            power, full = frame.storages_kw[place], frame.stored[place]
            _flow(axis, (where, 3.0), (where, 1.5), power, grid.peak_kw, COLOURS["storage"])
            _node(
                axis, where, 1.1, part.name, f"{full:.0%}  {power:+.3g} kW", COLOURS["storage"], full, width
            )
        else:
            index = place - len(grid.storages)
            got, wanted = frame.served_kw[index], frame.consumers_kw[index]
            short = wanted - got > 1e-9 * grid.peak_kw
            _flow(axis, (where, 3.0), (where, 1.5), got, grid.peak_kw, COLOURS["load"])
            told = f"{got:.3g} of {wanted:.3g} kW" if short else f"{got:.3g} kW"
            _node(axis, where, 1.1, part.name, told, COLOURS["unserved" if short else "load"], width=width)
    exchange = frame.imported_kw - frame.exported_kw
    if grid.connection.import_kw + grid.connection.export_kw > 0:
        _flow(axis, (1.5, 3.0), (2.25, 3.0), exchange, grid.peak_kw, COLOURS["line"])
        _node(axis, 0.8, 3.0, "public grid", f"{exchange:+.3g} kW\n{frame.price:.3f}/kWh", COLOURS["line"])
    clock = f"{int(frame.hour):02d}:{round(frame.hour % 1 * 60):02d}"
    axis.text(0.1, 5.75, f"{grid.name}  {clock}", fontsize=10, va="top", weight="bold")
    if frame.curtailed_kw > 1e-9 * grid.peak_kw:
        axis.text(0.1, 5.3, f"curtailed {frame.curtailed_kw:.3g} kW", fontsize=8, va="top", color="#888888")


def draw_days(axis: Any, grid: Grid, frames: Sequence[GridFrame]) -> None:
    """Load, weather and stored energy of the last days, over hours."""
    hours = (np.arange(len(frames)) - len(frames) + 1) * grid.step_h
    for kind in ("solar", "wind"):
        places = [place for place, one in enumerate(grid.renewables) if one.kind == kind]
        if places:
            power = [sum(frame.renewables_kw[place] for place in places) for frame in frames]
            axis.fill_between(hours, power, step="mid", color=COLOURS[kind], alpha=0.5, linewidth=0)
    axis.step(
        hours, [sum(frame.consumers_kw) for frame in frames], where="mid", color=COLOURS["load"], linewidth=1
    )
    axis.set_xlim(-SHOWN * grid.step_h, 0)
    axis.set_ylabel("kW", fontsize=7)
    axis.set_xlabel("hours", fontsize=7, labelpad=1)
    axis.tick_params(labelsize=7)
    if grid.storages:
        stored = axis.twinx()
        whole = sum(storage.energy_kwh for storage in grid.storages)
        shares = [
            sum(share * one.energy_kwh for share, one in zip(frame.stored, grid.storages, strict=True))
            / whole
            for frame in frames
        ]
        stored.plot(hours, shares, color=COLOURS["storage"], linewidth=1.2)
        stored.set_ylim(0, 1)
        stored.set_ylabel("stored", fontsize=7, color=COLOURS["storage"])
        stored.tick_params(labelsize=7)


def _place(index: int, count: int) -> float:
    return 2.6 + 6.6 * (index + 0.5) / max(count, 1)


def _node(
    axis: Any,
    x: float,
    y: float,
    name: str,
    told: str,
    colour: str,
    full: float | None = None,
    width: float = 1.3,
) -> None:
    from matplotlib.patches import FancyBboxPatch, Rectangle

    height = 0.8
    box = FancyBboxPatch(
        (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0.04", facecolor="white",
        edgecolor=colour, linewidth=1.6, zorder=3,
    )  # fmt: skip
    axis.add_patch(box)
    if full is not None:
        filled = Rectangle(
            (x - width / 2, y - height / 2), width * full, height, color=colour, alpha=0.3, zorder=4
        )
        axis.add_patch(filled)
    axis.text(x, y, f"{name}\n{told}", ha="center", va="center", fontsize=7, zorder=5)


def _flow(
    axis: Any, start: tuple[float, float], end: tuple[float, float], power: float, peak_kw: float, colour: str
) -> None:
    """An arrow from start to end, or back where the power is below 0; a thin line where it is 0."""
    if abs(power) < 1e-3 * peak_kw:
        axis.plot([start[0], end[0]], [start[1], end[1]], color="#cccccc", linewidth=1, zorder=1)
        return
    if power < 0:
        start, end = end, start
    thick = 1.0 + 9.0 * min(abs(power) / peak_kw, 1.0)
    style = {
        "arrowstyle": f"-|>,head_width={0.2 + thick / 25},head_length={0.4 + thick / 25}",
        "color": colour,
    }
    arrow = {**style, "linewidth": thick, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", xy=end, xytext=start, arrowprops=arrow, zorder=1)
