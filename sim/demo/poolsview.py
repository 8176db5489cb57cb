"""The pools demo in the terminal: a live view, or a line every few seconds where the output isn't one."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sim.demo.poolsstate import PoolsState
from sim.demo.terminal import LiveView, alarms, clock, footer, milliseconds, sparkline
from sim.twin.errors import Json

_WIDTH = 60


class PoolsView(LiveView):
    """Each set of pools under the other."""

    def __init__(self, state: PoolsState, console: Console) -> None:
        super().__init__(console, refresh_per_second=4)
        self._state = state

    def line(self) -> str:
        """One line for logs."""
        return line(self._state.snapshot())

    def picture(self) -> RenderableType:
        """The live view."""
        shot = self._state.snapshot()
        return Group(
            Text(_title(shot), "bold"), *(_panel(one, shot) for one in shot["services"]), footer(shot)
        )


def line(shot: Json) -> str:
    """One line for logs."""
    parts = [_title(shot)]
    for one in shot["services"]:
        if one["rows"]:
            _, rate, p99, errors, weights, *_ = one["rows"][-1]
            shown = "/".join(str(weight) for weight in weights)
            parts.append(
                f"{one['label']}: {rate:.0f} req/s, weights {shown}, p99 {milliseconds(p99)}, "
                f"{_percent(errors)} failed"
            )
    return " | ".join(parts + alarms(shot))


def _title(shot: Json) -> str:
    if shot["elapsed_s"] < 0:
        return "warming up"
    return f"{clock(shot['elapsed_s'])} of {clock(shot['duration_s'])}: {shot['act']}"


def _panel(one: Json, shot: Json) -> Panel:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim", no_wrap=True, min_width=16)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    rows = one["rows"][-_WIDTH:]
    for index, pool in enumerate(one["pools"]):
        weights = [row[4][index] for row in rows]
        ready = rows[-1][6][index] if rows else 0
        grid.add_row(
            f"{pool} weight", f"{weights[-1] if weights else 0:4d} {sparkline(weights, 100)}  {ready} ready"
        )
    p99 = [row[2] for row in rows]
    failed = [row[3] for row in rows]
    grid.add_row("p99", f"{milliseconds(p99[-1] if p99 else None):>8} {sparkline(p99, 8 * shot['slo_ms'])}")
    grid.add_row("failed", f"{_percent(failed[-1] if failed else None):>8} {sparkline(failed, 0.2)}")
    grid.add_row("decision", Text(one["message"]))
    return Panel(grid, title=f"[bold]{one['label']}[/]")


def acts_table(shot: Json) -> Table:
    """p99, errors and what was late in each act, by set."""
    table = Table(title=f"real requests, objective p95 {shot['slo_ms']} ms")
    for name in ("act", "routing", "requests", "p99", "failed", "late", "to the spot pool"):
        table.add_column(name, justify="left" if name in ("act", "routing") else "right")
    for index in range(len(shot["services"][0]["figures"])):
        for number, one in enumerate(shot["services"]):
            found = one["figures"][index]
            table.add_row(
                shot["acts"][index] if number == 0 else "",
                one["label"],
                str(found["requests"]),
                milliseconds(found["p99_ms"]),
                _percent(found["error_ratio"]),
                _percent(found["late"]),
                _percent(found["share"]),
                end_section=number == len(shot["services"]) - 1,
            )
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
