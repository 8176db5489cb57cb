"""The decision record: one value for each decision, with all that led to it and what came of it.

`controller.turn` makes one for every decision. The same value is status.lastDecision (trimmed), a line of
the log, an item of `GET /v1/decisions`, and what `rl-scaler explain` explains. `DecisionLog` keeps the recent
ones in bounded memory; it belongs to the event loop and is not locked.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from controller.api.decimals import format_decimal
from controller.clock import rfc3339, rfc3339_micro
from controller.core import Clamp, Decision, Outcome
from controller.core.observation import OBSERVATION_SCHEMA
from controller.core.samples import FloatArray

if TYPE_CHECKING:
    from controller.metrics import SignalReading
    from controller.status import Facts, PolicyFacts

Json = dict[str, Any]

OUTCOMES: Final = ("ScaledUp", "ScaledDown", "NoChange", "Held")
CLAMPS: Final = (
    "SLOFloor",
    "OutOfDistribution",
    "MissingMetrics",
    "Schedule",
    "Activation",
    "MinStep",
    "StabilizationWindow",
    "ScalingPolicies",
    "MaxStep",
    "FlapBudget",
    "OutsideChange",
    "Bounds",
    "Budget",
)
"""The guard's rules in the order in which they are applied."""
OF_POOLS: Final = ("Pools", "Canary")
"""What holds where pools share a route: each pool's own guard, and the replicas that a canary is ahead by."""
REMEMBERED: Final = 2000
"""Decisions of any kind that are kept, and as many again of those that changed something."""
MESSAGE_LIMIT: Final = 1024
DIGITS: Final = 6
"""Significant digits of numbers that were measured."""

READ_FEATURES: Final = ("RL", "Forecast")
NO_FEATURES: Final = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class DecisionRecord:
    """One decision. Replicas are None where nothing could be said; times are Unix seconds.

    features: float32 `[F]` in the order of OBSERVATION_SCHEMA, or empty for a policy that reads none.
    decided_by, passed_over: the link of the fallback chain that decided, and those before it with their
    reasons; recovery_awaited: good readings until the policy decides again.
    clamps: what the guard changed, in order. acted: whether replicas were written.
    """

    time_s: float
    namespace: str
    name: str
    uid: str
    generation: int
    mode: str
    policy: PolicyFacts | None
    readings: Mapping[str, SignalReading]
    observed: Mapping[str, float]
    features: FloatArray
    load: float
    metrics: Outcome
    current_replicas: int
    recommended_replicas: int | None
    hpa_replicas: int | None
    desired_replicas: int
    clamps: tuple[Clamp, ...]
    fallback: str | None
    decided_by: str
    passed_over: tuple[tuple[str, str], ...]
    recovery_awaited: int
    unfamiliar: bool
    outcome: str
    message: str
    acted: bool
    error: str | None
    pools: tuple[Json, ...] = ()
    """What a policy that decides for pools asked of each, and what was made of it."""

    @property
    def decisive(self) -> tuple[Any, ...]:
        """Equal for two decisions of one object that say the same thing."""
        return (
            self.mode,
            self.policy,
            self.metrics,
            self.current_replicas,
            self.recommended_replicas,
            self.desired_replicas,
            self.outcome,
            self.fallback,
            self.decided_by,
            self.unfamiliar,
            self.acted,
            self.error is None,
            tuple((clamp.name, clamp.reason, clamp.after) for clamp in self.clamps),
        )

    def named_features(self) -> dict[str, float]:
        """Features by name; empty for a policy that reads none."""
        if not len(self.features):
            return {}
        return dict(zip(OBSERVATION_SCHEMA.names, self.features.tolist(), strict=True))

    def as_json(self, features: bool = False) -> Json:
        """The whole record, as `/v1/decisions` and the log show it."""
        shown: Json = {
            "time": rfc3339_micro(self.time_s),
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
            "generation": self.generation,
            "mode": self.mode,
            "policy": policy_json(self.policy),
            "readings": {name: _reading(reading) for name, reading in self.readings.items()},
            "observation": {
                key: rounded(value) for key, value in self.observed.items() if math.isfinite(value)
            },
            "currentReplicas": self.current_replicas,
            "recommendedReplicas": self.recommended_replicas,
            "hpaReplicas": self.hpa_replicas,
            "desiredReplicas": self.desired_replicas,
            "clamps": [clamp_json(clamp) for clamp in self.clamps],
            "fallback": self.fallback,
            "decidedBy": self.decided_by,
            "passedOver": [{"link": link, "reason": reason} for link, reason in self.passed_over],
            "goodReadingsAwaited": self.recovery_awaited,
            "outOfDistribution": self.unfamiliar,
            "metrics": self.metrics.reason,
            "outcome": self.outcome,
            "message": self.message,
            "acted": self.acted,
            "error": self.error,
        }
        if self.pools:
            shown["pools"] = [dict(pool) for pool in self.pools]
        if features:
            shown["features"] = {name: rounded(value) for name, value in self.named_features().items()}
        return shown

    def brief(self) -> Json:
        """As a line of a list: what changed and why, without what was seen."""
        return {
            "time": rfc3339_micro(self.time_s),
            "namespace": self.namespace,
            "name": self.name,
            "mode": self.mode,
            "outcome": self.outcome,
            "currentReplicas": self.current_replicas,
            "desiredReplicas": self.desired_replicas,
            "recommendedReplicas": self.recommended_replicas,
            "hpaReplicas": self.hpa_replicas,
            "clamps": [clamp.name for clamp in self.clamps],
            "fallback": self.fallback,
            "acted": self.acted,
            "error": self.error,
            "message": self.message,
        }

    def as_status(self) -> Json:
        """status.lastDecision: the same in the API's types, without what the rest of the status says."""
        trimmed = {
            "time": rfc3339(self.time_s),
            "outcome": self.outcome,
            "message": self.message[:MESSAGE_LIMIT],
            "mode": self.mode,
            "metrics": self.metrics.reason,
            "observation": {k: format_decimal(v) for k, v in self.observed.items() if math.isfinite(v)},
            "currentReplicas": self.current_replicas,
            "recommendedReplicas": self.recommended_replicas,
            "hpaReplicas": self.hpa_replicas,
            "desiredReplicas": self.desired_replicas,
            "clamps": [clamp_json(clamp) for clamp in self.clamps],
            "fallback": self.fallback,
        }
        return {key: value for key, value in trimmed.items() if value is not None and value != ""}


