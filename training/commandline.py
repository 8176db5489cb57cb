"""What the commands of `training/` share: ends without a traceback for input or Ctrl-C, counts, and files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from training.errors import TrainingError


def run_command(program: str, work: Callable[[], object], interrupted: str = "interrupted") -> int:
    """Do the work: 0 done, 2 for input that cannot be used, 130 after Ctrl-C.

    interrupted: what is said after Ctrl-C, such as how to continue. Errors name the program.
    """
    from sim.errors import SimulationError

    try:
        work()
    except (TrainingError, SimulationError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: {interrupted}", file=sys.stderr)
        return 130
    return 0


def count(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def write_output(path: Path, text: str) -> None:
    """Write a file that the command line names, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
