"""Small parts that tests of the core share: a policy that says what it is told, readings of one service."""

from __future__ import annotations

import numpy as np

from controller.core import Behavior, Decision, Engine, Samples, ScalingPolicy, ScalingRules, View

FAST = Behavior(
    ScalingRules(0, "Max", (ScalingPolicy("Percent", 10_000, 15), ScalingPolicy("Pods", 1000, 15))),
    ScalingRules(0, "Max", (ScalingPolicy("Percent", 100, 15),)),
)
"""No window and no rate that could be in the way."""


class Says:
    """A policy that recommends what it was told."""

    name, type, digest, schema = "says", "RL", "", ""

    def __init__(self, replicas: float) -> None:
        self.replicas = replicas

    def recommend(self, view: View) -> np.ndarray:
        return np.full(len(view), self.replicas)


def reading(current: float, rate: float = 50.0, ready: float | None = None, **others: float) -> Samples:
    """Readings of one service; ready like current unless told."""
    return Samples(
        request_rate=[rate],
        current=[current],
        ready=[current if ready is None else ready],
        **{name: [value] for name, value in others.items()},
    )


def decide(engine: Engine, now_s: float, current: float, **others: float) -> Decision:
    """One step of one service."""
    return engine.step(now_s, reading(current, **others))[0]
