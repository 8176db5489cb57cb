"""A pools policy as one ONNX artifact: any number of sets and of pools, the service policy's graph inside it.

`training.poolsets.run` and `training/export.py` call this; the operator's loader reads what is written here.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import TensorProto, compose, helper

from controller.core import OBSERVATION_SCHEMA
from controller.core.poolfeatures import POOL_SCHEMA, SET_SCHEMA
from training.artifact import OPSET, Provenance, set_metadata, traced_graph, written
from training.errors import ExportError
from training.poolsets.network import PoolsNetwork
from training.tasks.base import described

KIND, ACTION_SCHEMA = "pools", "pools-capacity-share/v1"
INPUTS, OUTPUTS = ("pools", "set"), ("capacity", "share")
PARITY_SETS = 4096
BUILTIN = Path(__file__).resolve().parents[2] / "controller" / "policies" / "builtin" / "default.onnx"
"""The policy for services that a pools policy starts from, unless a preset names another."""
FloatArray = npt.NDArray[np.floating[Any]]
SeenRange = dict[str, tuple[FloatArray, FloatArray]]
"""Lowest and highest features in training: `pools` `[F]` each (present pools only) and `set` `[S]` each."""


class ServiceBand:
    """The hold band `[N, 2]` that a service policy's artifact gives for a set as one service."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [node.name for node in self._session.get_inputs()]
        if names != ["observation"]:
            raise ExportError(f"the service policy has inputs {names}; one named 'observation' is expected")

    @classmethod
    def from_file(cls, path: Path = BUILTIN) -> ServiceBand:
        """The band of an artifact's file. Raises ExportError where there is none."""
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise ExportError(f"{path}: the service policy cannot be read: {error.strerror}") from error

    @property
    def digest(self) -> str:
        """Of the artifact."""
        return "sha256:" + hashlib.sha256(self.data).hexdigest()

    def __call__(self, whole: FloatArray) -> npt.NDArray[np.float32]:
        """Edges for features of sets `[N, S]`."""
        observation = np.ascontiguousarray(whole[:, : OBSERVATION_SCHEMA.size], dtype=np.float32)
        return np.asarray(self._session.run(["action"], {"observation": observation})[0])


def export_pools(
    network: PoolsNetwork, path: Path, metadata: dict[str, Any], band: ServiceBand | None = None
) -> float:
    """Write the artifact to `path`; the largest difference to the network over random observations.

    metadata: as `pools_metadata` makes it. band: the service policy that the network was trained with, by
    default the built-in one. Raises ExportError where the graph is not equal to the network.
    """
    band = band or ServiceBand.from_file()
    proto = pools_graph(network, band)
    set_metadata(proto, metadata)
    data = proto.SerializeToString()
    return written(data, parity(network, band, data), path, of="network")


def pools_metadata(
    provenance: Provenance, evaluation: dict[str, Any] | None = None, seen: SeenRange | None = None
) -> dict[str, Any]:
    """What the artifact says of itself; the operator checks kind and schemas against its own.

    `observation_range` has a pair for each input, `pools` and `set`, as other artifacts have one.
    """
    content: dict[str, Any] = {
        "kind": KIND,
        "name": provenance.name,
        "version": provenance.version,
        "pool_schema": described(POOL_SCHEMA),
        "set_schema": described(SET_SCHEMA),
        "action_schema": ACTION_SCHEMA,
        "preference_range": [0, 100],
        "provenance": provenance.told(),
        "evaluation": evaluation or {},
    }
    if seen is not None:
        content["observation_range"] = {name: _plain(*seen[name]) for name in INPUTS}
    return content


