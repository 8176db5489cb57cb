"""How long a replica takes to be ready, learned from replicas asked for and ready, whatever goes wrong."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from controller.core import Engine, ForecastPolicy, Samples, ServiceSpec
from controller.core.startup import LONGEST_S, UNKNOWN_S
from tests.core.worlds import FAST, Says

LEARNS = ServiceSpec(1, 200, capacity_rps=10.0, start_up_s=math.nan, behavior=FAST)


@dataclass
class Pods:
    """The pods of one service: each becomes ready so long after it was asked for."""

    now_s: float = 0.0
    ready_at: list[float] = field(default_factory=lambda: [0.0] * 4)

    def scale(self, replicas: int, start_up_s) -> None:
        """Add or remove the youngest; start_up_s: seconds, or a function that draws them."""
        del self.ready_at[replicas:]
        while len(self.ready_at) < replicas:
            took = start_up_s() if callable(start_up_s) else start_up_s
            self.ready_at.append(self.now_s + took)

    @property
    def ready(self) -> int:
        return sum(at <= self.now_s for at in self.ready_at)


def live(engine: Engine, pods: Pods, wishes: list[int], start_up_s, period_s: float = 15.0) -> None:
    """One look a period; the policy wishes these replicas in turn, and the cluster obeys."""
    policy = engine.policy_of(0)
    for wish in wishes:
        policy.replicas = wish
        samples = Samples(request_rate=[40.0], current=[len(pods.ready_at)], ready=[pods.ready])
        desired = engine.step(pods.now_s, samples)[0].desired_replicas
        pods.scale(desired, start_up_s)
        pods.now_s += period_s


def waves(times: int, rest: int = 12, low: int = 4, high: int = 8) -> list[int]:
    """Up and down, with time to settle in between."""
    return ([high] * rest + [low] * rest) * times


def learned(engine: Engine) -> float:
    return engine.start_up_s(0)


def test_sixty_seconds_are_believed_in_until_something_was_seen() -> None:
    engine = Engine(LEARNS, Says(4))
    assert learned(engine) == UNKNOWN_S == 60.0
    assert engine.start_up_uncertainty(0) == 1.0
    assert "startUpSeconds" not in engine.stabilization_state(0)


def test_what_the_user_states_is_what_counts() -> None:
    engine = Engine(replace(LEARNS, start_up_s=25.0), Says(4))
    live(engine, Pods(), waves(4), 100.0)
    assert learned(engine) == 25.0
    assert engine.start_up_uncertainty(0) == 0.0
    engine.update(0, LEARNS)
    assert learned(engine) > 90.0, "learned all the same, for when the user states nothing any more"


@pytest.mark.parametrize("true_s", [10.0, 40.0, 90.0, 170.0])
@pytest.mark.parametrize("period_s", [5.0, 15.0, 30.0])
def test_a_steady_start_up_time_is_learned_within_a_period(true_s: float, period_s: float) -> None:
    engine = Engine(replace(LEARNS, sync_period_s=period_s), Says(4))
    live(engine, Pods(), waves(8, rest=math.ceil(true_s / period_s) + 3), true_s, period_s)
    assert true_s - period_s <= learned(engine) <= 1.25 * true_s + period_s
    assert engine.start_up_uncertainty(0) < 0.3


def test_a_high_quantile_of_spread_start_ups_is_believed_in() -> None:
    rng = np.random.default_rng(3)

    def drawn() -> float:
        return float(60.0 * np.exp(0.4 * rng.standard_normal()))

    engine = Engine(replace(LEARNS, sync_period_s=5.0), Says(4))
    live(engine, Pods(), waves(40, rest=40, low=4, high=5), drawn, 5.0)
    ninety = 60.0 * math.exp(0.4 * 1.2816)
    assert 0.7 * ninety <= learned(engine) <= 1.6 * ninety
    assert engine.start_up_uncertainty(0) > 0.2


def test_rises_on_top_of_rises_are_each_timed() -> None:
    engine = Engine(replace(LEARNS, sync_period_s=5.0), Says(4))
    stairs = [5, 6, 7, 8, 9, 10, 11, 12] + [12] * 20 + [4] * 5
    live(engine, Pods(), stairs * 5, 60.0, 5.0)
    assert 55.0 <= learned(engine) <= 80.0


def test_more_rises_at_once_than_can_be_followed_do_no_harm() -> None:
    engine = Engine(replace(LEARNS, sync_period_s=5.0), Says(4))
    live(engine, Pods(), (list(range(5, 45)) + [45] * 40 + [4] * 5) * 2, 120.0, 5.0)
    assert 110.0 <= learned(engine) <= 160.0


def test_replicas_that_never_come_teach_nothing() -> None:
    engine, pods = Engine(LEARNS, Says(4)), Pods()
    live(engine, pods, waves(4), 45.0)
    before = learned(engine)
    live(engine, pods, [9] * int(2 * LONGEST_S / 15.0), math.inf)
    assert learned(engine) == before


def test_a_start_up_beside_one_that_never_comes_is_not_learned_as_long() -> None:
    engine, pods = Engine(LEARNS, Says(4)), Pods()
    live(engine, pods, waves(6), 45.0)
    before = learned(engine)
    broken = iter([math.inf] + [45.0] * 100)
    for high in range(5, 12):
        live(engine, pods, [high] * 20, lambda: next(broken))
    assert learned(engine) == before


def test_a_crash_while_waiting_is_no_slow_start() -> None:
    engine, pods = Engine(LEARNS, Says(4)), Pods()
    live(engine, pods, waves(6), 45.0)
    before = learned(engine)
    live(engine, pods, [8], 45.0)
    pods.ready_at[0] = pods.now_s + 600.0
    live(engine, pods, [8] * 60, 45.0)
    assert learned(engine) == before


def test_a_rolling_update_teaches_nothing() -> None:
    engine, pods = Engine(LEARNS, Says(4)), Pods()
    live(engine, pods, waves(6), 45.0)
    before = learned(engine)
    for pod in range(4):
        pods.ready_at[pod] = pods.now_s + 200.0
        live(engine, pods, [4] * 15, 45.0)
    assert learned(engine) == before


def test_one_strange_start_up_moves_the_estimate_only_so_far() -> None:
    engine, pods = Engine(LEARNS, Says(4)), Pods()
    live(engine, pods, waves(10), 45.0)
    before = learned(engine)
    live(engine, pods, [5] * 120, 1500.0)
    assert before < learned(engine) < 2.5 * before


def test_a_lasting_change_is_learned() -> None:
    engine, pods = Engine(LEARNS, Says(4)), Pods()
    live(engine, pods, waves(10), 30.0)
    assert learned(engine) < 60.0
    live(engine, pods, waves(25, rest=24), 240.0)
    assert 200.0 <= learned(engine) <= 400.0


def test_a_gap_in_the_readings_teaches_nothing() -> None:
    engine, pods = Engine(LEARNS, Says(4)), Pods()
    live(engine, pods, waves(6), 45.0)
    before = learned(engine)
    live(engine, pods, [8], 45.0)
    pods.now_s += 900.0
    live(engine, pods, [8] * 4, 45.0)
    assert learned(engine) == before


def test_readings_without_ready_replicas_teach_nothing() -> None:
    engine = Engine(LEARNS, Says(4))
    for tick in range(40):
        current = 4 + 4 * (tick // 10 % 2)
        engine.step(15.0 * tick, Samples(request_rate=[40.0], current=[current], ready=[math.nan]))
    assert learned(engine) == UNKNOWN_S


def test_a_rise_that_somebody_else_made_is_learned_from_too() -> None:
    engine, pods = Engine(LEARNS, Says(4)), Pods()
    for wave in range(10):
        pods.scale(4 + 4 * (wave % 2), 75.0)
        for _ in range(12):
            samples = Samples(request_rate=[40.0], current=[len(pods.ready_at)], ready=[pods.ready])
            engine.step(pods.now_s, samples, record=False)
            pods.now_s += 15.0
    assert 60.0 <= learned(engine) <= 110.0


def test_it_survives_a_restart_to_the_digit() -> None:
    engine, pods = Engine(LEARNS, Says(4)), Pods()
    live(engine, pods, waves(6), 45.0)
    state = json.loads(json.dumps(engine.stabilization_state(0)))
    again = Engine(LEARNS, Says(4))
    again.restore(0, pods.now_s, state, 4)
    assert again.start_up_s(0) == pytest.approx(learned(engine), abs=0.06)
    assert again.stabilization_state(0)["startUpSeconds"] == state["startUpSeconds"]
    live(again, pods, waves(6), 45.0)
    assert 40.0 <= learned(again) <= 75.0


@pytest.mark.parametrize("written", [math.nan, math.inf, -5.0, 0.0, 1e9])
def test_a_start_up_time_that_is_none_is_not_restored(written: float) -> None:
    engine = Engine(LEARNS, Says(4))
    engine.restore(0, 0.0, {"startUpSeconds": written}, 4)
    assert learned(engine) == UNKNOWN_S


def test_policies_see_what_was_learned() -> None:
    engine, pods = Engine(LEARNS, Says(4)), Pods()
    live(engine, pods, waves(8), 150.0)
    view = engine.observe(pods.now_s, Samples(request_rate=[40.0], current=[4.0], ready=[4.0]))
    assert view.start_up_s.tolist() == [learned(engine)]
    engine.update(0, LEARNS, ForecastPolicy())
    features = engine.step(pods.now_s + 15.0, Samples(request_rate=[40.0], current=[4.0]))[0].features
    assert features["start_up"] == pytest.approx(math.log(learned(engine) / 60.0), abs=1e-6)


def test_services_learn_apart() -> None:
    engine = Engine([LEARNS] * 3, Says(4))
    for tick in range(120):
        phase = tick % 24
        current = 8 if phase < 12 else 4
        ready = [min(current, 4) if phase * 15.0 < slow else current for slow in (30.0, 90.0, 0.0)]
        samples = Samples(request_rate=[40.0] * 3, current=[current] * 3, ready=ready)
        engine.step(15.0 * tick, samples, record=False)
    fast, slow = engine.start_up_s(0), engine.start_up_s(1)
    assert fast < 0.7 * slow
    engine.reset(np.array([1]))
    assert engine.start_up_s(1) == UNKNOWN_S
    assert engine.start_up_s(0) == fast
