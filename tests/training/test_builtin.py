"""The policies that ship: small, loadable, say where they come from, and turn their dial the right way."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest

from controller.core import OBSERVATION_SCHEMA
from controller.policies.loader import load_policy
from sim.baselines import hpa, with_scale_down_window
from sim.replay import Protocol, ReplayResult, replay
from training.artifact import read_metadata
from training.config import load_preset
from training.contestants import Sweep, contestant, generated_windows

DIAL = (0.0, 25.0, 50.0, 75.0, 100.0)
HPA_TARGETS = (0.2, 0.4, 0.6, 0.7, 0.8)
PROTOCOL = Protocol(window_s=4 * 3600.0)


NAMES = pytest.mark.parametrize("name", ["default", "ppo"])


def built_in(name: str) -> bytes:
    return (resources.files("controller.policies") / "builtin" / f"{name}.onnx").read_bytes()


@NAMES
def test_it_is_small_and_fits_this_operator(name: str) -> None:
    assert len(built_in(name)) < 500_000
    policy = load_policy({"builtin": name})
    assert policy.name == name
    assert policy.schema == OBSERVATION_SCHEMA.version


@NAMES
def test_its_metadata_name_the_command_that_made_it(name: str) -> None:
    provenance = read_metadata(built_in(name))["provenance"]
    preset = load_preset(name)
    assert provenance["command"] == f"python training/train.py --preset {name} --seed {provenance['seed']}"
    assert provenance["timesteps"] >= preset.timesteps
    assert provenance["workloads"] == preset.workloads


@NAMES
def test_it_carries_its_evaluation(name: str) -> None:
    evaluation = read_metadata(built_in(name))["evaluation"]
    assert evaluation["command"].startswith("python training/evaluate.py")
    assert set(evaluation["cost_over_ideal_at_mean_violation"]) == {"0.1%", "0.5%", "1.0%"}


@pytest.fixture(scope="module")
def replayed() -> tuple[ReplayResult, ReplayResult]:
    """The dial, and the HPA with the same scale-down window, on the same generated traffic."""
    windows = generated_windows(6, seed=77, protocol=PROTOCOL)
    dial = contestant("default", Sweep(preferences=DIAL), PROTOCOL).settings
    spec = with_scale_down_window(PROTOCOL.spec(), 300)
    return replay(windows, dial, PROTOCOL), replay(windows, [hpa(spec, one) for one in HPA_TARGETS], PROTOCOL)


def test_a_higher_preference_costs_more_and_violates_less(
    replayed: tuple[ReplayResult, ReplayResult],
) -> None:
    dial, _ = replayed
    cost = np.exp(np.log(dial.cost).mean(axis=1))
    violation = dial.violation.mean(axis=1)
    assert (np.diff(cost) > 0).all(), cost
    assert violation[-1] < violation[0] / 3, violation


def test_it_violates_less_than_the_hpa_at_the_same_cost(replayed: tuple[ReplayResult, ReplayResult]) -> None:
    dial, hpa_sweep = replayed
    cost, hpa_cost = (np.exp(np.log(one.cost).mean(axis=1)) for one in replayed)
    at_our_costs = np.interp(cost, hpa_cost[::-1], hpa_sweep.violation.mean(axis=1)[::-1])
    ours = dial.violation.mean(axis=1)
    comparable = at_our_costs > 0.001
    assert comparable.sum() >= 3
    assert (ours[comparable] < at_our_costs[comparable]).all(), (ours, at_our_costs)
