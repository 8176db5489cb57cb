"""What was decided for each service, why, and every clamp on the way.

`Decisions` is a struct of arrays for the batch; `decisions[i]` is one service's readable `Decision`,
made only when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from controller.core.samples import BoolArray, FloatArray, IntArray, Outcome

FALLBACKS = ("", "MetricsUnavailable", "PolicyUnavailable", "InvalidAction", "CapacityUnknown")
METRICS_UNAVAILABLE, POLICY_UNAVAILABLE, INVALID_ACTION, CAPACITY_UNKNOWN = range(1, 5)


@dataclass(frozen=True, slots=True)
class Clamp:
    """One rule that changed the number: its name, a reason word, replicas before and after."""

    name: str
    reason: str
    before: int
    after: int
    message: str


@dataclass(frozen=True, slots=True)
class Stage:
    """One guard rule over the batch: `before` and `after` int `[N]`; it clamped where they differ."""

    name: str
    reason_up: str
    reason_down: str
    before: IntArray
    after: IntArray
    explain: str

    def clamp(self, index: int) -> Clamp | None:
        """The clamp on one service, or None where the rule left it alone."""
        before, after = int(self.before[index]), int(self.after[index])
        if before == after:
            return None
        reason = self.reason_up if after > before else self.reason_down
        return Clamp(self.name, reason, before, after, f"{before} -> {after}: {self.explain}")


@dataclass(frozen=True)
class Decision:
    """One service's decision. Replicas are None where nothing could be said."""

    current_replicas: int
    recommended_replicas: int | None
    hpa_replicas: int | None
    desired_replicas: int
    outcome: str
    clamps: tuple[Clamp, ...]
    message: str
    policy: str
    fallback: str | None
    metrics_outcome: Outcome
    load: float
    features: dict[str, float] = field(default_factory=dict)
    unfamiliar: bool = False
    """Whether the policy calls the observation unlike any in its training."""


@dataclass
class Decisions:
    """Decisions of N services; replica arrays are int64 `[N]`, recommendations float with NaN."""

    current_replicas: IntArray
    recommended_replicas: FloatArray
    hpa_replicas: FloatArray
    desired_replicas: IntArray
    fallback: IntArray
    metrics_outcome: IntArray
    load: FloatArray
    stages: list[Stage]
    policy_names: Callable[[int], str]
    features_of: Callable[[int], dict[str, float]]
    paused_at_zero: BoolArray
    unfamiliar: BoolArray

    def __len__(self) -> int:
        return len(self.desired_replicas)

    def __iter__(self) -> Iterator[Decision]:
        return (self[index] for index in range(len(self)))

    @property
    def outcome(self) -> list[str]:
        """ScaledUp, ScaledDown, NoChange or Held, a service each."""
        return [self._outcome(index) for index in range(len(self))]

    @property
    def reasons(self) -> list[tuple[Clamp, ...]]:
        """Every clamp in order, a service each."""
        return [self._clamps(index) for index in range(len(self))]

    def __getitem__(self, index: int) -> Decision:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        fallback = FALLBACKS[int(self.fallback[index])] or None
        return Decision(
            current_replicas=int(self.current_replicas[index]),
            recommended_replicas=_replicas(self.recommended_replicas[index]),
            hpa_replicas=_replicas(self.hpa_replicas[index]),
            desired_replicas=int(self.desired_replicas[index]),
            outcome=self._outcome(index),
            clamps=self._clamps(index),
            message=self._message(index, fallback),
            policy=self.policy_names(index),
            fallback=fallback,
            metrics_outcome=Outcome(int(self.metrics_outcome[index])),
            load=float(self.load[index]),
            features=self.features_of(index),
            unfamiliar=bool(self.unfamiliar[index]),
        )

    def _clamps(self, index: int) -> tuple[Clamp, ...]:
        found = (stage.clamp(index) for stage in self.stages)
        return tuple(clamp for clamp in found if clamp is not None)

    def _outcome(self, index: int) -> str:
        before, after = int(self.current_replicas[index]), int(self.desired_replicas[index])
        if after != before:
            return "ScaledUp" if after > before else "ScaledDown"
        if np.isnan(self.recommended_replicas[index]):
            return "Held"
        return "Held" if int(self.recommended_replicas[index]) != before else "NoChange"

    def _message(self, index: int, fallback: str | None) -> str:
        if self.paused_at_zero[index]:
            return "Held at 0 replicas: a target at 0 is left alone while minReplicas is above 0"
        before, after = int(self.current_replicas[index]), int(self.desired_replicas[index])
        recommended = _replicas(self.recommended_replicas[index])
        who = f"fallback ({fallback})" if fallback else self.policy_names(index)
        said = f"{who} recommended {recommended}" if recommended is not None else f"{who} recommended nothing"
        verb = {"ScaledUp": f"{before} -> {after}", "ScaledDown": f"{before} -> {after}"}
        head = verb.get(self._outcome(index), f"stays at {after}")
        limits = ", ".join(f"{clamp.name} ({clamp.message})" for clamp in self._clamps(index))
        outcome = Outcome(int(self.metrics_outcome[index]))
        metrics = "" if outcome is Outcome.OK else f"; metrics: {outcome.reason}"
        strange = "; the observation is unlike any in training" if self.unfamiliar[index] else ""
        return f"{head}: {said}" + (f"; {limits}" if limits else "") + strange + metrics


def _replicas(value: float) -> int | None:
    return None if np.isnan(value) else int(value)
