"""A trained band network as an ONNX artifact, in the format of `training.artifact`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch

from training.analytic.policy import SCHEMA, BandNetwork
from training.artifact import (
    ObservationRange,
    Provenance,
    metadata,
    module_graph,
    random_observations,
    set_metadata,
    written,
)

OBSERVATIONS = 100_000
"""Random ones that the graph is compared on."""


def export_network(
    network: BandNetwork, provenance: Provenance, out: Path, seen: ObservationRange | None = None
) -> float:
    """Write the artifact to `out`; the largest difference to the network over random observations.

    seen: the range of observations in training, outside of which the operator's guard is careful. Raises
    ExportError where the graph is not equal to it.
    """
    frozen = network.precise()
    proto = module_graph(frozen)
    set_metadata(proto, metadata(SCHEMA, provenance, {}, seen))
    data = proto.SerializeToString()
    return written(data, parity(frozen, data, OBSERVATIONS, seed=0), out, of="network")


def parity(network: BandNetwork, data: bytes, count: int, seed: int) -> float:
    """Largest |difference| of actions between torch and ONNX Runtime over `count` random observations."""
    exact = network.precise()
    observations = random_observations(count, seed)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (served,) = session.run(["action"], {"observation": observations})
    with torch.no_grad():
        own = exact(torch.from_numpy(observations)).numpy()
    return float(np.max(np.abs(np.asarray(served) - own)))