def pools_graph(network: PoolsNetwork, band: ServiceBand) -> onnx.ModelProto:
    """`pools` `[N, P, F]` and `set` `[N, S]` to `capacity` and `share` `[N, P]`, N and P dynamic."""
    sets, pools = torch.export.Dim("N", min=1), torch.export.Dim("P", min=1)
    examples = {
        "pools": torch.rand(3, 5, POOL_SCHEMA.size),
        "set": torch.rand(3, SET_SCHEMA.size),
        "edges": torch.rand(3, 2),
    }
    dynamic = {"pools": {0: sets, 1: pools}, "whole": {0: sets}, "edges": {0: sets}}
    own = traced_graph(network.precise(), examples, list(OUTPUTS), dynamic)
    service = onnx.load_from_string(band.data)
    if service.opset_import[0].version != OPSET:
        found = service.opset_import[0].version
        raise ExportError(f"the service policy has opset {found}; {OPSET} is needed")
    joined = compose.merge_models(
        _sliced(service.ir_version),
        compose.add_prefix(service, "service/"),
        io_map=[("observation", "service/observation")],
        outputs=["service/action", "whole"],
    )
    joined.ir_version = own.ir_version
    merged = compose.merge_models(
        joined,
        compose.add_prefix(own, "own/"),
        io_map=[("service/action", "own/edges"), ("whole", "own/set")],
    )
    return _renamed(merged, {"own/pools": "pools", **{f"own/{name}": name for name in OUTPUTS}})


def parity(network: PoolsNetwork, band: ServiceBand, data: bytes) -> float:
    """Largest |difference| between torch and ONNX Runtime over random sets of 1 to 8 pools."""
    session, exact = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]), network.precise()
    worst = 0.0
    for count in range(1, 9):
        pools, whole = random_sets(PARITY_SETS // 8, count, seed=count)
        served = session.run(list(OUTPUTS), {"pools": pools, "set": whole})
        with torch.no_grad():
            own = exact(*(torch.from_numpy(each) for each in (pools, whole, band(whole))))
        for ours, theirs in zip(own, served, strict=True):
            worst = max(worst, float(np.max(np.abs(ours.numpy() - np.asarray(theirs)))))
    return worst


def random_sets(sets: int, pools: int, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Features `[N, P, F]` and `[N, S]` over the schemas' whole ranges, a fifth of the pools absent."""
    generator = np.random.default_rng(seed)
    of_pools = generator.uniform(POOL_SCHEMA.low, POOL_SCHEMA.high, (sets, pools, POOL_SCHEMA.size))
    present = generator.random((sets, pools)) > 0.2
    present[np.arange(sets), generator.integers(0, pools, sets)] = True
    of_pools[:, :, 0] = 1.0
    of_pools *= present[:, :, None]
    whole = generator.uniform(SET_SCHEMA.low, SET_SCHEMA.high, (sets, SET_SCHEMA.size))
    return of_pools.astype(np.float32), whole.astype(np.float32)


def _sliced(ir_version: int) -> onnx.ModelProto:
    """A graph that takes the service's observation from the features of the set."""
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [1], [value])
        for name, value in (("first", 0), ("last", OBSERVATION_SCHEMA.size), ("axis", 1))
    ]
    nodes = [
        helper.make_node("Slice", ["set", "first", "last", "axis"], ["observation"]),
        helper.make_node("Identity", ["set"], ["whole"]),
    ]
    given = [helper.make_tensor_value_info("set", TensorProto.FLOAT, ["N", SET_SCHEMA.size])]
    made = [
        helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["N", OBSERVATION_SCHEMA.size]),
        helper.make_tensor_value_info("whole", TensorProto.FLOAT, ["N", SET_SCHEMA.size]),
    ]
    graph = helper.make_graph(nodes, "set", given, made, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = ir_version
    return model


def _renamed(proto: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    """With the contract's names in place of the prefixed ones."""
    graph = proto.graph
    for node in graph.node:
        for side in (node.input, node.output):
            for place, name in enumerate(side):
                side[place] = names.get(name, name)
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    onnx.checker.check_model(proto)
    return proto


def _plain(low: FloatArray, high: FloatArray) -> dict[str, list[float]]:
    return {"low": [float(f"{one:.6g}") for one in low], "high": [float(f"{one:.6g}") for one in high]}
