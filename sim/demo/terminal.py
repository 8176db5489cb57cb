"""The demo in the terminal: a live view, or a line every few seconds where the output isn't one."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sim.demo.state import DemoState
from sim.twin.errors import Json

_BLOCKS = "▁▂▃▄▅▆▇█"
_LINE_EVERY_S = 5.0
_COLOURS = ("cyan", "dark_orange")


class LiveView(ABC):
    """`with view: view.refresh()` whenever there is something new; several times a second on a terminal."""

    def __init__(self, console: Console, refresh_per_second: int) -> None:
        self._console, self._refresh_per_second = console, refresh_per_second
        self._live: Live | None = None
        self._printed = 0.0

    @abstractmethod
    def line(self) -> str:
        """One line for logs."""

    @abstractmethod
    def picture(self) -> RenderableType:
        """The live view."""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            often = self._refresh_per_second
            self._live = Live(console=self._console, refresh_per_second=often, get_renderable=self.picture)
            self._live.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def refresh(self) -> None:
        """Prints a line if it is time for one; the live view refreshes itself."""
        now = time.monotonic()
        if self._live is None and now - self._printed >= _LINE_EVERY_S:
            self._printed = now
            self._console.print(self.line(), soft_wrap=True, highlight=False)


class TerminalView(LiveView):
    """Both autoscalers side by side."""

    def __init__(self, state: DemoState, console: Console | None = None) -> None:
        super().__init__(console or Console(), refresh_per_second=8)
        self._state = state

    def line(self) -> str:
        """One line for logs."""
        return line(self._state.snapshot())

    def picture(self) -> RenderableType:
        """The live view."""
        width = self._console.width
        return render(self._state.snapshot(), width)


def line(shot: Json) -> str:
    """One line for logs."""
    parts = [clock(shot["elapsed_s"])]
    for service in shot["services"]:
        last = service["rows"][-1] if service["rows"] else None
        if last is None:
            continue
        figures = service["figures"]
        if len(parts) == 1:
            parts.append(f"load {last[1]:.1f} replicas")
        parts.append(
            f"{service['label']}: {last[2]:.0f} ready of {last[4]:.0f}, p95 {milliseconds(last[5])}, "
            f"late {100 * figures['violation']:.2f} %, {figures['replica_hours']:.1f} replica-h"
        )
    return " | ".join(parts + alarms(shot))


def render(shot: Json, width: int) -> RenderableType:
    """The live view."""
    half = max(36, (width - 1) // 2)
    panels = [
        _service(service, shot, colour, half)
        for service, colour in zip(shot["services"], _COLOURS, strict=True)
    ]
    body: RenderableType = Columns(panels, padding=(0, 0), expand=False) if width >= 74 else Group(*panels)
    return Group(_header(shot, width), body, footer(shot))


def _header(shot: Json, width: int) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    warming = shot["elapsed_s"] < 0
    what = "warming up" if warming else f"{clock(shot['elapsed_s'])} of {clock(shot['duration_s'])}"
    scale = f"{shot['time_scale']:g}x real time"
    bar = ProgressBar(
        total=shot["duration_s"], completed=max(0.0, shot["elapsed_s"]), width=max(10, width - 64)
    )
    grid.add_row(
        Text("rl-scaler demo", style="bold"), Text(shot["trace"]), bar, Text(what), Text(scale, "dim")
    )
    return grid


def _service(service: Json, shot: Json, colour: str, width: int) -> Panel:
    rows, figures = service["rows"], service["figures"]
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim", no_wrap=True, min_width=10)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    spark = width - 24
    last = rows[-1] if rows else [0.0] * 7
    top = max([1.0, *(float(v) for row in rows for v in row[1:5])])
    grid.add_row("load", _spark(rows, 1, spark, top, "white", f"{last[1]:6.1f}"))
    grid.add_row("ready", _spark(rows, 2, spark, top, colour, f"{last[2]:6.0f}"))
    grid.add_row("desired", _spark(rows, 4, spark, top, colour, f"{last[4]:6.0f}"))
    grid.add_row("p95", _latency(rows, spark, shot["slo_ms"]))
    late = Text(f"{100 * figures['violation']:6.2f} %", "red" if figures["violation"] > 0.05 else "")
    late.append(f"  of requests above {shot['slo_ms']:.0f} ms", "dim")
    grid.add_row("SLO missed", late)
    cost = Text(f"{figures['replica_hours']:6.1f} ")
    cost.append(f"  replica-hours, {figures['cost_over_ideal']:.2f} x ideal", "dim")
    grid.add_row("cost", cost)
    grid.add_row("decision", _two_lines(Text(service["message"]), width - 15))
    grid.add_row("conditions", _two_lines(_conditions(service), width - 15))
    return Panel(grid, title=f"[bold {colour}]{service['label']}[/]  {service['name']}", width=width)


def _two_lines(text: Text, width: int) -> Text:
    """Wrapped to exactly two lines, so that the view doesn't jump."""
    lines = text.wrap(Console(), width, overflow="fold")[:2]
    return Text("\n").join([*lines, *[Text("")] * (2 - len(lines))])


def _spark(
    rows: Sequence[Sequence[Any]], column: int, width: int, top: float, colour: str, value: str
) -> Text:
    text = Text(value + " ", "bold")
    return text.append(sparkline([row[column] for row in rows[-width:]], top), colour)


def sparkline(values: Sequence[float | None], top: float) -> str:
    """Block characters for values in 0..top."""
    levels = len(_BLOCKS) - 1
    return "".join(" " if v is None else _BLOCKS[min(levels, int(levels * v / top + 0.5))] for v in values)


def _latency(rows: Sequence[Sequence[Any]], width: int, slo_ms: float) -> Text:
    values = [row[5] for row in rows[-width:]]
    last = values[-1] if values else None
    text = Text(f"{milliseconds(last):>6} ", "bold red" if last is None or last > slo_ms else "bold")
    for value in values:
        late = value is None or value > slo_ms
        text.append(sparkline([value], 2 * slo_ms) if value is not None else "x", "red" if late else "green")
    return text


def _conditions(service: Json) -> Text:
    text = Text()
    for kind, condition in service["conditions"].items():
        good = (condition["status"] == "True") != (kind == "Fallback")
        if kind == "Ready" or not good:
            text.append(f"{kind}={condition['status']}", "green" if good else "bold red")
            text.append(f" {condition['reason']}  ", "dim")
    return text if text.plain else Text("none yet", "dim")


def footer(shot: Json) -> RenderableType:
    """Addresses, processes and what is going on."""
    facts, grid = shot["facts"], Table.grid(padding=(0, 1))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("page", Text(facts.get("page", "")))
    grid.add_row("try", Text(facts.get("kubectl", "")))
    pids = facts.get("pids", {})
    shown = "  ".join(f"{name} {pid}" for name, pid in pids.items())
    grid.add_row("processes", Text(f"{shown}   (kill -9 one: it is restarted)" if pids else ""))
    for note in alarms(shot):
        grid.add_row("", Text(note, "bold yellow"))
    return grid


def alarms(shot: Json) -> list[str]:
    """What is going on that is out of the ordinary."""
    return list(shot["facts"].get("notes", []))


def milliseconds(value: float | None) -> str:
    """For people."""
    if value is None:
        return "-"
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.0f} s"


def clock(seconds: float) -> str:
    """h:mm:ss."""
    sign, seconds = ("-" if seconds < 0 else ""), abs(seconds)
    return f"{sign}{int(seconds // 3600)}:{int(seconds % 3600 // 60):02d}:{int(seconds % 60):02d}"
