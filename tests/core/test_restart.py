"""A restart forgets nothing that `behavior` needs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from controller.core import Behavior, Engine, Samples, ScalingPolicy, ScalingRules, ServiceSpec, View

SLOW = Behavior(
    ScalingRules(0, "Max", (ScalingPolicy("Pods", 3, 120),)),
    ScalingRules(120, "Max", (ScalingPolicy("Pods", 2, 60),)),
)


class Script:
    """A policy that reads its lines."""

    name, type, digest, schema = "script", "RL", "", ""

    def __init__(self, lines: np.ndarray) -> None:
        self.lines = list(lines)

    def recommend(self, view: View) -> np.ndarray:
        return np.full(len(view), float(self.lines.pop(0)))


def run(lines: np.ndarray, spec: ServiceSpec, restart_at: int | None) -> list[int]:
    policy = Script(lines)
    engine, current, seen = Engine(spec, policy), 10, []
    for tick in range(len(lines)):
        now = 15.0 * tick
        if tick == restart_at:
            state = json.loads(json.dumps(engine.stabilization_state(0)))
            engine = Engine(spec, policy)
            engine.restore(0, now, state, current)
        current = engine.step(now, Samples(request_rate=[50.0], current=[current], ready=[current]))[
            0
        ].desired_replicas
        seen.append(current)
    return seen


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("restart_at", [1, 5, 17])
def test_a_restart_never_goes_where_the_running_one_would_not_have(seed: int, restart_at: int) -> None:
    spec = ServiceSpec(1, 40, capacity_rps=10.0, behavior=SLOW)
    lines = np.random.default_rng(seed).integers(1, 40, 24)
    through, restarted = run(lines, spec, None), run(lines, spec, restart_at)
    assert restarted[:restart_at] == through[:restart_at]
    steps = np.diff(restarted)
    for end in range(len(steps)):
        assert steps[max(0, end - 7) : end + 1].clip(min=0).sum() <= 3 + max(
            0, -steps[max(0, end - 7) : end + 1].min()
        )
        assert steps[max(0, end - 3) : end + 1].min() >= -2 - max(0, steps[max(0, end - 3) : end + 1].max())


def test_a_steady_service_restarts_without_a_scale_down_inside_the_window() -> None:
    spec = ServiceSpec(1, 40, capacity_rps=10.0)
    lines = np.array([10] * 30 + [4] * 40)
    through, restarted = run(lines, spec, None), run(lines, spec, 30)
    assert restarted.index(4) - through.index(4) in (0, 1)


def test_a_scale_that_was_made_but_not_written_down_still_counts() -> None:
    spec = ServiceSpec(1, 40, capacity_rps=10.0, behavior=SLOW)
    engine = Engine(spec, Script(np.array([30, 30])))
    engine.restore(0, 100.0, {"recommendations": [], "scaleEvents": [], "desired": 10}, 13)
    decision = engine.step(115.0, Samples(request_rate=[50.0], current=[13.0], ready=[13.0]))[0]
    assert decision.desired_replicas == 13
    assert decision.clamps[-1].reason == "ScaleUpLimit"