def record_of(facts: Facts, decision: Decision, now_unix_s: float) -> DecisionRecord:
    """The record of a turn's decision."""
    trouble = facts.target_trouble
    return DecisionRecord(
        time_s=now_unix_s,
        namespace=facts.namespace,
        name=facts.name,
        uid=facts.uid,
        generation=facts.generation,
        mode=facts.mode,
        policy=facts.policy,
        readings=facts.readings,
        observed=facts.observed,
        features=_features(facts.policy, decision),
        load=decision.load,
        metrics=decision.metrics_outcome,
        current_replicas=decision.current_replicas,
        recommended_replicas=decision.recommended_replicas,
        hpa_replicas=decision.hpa_replicas,
        desired_replicas=decision.desired_replicas,
        clamps=decision.clamps,
        fallback=decision.fallback,
        decided_by=decision.decided_by,
        passed_over=decision.passed_over,
        recovery_awaited=decision.recovery_awaited,
        unfamiliar=decision.unfamiliar,
        outcome=decision.outcome,
        message=decision.message,
        acted=facts.scaled,
        error=trouble.message if trouble is not None else None,
        pools=_pools(facts),
    )


def _pools(facts: Facts) -> tuple[Json, ...]:
    if facts.plan is None:
        return ()
    return tuple(
        {
            "name": pool.name,
            "currentReplicas": pool.current_replicas,
            "askedReplicas": asked,
            "desiredReplicas": pool.desired_replicas,
            "share": rounded(share),
            "weight": pool.weight,
        }
        for pool, asked, share in zip(facts.pools, facts.plan.asked, facts.plan.shares, strict=True)
    )


def _features(policy: PolicyFacts | None, decision: Decision) -> FloatArray:
    """Only of policies that look at them."""
    return decision.feature_row if policy is not None and policy.type in READ_FEATURES else NO_FEATURES


def clamp_json(clamp: Clamp) -> Json:
    """One clamp as the API, the server and the log show it."""
    return {name: getattr(clamp, name) for name in ("name", "reason", "before", "after", "message")}


