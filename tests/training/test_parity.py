"""What the operator runs is what was trained: ONNX Runtime against torch over 100,000 random observations."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from training.analytic.artifact import export_network, parity
from training.analytic.policy import BandNetwork
from training.artifact import PARITY_TOLERANCE, Provenance, random_observations
from training.config import load_preset

OBSERVATIONS = 100_000


def shipped() -> tuple[BandNetwork, bytes]:
    """The network that ships as `default`, rebuilt in torch from its preset and its own weights."""
    data = (resources.files("controller.policies") / "builtin" / "default.onnx").read_bytes()
    network = BandNetwork(load_preset("default"), serving=True).eval()
    weights = {
        each.name: numpy_helper.to_array(each) for each in onnx.load_from_string(data).graph.initializer
    }
    state = {name: torch.tensor(weights[name]) for name in network.state_dict()}
    network.load_state_dict(state)
    return network, data


def test_the_shipped_policy_is_its_network() -> None:
    network, data = shipped()
    assert parity(network, data, OBSERVATIONS, seed=1) <= PARITY_TOLERANCE


def test_an_export_is_its_network_and_a_changed_weight_is_found(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, out = BandNetwork(load_preset("default")).eval(), tmp_path / "policy.onnx"
    network.standardise(torch.from_numpy(random_observations(512, seed=3)))
    provenance = Provenance("test", "1", "tests", 0, "", 0, "", {})
    assert export_network(network, provenance, out) <= PARITY_TOLERANCE
    assert parity(network, out.read_bytes(), OBSERVATIONS, seed=2) <= PARITY_TOLERANCE
    with torch.no_grad():
        network.head.weight[0, 0] += 1e-2
    assert parity(network, out.read_bytes(), OBSERVATIONS, seed=2) > PARITY_TOLERANCE


def test_random_observations_reach_all_of_the_schema() -> None:
    drawn = random_observations(OBSERVATIONS, seed=0)
    assert drawn.shape[0] == OBSERVATIONS
    assert (np.ptp(drawn, axis=0) > 0).all()


@pytest.mark.parametrize("count", [1, OBSERVATIONS])
def test_a_row_decides_alike_alone_and_among_many(count: int) -> None:
    network, data = shipped()
    assert parity(network, data, count, seed=4) <= PARITY_TOLERANCE
