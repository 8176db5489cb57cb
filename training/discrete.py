"""Adding and removing servers: the hand-written rule against learned policies, on the same traffic.

    python training/discrete.py tune --out rules.json
    python training/discrete.py compare --rules rules.json --policy qlearning=RUN,RUN ppo=RUN,RUN HPA

`tune` searches the rule's thresholds, steps and cooldowns with Optuna. `compare` prints cost, overload events
and stability, with the spread over training seeds. docs/discrete.md and docs/qlearning.md have its tables.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):
    # a script's own folder on sys.path would shadow installed modules; the checkout's root is what is meant
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.commandline import run_command


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="discrete.py", description="The threshold rule and learned policies that add and remove servers."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    tune = commands.add_parser("tune", help="search the threshold rule's numbers with Optuna")
    tune.add_argument("--trials", type=int, default=256, help="rules that are tried; default: 256")
    tune.add_argument("--out", type=Path, default=Path("rules.json"), help="default: rules.json")
    _traffic(tune, windows=12, seed=500)
    compare = commands.add_parser("compare", help="the same traffic under every contestant, as a table")
    compare.add_argument(
        "--policy",
        nargs="+",
        default=["HPA", "default"],
        metavar="NAME[=RUN,RUN]",
        help="NAME=FILES: one policy, trained with several seeds: .onnx files or run folders, with commas "
        "between; or a name that evaluate.py knows, such as HPA or default. Default: HPA default",
    )
    compare.add_argument("--rules", type=Path, metavar="FILE", help="rules of `tune`, as a contestant")
    compare.add_argument(
        "--trace", nargs="+", type=Path, metavar="FILE", help="recordings; default: generated workloads"
    )
    compare.add_argument("--windows-per-trace", type=int, default=1, help="of each recording; default: 1")
    compare.add_argument("--markdown", type=Path, metavar="OUT", help="the table for a document")
    compare.add_argument("--plot", type=Path, metavar="PNG", help="frontiers and timelines")
    _traffic(compare, windows=40, seed=1000)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line: 0 done, 2 for input that cannot be used, 130 after Ctrl-C."""
    args = build_parser().parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    return run_command("discrete.py", lambda: _work(args))


def _work(args: argparse.Namespace) -> None:
    if args.command == "tune":
        from training.addremove.rules import tune

        tune(args)
    else:
        from training.addremove.table import compare

        compare(args)


def _traffic(parser: argparse.ArgumentParser, windows: int, seed: int) -> None:
    parser.add_argument("--windows", type=int, default=windows, help=f"generated ones; default: {windows}")
    parser.add_argument("--hours", type=float, default=24.0, help="length of a window; default: 24")
    parser.add_argument(
        "--seed", type=int, default=seed, help=f"of generated windows and of arrivals; default: {seed}"
    )
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="a bar; default: by the terminal",
    )


if __name__ == "__main__":
    sys.exit(main())
