"""Replicas that are starting are counted on: a surge is answered once, not once a look while they start."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from controller.core import FORMULAS, Engine, ForecastPolicy, HpaPolicy, Policy, Samples, ServiceSpec
from controller.core import UnavailablePolicy as Unavailable
from tests.core.worlds import FAST

SPEC = ServiceSpec(2, 400, capacity_rps=10.0, slo_latency_ms=100.0, start_up_s=math.nan, behavior=FAST)


def surge(
    policy: Policy, spec: ServiceSpec = SPEC, start_up_s: float = 120.0, load: float = 21.0
) -> list[int]:
    """Replicas after each look, when the load jumps from 7 to `load` replicas at 10 of them.

    Replicas that are not ready do nothing; those that are get the whole load and no more than they can use.
    """
    engine, ready_at, seen = Engine(spec, policy), [0.0] * 10, []
    for tick in range(60):
        now = 15.0 * tick
        demand = 7.0 if tick < 8 else load
        ready = sum(at <= now for at in ready_at)
        used = min(demand / ready, 1.2)
        samples = Samples(
            request_rate=[10.0 * demand],
            utilisation=[used],
            latency_ms=[40.0 if used < 0.95 else 2000.0],
            current=[len(ready_at)],
            ready=[ready],
        )
        desired = engine.step(now, samples)[0].desired_replicas
        del ready_at[desired:]
        ready_at += [now + start_up_s] * (desired - len(ready_at))
        seen.append(desired)
    return seen


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(HpaPolicy(), id="the HPA formula"),
        pytest.param(Unavailable("Gone", "no file"), id="the fallback, with its floor"),
        pytest.param(ForecastPolicy(), id="the forecast"),
        *(pytest.param(make(), id=name) for name, make in FORMULAS.items()),
    ],
)
def test_a_surge_is_answered_once(policy: Policy) -> None:
    seen = surge(policy)
    assert seen[8] >= 18
    starting = seen[8:16]
    assert max(starting) <= 1.2 * seen[8], "eight looks of 15 s within the start-up of 120 s"


@pytest.mark.parametrize("policy", [HpaPolicy(), Unavailable("Gone", "no file")])
def test_the_formula_ends_where_the_load_wants_it(policy: Policy) -> None:
    assert 30 <= max(surge(policy)) <= 31


def test_no_more_is_asked_for_while_replicas_are_starting() -> None:
    seen = surge(HpaPolicy(), load=11.0)
    first = seen[8]
    assert first > 10
    assert set(seen[8:16]) == {first}


def test_the_formula_counts_starting_replicas_as_idle_on_the_way_up() -> None:
    engine = Engine(SPEC, HpaPolicy())
    waiting = Samples(request_rate=[110.0], utilisation=[1.1], current=[16.0], ready=[10.0])
    assert engine.step(0.0, waiting)[0].desired_replicas == 16
    alone = Samples(request_rate=[110.0], utilisation=[1.1], current=[10.0], ready=[10.0])
    assert Engine(SPEC, HpaPolicy()).step(0.0, alone)[0].desired_replicas == 16


def test_more_load_than_the_starting_ones_will_carry_is_answered() -> None:
    engine = Engine(SPEC, HpaPolicy())
    samples = Samples(request_rate=[240.0], utilisation=[2.4], current=[16.0], ready=[10.0])
    assert engine.step(0.0, samples)[0].desired_replicas == 35


def test_the_floor_in_danger_does_not_multiply_while_replicas_are_starting() -> None:
    spec = replace(SPEC, behavior=FAST)
    seen = surge(Unavailable("Gone", "no file"), spec, load=11.0)
    assert max(seen) <= 18


def test_capacity_is_not_doubted_while_replicas_are_starting() -> None:
    engine = Engine(SPEC, HpaPolicy())
    for tick in range(40):
        slow = Samples(
            request_rate=[80.0], utilisation=[0.8], latency_ms=[500.0], current=[12.0], ready=[10.0]
        )
        engine.step(15.0 * tick, slow, record=False)
    assert engine.capacity_rps().tolist() == [10.0]
