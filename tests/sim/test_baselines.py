"""The sweeps of the baselines: settings along one dial each, from cheap to safe, under one specification."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controller.core import POLICY_TYPES, FormulaPolicy, ServiceSpec
from sim.baselines import BASELINES, StaticPolicy, sweep
from sim.errors import ParameterError
from sim.replay import Protocol, replay
from sim.traces import Trace

SPEC = ServiceSpec(2, 80, slo_latency_ms=250.0, capacity_rps=25.0, start_up_s=60.0)
RULES = Protocol(window_s=7200.0, max_replicas=120)


def moving_load() -> Trace:
    """Two hours that rise and fall, with five surges: enough to tell cheap from safe."""
    times = np.arange(0.0, 7200.0, 15.0)
    rates = 700.0 + 400.0 * np.sin(2 * np.pi * times / 3600.0)
    for start in (900, 2300, 3500, 4800, 6100):
        rates += 350.0 * np.exp(-np.maximum(times - start, 0.0) / 200.0) * (times >= start)
    return Trace(times, rates, "moving")


@pytest.mark.parametrize("name", [*BASELINES, "Static"])
def test_a_sweep_changes_its_dial_and_leaves_the_users_specification_alone(name: str) -> None:
    settings = sweep(name, SPEC)
    assert 8 <= len({setting.name for setting in settings}) == len(settings)
    for setting in settings:
        dial = {
            "target_utilisation": SPEC.target_utilisation,
            "preference": SPEC.preference,
            "policy_type": SPEC.policy_type,
            "behavior": SPEC.behavior,
        }
        assert repr(replace(setting.spec, **dial)) == repr(SPEC)
        assert setting.spec.behavior.scale_up == SPEC.behavior.scale_up
        assert setting.spec.policy_type in POLICY_TYPES


@pytest.mark.parametrize("name", BASELINES)
def test_the_settings_of_a_sweep_share_one_policy_and_differ_in_the_specification(name: str) -> None:
    settings = sweep(name, SPEC)
    assert len({id(setting.policy) for setting in settings}) == 1
    assert len({repr(setting.spec) for setting in settings}) == len(settings)
    policy = settings[0].policy
    assert not isinstance(policy, FormulaPolicy) or (policy.name, policy.type) == (name, "Formula")
    assert {setting.spec.policy_type for setting in settings} == {policy.type}


def test_static_sweeps_from_the_floor_to_the_ceiling() -> None:
    counts = [setting.policy.replicas for setting in sweep("Static", SPEC)]  # type: ignore[attr-defined]
    assert (counts[0], counts[-1]) == (2, 80)
    assert np.all(np.diff(counts) > 0)
    assert all(isinstance(setting.policy, StaticPolicy) for setting in sweep("Static", SPEC))


def test_an_unknown_baseline_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ParameterError, match=r"baseline: 'VPA' is not allowed, must be one of HPA, KEDA, "):
        sweep("VPA", SPEC)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Cost and violation along each sweep, all in one batch over the same arrivals."""
    families = {name: sweep(name, RULES.spec()) for name in BASELINES}
    found = replay([moving_load()], [one for family in families.values() for one in family], RULES, 3)
    ends = np.cumsum([len(family) for family in families.values()])[:-1]
    costs, violations = np.split(found.cost[:, 0], ends), np.split(found.violation[:, 0], ends)
    return dict(zip(families, zip(costs, violations, strict=True), strict=True))


@pytest.mark.parametrize("name", BASELINES)
def test_a_sweep_reaches_from_cheap_to_safe(
    name: str, outcomes: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    cost, violation = outcomes[name]
    assert violation.min() <= 0.0005
    assert violation.max() >= 0.02
    assert cost.min() < 1.75 < 2.5 < cost.max()
    # on the whole, who pays more violates less
    assert np.corrcoef(np.argsort(np.argsort(cost)), np.argsort(np.argsort(violation)))[0, 1] < -0.7


@pytest.mark.parametrize("name", ["KEDA", "Knative", "HoltWinters", "SeasonalNaive", "MovingMaximum"])
def test_a_higher_target_utilisation_is_cheaper(
    name: str, outcomes: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    cost, _ = outcomes[name]
    assert np.all(np.diff(cost) < 0.03)
