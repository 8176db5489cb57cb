"""What was decided for each service, why, and every clamp on the way.

`Decisions` is a struct of arrays for the batch; `decisions[i]` is one service's readable `Decision`,
made only when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from controller.core.observation import OBSERVATION_SCHEMA
from controller.core.samples import BoolArray, FloatArray, IntArray, Outcome

FALLBACKS = ("", "MetricsUnavailable", "PolicyUnavailable", "InvalidAction", "CapacityUnknown", "Recovering")
METRICS_UNAVAILABLE, POLICY_UNAVAILABLE, INVALID_ACTION, CAPACITY_UNKNOWN, RECOVERING = range(1, 6)
DECIDERS = ("Policy", "HPA", "Static", "Hold")
BY_POLICY, BY_HPA, BY_STATIC, BY_HOLD = range(4)
AWAITING_METRICS, NOTHING_SAID, FORMULA_UNAVAILABLE = "AwaitingMetrics", "NothingSaid", "FormulaUnavailable"
"""Why a link of the fallback chain was passed over, beside FALLBACKS: fewer failed readings than the
threshold; a policy with nothing to say; a formula with no ratio or no ready replica to go by."""
NO_FEATURES: FloatArray = np.zeros(0, dtype=np.float32)


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

    def clamps(self) -> Iterator[tuple[int, Clamp]]:
        """(index, clamp) of the services that the rule did not leave alone."""
        changed = np.flatnonzero(self.before != self.after)
        values = zip(
            changed.tolist(), self.before[changed].tolist(), self.after[changed].tolist(), strict=True
        )
        for index, before, after in values:
            reason = self.reason_up if after > before else self.reason_down
            yield index, Clamp(self.name, reason, before, after, f"{before} -> {after}: {self.explain}")


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
    unfamiliar: bool = False
    """Whether the policy calls the observation unlike any in its training."""
    decided_by: str = "Policy"
    """Policy, or what the fallback chain came to: HPA, Static, Hold."""
    passed_over: tuple[tuple[str, str], ...] = ()
    """Links of the fallback chain that did not decide, in order, each with its reason."""
    recovery_awaited: int = 0
    """Good readings in a row until the policy decides again."""
    feature_row: FloatArray = field(default_factory=lambda: NO_FEATURES, repr=False, compare=False)
    """Features float32 `[F]` in the order of OBSERVATION_SCHEMA; empty where no policy looked at them."""

    @property
    def features(self) -> dict[str, float]:
        """Features by name; empty where no policy looked at them."""
        if not len(self.feature_row):
            return {}
        return dict(zip(OBSERVATION_SCHEMA.names, self.feature_row.tolist(), strict=True))


@dataclass
class Decisions:
    """Decisions of N services; replica arrays are int64 `[N]`, recommendations float with NaN.

    fallback and decided_by: indices into FALLBACKS and DECIDERS. awaited: good readings until the policy
    decides again. features: float32 `[N, F]`, or None where no policy looked at them.
    """

    current_replicas: IntArray
    recommended_replicas: FloatArray
    hpa_replicas: FloatArray
    desired_replicas: IntArray
    fallback: IntArray
    metrics_outcome: IntArray
    load: FloatArray
    stages: list[Stage]
    policy_names: Callable[[int], str]
    features: FloatArray | None
    paused_at_zero: BoolArray
    unfamiliar: BoolArray
    usable: BoolArray
    decided_by: IntArray
    awaited: IntArray
    formula_asked: BoolArray

    def __len__(self) -> int:
        return len(self.desired_replicas)

    def __iter__(self) -> Iterator[Decision]:
        return (self[index] for index in range(len(self)))

    @property
    def outcome(self) -> list[str]:
        """ScaledUp, ScaledDown, NoChange or Held, a service each."""
        return list(self._outcomes)

    @property
    def reasons(self) -> list[tuple[Clamp, ...]]:
        """Every clamp in order, a service each."""
        return [tuple(self._clamps.get(index, ())) for index in range(len(self))]

    def __getitem__(self, index: int) -> Decision:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        plain = self._plain
        recommended = _replicas(plain["recommended_replicas"][index])
        fallback = FALLBACKS[plain["fallback"][index]] or None
        clamps = tuple(self._clamps.get(index, ()))
        policy, outcome = self.policy_names(index), self._outcomes[index]
        return Decision(
            current_replicas=plain["current_replicas"][index],
            recommended_replicas=recommended,
            hpa_replicas=_replicas(plain["hpa_replicas"][index]),
            desired_replicas=plain["desired_replicas"][index],
            outcome=outcome,
            clamps=clamps,
            message=self._message(index, policy, fallback, recommended, clamps),
            policy=policy,
            fallback=fallback,
            metrics_outcome=_OUTCOMES[plain["metrics_outcome"][index]],
            load=plain["load"][index],
            unfamiliar=plain["unfamiliar"][index],
            decided_by=DECIDERS[plain["decided_by"][index]],
            passed_over=self._passed_over(index),
            recovery_awaited=plain["awaited"][index],
            # a copy: a row kept for long must not keep the batch's matrix
            feature_row=NO_FEATURES if self.features is None else self.features[index].copy(),
        )

    @cached_property
    def _plain(self) -> dict[str, list[Any]]:
        """The columns as lists: Python's numbers are taken from an array one by one only slowly."""
        return {name: getattr(self, name).tolist() for name in _COLUMNS}

    @cached_property
    def _clamps(self) -> dict[int, list[Clamp]]:
        found: dict[int, list[Clamp]] = {}
        for stage in self.stages:
            for index, clamp in stage.clamps():
                found.setdefault(index, []).append(clamp)
        return found

    @cached_property
    def _outcomes(self) -> list[str]:
        before, after = self.current_replicas, self.desired_replicas
        # nothing said (NaN) differs from anything, and so is a hold
        same = np.where(np.trunc(self.recommended_replicas) == before, "NoChange", "Held")
        moved = np.where(after > before, "ScaledUp", "ScaledDown")
        chosen: list[str] = np.where(after != before, moved, same).tolist()
        return chosen

    def _passed_over(self, index: int) -> tuple[tuple[str, str], ...]:
        by, fallback = self._plain["decided_by"][index], self._plain["fallback"][index]
        if by == BY_POLICY:
            return ()
        if fallback == 0:
            return (("Policy", NOTHING_SAID if self.usable[index] else AWAITING_METRICS),)
        why = (("Policy", FALLBACKS[fallback]),)
        if by == BY_HOLD and self.formula_asked[index]:
            return (*why, ("HPA", FORMULA_UNAVAILABLE))
        return why

    def _message(
        self,
        index: int,
        policy: str,
        fallback: str | None,
        recommended: int | None,
        clamps: tuple[Clamp, ...],
    ) -> str:
        plain = self._plain
        if plain["paused_at_zero"][index]:
            return "Held at 0 replicas: a target at 0 is left alone while minReplicas is above 0"
        before, after = plain["current_replicas"][index], plain["desired_replicas"][index]
        head = f"{before} -> {after}" if after != before else f"stays at {after}"
        who = f"fallback ({fallback})" if fallback else policy
        parts = [f"{head}: {who} recommended {'nothing' if recommended is None else recommended}"]
        if clamps:
            parts.append(", ".join([f"{clamp.name} ({clamp.message})" for clamp in clamps]))
        if plain["unfamiliar"][index]:
            parts.append("the observation is unlike any in training")
        if plain["fallback"][index] == RECOVERING:
            parts.append(f"{policy} decides again after {_counted(plain['awaited'][index])}")
        outcome = _OUTCOMES[plain["metrics_outcome"][index]]
        if outcome is not Outcome.OK:
            parts.append(f"metrics: {outcome.reason}")
        return "; ".join(parts)


_COLUMNS = (
    "current_replicas",
    "recommended_replicas",
    "hpa_replicas",
    "desired_replicas",
    "fallback",
    "metrics_outcome",
    "load",
    "paused_at_zero",
    "unfamiliar",
    "decided_by",
    "awaited",
)
_OUTCOMES = list(Outcome)


def _replicas(value: float) -> int | None:
    return None if value != value else int(value)


def _counted(readings: int) -> str:
    return "1 more good reading" if readings == 1 else f"{readings} more good readings"
