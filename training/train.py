"""Train a policy: `python training/train.py --preset default --seed 0`; `--resume RUN` continues a run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):
    # a script's own folder on sys.path would shadow installed modules; the checkout's root is what is meant
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.config import ACTION_KINDS, ALGORITHMS, preset_names
from training.errors import TrainingError
from training.tasks import TASKS

if TYPE_CHECKING:
    from training.sitting import Plan


def build_parser() -> argparse.ArgumentParser:
    """The command line; options left out keep the preset's value."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a policy on generated or recorded workloads and export it as an artifact.",
        epilog="Ctrl-C saves a checkpoint and says how to continue. Everything is kept in one run folder.",
    )
    parser.add_argument(
        "--preset",
        help=f"{', '.join(preset_names())}, or a YAML file; default: that of --env and --algo",
    )
    parser.add_argument("--env", choices=TASKS, help="environment; default: the preset's, or autoscale")
    parser.add_argument(
        "--algo", choices=ALGORITHMS, help="algorithm, as the environment allows; default: the preset's"
    )
    parser.add_argument(
        "--action", choices=ACTION_KINDS, help="autoscale: what the policy chooses; default: the preset's"
    )
    parser.add_argument(
        "--trace",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="autoscale: cut the episodes from these recordings, in any format of docs/traces.md",
    )
    parser.add_argument(
        "--trace-share",
        type=float,
        metavar="SHARE",
        help="share of the episodes that are cut from --trace, the others generated; default: 1",
    )
    parser.add_argument(
        "--timesteps", type=_steps, help="control steps in the whole run, over all environments"
    )
    parser.add_argument("--num-envs", type=_steps, help="services simulated side by side")
    parser.add_argument("--seed", type=int, help="seed of everything random; default: 0")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="continue this run folder")
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="where run folders are made; default: runs"
    )
    parser.add_argument(
        "--device", default="cpu", help="torch device; default: cpu, the fastest for small networks"
    )
    parser.add_argument(
        "--evaluate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="a short evaluation on held-out episodes for card.json at the end; default: yes",
    )
    parser.add_argument("--show", action="store_true", help="qlearning: a dashboard while it trains")
    parser.add_argument(
        "--demo", action="store_true", help="qlearning: train briefly before the dashboard, write nothing"
    )
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="a bar, or plain lines; default: by the terminal",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line: 0 done, 2 for input that cannot be used, 130 stopped by Ctrl-C (saved)."""
    args = build_parser().parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    from training.sitting import make_plan

    try:
        plan = make_plan(args)
        return _trainer(plan.preset.algo)(plan)
    except TrainingError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2


def _trainer(algo: str) -> Callable[[Plan], int]:
    """Who trains with this algorithm; only that one's libraries are imported."""
    if algo == "analytic":
        from training.analytic.run import train as train_analytic

        return train_analytic
    if algo == "evolution":
        from training.poolsets.run import train as train_pools

        return train_pools
    if algo == "qlearning":
        from training.qlearning.run import train as train_table

        return train_table
    from training.session import train

    return train


def _steps(text: str) -> int:
    """A positive number; 2e6 and 2_000_000 are as good as 2000000."""
    try:
        value = float(text.replace("_", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if value < 1 or value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(value)


if __name__ == "__main__":
    sys.exit(main())
