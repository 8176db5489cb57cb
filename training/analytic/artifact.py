"""A trained band network as an ONNX artifact, in the format of `training.artifact`."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from training.analytic.policy import SCHEMA, BandNetwork
from training.artifact import (
    PARITY_OBSERVATIONS,
    PARITY_TOLERANCE,
    Provenance,
    metadata,
    module_graph,
    random_observations,
    set_metadata,
)
from training.errors import ExportError


def export_network(network: BandNetwork, provenance: Provenance, out: Path) -> float:
    """Write the artifact to `out`; the largest difference to the network over random observations.

    Raises ExportError where the graph is not equal to it.
    """
    frozen = copy.deepcopy(network).eval()
    proto = module_graph(frozen)
    set_metadata(proto, metadata(SCHEMA, provenance, {}))
    data = proto.SerializeToString()
    difference = parity(frozen, data, PARITY_OBSERVATIONS, seed=0)
    if not difference <= PARITY_TOLERANCE:
        raise ExportError(
            f"the graph differs from the network by {difference:g}, more than {PARITY_TOLERANCE:g}"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(data)
    return difference


def parity(network: BandNetwork, data: bytes, count: int, seed: int) -> float:
    """Largest |difference| of actions between torch and ONNX Runtime over `count` random observations."""
    observations = random_observations(count, seed)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (served,) = session.run(["action"], {"observation": observations})
    with torch.no_grad():
        own = network(torch.from_numpy(observations)).numpy()
    return float(np.max(np.abs(np.asarray(served) - own)))
