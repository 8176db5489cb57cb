"""Search for better settings of a preset: `python training/tune.py --preset default --trials 40`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

if __package__ in (None, ""):
    # a script's own folder on sys.path would shadow installed modules; the checkout's root is what is meant
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.errors import TrainingError


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="tune.py",
        description="Search over a preset's settings with Optuna; every trial is a run folder of train.py.",
        epilog="The same command goes on with a study. Several machines need the same --storage and --study.",
    )
    parser.add_argument("--preset", default="default", help="what to start from; default: default")
    parser.add_argument("--space", help="a file of training/spaces, or a YAML file; default: the algorithm's")
    parser.add_argument("--trials", type=int, default=20, help="trials in the whole study; default: 20")
    parser.add_argument("--timesteps", type=int, help="steps of each trial; default: the preset's")
    parser.add_argument("--workers", type=int, default=1, help="processes of this machine; default: 1")
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="postgresql://user:password@host/database, for several machines; default: the environment's "
        "RLSCALER_STUDY_STORAGE, else a journal in the study's folder",
    )
    parser.add_argument("--study", metavar="NAME", help="default: tune-<preset>")
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="where its folder is made; default: runs"
    )
    parser.add_argument("--seed", type=int, default=0, help="of training and of the search; default: 0")
    parser.add_argument("--windows", type=int, default=20, help="generated windows that score; default: 20")
    parser.add_argument("--window-hours", type=float, default=24.0, help="their length; default: 24")
    parser.add_argument("--window-seed", type=int, default=5, help="seed of those windows; default: 5")
    parser.add_argument(
        "--machine",
        type=int,
        default=_index(),
        metavar="N",
        help="this machine's number among those that share the study; number 0 writes the report; default: "
        "the environment's JOB_COMPLETION_INDEX, else 0",
    )
    parser.add_argument(
        "--report", action="store_true", help="write the report of what the study has, and stop"
    )
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """0 done, 1 where the same command can go on, 2 for input that cannot be used, 130 after a signal."""
    args = build_parser().parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    from training.tuning.storage import StorageError
    from training.tuning.study import tune

    # a cluster stops a pod so, and process 1 of a container would not even notice
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return tune(args)
    except KeyboardInterrupt:
        return 130
    except StorageError as error:
        print(f"tune.py: {error}", file=sys.stderr)
        return 1
    except TrainingError as error:
        print(f"tune.py: {error}", file=sys.stderr)
        return 2


def _index() -> int:
    """What an Indexed Job calls its pods."""
    found = os.environ.get("JOB_COMPLETION_INDEX", "")
    return int(found) if found.isdigit() else 0


if __name__ == "__main__":
    sys.exit(main())
