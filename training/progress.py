"""What a person sees while a run trains: a bar with the time left and the results, or plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

PLAIN_EVERY_S = 10.0


class Progress(Protocol):
    """Shows the newest metrics row."""

    def __enter__(self) -> Progress: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, row: Mapping[str, float]) -> None:
        """Show a row of metrics.csv."""
        ...


def make_progress(total: int, done: int, bar: bool | None) -> Progress:
    """A bar on a terminal, lines elsewhere; `bar` True or False decides instead."""
    wanted = sys.stderr.isatty() if bar is None else bar
    return BarProgress(total, done) if wanted else LineProgress(total)


def describe(row: Mapping[str, float]) -> str:
    """The numbers worth watching, in one line."""
    parts = [f"reward {row.get('reward', float('nan')):+.3f}"]
    parts.append(f"cost {row.get('cost', float('nan')):.2f}")
    parts.append(f"violation {100 * row.get('violation', float('nan')):.2f} %")
    return "  ".join(parts)


class BarProgress:
    """A rich progress bar on standard error."""

    def __init__(self, total: int, done: int) -> None:
        columns = (
            TextColumn("[bold]{task.completed:,.0f}[/]/{task.total:,.0f} steps"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[speed]} steps/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[numbers]}"),
        )
        self._rich = RichProgress(*columns, console=Console(stderr=True), refresh_per_second=4)
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
        self._rich.update(self._task, completed=row["timesteps"], speed=speed, numbers=describe(row))


class LineProgress:
    """A line every ten seconds, for logs."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._next = 0.0

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def update(self, row: Mapping[str, float]) -> None:
        """Print, but not too often."""
        now = time.monotonic()
        if now < self._next and row["timesteps"] < self._total:
            return
        self._next = now + PLAIN_EVERY_S
        left = (self._total - row["timesteps"]) / max(row["steps_per_s"], 1e-9)
        line = f"{row['timesteps']:>12,.0f}/{self._total:,} steps  {row['steps_per_s']:>8,.0f}/s  "
        print(f"{line}{max(left, 0):>5.0f} s left  {describe(row)}", flush=True)
