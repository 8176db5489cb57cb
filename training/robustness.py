"""Does a policy violate more than the HPA at equal cost when things are not as expected?

`python training/robustness.py --policy default ppo Forecast`
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):
    # a script's own folder on sys.path would shadow installed modules; the checkout's root is what is meant
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.commandline import run_command
from training.evaluate import add_running, interrupted_words

DEFAULT_POLICIES = ("default", "ppo", "Forecast")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="robustness.py",
        description="Replay the same traffic under changed conditions, and compare violations with those of "
        "the HPA, at any of its settings, for the same money.",
        epilog="docs/robustness.md tells what the conditions are and how verdicts are found.",
    )
    parser.add_argument(
        "--policy",
        nargs="+",
        default=list(DEFAULT_POLICIES),
        metavar="NAME",
        help="as for evaluate.py; the HPA is always there; default: %(default)s",
    )
    parser.add_argument(
        "--condition", nargs="+", metavar="NAME", help="some of the conditions; default: all; see --list"
    )
    parser.add_argument("--list", action="store_true", help="list the conditions and stop")
    traffic = parser.add_argument_group("traffic")
    traffic.add_argument(
        "--trace", nargs="+", type=Path, default=[], metavar="FILE",
        help="recordings; default: generated workloads",
    )  # fmt: skip
    traffic.add_argument(
        "--windows", type=int, default=40, help="generated windows without --trace; default: 40"
    )
    traffic.add_argument(
        "--windows-per-trace", type=int, default=1, help="windows cut from each trace; default: 1"
    )
    traffic.add_argument("--hours", type=float, default=4.0, help="length of a window; default: 4")
    traffic.add_argument("--seed", type=int, default=1000, help="of workloads and arrivals; default: 1000")
    traffic.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="arrival seeds a window; default: 1"
    )
    traffic.add_argument(
        "--scale-down-window",
        type=int,
        default=300,
        help="seconds, of all but the HPA, which is tried at 0, 60 and 300; default: 300",
    )
    results = parser.add_argument_group("results")
    results.add_argument("--json", type=Path, metavar="OUT", help="every number")
    results.add_argument("--markdown", type=Path, metavar="OUT", help="tables for a document")
    results.add_argument("--plots", type=Path, metavar="DIR", help="robustness.png")
    add_running(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line: 0 done, 2 for input that cannot be used, 130 after Ctrl-C."""
    args = build_parser().parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    from training.hardship import examine, list_conditions

    work = list_conditions if args.list else examine
    return run_command("robustness.py", lambda: work(args), interrupted_words(args.no_cache))


if __name__ == "__main__":
    sys.exit(main())
