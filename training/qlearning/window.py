"""A window with the dashboard, where there is a display; elsewhere a line that says so.

`train.py --show` and the demo open one. Nothing here is imported without need: choosing an interactive
backend of matplotlib is for those who asked for a window.
"""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any, Protocol

from training.qlearning.dashboard import SIZE, draw
from training.qlearning.showcase import Story

BACKENDS = ("QtAgg", "TkAgg", "GTK3Agg", "MacOSX")
"""Interactive ones, as far as they are installed."""
EVERY_S = 1.0
NO_DISPLAY = "no window for the dashboard: there is no display here, or no matplotlib backend for it"


class Window(Protocol):
    """Where a dashboard is shown while something trains."""

    def __enter__(self) -> Window: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def due(self) -> bool:
        """Whether it is time to show something new."""
        ...

    def show(self, story: Story) -> None:
        """Show this."""
        ...

    def wait(self) -> None:
        """Until the window is closed."""
        ...


def make_window(wanted: bool) -> Window:
    """A window if it is wanted and possible; else one that shows nothing."""
    if not wanted:
        return NoWindow()
    backend = _backend()
    if backend is None:
        print(NO_DISPLAY, file=sys.stderr)
        return NoWindow()
    return LiveWindow(backend)


def has_display() -> bool:
    """Whether windows can be opened at all."""
    if sys.platform.startswith(("win", "darwin")):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class NoWindow:
    """Shows nothing."""

    due = False

    def __enter__(self) -> NoWindow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def show(self, story: Story) -> None:
        """Nothing."""

    def wait(self) -> None:
        """Not at all."""


class LiveWindow:
    """A window of matplotlib's, drawn anew every EVERY_S seconds; closing it does not stop the training."""

    def __init__(self, backend: str) -> None:
        import matplotlib.pyplot as plt

        plt.switch_backend(backend)
        self._plt: Any = plt
        self._figure = plt.figure("rl-scaler: Q-learning", figsize=SIZE)
        self._next = 0.0

    def __enter__(self) -> LiveWindow:
        self._plt.show(block=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._plt.close(self._figure)

    @property
    def open(self) -> bool:
        """Whether nobody has closed it."""
        return bool(self._plt.fignum_exists(self._figure.number))

    @property
    def due(self) -> bool:
        """Whether it is open and its picture is old."""
        return self.open and time.monotonic() >= self._next

    def show(self, story: Story) -> None:
        """Draw the dashboard."""
        draw(self._figure, story)
        self._figure.canvas.draw_idle()
        self._figure.canvas.flush_events()
        self._next = time.monotonic() + EVERY_S

    def wait(self) -> None:
        """Until somebody closes it, or Ctrl-C."""
        if self.open:
            print("close the window to end")
            self._plt.show(block=True)


def _backend() -> str | None:
    """The first interactive backend that works here."""
    if not has_display():
        return None
    import matplotlib.pyplot as plt

    for backend in BACKENDS:
        try:
            plt.switch_backend(backend)
        except (ImportError, RuntimeError):
            continue
        return backend
    return None
