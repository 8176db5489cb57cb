"""Capacity: learned while unsaturated, corrected when the objective says that it was too much."""

from __future__ import annotations

import numpy as np
import pytest

from controller.core import Engine, HpaPolicy, Samples, ServiceSpec
from controller.core.action import decode_hold_band, decode_relative_change


def test_estimate_converges_and_its_uncertainty_shrinks() -> None:
    rng = np.random.default_rng(0)
    engine = Engine(ServiceSpec(1, 50), HpaPolicy())
    from controller.core.observation import COLUMN

    doubts = []
    for tick in range(200):
        utilisation = rng.uniform(0.3, 0.8)
        rate = 25.0 * 4 * utilisation * rng.normal(1, 0.05)
        view = engine.observe(
            15.0 * tick, Samples(request_rate=[rate], utilisation=[utilisation], ready=[4], current=[4])
        )
        doubts.append(view.features[0, COLUMN["capacity_uncertainty"]])
    assert engine.capacity_rps()[0] == pytest.approx(25.0, rel=0.03)
    assert doubts[-1] < 0.1 < doubts[0]


def test_saturated_readings_teach_nothing() -> None:
    engine = Engine(ServiceSpec(1, 50), HpaPolicy())
    engine.observe(0.0, Samples(request_rate=[400.0], utilisation=[0.99], ready=[4], current=[4]))
    assert np.isnan(engine.capacity_rps()[0])


def test_an_overestimate_is_corrected_while_the_objective_is_broken_and_heals_slowly() -> None:
    engine = Engine(ServiceSpec(1, 50, capacity_rps=30.0, slo_latency_ms=100.0), HpaPolicy())
    for tick in range(20):
        engine.observe(15.0 * tick, Samples([100.0], [300.0], ready=[4], current=[4]))
    corrected = engine.capacity_rps()[0]
    assert 18.0 <= corrected < 28.0
    for tick in range(20, 60):
        engine.observe(15.0 * tick, Samples([100.0], [20.0], ready=[4], current=[4]))
    assert corrected < engine.capacity_rps()[0] < 30.0


@pytest.mark.parametrize(
    ("change", "current", "expected"),
    [
        pytest.param(0.0, 7, 7, id="nothing"),
        pytest.param(0.01, 7, 8, id="at least one up"),
        pytest.param(-0.01, 7, 6, id="at least one down"),
        pytest.param(0.5, 10, 15, id="half more"),
        pytest.param(-0.5, 10, 5, id="half less"),
        pytest.param(-2.0, 3, 0, id="never negative"),
        pytest.param(np.nan, 3, np.nan, id="not a number stays one"),
    ],
)
def test_relative_change(change: float, current: int, expected: float) -> None:
    result = decode_relative_change(np.array([[change]]), np.array([current]), np.array([1.0]))
    np.testing.assert_array_equal(result, [expected])


@pytest.mark.parametrize(
    ("low", "high", "current", "expected"),
    [
        pytest.param(0.0, 1.0, 12, 12, id="inside the band nothing moves"),
        pytest.param(0.5, 1.0, 12, 17, id="up to its lower edge"),
        pytest.param(-0.5, 0.0, 30, 10, id="down to its upper edge"),
        pytest.param(0.5, -1.0, 30, 17, id="an inverted band is its lower edge"),
    ],
)
def test_hold_band(low: float, high: float, current: int, expected: int) -> None:
    result = decode_hold_band(np.array([[low, high]]), np.array([current]), np.array([10.0]))
    assert result.tolist() == [expected]
