"""How a canary does beside the policy in charge, in numbers; and how often a service is over its objective.

No I/O and no clock in here: `controller.canary` feeds in each decision. Times are control seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.api.decimals import format_decimal, parse_decimal

Json = dict[str, Any]

DIGITS = 3
LATE_PERIODS = 2.0
"""A load that is read so many periods too late says nothing about the decision any more."""
MOST_WAITING = 4096


@dataclass
class Lane:
    """One policy's replicas over the decisions scored. flaps: changes of direction, up after down or back."""

    replicas: float = 0.0
    short: int = 0
    flaps: int = 0
    _last: int | None = None
    _direction: int = 0

    def take(self, replicas: int) -> None:
        """The next decision's replicas."""
        self.replicas += replicas
        if self._last is not None and replicas != self._last:
            direction = 1 if replicas > self._last else -1
            self.flaps += self._direction == -direction
            self._direction = direction
        self._last = replicas


@dataclass
class _Waiting:
    """A decision whose load is yet to come."""

    due_s: float
    late_s: float
    canary: int | None
    active: int


@dataclass
class Scores:
    """Sums over the scored decisions of one RLScaler."""

    decisions: int = 0
    seconds: float = 0.0
    judged: int = 0
    canary: Lane = field(default_factory=Lane)
    active: Lane = field(default_factory=Lane)
    _waiting: deque[_Waiting] = field(default_factory=lambda: deque(maxlen=MOST_WAITING))

    @property
    def cost_ratio(self) -> float:
        """Mean replicas over the active policy's; NaN before any."""
        return self.canary.replicas / self.active.replicas if self.active.replicas else math.nan

    @property
    def shortfall(self) -> float:
        """Share of the judged decisions that left less than was needed; NaN before any."""
        return self.canary.short / self.judged if self.judged else math.nan

    @property
    def active_shortfall(self) -> float:
        return self.active.short / self.judged if self.judged else math.nan

    @property
    def flap_ratio(self) -> float:
        """One is added to both: no flaps at all are no reason to divide by zero, and one flap is none."""
        return (self.canary.flaps + 1) / (self.active.flaps + 1)

    def judge(self, now_s: float, load: float) -> None:
        """The load (in replicas) of now, for the decisions that were to be ready for it."""
        while self._waiting and self._waiting[0].due_s <= now_s:
            made = self._waiting.popleft()
            if now_s > made.late_s or not math.isfinite(load):
                continue
            self.judged += 1
            self.canary.short += made.canary is None or load > made.canary
            self.active.short += load > made.active

    def take(
        self, now_s: float, elapsed_s: float, period_s: float, lead_s: float, canary: int | None, active: int
    ) -> None:
        """One decision: replicas of both; canary None: it said nothing, which no load will be enough for.

        elapsed_s: since the one before. lead_s: start-up time, after which its replicas are there.
        """
        self.decisions += 1
        self.seconds += elapsed_s
        self.canary.take(active if canary is None else canary)
        self.active.take(active)
        due_s = now_s + lead_s
        self._waiting.append(_Waiting(due_s, due_s + LATE_PERIODS * period_s, canary, active))

    def as_status(self) -> Json:
        """Fields of status.policy.canary; those that are not known yet are absent."""
        count = max(self.decisions, 1)
        numbers = {
            "replicas": self.canary.replicas / count,
            "activeReplicas": self.active.replicas / count,
            "costRatio": self.cost_ratio,
            "shortfall": self.shortfall,
            "activeShortfall": self.active_shortfall,
            "flapRatio": self.flap_ratio,
        }
        shown: Json = {
            "decisions": self.decisions,
            "scoredSeconds": round(self.seconds),
            "judged": self.judged,
            "flaps": self.canary.flaps,
            "activeFlaps": self.active.flaps,
        }
        shown |= {name: format_decimal(value, DIGITS) for name, value in numbers.items() if value == value}
        return shown

    @classmethod
    def from_status(cls, held: Mapping[str, Any]) -> Scores:
        """What `as_status` left, to the digits that it keeps; nothing where it cannot be read."""
        try:
            count, judged = int(held.get("decisions", 0)), int(held.get("judged", 0))
            mean, active = (parse_decimal(held.get(name, "0")) for name in ("replicas", "activeReplicas"))
            short, active_short = (
                round(parse_decimal(held.get(name, "0")) * judged)
                for name in ("shortfall", "activeShortfall")
            )
            return cls(
                count,
                float(held.get("scoredSeconds", 0)),
                judged,
                Lane(mean * count, short, int(held.get("flaps", 0))),
                Lane(active * count, active_short, int(held.get("activeFlaps", 0))),
            )
        except (TypeError, ValueError):
            return cls()


@dataclass
class Violations:
    """Seconds over the objective within a window."""

    window_s: float
    _over: deque[tuple[float, float]] = field(default_factory=deque)

    def note(self, now_s: float, seconds: float) -> None:
        """So many seconds up to now were over the objective."""
        if seconds > 0:
            self._over.append((now_s, seconds))
        self._forget(now_s)

    def ratio(self, now_s: float) -> float:
        """Share of the whole window, however little of it has been seen."""
        self._forget(now_s)
        return min(sum(seconds for _, seconds in self._over) / self.window_s, 1.0)

    def clear(self) -> None:
        self._over.clear()

    def _forget(self, now_s: float) -> None:
        while self._over and self._over[0][0] <= now_s - self.window_s:
            self._over.popleft()
