"""A run, or an artifact, as one HTML page: `python training/report.py RUN`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):
    # a script's own folder on sys.path would shadow installed modules; the checkout's root is what is meant
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.commandline import run_command
from training.errors import ConfigError
from training.evaluate import interrupted_words


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="report.py",
        description="Write one self-contained HTML page about a run: what it is, its learning curves, its "
        "frontier, timelines, how the policy behaves, and where it fails.",
        epilog="Evaluation is evaluate.py's, with its cache: a second report of the same policy is quick.",
    )
    parser.add_argument("source", type=Path, metavar="RUN", help="a run folder, or an .onnx artifact")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="default: report.html in the run folder, or beside the artifact",
    )
    parser.add_argument(
        "--evaluate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="replay it against HPA, Forecast and clairvoyant, or show only what the folder has; default: do",
    )
    traffic = parser.add_argument_group("evaluation (as of evaluate.py)")
    traffic.add_argument(
        "--trace", nargs="+", type=Path, metavar="FILE", help="recordings; default: generated workloads"
    )
    traffic.add_argument("--windows", type=int, default=40, help="generated windows; default: 40")
    traffic.add_argument("--hours", type=float, default=24.0, help="length of a window; default: 24")
    traffic.add_argument("--seed", type=int, default=1000, help="of generated windows; default: 1000")
    traffic.add_argument("--jobs", type=int, default=2, help="processes; default: 2")
    traffic.add_argument("--cache", type=Path, metavar="DIR", help="default: evaluate.py's")
    traffic.add_argument("--no-cache", action="store_true", help="compute everything, keep nothing")
    traffic.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, help="bars; default: by the terminal"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line: 0 done, 2 for input that cannot be used, 130 after Ctrl-C."""
    args = build_parser().parse_args(argv)
    return run_command("report.py", lambda: _report(args), interrupted_words(no_cache=False))


def _report(args: argparse.Namespace) -> None:
    from training.reporting.build import report

    if args.out is not None and args.out.is_dir():
        raise ConfigError(f"--out: {args.out} is a folder; a file is expected")
    path = report(args)
    print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    sys.exit(main())
