"""Contestants on the same traffic: cost, overload events and stability, with the spread over seeds.

An overload event is a spell in which more requests come than the ready servers can serve; spells less than a
minute apart are one. Stability is how often an hour the direction changes (more servers, then fewer, or the
other way round). Every contestant may turn its own dial: the figures are those of its cheapest setting that
violates at most as much as is allowed, over all windows together.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from sim.baselines import Setting
from sim.physics import scalar
from sim.replay import Foresight, LeftOut, Protocol, Window, cut_windows, replay
from sim.traces import load_trace
from training.addremove.rules import bar, check_traffic, read_rules, settings_of
from training.commandline import write_output
from training.contestants import Sweep, contestant, generated_windows
from training.errors import ConfigError
from training.frontier import cost_at
from training.runs import this_command

FloatArray = npt.NDArray[np.float64]
LEVELS = (0.005, 0.01)
"""The violations at which costs are read off frontiers, as in evaluate.py."""
ALLOWED = 0.01
"""Violations of the setting whose overload events and changes of direction are shown."""
JOINED_S = 60.0
WINDOWS_AT_ONCE = 10
RULE = "threshold rule"
SHOWN = ("cost", "violation", "overloads", "changes")


@dataclass(frozen=True)
class Played:
    """One trained policy (or formula) with its S settings: means over the windows, `[S]` each.

    cost: over the ideal, geometric mean. violation: share of requests. overloads: events a day. changes: of
    direction, an hour.
    """

    settings: tuple[str, ...]
    cost: FloatArray
    violation: FloatArray
    overloads: FloatArray
    changes: FloatArray

    @property
    def chosen(self) -> int:
        """The cheapest setting with at most ALLOWED violations; the safest one where there is none."""
        fits = np.flatnonzero(self.violation <= ALLOWED)
        if len(fits) == 0:
            return int(self.violation.argmin())
        return int(fits[self.cost[fits].argmin()])


@dataclass(frozen=True)
class Family:
    """One line of the table: a contestant, played once for each of its training seeds."""

    name: str
    played: tuple[Played, ...]

    def figures(self) -> dict[str, tuple[float, float]]:
        """(mean, standard deviation) over the seeds, by column; NaN where a seed does not reach a level."""
        rows = []
        for one in self.played:
            at = one.chosen
            costs = {f"cost_at_{level:.1%}": cost_at(one.cost, one.violation, level) for level in LEVELS}
            shown = {name: float(getattr(one, name)[at]) for name in SHOWN}
            rows.append(costs | shown)
        return {name: _spread([row[name] for row in rows]) for name in rows[0]}


def compare(args: argparse.Namespace) -> list[Family]:
    """Play everybody as the command line says, and print the table. Raises ConfigError."""
    check_traffic(args)
    protocol = Protocol(window_s=args.hours * 3600.0, windows_per_trace=args.windows_per_trace)
    windows, left_out = _traffic(args, protocol)
    everybody = contestants(args.policy, args.rules, protocol)
    families = []
    with bar("contestants", sum(len(variants) for _, variants in everybody), args.progress) as (shown, task):
        for name, variants in everybody:
            played = []
            for settings in variants:
                played.append(play(settings, windows, protocol, args.seed))
                shown.advance(task)
            families.append(Family(name, tuple(played)))
    console = Console()
    console.print(console_table(families, len(windows), args.hours))
    for left in left_out:
        console.print(f"left out: {left.name}: {left.reason}", markup=False)
    if args.markdown:
        command = shlex.join(this_command("discrete.py", args.argv))
        write_output(args.markdown, markdown(families, command, len(windows), args.hours))
        console.print(f"table: {args.markdown}")
    if args.plot:
        from training.addremove.picture import save_picture

        console.print(f"plot: {save_picture(families, args.plot)}")
    return families


def contestants(
    names: Sequence[str], rules: Path | None, protocol: Protocol
) -> list[tuple[str, list[Sequence[Setting | Foresight]]]]:
    """(name, its settings for each training seed). Raises ConfigError for what is not there."""
    found: list[tuple[str, list[Sequence[Setting | Foresight]]]] = []
    if rules is not None:
        found.append((RULE, [settings_of(read_rules(rules), protocol)]))
    for name in names:
        label, _, files = name.partition("=")
        paths = [str(_artifact(Path(file))) for file in files.split(",")] if files else [label]
        found.append((label, [contestant(path, Sweep(), protocol).settings for path in paths]))
    twice = sorted({name for name, _ in found if [one for one, _ in found].count(name) > 1})
    if twice:
        raise ConfigError(f"--policy: {', '.join(twice)} is there twice")
    return found


def play(
    settings: Sequence[Setting | Foresight], windows: Sequence[Window], protocol: Protocol, seed: int
) -> Played:
    """Every setting on every window, some windows at a time."""
    parts = []
    for first in range(0, len(windows), WINDOWS_AT_ONCE):
        result = replay(windows[first : first + WINDOWS_AT_ONCE], settings, protocol, seed, timeline=True)
        capacity_rps, step_s = scalar(protocol.params.capacity_rps), protocol.sync_period_s
        events = overload_events(result.timeline, capacity_rps, step_s)
        parts.append((np.log(result.cost), result.violation, events, result.flaps_per_hour))
    cost, violation, overloads, changes = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
    return Played(
        tuple(setting.name for setting in settings),
        np.exp(cost.mean(axis=1)),
        violation.mean(axis=1),
        overloads.mean(axis=1),
        changes.mean(axis=1),
    )


def overload_events(
    timeline: Mapping[str, npt.NDArray[np.floating[Any]]], capacity_rps: float, step_s: float
) -> FloatArray:
    """Overload events a day `[S, W]` in timelines `[S, W, T]` of steps of `step_s` seconds."""
    over = timeline["requests_per_s"] / capacity_rps > timeline["ready"]
    steps = np.isfinite(timeline["ready"]).sum(axis=2)
    joined = max(1, round(JOINED_S / step_s))
    events = np.zeros(over.shape[:2])
    since = np.full(over.shape[:2], joined)
    for step in range(over.shape[2]):
        now = over[:, :, step]
        events += now & (since >= joined)
        since = np.where(now, 0, since + 1)
    return np.asarray(events / (np.maximum(steps, 1) * step_s / 86400.0))


def console_table(families: Sequence[Family], windows: int, hours: float) -> Table:
    """The table for a terminal."""
    table = Table(title=_extent(windows, hours), title_justify="left")
    for column in _HEADER:
        first = column == _HEADER[0]
        table.add_column(column, justify="left" if first else "right", no_wrap=first)
    for family in families:
        table.add_row(*_cells(family))
    return table


def markdown(families: Sequence[Family], command: str, windows: int, hours: float) -> str:
    """The same for a document."""
    lines = [f"`{command}`", "", f"{_extent(windows, hours)}.", ""]
    lines += [f"| {' | '.join(_HEADER)} |", f"|{'---|' * len(_HEADER)}"]
    lines += [f"| {' | '.join(_cells(family))} |" for family in families]
    return "\n".join(lines) + "\n"


_HEADER = ("policy", "seeds", "cost at 0.5 %", "cost at 1 %", "cost", "violations, %", "overload events/day",
           "changes of direction/h")  # fmt: skip


def _extent(windows: int, hours: float) -> str:
    return (
        f"{windows} windows of {hours:g} hours; from the fifth column on: the cheapest setting with at most "
        f"{ALLOWED:.0%} violations (else the safest); mean ± standard deviation over training seeds"
    )


def _cells(family: Family) -> list[str]:
    figures = family.figures()
    costs = [_shown(figures[f"cost_at_{level:.1%}"]) for level in LEVELS]
    violation = tuple(100.0 * value for value in figures["violation"])
    shown = [_shown(figures["cost"]), _shown(violation)]
    return [family.name, str(len(family.played)), *costs, *shown, *(
        _shown(figures[name], digits=1) for name in ("overloads", "changes")
    )]  # fmt: skip


def _shown(figure: Sequence[float], digits: int = 2) -> str:
    mean, deviation = figure
    if not np.isfinite(mean):
        return "–"
    return f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if np.isfinite(deviation) else "")


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """(mean, standard deviation of a sample); NaN as deviation of one value."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return float(np.mean(values)), deviation


def _traffic(args: argparse.Namespace, protocol: Protocol) -> tuple[list[Window], list[LeftOut]]:
    """The windows, and what of the recordings cannot be used. Raises ConfigError."""
    if not args.trace:
        return generated_windows(args.windows, args.seed, protocol), []
    windows, left_out = cut_windows([load_trace(path) for path in args.trace], protocol)
    if not windows:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in left_out)
        raise ConfigError(f"--trace: there is nothing to compare on: {reasons}")
    return windows, left_out


def _artifact(path: Path) -> Path:
    """The artifact that a run folder, or the file itself, is. Raises ConfigError."""
    found = path / "policy.onnx" if path.is_dir() else path
    if found.suffix != ".onnx" or not found.is_file():
        raise ConfigError(f"--policy: {path}: neither an .onnx file nor a run folder with policy.onnx")
    return found
