"""Speed of the simulators, of learning and of the decision core on one core, beside Gymnasium's CartPole.

`make bench` runs it. All cases take turns in short slices, in one process with one thread, timed by the
processor's time that they use. Figures of another machine differ; ratios to the yardstick differ less.

    python -m benchmarks [--rounds 9] [--slice 0.2] [--only GROUP ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: E402

from benchmarks.cases import GROUPS, YARDSTICK  # noqa: E402
from benchmarks.measuring import Row, measure  # noqa: E402


def table(rows: Sequence[Row]) -> str:
    """Markdown: median and spread, ratio to the yardstick, the bar and whether it was reached."""
    lines = [
        f"| what | a second | ± | unit | of {YARDSTICK} | bar | reached | note |",
        "|---|---:|---:|---|---:|---:|---|---|",
    ]
    lines += [
        f"| {row.what} | {row.rate:,.0f} | {row.spread:.0%} | {row.unit} | {row.ratio:.4f} "
        f"| {'' if row.bar is None else f'{row.bar:,.0f}'} | {row.verdict} | {row.note} |"
        for row in rows
    ]
    return "\n".join(lines)


def run(groups: Sequence[str], rounds: int, slice_s: float) -> list[Row]:
    """Measure these groups of cases (the yardstick always) behind a progress bar."""
    wanted = ["cartpole", *(name for name in GROUPS if name in groups and name != "cartpole")]
    columns = (TextColumn("{task.description:<40}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("setting up", total=None)
        cases = []
        for name in wanted:
            progress.update(task, description=f"setting up {name}")
            cases += list(GROUPS[name]())
        progress.update(task, total=len(cases) * (rounds + 1))

        def tick(what: str) -> None:
            progress.update(task, advance=1, description=what)

        return measure(cases, rounds, slice_s, tick)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="how often each case gets its turn (default 9)")
    parser.add_argument("--slice", type=float, default=0.2, help="seconds of each turn (default 0.2)")
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS), help="some groups")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(argv)
    if args.rounds < 1 or args.slice <= 0:
        parser.error("--rounds must be 1 or more, --slice above 0")
    rows = run(args.only, args.rounds, args.slice)
    machine = f"Python {platform.python_version()}, {platform.machine()}"
    print(f"One core, {machine}; median of {args.rounds} rounds ± half their quartiles' distance.\n")
    print(table(rows))
    if args.json is not None:
        found = {"machine": machine, "yardstick": YARDSTICK, "rows": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
