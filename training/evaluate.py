"""Compare policies at equal violations: `python training/evaluate.py --policy hpa default clairvoyant`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):
    # a script's own folder on sys.path would shadow installed modules; the checkout's root is what is meant
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.errors import TrainingError


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="evaluate.py",
        description="Replay the same traffic through every policy and compare costs at equal SLO violations.",
        epilog="Traces are cut into windows of a day, scaled to a peak of 60 replicas; start-up takes 60 s.",
    )
    parser.add_argument(
        "--trace", nargs="+", type=Path, metavar="FILE", help="CSV; default: generated workloads"
    )
    parser.add_argument(
        "--policy",
        nargs="+",
        default=["hpa", "forecast", "default", "clairvoyant"],
        metavar="NAME",
        help="hpa, forecast, clairvoyant, a built-in policy, or an .onnx file; default: those and `default`",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every number here")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write Pareto plots here")
    parser.add_argument("--card", action="store_true", help="put the result into the .onnx files' metadata")
    parser.add_argument(
        "--windows", type=int, default=40, help="generated windows without --trace; default: 40"
    )
    parser.add_argument(
        "--windows-per-trace", type=int, default=3, help="windows cut from each trace; default: 3"
    )
    parser.add_argument("--hours", type=float, default=24.0, help="length of a window; default: 24")
    parser.add_argument(
        "--seed", type=int, default=1000, help="of generated workloads and arrivals; default: 1000"
    )
    parser.add_argument(
        "--scale-down-window",
        type=int,
        default=300,
        help="seconds, of learned policies and forecast; default: 300",
    )
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, help="a bar; default: by the terminal"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line: 0 done, 2 for input that cannot be used."""
    args = build_parser().parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    from sim.errors import SimulationError
    from training.comparison import compare

    try:
        compare(args)
    except (TrainingError, SimulationError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
