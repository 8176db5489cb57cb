"""What a budget told one RLScaler: for its status, for the clamp in its decision. Pure values."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.clamps import worded
from controller.core import Decision

CLAMP: Final = "Budget"
"""Name of the guard's last stage, which the engine's `budget` feeds."""

NAME_LIMIT: Final = 253
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Share:
    """Which budget, the most replicas that it leaves (None: as many as are asked for), and why."""

    name: str
    cap: int | None = None
    message: str = ""

    @property
    def shape(self) -> Hashable:
        """Equal for two that say the same, whatever the numbers in the message."""
        return self.name, self.cap, _DIGITS.sub("#", self.message)


def explained(decision: Decision, share: Share | None) -> Decision:
    """The decision whose clamp "Budget" names the budget and the shortage."""
    if share is None or share.cap is None:
        return decision
    return worded(decision, {CLAMP: share.message})


def share_status(share: Share, old: Mapping[str, Any] | None) -> dict[str, Any]:
    """status.budget of an RLScaler; `old` itself where it says the same in other digits."""
    if old and Share(old.get("name", ""), old.get("cap"), old.get("message", "")).shape == share.shape:
        return dict(old)
    new = {"name": share.name[:NAME_LIMIT], "cap": share.cap, "message": share.message}
    return {key: value for key, value in new.items() if value not in (None, "")}
