"""The evaluation command's work: recordings in, report, tables and pictures out. `training/scheduling.py`
calls it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from sim.scheduling import Workload
from sim.scheduling.recordings import recording
from sim.scheduling.workloads import SchedulingScenario, draw_episode
from sim.traces import load_jobs
from training.commandline import write_output
from training.errors import ConfigError
from training.runs import this_command
from training.schedulers.contestants import Contestant, contestants_of
from training.schedulers.evaluation import BASELINES, Played, Protocol, beaten, play, summarise
from training.schedulers.tables import console_tables, markdown

SCHEMA = "scheduling-evaluation/v1"
GENERATED = "generated"
GENERATED_SEED = 1_000_000
Sources = dict[str, tuple[list[Workload], tuple[str, ...]]]
"""Windows and notes of each recording, by its name."""


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate as the command line says; what `--json` writes. Raises ConfigError or SimulationError."""
    protocol = Protocol(
        args.servers,
        args.cluster,
        args.load,
        args.estimate_error,
        args.windows,
        args.jobs,
        args.seeds,
        args.copies,
        args.overcommit,
    )
    contestants = contestants_of(args.policy)
    sources = _sources(args, protocol)
    console = Console(stderr=True)
    played = _play(contestants, sources, protocol, args.progress, console)
    report = make_report(played, sources, protocol, contestants[0].name)
    report["command"] = shlex.join(this_command("scheduling.py", args.argv))
    console_tables(report, Console())
    if args.json:
        write_output(args.json, json.dumps(report, indent=1) + "\n")
    if args.markdown:
        write_output(args.markdown, markdown(report))
    if args.plots:
        from training.schedulers.pictures import plot_all

        for path in plot_all(report, contestants, sources, protocol, args.plots):
            console.print(f"picture: {path}")
    return report


def make_report(
    played: Mapping[str, Mapping[str, Played]], sources: Sources, protocol: Protocol, trial: str
) -> dict[str, Any]:
    """The report without its command: `recordings` by name, each as `summarise` says, and who was beaten
    where."""
    recordings = {
        name: summarise(policies, trial) | {"notes": list(sources[name][1])}
        for name, policies in played.items()
    }
    names = list(next(iter(recordings.values()))["policies"])
    others = [name for name in names if name != trial]
    return {
        "schema": SCHEMA,
        "trial": trial,
        "protocol": vars(protocol) | {"bound_s": 10.0, "baselines": list(BASELINES)},
        "recordings": recordings,
        "beaten_on": {
            other: [name for name, one in recordings.items() if beaten(one, other)] for other in others
        },
    }


def generated_windows(protocol: Protocol, scenario: SchedulingScenario | None = None) -> list[Workload]:
    """Held-out generated jobs: seeds that training never draws."""
    drawn = (
        draw_episode(
            np.random.default_rng(GENERATED_SEED + k), scenario or SchedulingScenario(), protocol.jobs
        )
        for k in range(protocol.windows)
    )
    return [
        Workload(jobs.submit_s, jobs.duration_s, jobs.cpu, jobs.memory, name=f"{GENERATED}@{k}")
        for k, (_, jobs) in enumerate(drawn)
    ]


def generated_card(artifact: Path) -> dict[str, Any]:
    """A short evaluation of an artifact for its card: mean slowdowns on held-out generated jobs."""
    protocol = Protocol(servers=8, windows=24, jobs=600, seeds=1)
    names = [str(artifact), "keep-room", "best-fit", "least-loaded"]
    contestants = contestants_of(names)
    windows = generated_windows(protocol)
    played = {one.name: play(one, protocol, windows) for one in contestants}
    report = summarise(played, contestants[0].name)
    return {
        "protocol": vars(protocol),
        "mean_slowdown": {name: one["slowdown"] for name, one in report["policies"].items()},
        "policy_over": {
            name: one["trial_over"] for name, one in report["policies"].items() if "trial_over" in one
        },
    }


def _sources(args: argparse.Namespace, protocol: Protocol) -> Sources:
    paths = args.trace or _default_traces()
    if not paths:
        return {GENERATED: (generated_windows(protocol), ())}
    sources: Sources = {}
    for path in paths:
        found = recording(load_jobs(path, args.format, args.progress), protocol.copies)
        name = found.workload.name
        if name in sources:
            raise ConfigError(f"--trace: two recordings are called {name!r}")
        sources[name] = (found.windows(protocol.windows, protocol.jobs), found.notes)
    return sources


def _default_traces() -> list[Path]:
    folder = os.environ.get("RLSCALER_TRACES")
    return sorted(Path(folder).glob("jobs_*")) if folder else []


def _play(
    contestants: Sequence[Contestant],
    sources: Sources,
    protocol: Protocol,
    wanted: bool | None,
    console: Console,
) -> dict[str, dict[str, Played]]:
    jobs = sum(len(window) for windows, _ in sources.values() for window in windows) * protocol.seeds
    shown = console.is_terminal if wanted is None else wanted
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    played: dict[str, dict[str, Played]] = {}
    with Progress(*columns, console=console, disable=not shown) as progress:
        task = progress.add_task("jobs", total=jobs * len(contestants))
        for name, (windows, _) in sources.items():
            played[name] = {}
            for one in contestants:
                progress.update(task, description=f"{name}: {one.name}")
                played[name][one.name] = play(
                    one, protocol, windows, lambda done: progress.advance(task, done)
                )
    return played
