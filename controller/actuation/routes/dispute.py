"""Whether somebody else keeps changing the weights that we write: then we stop, and say so.

A GitOps tool with the route in its repository puts the weights back whenever it syncs. Writing them again
each time would be a fight that nobody sees; after a few rounds the route is contested and left alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.kube import Json

ROUNDS = 3
WINDOW_S = 3600.0
"""Control seconds: Flux syncs every ten minutes by default, Argo CD every three or, self-healing, at once."""
OURS = "rl-scaler"

Weights = Mapping[tuple[str, str], int]
"""By rule and service."""


@dataclass
class Dispute:
    """What we wrote last, and when others changed it. Times are control seconds."""

    written: Weights = field(default_factory=dict)
    changed_s: deque[float] = field(default_factory=deque)
    until_s: float = 0.0

    def see(self, weights: Weights, now_s: float) -> None:
        """Compare what the route holds with what we wrote last."""
        while self.changed_s and self.changed_s[0] <= now_s - WINDOW_S:
            self.changed_s.popleft()
        if any(weights.get(key, weight) != weight for key, weight in self.written.items()):
            self.changed_s.append(now_s)
            self.written = {}
        if len(self.changed_s) >= ROUNDS and now_s >= self.until_s:
            self.until_s = now_s + WINDOW_S

    def contested(self, now_s: float) -> bool:
        """Whether the route is to be left alone; after WINDOW_S it is tried again."""
        return now_s < self.until_s


def last_other_writer(route: Json) -> str:
    """The field manager other than us that last wrote the route; "" if it is not known."""
    entries = route["metadata"].get("managedFields") or []
    others = [
        (str(entry.get("time") or ""), str(entry.get("manager") or ""))
        for entry in entries
        if entry.get("manager") and not entry["manager"].startswith(OURS) and not entry.get("subresource")
    ]
    return max(others)[1] if others else ""
