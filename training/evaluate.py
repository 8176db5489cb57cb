"""Compare policies at equal violations: `python training/evaluate.py --policy HPA default clairvoyant`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):
    # a script's own folder on sys.path would shadow installed modules; the checkout's root is what is meant
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.commandline import run_command

DEFAULT_POLICIES = (
    "HPA", "KEDA", "Knative", "HoltWinters", "SeasonalNaive", "MovingMaximum", "Forecast", "ErlangC",
    "default", "clairvoyant",
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="evaluate.py",
        description="Replay the same traffic through every policy and compare costs at equal SLO violations.",
        epilog="Traces are cut into windows of a day, scaled to a peak of 60 replicas; start-up takes 60 s. "
        "docs/evaluation.md tells what every figure means.",
    )
    traffic = parser.add_argument_group("traffic")
    traffic.add_argument(
        "--trace", nargs="+", type=Path, metavar="FILE", help="recordings; default: generated workloads"
    )
    traffic.add_argument(
        "--windows", type=int, default=40, help="generated windows without --trace; default: 40"
    )
    traffic.add_argument(
        "--windows-per-trace", type=int, default=3, help="windows cut from each trace; default: 3"
    )
    traffic.add_argument("--hours", type=float, default=24.0, help="length of a window; default: 24")
    traffic.add_argument(
        "--seed", type=int, default=1000, help="of generated workloads and the first arrivals; default: 1000"
    )
    traffic.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="arrival seeds for each window; default: 1"
    )
    policies = parser.add_argument_group("policies")
    policies.add_argument(
        "--policy",
        nargs="+",
        default=list(DEFAULT_POLICIES),
        metavar="NAME",
        help=f"{', '.join(DEFAULT_POLICIES)}, Static, another built-in policy, or an .onnx file; "
        "default: all that are named here but Static",
    )
    policies.add_argument(
        "--scale-down-window",
        type=int,
        default=300,
        help="seconds, of all but the HPA, which is tried at 0, 60 and 300; default: 300",
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "--json", type=Path, metavar="OUT", help="every number (training/evaluation.schema.json)"
    )
    results.add_argument("--markdown", type=Path, metavar="OUT", help="tables for a document")
    results.add_argument(
        "--plots", type=Path, metavar="DIR", help="frontiers, intervals and timelines as PNG"
    )
    results.add_argument("--card", action="store_true", help="put the result into the .onnx files' metadata")
    add_running(parser)
    return parser


def add_running(parser: argparse.ArgumentParser) -> None:
    """The options on how to run, which `robustness.py` has too."""
    running = parser.add_argument_group("running")
    running.add_argument(
        "--jobs", type=int, default=2, help="processes; results don't depend on it; default: 2"
    )
    running.add_argument(
        "--cache", type=Path, metavar="DIR", help="where finished parts are kept; default: under ~/.cache"
    )
    running.add_argument("--no-cache", action="store_true", help="compute everything, keep nothing")
    running.add_argument(
        "--engine",
        choices=("fused", "core"),
        default="fused",
        help="who runs policies and guard: the compiled twin, or the operator's own code; default: fused",
    )
    running.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, help="bars; default: by the terminal"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line: 0 done, 2 for input that cannot be used, 130 after Ctrl-C."""
    args = build_parser().parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    from training.comparison import compare

    return run_command("evaluate.py", lambda: compare(args), interrupted_words(args.no_cache))


def interrupted_words(no_cache: bool) -> str:
    """What a command that keeps finished parts says after Ctrl-C."""
    return "interrupted" if no_cache else "interrupted; the same command continues from what is done"


if __name__ == "__main__":
    sys.exit(main())
