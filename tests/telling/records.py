"""Decision records, RLScalers and an operator's answers for the tests of what is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from controller.core import Clamp, Outcome
from controller.core.observation import COLUMN, OBSERVATION_SCHEMA
from controller.core.policy import ActionPolicy
from controller.core.samples import FloatArray
from controller.decisions import NO_FEATURES, DecisionLog, DecisionRecord, Filter, News
from controller.metrics import SignalReading
from controller.registry import Entry, Registry
from controller.status import PolicyFacts

NOW = 1_800_000_000.0
HPA = PolicyFacts("HPA", "hpa")
LEARNED = PolicyFacts("RL", "straight-1", "sha256:" + "ab" * 32, "autoscale/v1")
TO_BOUND = Clamp("Bounds", "TooManyReplicas", 12, 10, "12 -> 10: minReplicas and maxReplicas")
BY_RATE = Clamp("ScalingPolicies", "ScaleUpLimit", 12, 8, "12 -> 8: rate rules of behavior")
BY_WINDOW = Clamp("StabilizationWindow", "ScaleDownStabilized", 3, 7, "3 -> 7: window")


def record(name: str = "web", age_s: float = 0.0, **changes: Any) -> DecisionRecord:
    """A decision `age_s` before NOW that leaves four replicas as they are, unless `changes` say otherwise."""
    base: dict[str, Any] = {
        "time_s": NOW - age_s,
        "namespace": "shop",
        "name": name,
        "uid": f"uid-{name}",
        "generation": 3,
        "mode": "Active",
        "policy": HPA,
        "readings": {"requestRate": SignalReading(20.123456789, Outcome.OK, timestamp_s=NOW - 5)},
        "observed": {"requestRate": 20.123456789, "readyReplicas": 4.0, "loadReplicas": 2.0},
        "features": NO_FEATURES,
        "load": 2.0,
        "metrics": Outcome.OK,
        "current_replicas": 4,
        "recommended_replicas": 4,
        "hpa_replicas": 5,
        "desired_replicas": 4,
        "clamps": (),
        "fallback": None,
        "decided_by": "Policy",
        "passed_over": (),
        "recovery_awaited": 0,
        "unfamiliar": False,
        "outcome": "NoChange",
        "message": "stays at 4: hpa recommended 4",
        "acted": False,
        "error": None,
    }
    return DecisionRecord(**(base | changes))


class Straight(ActionPolicy):
    """A policy whose log headroom is a weighted sum of a few features, so that effects are known."""

    name = LEARNED.name
    digest = LEARNED.digest
    schema = LEARNED.schema
    action_schema = "hold-band/v1"

    def __init__(self, bias: float, **weights: float) -> None:
        self.bias = bias
        self.weights = np.zeros(OBSERVATION_SCHEMA.size)
        for name, weight in weights.items():
            self.weights[COLUMN[name]] = weight
        self.asked: list[int] = []

    def act(self, features: FloatArray) -> FloatArray:
        self.asked.append(len(features))
        low = self.bias + features.astype(np.float64) @ self.weights
        return np.stack([low, low], axis=1).astype(np.float32)


def observation(**values: float) -> FloatArray:
    """Features float32 `[F]`, 0 (unknown) but for some."""
    row = np.zeros(OBSERVATION_SCHEMA.size, dtype=np.float32)
    for name, value in values.items():
        row[COLUMN[name]] = value
    return row


class Operator:
    """What the server asks of an operator, from a log that the test fills."""

    def __init__(self, log: DecisionLog | None = None) -> None:
        self.log = log or DecisionLog()
        self.registry = Registry()
        self.explanations: dict[tuple[str, str], dict[str, Any]] = {}

    def alive(self) -> str | None:
        return None

    def ready(self) -> str | None:
        return None

    def leads(self) -> bool:
        return True

    def entries(self) -> Iterable[Entry]:
        return self.registry

    def last(self, namespace: str, name: str) -> DecisionRecord | None:
        return self.log.last(namespace, name)

    def news(self, number: int | None, wanted: Filter) -> News:
        return self.log.after(self.log.made if number is None else number, wanted, wanted.limit)

    def decisions(self, wanted: Filter) -> Sequence[DecisionRecord]:
        return self.log.find(wanted, wanted.limit)

    def explain(self, namespace: str, name: str) -> dict[str, Any] | None:
        return self.explanations.get((namespace, name))

    def exposition(self) -> Iterable[bytes]:
        return (b"# no series\n",)
