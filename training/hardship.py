"""One robustness test, from the command line's arguments to tables, JSON and picture.

`training/robustness.py` calls it.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from sim.replay import Protocol
from training.commandline import write_output
from training.comparison import HOUR_S, cache_folder, check_arguments, progress_bars
from training.conditions import Condition, conditions, windows_of
from training.contestants import HPA, Sweep, contestant
from training.equal_cost import Level, levels, worst
from training.errors import ConfigError
from training.frontier import CONFIDENCE, ROUNDS, Outcomes, draw
from training.hardship_tables import console_table, markdown
from training.playing import Round, Setup, code_digest, play_rounds
from training.runs import this_command, versions

SCHEMA = "rlscaler-robustness/v1"


def examine(args: argparse.Namespace) -> dict[str, Any]:
    """Test as the command line says; returns what `--json` writes. Raises ConfigError for bad input."""
    check_arguments(args)
    chosen = _chosen(args)
    names = list(dict.fromkeys([HPA, *args.policy]))
    labels = [contestant(name, Sweep(), chosen[0].protocol).name for name in names]
    if len(set(labels)) < len(labels):
        raise ConfigError(f"--policy: two of {', '.join(labels)} have one name; rename a file")
    rounds, left_out, sources = _rounds(chosen, names, args)
    seeds = [args.seed + index for index in range(args.seeds)]
    played = _play(chosen, rounds, labels, seeds, args)
    report = {
        "schema": SCHEMA,
        "command": shlex.join(this_command("robustness.py", args.argv)),
        "versions": versions() | {"code_digest": code_digest()},
        "protocol": {
            "hours": args.hours,
            "seeds": seeds,
            "windows": sources,
            "scale_down_window_s": args.scale_down_window,
            "engine": args.engine,
            "confidence": CONFIDENCE,
            "bootstrap_rounds": ROUNDS,
            "baseline": HPA,
        },
        "left_out": left_out,
        "conditions": {
            condition.name: _condition(condition, one, sources)
            for condition, one in zip(chosen, played, strict=True)
        },
    }
    _write(report, args)
    return report


def list_conditions(args: argparse.Namespace) -> None:
    """Names and meanings on the console."""
    console = Console()
    for condition in conditions(_protocol(args)):
        console.print(f"{condition.name}: {condition.what}", highlight=False)


def _protocol(args: argparse.Namespace) -> Protocol:
    return Protocol(window_s=args.hours * HOUR_S, windows_per_trace=args.windows_per_trace)


def _chosen(args: argparse.Namespace) -> list[Condition]:
    known = conditions(_protocol(args))
    if not args.condition:
        return known
    unknown = [name for name in args.condition if name not in {one.name for one in known}]
    if unknown:
        allowed = ", ".join(repr(one.name) for one in known)
        raise ConfigError(f"--condition: {unknown[0]!r} is not one of {allowed}")
    return [one for one in known if one.name in args.condition]


def _rounds(
    chosen: Sequence[Condition], names: Sequence[str], args: argparse.Namespace
) -> tuple[list[Round], list[str], list[str]]:
    """A round a condition, all on the same pieces of traffic; what was left out; the windows' traces."""
    cut = [windows_of(one, args.trace, args.windows, args.seed) for one in chosen]
    windows, left_out = cut[0]
    if not windows:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in left_out)
        raise ConfigError(f"--trace: there is nothing to test on: {reasons}")
    cache = cache_folder(args)
    sweep = Sweep(scale_down_window_s=args.scale_down_window)
    rounds = [
        Round(tuple(names), tuple(own), Setup(one.protocol, sweep, args.engine, args.jobs, cache, args.seed))
        for one, (own, _) in zip(chosen, cut, strict=True)
    ]
    sources = [window.source or window.name for window in windows]
    return rounds, [f"{each.name}: {each.reason}" for each in left_out], sources


def _play(
    chosen: Sequence[Condition],
    rounds: Sequence[Round],
    labels: Sequence[str],
    seeds: Sequence[int],
    args: argparse.Namespace,
) -> list[list[Outcomes]]:
    cases = len(rounds[0].windows) * len(seeds) * len(labels)
    with progress_bars(args.progress) as bars:
        tasks = [bars.add_task(one.name, total=cases) for one in chosen]
        return play_rounds(
            rounds, seeds, args.jobs, lambda number, _, done: bars.advance(tasks[number], done)
        )


def _condition(condition: Condition, families: Sequence[Outcomes], sources: Sequence[str]) -> dict[str, Any]:
    """A condition's figures: each policy against the HPA at each cost level."""
    base, *others = families
    codes = np.unique(np.asarray(sources), return_inverse=True)[1]
    draws = draw(codes, base.shape[2])
    found = {one.family: levels(one, base, draws) for one in others}
    return {
        "what": condition.what,
        "intervals_over": draws.over,
        "policies": {name: _policy(each) for name, each in found.items()},
        "figures": {
            one.family: {
                "settings": list(one.settings),
                "cost": one.mean_cost.tolist(),
                "mean_violation": one.mean_violation.tolist(),
                "median_violation": one.median_violation.tolist(),
            }
            for one in families
        },
    }


def _policy(found: list[Level]) -> dict[str, Any]:
    decisive = worst(found)
    return {
        "verdict": decisive.verdict,
        "decided_at": decisive.setting,
        "levels": [_level(one) for one in found],
    }


def _level(one: Level) -> dict[str, Any]:
    plain = {
        name: (
            {key: _plain(number) for key, number in value.items()}
            if isinstance(value, dict)
            else _plain(value)
        )
        for name, value in asdict(one).items()
    }
    return plain | {"verdict": one.verdict, "median_holds": one.median_holds}


def _plain(value: Any) -> Any:
    """NaN and infinity are not JSON."""
    return value if isinstance(value, str) or np.isfinite(value) else None


def _write(report: dict[str, Any], args: argparse.Namespace) -> None:
    console = Console()
    console_table(report, console)
    if args.json:
        write_output(args.json, json.dumps(report, indent=1) + "\n")
        console.print(f"numbers: {args.json}")
    if args.markdown:
        write_output(args.markdown, markdown(report))
        console.print(f"table: {args.markdown}")
    if args.plots:
        # matplotlib takes a second to import
        from training.hardship_picture import plot_ratios

        console.print(f"plot: {plot_ratios(report, Path(args.plots) / 'robustness.png')}")
