"""Why something is not as it should be; from where it is found out to the condition that says it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trouble:
    """A condition's reason and message; `unknown`: its status is Unknown rather than False."""

    reason: str
    message: str
    unknown: bool = False
