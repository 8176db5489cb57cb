"""A restart forgets nothing that `behavior` needs."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from controller.core import Behavior, Engine, Limits, Samples, ScalingPolicy, ScalingRules, ServiceSpec, View

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


def test_what_was_learned_and_the_changes_of_an_hour_go_over_into_the_next_life() -> None:
    spec = ServiceSpec(1, 40, capacity_rps=10.0, start_up_s=math.nan, limits=Limits(changes_per_hour=3))
    engine = Engine(spec, Script(np.full(40, 10)))
    for at_s, ready in ((0.0, 10.0), (15.0, 10.0), (30.0, 10.0), (45.0, 12.0)):
        current = 10.0 if at_s == 0.0 else 12.0
        engine.step(at_s, Samples(request_rate=[50.0], current=[current], ready=[ready]), record=False)
        if at_s == 0.0:
            engine.record_scale(0, 1.0, 10, 12)
    state = json.loads(json.dumps(engine.stabilization_state(0)))
    assert state["scaleEvents"] == [[1.0, 2]]
    assert 30.0 < state["startUpSeconds"] < 60.0
    again = Engine(spec, Script(np.full(40, 10)))
    again.restore(0, 60.0, state, 12)
    assert again.start_up_s(0) == pytest.approx(state["startUpSeconds"])
    again.observe(2000.0, Samples(request_rate=[50.0], current=[12.0]))
    assert again.stabilization_state(0)["scaleEvents"] == [(1.0, 2), (60.0, 2)]


@pytest.mark.parametrize(("desired", "current", "limits"), [(11, 2, (2, 4)), (2, 8, (4, 8))])
def test_a_change_found_at_the_start_limits_its_own_direction_and_widens_no_other(
    desired: int, current: int, limits: tuple[int, int]
) -> None:
    """Nobody knows when it took place: it may have been long ago, or just now."""
    pods = ScalingRules(0, "Max", (ScalingPolicy("Pods", 2, 60),))
    half = ScalingRules(0, "Max", (ScalingPolicy("Percent", 50, 60),))
    engine = Engine(ServiceSpec(1, 50, behavior=Behavior(pods, half)), Script(np.zeros(1)))
    engine.restore(0, 100.0, {"desired": desired}, current)
    row, now_s = np.array([0]), np.array([101.0])
    lowest, highest = engine._memory.behavior.limits(row, now_s, np.array([current]))
    assert (int(lowest[0]), int(highest[0])) == limits
