"""One evaluation, from the command line's arguments to tables, JSON and plots. `evaluate.py` calls it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
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

from sim.replay import LeftOut, Protocol, Window, cut_windows
from sim.traces import load_trace
from training.commandline import write_output
from training.contestants import CLAIRVOYANT, HPA, Sweep, contestant, generated_windows, label_of
from training.errors import ConfigError
from training.frontier import CONFIDENCE, LEVELS, ROUNDS, Outcomes
from training.pictures import plot_comparison
from training.playing import Setup, code_digest, play_all
from training.runs import this_command, versions
from training.summary import Comparison, card, summarise
from training.tables import console_tables, markdown

SCHEMA = "rlscaler-evaluation/v2"
SCHEMA_FILE = Path(__file__).parent / "evaluation.schema.json"
HOUR_S = 3600.0


@dataclass(frozen=True)
class Measured:
    """What an evaluation found: the report that `--json` writes, and what it was made from."""

    report: dict[str, Any]
    comparison: Comparison
    windows: list[Window]
    setup: Setup


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate as the command line says; returns what `--json` writes. Raises ConfigError for bad input."""
    found = measure(args)
    _write(found.report, found.comparison, found.windows, found.setup, args)
    return found.report


def measure(args: argparse.Namespace) -> Measured:
    """The same without tables and files (`report.py` makes pages of it). Raises ConfigError for bad input."""
    check_arguments(args)
    protocol = Protocol(window_s=args.hours * HOUR_S, windows_per_trace=args.windows_per_trace)
    setup = Setup(
        protocol,
        Sweep(scale_down_window_s=args.scale_down_window),
        args.engine,
        args.jobs,
        cache_folder(args),
        args.seed,
    )
    names = list(dict.fromkeys(args.policy))
    labels = [contestant(name, setup.sweep, protocol).name for name in names]
    _check_names(labels)
    windows, left_out = _windows(args, protocol)
    seeds = [args.seed + index for index in range(args.seeds)]
    families = _play(names, labels, windows, seeds, setup, args.progress)
    comparison = Comparison(
        {one.family: one for one in families},
        tuple(window.name for window in windows),
        tuple(window.source or window.name for window in windows),
        HPA,
        CLAIRVOYANT,
    )
    report = {
        "schema": SCHEMA,
        "command": shlex.join(this_command("evaluate.py", args.argv)),
        "versions": versions() | {"code_digest": code_digest()},
        "protocol": _protocol(setup, seeds),
        "windows": [_described(window, protocol) for window in windows],
        "left_out": [{"name": each.name, "reason": each.reason} for each in left_out],
        **summarise(comparison),
    }
    return Measured(report, comparison, windows, setup)


def check_arguments(args: argparse.Namespace) -> None:
    """Raises ConfigError for numbers of the command line that are out of range."""
    for name in ("windows", "windows_per_trace", "hours", "seeds", "jobs"):
        if getattr(args, name) <= 0:
            raise ConfigError(
                f"--{name.replace('_', '-')}: {getattr(args, name)} is not allowed; more than 0 is"
            )
    if args.seed < 0:
        raise ConfigError(f"--seed: {args.seed} is not allowed; 0 or more is")


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"--policy: {', '.join(twice)} would stand for two artifacts; rename a file")


def cache_folder(args: argparse.Namespace) -> Path | None:
    """Where finished parts are kept, by `--cache` and `--no-cache`."""
    if args.no_cache:
        return None
    if args.cache is not None:
        return Path(args.cache)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rl-scaler" / "evaluation"


def _windows(args: argparse.Namespace, protocol: Protocol) -> tuple[list[Window], list[LeftOut]]:
    if not args.trace:
        return generated_windows(args.windows, args.seed, protocol), []
    windows, left_out = cut_windows([load_trace(path) for path in args.trace], protocol)
    if not windows:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in left_out)
        raise ConfigError(f"--trace: there is nothing to evaluate on: {reasons}")
    names = [window.name for window in windows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"--trace: {', '.join(twice)} is there twice; rename a file")
    return windows, left_out


def _play(
    names: Sequence[str],
    labels: Sequence[str],
    windows: Sequence[Window],
    seeds: Sequence[int],
    setup: Setup,
    progress: bool | None,
) -> list[Outcomes]:
    cases = len(windows) * len(seeds)
    with progress_bars(progress) as bars:
        tasks = {label: bars.add_task(label, total=cases) for label in labels}
        return play_all(names, windows, seeds, setup, lambda label, done: bars.advance(tasks[label], done))


def progress_bars(shown: bool | None) -> Progress:
    """Bars of windows played on standard error; None: where that is a terminal."""
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("windows"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
    )
    visible = sys.stderr.isatty() if shown is None else shown
    return Progress(*columns, console=Console(stderr=True), disable=not visible)


def _protocol(setup: Setup, seeds: Sequence[int]) -> dict[str, Any]:
    rules, params = setup.protocol, setup.protocol.params
    return {
        "window_s": rules.window_s,
        "windows_per_trace": rules.windows_per_trace,
        "peak_replicas": rules.peak_replicas,
        "min_replicas": rules.min_replicas,
        "max_replicas": rules.max_replicas,
        "sync_period_s": rules.sync_period_s,
        "warm_up_s": rules.warm_up_s,
        "capacity_rps": params.capacity_rps,
        "start_up_s": params.start_up_s,
        "slo_latency_ms": params.slo_latency_ms,
        "base_latency_ms": params.base_latency_ms,
        "timeout_s": params.timeout_s,
        "scale_down_window_s": setup.sweep.scale_down_window_s,
        "seeds": list(seeds),
        "engine": setup.engine,
        "levels": list(LEVELS),
        "confidence": CONFIDENCE,
        "bootstrap_rounds": ROUNDS,
        "baseline": HPA,
        "bound": CLAIRVOYANT,
    }


def _described(window: Window, protocol: Protocol) -> dict[str, Any]:
    duration_s = window.trace.duration_s
    return {
        "name": window.name,
        "trace": window.source or window.name,
        "start_s": window.start_s,
        "hours": duration_s / HOUR_S,
        "shorter_than_asked": duration_s < protocol.window_s * (1 - 1e-9),
        "bin_s": window.trace.bin_s,
        "gaps_s": sum(end - start for start, end in window.trace.gaps),
        "unit": window.trace.unit,
    }


def _write(
    report: dict[str, Any],
    comparison: Comparison,
    windows: Sequence[Window],
    setup: Setup,
    args: argparse.Namespace,
) -> None:
    console = Console()
    console_tables(report, console)
    if args.json:
        write_output(args.json, json.dumps(report, indent=1) + "\n")
        console.print(f"numbers: {args.json}")
    if args.markdown:
        write_output(args.markdown, markdown(report))
        console.print(f"table: {args.markdown}")
    if args.card:
        _write_cards(report, args.policy, console)
    if args.plots:
        args.plots.mkdir(parents=True, exist_ok=True)
        for path in plot_comparison(report, comparison, windows, args.policy, setup, args.plots):
            console.print(f"plot: {path}")


def _write_cards(report: dict[str, Any], policies: Sequence[str], console: Console) -> None:
    # artifacts are written with torch at hand, which takes seconds to import
    from training.artifact import add_evaluation

    for name in policies:
        if name.endswith(".onnx"):
            add_evaluation(Path(name), card(report, label_of(name)))
            console.print(f"evaluation card: {name}")
