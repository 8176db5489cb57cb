"""The work of `training/web_balancing.py`'s commands: from the command line to tables, files and pictures."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sim.webbalancing.batch import WebConfig
from training.commandline import write_output
from training.errors import ConfigError
from training.runs import this_command
from training.webbalancing.contestants import contestants
from training.webbalancing.evaluation import Tell, evaluate
from training.webbalancing.tables import evaluation_tables, transfer_tables, validation_table

SCRIPT = "web_balancing.py"


def evaluate_command(args: argparse.Namespace) -> None:
    """50 episodes of each phase, in the twin."""
    compared = _compared(args)
    with _told(len(compared) * len(args.phase), args.progress) as tell:
        phases = evaluate(compared, args.phase, args.episodes, _config(args), args.seed, tell)
    report = {"command": _command(args), "episodes": args.episodes, "phases": phases}
    _publish(args, report, evaluation_tables(report))
    if args.plots:
        from training.webbalancing.pictures import plot_evaluation

        for path in plot_evaluation(report, compared, args.trained, _config(args), args.plots):
            print(f"picture: {path}", file=sys.stderr)


def transfer_command(args: argparse.Namespace) -> None:
    """The same episodes on real servers and in the twin."""
    from training.webbalancing.transfer import transfer

    config = _config(args, tuple(args.addresses))
    compared = _compared(args)
    args.errors.parent.mkdir(parents=True, exist_ok=True)
    total = args.episodes * sum(len(one.policies) for one in compared)
    with _told(total, args.progress) as tell:
        found = transfer(compared, args.phase, args.episodes, config, args.seed, args.errors, tell)
    report = {"command": _command(args), **found}
    _publish(args, report, transfer_tables(report))
    if args.plots:
        from training.webbalancing.pictures import plot_transfer

        print(f"picture: {plot_transfer(report, args.plots)}", file=sys.stderr)


def validate_command(args: argparse.Namespace) -> None:
    """How well the twin tells the real servers' latencies."""
    from training.webbalancing.transfer import validate

    for load in args.load:
        if not 0.05 <= load <= 1.2:
            raise ConfigError(f"--load: {load} is not allowed, must be in 0.05..1.2")
    with _told(len(args.load), args.progress) as tell:
        found = validate(args.load, _config(args), args.seed, tell)
    report = {"command": _command(args), **found}
    _publish(args, report, validation_table(report))
    if args.plots:
        from training.webbalancing.pictures import plot_validation

        print(f"picture: {plot_validation(report, args.plots)}", file=sys.stderr)


def _compared(args: argparse.Namespace) -> list[Any]:
    found = contestants(args.trained, args.policy, args.servers)
    if not found:
        raise ConfigError("--policy: nobody to evaluate; give a run or the name of a policy")
    return found


def _config(args: argparse.Namespace, addresses: tuple[str, ...] = ()) -> WebConfig:
    servers = len(addresses) or args.servers
    if addresses and servers != args.servers:
        raise ConfigError(f"--addresses: {servers} given, --servers {args.servers} are expected")
    return WebConfig(servers=servers, batches=args.batches, addresses=addresses)


def _command(args: argparse.Namespace) -> str:
    return shlex.join(this_command(SCRIPT, args.argv))


def _publish(args: argparse.Namespace, report: dict[str, Any], text: str) -> None:
    print(text)
    if args.json:
        write_output(args.json, json.dumps(report, indent=1) + "\n")
    if args.markdown:
        write_output(args.markdown, text)


@contextmanager
def _told(total: int, shown: bool | None) -> Iterator[Tell]:
    """A bar with the time left, on standard error."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<44}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(compact=True),
    )  # fmt: skip
    visible = console.is_terminal if shown is None else shown
    with Progress(*columns, console=console, disable=not visible) as progress:
        task = progress.add_task("begins", total=total)
        yield lambda text: progress.update(task, advance=1, description=text)
