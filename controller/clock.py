"""The operator's clock: control seconds, which are Unix seconds times the time scale.

Everything that decides takes `now_s` as an argument; only the loop owns a Clock. The time scale is 1 in a
cluster. A rehearsal against the twin runs it at, say, 60: one real second then counts as a minute, and
since control time is a multiple of Unix time, what a killed operator left in `status` keeps its meaning for
the next.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """Control seconds that never step backwards, whatever NTP does to the wall clock meanwhile."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self._offset_s = time.time() - time.monotonic()

    def now(self) -> float:
        """Control seconds now."""
        return self.to_control(time.monotonic() + self._offset_s)

    def to_control(self, unix_s: float) -> float:
        return unix_s * self.scale

    def to_unix(self, control_s: float) -> float:
        return control_s / self.scale

    def to_real(self, control_duration_s: float) -> float:
        """Real seconds that a duration in control seconds takes."""
        return control_duration_s / self.scale


def rfc3339(unix_s: float) -> str:
    """A Kubernetes `metav1.Time`: UTC, whole seconds."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(unix_s: float) -> str:
    """A Kubernetes `metav1.MicroTime`."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def unix_seconds(text: str) -> float | None:
    """Unix seconds of an RFC 3339 time, or None where it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
