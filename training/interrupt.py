"""An orderly stop: the first Ctrl-C ends training after the update under way, the second at once."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


class StopTraining(Exception):
    """Ctrl-C was pressed: leave the learning loop between two updates."""


class StopOnInterrupt:
    """While active, the first Ctrl-C (or SIGTERM) asks for a stop after this update; the second is final."""

    def __init__(self, announce: Callable[[], None]) -> None:
        self.requested = False
        self._announce = announce
        self._old: dict[int, Any] = {}

    def __enter__(self) -> StopOnInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._announce()


def announce_stop() -> None:
    """Tell who pressed Ctrl-C that it was seen."""
    print("\nstopping after this update (again to stop at once, unsaved) ...", file=sys.stderr, flush=True)
