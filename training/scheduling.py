"""Compare schedulers on jobs' recordings: `python training/scheduling.py --trace FILES --policy learned
best-fit`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):
    # a script's own folder on sys.path would shadow installed modules; the checkout's root is what is meant
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.commandline import run_command

DEFAULT_POLICIES = (
    "learned", "keep-room", "shortest-expected-delay", "first-fit", "best-fit", "least-loaded", "round-robin",
    "random", "power-of-two", "best-fit/arrival", "least-loaded/arrival",
)  # fmt: skip
TRACES = "jobs_*"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scheduling.py",
        description="Schedule the same jobs by every policy and compare mean slowdowns.",
        epilog="docs/scheduling.md tells what every figure means.",
    )
    jobs = parser.add_argument_group("jobs")
    jobs.add_argument(
        "--trace",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="recordings: the project's CSV, Google 2011 and 2019, Alibaba 2017 and 2018, Azure's virtual "
        f"machines, SWF; default: {TRACES} in the folder RLSCALER_TRACES, or generated ones without that",
    )
    jobs.add_argument("--format", default="auto", help="the recordings' format; default: by their content")
    jobs.add_argument("--windows", type=int, default=10, help="windows of each recording; default: 10")
    jobs.add_argument("--jobs", type=int, default=1500, help="jobs of a window; default: 1500")
    jobs.add_argument(
        "--copies", type=int, default=1, help="instances of a job that count, at most; default: 1"
    )
    jobs.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="draws of the estimates' errors; default: 3"
    )
    cluster = parser.add_argument_group("cluster")
    cluster.add_argument("--servers", type=int, default=16, help="default: 16")
    cluster.add_argument(
        "--cluster",
        choices=("alike", "mixed"),
        default="alike",
        help="mixed: every other server is half as fast",
    )
    cluster.add_argument("--load", type=float, default=0.9, help="work over capacity; default: 0.9")
    cluster.add_argument(
        "--estimate-error", type=float, default=0.5, help="log-normal sigma of estimates; default: 0.5"
    )
    cluster.add_argument(
        "--overcommit", type=float, default=1.0, help="cpu placed over cpu there; default: 1, reservations"
    )
    parser.add_argument(
        "--policy",
        nargs="+",
        default=list(DEFAULT_POLICIES),
        metavar="NAME",
        help=f"{', '.join(DEFAULT_POLICIES)}, or an .onnx file; the first is compared with the others. "
        "Waiting jobs are offered shortest first, with /arrival as they came, with /strict nobody passes the "
        "first",
    )
    results = parser.add_argument_group("results")
    results.add_argument("--json", type=Path, metavar="OUT", help="every number")
    results.add_argument("--markdown", type=Path, metavar="OUT", help="tables for a document")
    results.add_argument("--plots", type=Path, metavar="DIR", help="bars with intervals and timelines as PNG")
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, help="bars; default: by the terminal"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line: 0 done, 2 for input that cannot be used, 130 after Ctrl-C."""
    args = build_parser().parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    from training.schedulers.comparison import compare

    return run_command("scheduling.py", lambda: compare(args))


if __name__ == "__main__":
    sys.exit(main())