def policy_json(policy: PolicyFacts | None) -> Json | None:
    """The policy in charge: type, name, digest and schema where it has them."""
    if policy is None:
        return None
    return {key: value for key, value in vars(policy).items() if value}


def rounded(value: float) -> float:
    """A measured number without digits that mean nothing."""
    return float(f"{value:.{DIGITS}g}")


def _reading(reading: SignalReading) -> Json:
    shown: Json = {
        "value": rounded(reading.value) if math.isfinite(reading.value) else None,
        "outcome": reading.outcome.reason,
    }
    if reading.message:
        shown["message"] = reading.message
    if math.isfinite(reading.timestamp_s):
        shown["time"] = rfc3339_micro(reading.timestamp_s)
    return shown


@dataclass(frozen=True)
class Filter:
    """Which decisions are asked for; empty means all of them."""

    namespace: str = ""
    name: str = ""
    outcomes: Collection[str] = ()
    clamps: Collection[str] = ()
    since_s: float = -math.inf
    limit: int = 100

    def __call__(self, record: DecisionRecord) -> bool:
        return (
            self.namespace in ("", record.namespace)
            and self.name in ("", record.name)
            and record.time_s >= self.since_s
            and (not self.outcomes or record.outcome in self.outcomes)
            and (not self.clamps or any(clamp.name in self.clamps for clamp in record.clamps))
        )


@dataclass(frozen=True)
class News:
    """Decisions since an earlier number, newest first; `missed` older ones of them were too many to tell."""

    number: int
    records: tuple[DecisionRecord, ...]
    missed: int = 0


@dataclass
class DecisionLog:
    """Recent decisions: the newest of any kind, the newest that changed something, and each object's last.

    Thousands of objects push a decision out of the first within seconds; hence the other two.
    """

    remembered: int = REMEMBERED
    _made: int = 0
    _recent: deque[tuple[int, DecisionRecord]] = field(default_factory=deque)
    _changes: deque[tuple[int, DecisionRecord]] = field(default_factory=deque)
    _last: dict[tuple[str, str], tuple[int, DecisionRecord]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._recent = deque(maxlen=self.remembered)
        self._changes = deque(maxlen=self.remembered)

    def __len__(self) -> int:
        return len(list(self._merged()))

    def add(self, record: DecisionRecord) -> None:
        """Take in a decision; it is newer than all before."""
        self._made += 1
        numbered, key = (self._made, record), (record.namespace, record.name)
        before = self._last.get(key)
        self._last[key] = numbered
        self._recent.appendleft(numbered)
        if before is None or before[1].decisive != record.decisive:
            self._changes.appendleft(numbered)

    def last(self, namespace: str, name: str) -> DecisionRecord | None:
        """The object's newest decision."""
        found = self._last.get((namespace, name))
        return found[1] if found is not None else None

    @property
    def made(self) -> int:
        """How many decisions were taken in: the number of the newest."""
        return self._made

    def after(self, number: int, wanted: Callable[[DecisionRecord], bool], limit: int) -> News:
        """What was taken in after the decision of this number; costs nothing until somebody asks."""
        found: list[DecisionRecord] = []
        missed = 0
        for made, record in self._recent:
            if made <= number:
                break
            if wanted(record):
                if len(found) < limit:
                    found.append(record)
                else:
                    missed += 1
        return News(self._made, tuple(found), missed)

    def forget(self, namespace: str, name: str) -> None:
        """A deleted object's decisions are no longer its last; they go as others come."""
        self._last.pop((namespace, name), None)

    def find(self, wanted: Callable[[DecisionRecord], bool], limit: int) -> list[DecisionRecord]:
        """The newest `limit` of those that are wanted, newest first."""
        return list(islice((record for record in self._merged() if wanted(record)), limit))

    def _merged(self) -> Iterator[DecisionRecord]:
        lasts = sorted(self._last.values(), key=_number, reverse=True)
        previous = 0
        for number, record in heapq.merge(self._recent, self._changes, lasts, key=_number, reverse=True):
            if number != previous:
                yield record
            previous = number


def _number(numbered: tuple[int, DecisionRecord]) -> int:
    return numbered[0]
