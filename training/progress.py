"""What a person sees while a run trains: a bar with the time left and the results, or plain lines."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

if TYPE_CHECKING:
    from training.tasks import Column

PLAIN_EVERY_S = 10.0
Columns = Sequence["Column"]


class Progress(Protocol):
    """Shows the newest metrics row."""

    def __enter__(self) -> Progress: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, row: Mapping[str, float]) -> None:
        """Show a row of metrics.csv."""
        ...


def make_progress(total: int, done: int, bar: bool | None, columns: Columns) -> Progress:
    """A bar on a terminal, lines elsewhere; `bar` True or False decides instead. columns: `Task.shown`."""
    wanted = sys.stderr.isatty() if bar is None else bar
    return BarProgress(total, done, columns) if wanted else LineProgress(total, columns)


class Numbers:
    """The numbers worth watching, in one line; what is measured now and then stays until it is again."""

    def __init__(self, columns: Columns) -> None:
        self._columns = [column for column in columns if column.in_bar]
        self._newest: dict[str, float] = {}

    def describe(self, row: Mapping[str, float]) -> str:
        """The newest known value of each column."""
        self._newest |= {name: value for name, value in row.items() if value == value}
        parts = [f"reward {self._newest.get('reward', math.nan):+.3f}"]
        for column in self._columns:
            value = self._newest.get(column.name, math.nan)
            shown = f"{100 * value:.2f} %" if column.percent else f"{value:.2f}"
            parts.append(f"{column.label or column.name} {shown}")
        return "  ".join(parts)


class BarProgress:
    """A rich progress bar on standard error."""

    def __init__(self, total: int, done: int, columns: Columns) -> None:
        self._numbers = Numbers(columns)
        parts = (
            TextColumn("[bold]{task.completed:,.0f}[/]/{task.total:,.0f} steps"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[speed]} steps/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[numbers]}"),
        )
        self._rich = RichProgress(*parts, console=Console(stderr=True), refresh_per_second=4)
        self._task = self._rich.add_task("train", total=total, completed=done, speed="-", numbers="")

    def __enter__(self) -> BarProgress:
        self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rich.stop()

    def update(self, row: Mapping[str, float]) -> None:
        """Move the bar."""
        speed = f"{row['steps_per_s']:,.0f}"
        self._rich.update(
            self._task, completed=row["timesteps"], speed=speed, numbers=self._numbers.describe(row)
        )


class LineProgress:
    """A line every ten seconds, for logs."""

    def __init__(self, total: int, columns: Columns) -> None:
        self._total = total
        self._numbers = Numbers(columns)
        self._next = 0.0

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def update(self, row: Mapping[str, float]) -> None:
        """Print, but not too often."""
        numbers = self._numbers.describe(row)
        now = time.monotonic()
        if now < self._next and row["timesteps"] < self._total:
            return
        self._next = now + PLAIN_EVERY_S
        left = (self._total - row["timesteps"]) / max(row["steps_per_s"], 1e-9)
        line = f"{row['timesteps']:>12,.0f}/{self._total:,} steps  {row['steps_per_s']:>8,.0f}/s  "
        print(f"{line}{max(left, 0):>5.0f} s left  {numbers}", flush=True)
