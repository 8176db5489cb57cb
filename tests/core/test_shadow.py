"""A second policy beside the one that decides: what it would have done, with a past of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controller.core import Behavior, Engine, HpaPolicy, Limits, Samples, ScalingPolicy, ServiceSpec
from tests.core.worlds import FAST, Says, reading

SPEC = ServiceSpec(min_replicas=2, max_replicas=40, capacity_rps=10.0, slo_latency_ms=100.0, behavior=FAST)
SLOW = replace(
    SPEC,
    behavior=Behavior(
        replace(FAST.scale_up, policies=(ScalingPolicy("Pods", 3, 60),)),
        replace(FAST.scale_down, stabilization_window_s=60),
    ),
)
ONE = np.array([0])


def beside(spec: ServiceSpec, active: Says, canary: Says, ticks: int, **others: float) -> tuple[list, list]:
    """Replicas after each tick: those that are there, and those that the canary would have."""
    engine, current, acted, shadowed = Engine(spec, active), 10, [], []
    for tick in range(ticks):
        view = engine.observe(15.0 * tick, reading(current, **others))
        shadowed.append(int(engine.shadow(ONE, canary, view)[0]))
        recommended, unfamiliar = engine.ask(view)
        current = int(engine.conclude(view, recommended, unfamiliar).desired_replicas[0])
        acted.append(current)
    return acted, shadowed


def alone(spec: ServiceSpec, policy: Says, ticks: int) -> list[int]:
    return beside(spec, policy, policy, ticks)[0]


def test_it_never_touches_what_is_decided() -> None:
    acted, _ = beside(SLOW, Says(25), Says(3), 20)
    assert acted == alone(SLOW, Says(25), 20)


def test_a_shadow_goes_the_way_it_would_have_gone_in_charge() -> None:
    _, shadowed = beside(SLOW, Says(10), Says(25), 20)
    assert shadowed == alone(SLOW, Says(25), 20)
    assert shadowed[0] == 13, "rate rules count from the canary's own replicas"
    _, shadowed = beside(SLOW, Says(10), Says(4), 20)
    assert shadowed == alone(SLOW, Says(4), 20)


@pytest.mark.parametrize(("says", "desired"), [(500, 40), (0, 2)])
def test_it_stays_inside_the_bounds(says: float, desired: int) -> None:
    assert beside(SPEC, Says(10), Says(says), 1)[1] == [desired]


def test_one_that_says_nothing_holds() -> None:
    assert beside(SPEC, Says(20), Says(np.nan), 3)[1] == [10, 10, 10]


def test_floors_count_for_it_too() -> None:
    danger = {"latency_ms": 300.0, "utilisation": 1.4}
    assert beside(SPEC, Says(30), Says(3), 1, **danger)[1] == [20]


def test_its_flaps_are_its_own() -> None:
    spec = replace(SPEC, limits=Limits(changes_per_hour=1))
    assert beside(spec, Says(10), Says(6), 1)[1] == [6]
    engine, canary = Engine(spec, Says(10)), Says(12)
    seen = []
    for tick, wish in enumerate([12, 6]):
        canary.replicas = wish
        view = engine.observe(15.0 * tick, reading(10))
        seen.append(int(engine.shadow(ONE, canary, view)[0]))
    assert seen == [12, 12]


def test_another_policy_begins_at_the_replicas_that_are_there() -> None:
    engine = Engine(SPEC, Says(10))
    view = engine.observe(0.0, reading(10))
    first, second = Says(30), Says(np.nan)
    assert engine.shadow(ONE, first, view).tolist() == [30]
    assert engine.shadow(ONE, second, view).tolist() == [10]


def test_a_reset_row_begins_anew() -> None:
    engine, canary = Engine(SPEC, Says(10)), Says(30)
    view = engine.observe(0.0, reading(10))
    assert engine.shadow(ONE, canary, view).tolist() == [30]
    engine.reset(ONE)
    canary.replicas = np.nan
    assert engine.shadow(ONE, canary, engine.observe(15.0, reading(10))).tolist() == [10]


def test_while_somebody_else_has_set_the_replicas_the_shadow_has_them_too() -> None:
    engine, canary = Engine(SPEC, Says(10)), Says(30)
    assert engine.shadow(ONE, canary, engine.observe(0.0, reading(10))).tolist() == [30]
    engine.hold(0, 100.0)
    assert engine.shadow(ONE, canary, engine.observe(15.0, reading(17))).tolist() == [17]


def test_rows_are_picked_from_a_larger_view_in_any_order() -> None:
    engine = Engine([SPEC] * 4, Says(10))
    samples = Samples(request_rate=[10.0, 70.0, 140.0, 50.0], current=[10.0] * 4, ready=[10.0] * 4)
    view = engine.observe(0.0, samples)
    picked = engine.shadow(np.array([2, 0]), HpaPolicy(), view)
    assert picked.tolist() == [20, 2]
    with pytest.raises(ValueError, match=r"rows: \[7\] are not in the view"):
        engine.shadow(np.array([1, 7]), HpaPolicy(), view)


def test_services_that_come_later_can_be_shadowed() -> None:
    engine, canary = Engine(SPEC, Says(10)), Says(30)
    engine.shadow(ONE, canary, engine.observe(0.0, reading(10)))
    rows = np.array([engine.add(SLOW, Says(10)) for _ in range(20)])
    samples = Samples(request_rate=[50.0] * 20, current=[10.0] * 20, ready=[10.0] * 20)
    assert engine.shadow(rows, canary, engine.observe(15.0, samples, rows)).tolist() == [13] * 20


def test_a_canary_that_fails_holds() -> None:
    class Breaks(Says):
        def recommend(self, view: object) -> np.ndarray:
            raise ZeroDivisionError

    assert beside(SPEC, Says(20), Breaks(1), 2)[1] == [10, 10]
