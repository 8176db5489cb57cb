"""One evaluation, from the command line's arguments to table, JSON and plots. `evaluate.py` is the caller."""

from __future__ import annotations

import argparse
import functools
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sim.replay import Protocol, Window, protocol_windows
from training.artifact import add_evaluation
from training.contestants import (
    CLAIRVOYANT,
    HPA,
    Contestant,
    Sweep,
    contestant,
    generated_windows,
    label_of,
    play,
)
from training.errors import ConfigError
from training.frontier import Outcomes
from training.runs import this_command, versions
from training.summary import card, equal_cost_table, plot_frontiers, summarise, table

HOUR_S = 3600.0


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate as the command line says; returns what `--json` writes. Raises ConfigError for bad input."""
    _check(args)
    protocol = Protocol(window_s=args.hours * HOUR_S, windows_per_trace=args.windows_per_trace)
    sweep = Sweep(scale_down_window_s=args.scale_down_window)
    contestants = [contestant(name, sweep, protocol) for name in dict.fromkeys(args.policy)]
    _check_names([one.name for one in contestants])
    windows = _windows(args, protocol)
    families = _play_all(contestants, windows, sweep, protocol, args)
    report = {
        "command": shlex.join(this_command("evaluate.py", args.argv)),
        "versions": versions(),
        "protocol": {
            "windows": [window.name for window in windows],
            "hours": args.hours,
            "peak_replicas": protocol.peak_replicas,
            "sync_period_s": protocol.sync_period_s,
            "scale_down_window_s": args.scale_down_window,
            "seed": args.seed,
        },
        **summarise(families, HPA, CLAIRVOYANT),
    }
    _write(report, families, args)
    return report


def _check(args: argparse.Namespace) -> None:
    for name in ("windows", "windows_per_trace", "hours"):
        if getattr(args, name) <= 0:
            raise ConfigError(
                f"--{name.replace('_', '-')}: {getattr(args, name)} is not allowed; more than 0 is"
            )
    if not 0 <= args.scale_down_window <= 3600:
        raise ConfigError(f"--scale-down-window: {args.scale_down_window} is not allowed; 0..3600 is")


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"--policy: {', '.join(twice)} would stand for two artifacts; rename a file")


def _windows(args: argparse.Namespace, protocol: Protocol) -> list[Window]:
    if not args.trace:
        return generated_windows(args.windows, args.seed, protocol)
    windows = protocol_windows(args.trace, protocol)
    if not windows:
        raise ConfigError(
            f"--trace: no window of {protocol.shortest_s / 60:g} minutes or more with requests in it"
        )
    return windows


def _play_all(
    contestants: Sequence[Contestant],
    windows: Sequence[Window],
    sweep: Sweep,
    protocol: Protocol,
    args: argparse.Namespace,
) -> list[Outcomes]:
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("windows"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
    )
    shown = sys.stderr.isatty() if args.progress is None else args.progress
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as progress:
        families = []
        for one in contestants:
            task = progress.add_task(one.name, total=len(windows))
            advance = functools.partial(progress.advance, task)
            families.append(play(one, windows, sweep, protocol, args.seed, advance))
    return families


def _write(report: dict[str, Any], families: Sequence[Outcomes], args: argparse.Namespace) -> None:
    console = Console()
    console.print(f"{len(report['protocol']['windows'])} windows of {args.hours:g} h")
    console.print(table(report))
    equal_cost = equal_cost_table(report)
    if equal_cost is not None:
        console.print(equal_cost)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n")
        console.print(f"numbers: {args.json}")
    for name in args.policy:
        if args.card and name.endswith(".onnx"):
            add_evaluation(Path(name), card(report, label_of(name)))
            console.print(f"evaluation card: {name}")
    if args.plots:
        args.plots.mkdir(parents=True, exist_ok=True)
        console.print(f"plot: {plot_frontiers(families, args.plots)}")
