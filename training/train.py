"""Train a policy: `python training/train.py --preset default --seed 0`; `--resume RUN` continues a run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):
    # a script's own folder on sys.path would shadow installed modules; the checkout's root is what is meant
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.config import ALGORITHMS, ENVIRONMENTS, preset_names
from training.errors import TrainingError


def build_parser() -> argparse.ArgumentParser:
    """The command line; options left out keep the preset's value."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train an autoscaling policy on generated workloads and export it as an artifact.",
        epilog="Ctrl-C saves a checkpoint and says how to continue. Everything is kept in one run folder.",
    )
    parser.add_argument(
        "--preset",
        help=f"{', '.join(preset_names())}, or a YAML file; default: ppo with --algo ppo, else default",
    )
    parser.add_argument("--env", choices=ENVIRONMENTS, help="environment; default: the preset's")
    parser.add_argument("--algo", choices=ALGORITHMS, help="algorithm; default: the preset's")
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
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="a bar, or plain lines; default: by the terminal",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line: 0 done, 2 for input that cannot be used, 130 stopped by Ctrl-C (saved)."""
    args = build_parser().parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    args.preset = args.preset or ("ppo" if args.algo == "ppo" else "default")
    from training.session import train

    try:
        return train(args)
    except TrainingError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2


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
