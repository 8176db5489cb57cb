"""A learned table as an ONNX artifact, in the format of `training.artifact`: the cut is inside the graph.

For each axis its feature is compared with its edges, the bins' numbers add up to a row of the table, and one
Gather takes that row's best action. The operator serves it like any other artifact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from controller.core import OBSERVATION_SCHEMA
from training.artifact import (
    OPSET,
    PARITY_OBSERVATIONS,
    Provenance,
    metadata,
    random_observations,
    set_metadata,
)
from training.errors import ExportError
from training.qlearning.states import COLUMNS, States
from training.qlearning.table import Table

FloatArray = npt.NDArray[np.float32]
IR_VERSION = 10
"""Of the file format: what ONNX Runtime 1.23 reads."""


def export_table(
    table: Table, provenance: Provenance, out: Path, seen: tuple[FloatArray, FloatArray] | None = None
) -> float:
    """Write the artifact to `out`; the largest difference to the table, which is 0.

    seen: (lowest, highest) observation of training, `[F]` each. Raises ExportError where the graph is not
    equal to the table.
    """
    proto = table_graph(table)
    set_metadata(proto, metadata(table.head.schema, provenance, {}, seen))
    data = proto.SerializeToString()
    difference = parity(table, data, probing_observations(table.states, PARITY_OBSERVATIONS, seed=0))
    if difference != 0.0:
        raise ExportError(f"the graph differs from the table by {difference:g}; it must be equal")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(data)
    return difference


def table_graph(table: Table) -> onnx.ModelProto:
    """The policy of the best choices: `observation` float32 `[N, F]` to `action` float32 `[N, A]`."""
    graph = _Graph()
    state = ""
    for axis, stride in zip(table.states.axes, table.states.strides, strict=True):
        value = graph.columns("observation", [axis.feature])
        if axis.over:
            highest = graph.node("ReduceMax", graph.columns("observation", axis.over), graph.whole([1]))
            value = graph.node("Sub", value, graph.node("Max", highest, graph.number(0.0)))
        above = graph.node("Greater", value, graph.constant(np.array([axis.edges], dtype=np.float32)))
        counted = graph.node("Cast", above, to=TensorProto.INT64)
        found = graph.node("ReduceSum", counted, graph.whole([1]), keepdims=0)
        rows = graph.node("Mul", found, graph.whole(int(stride)))
        state = graph.node("Add", state, rows) if state else rows
    actions = table.head.table[table.best].astype(np.float32)
    graph.node("Gather", graph.constant(actions), state, name="action", axis=0)
    return graph.model(actions.shape[1])


def parity(table: Table, data: bytes, observations: FloatArray) -> float:
    """Largest |difference| of actions between the table and ONNX Runtime at these observations `[N, F]`."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (served,) = session.run(["action"], {"observation": observations})
    own = table.policy().act(observations)
    return float(np.max(np.abs(np.asarray(served, dtype=np.float64) - own)))


def probing_observations(states: States, count: int, seed: int) -> FloatArray:
    """Observations `[count, F]` over the whole ranges; a third of the cut features right at an edge, or one
    float32 beside it."""
    observations = random_observations(count, seed)
    generator = np.random.default_rng([seed, 1])
    for axis in states.axes:
        edges = np.array(axis.edges, dtype=np.float32)
        beside = np.concatenate(
            [edges, np.nextafter(edges, np.float32(9)), np.nextafter(edges, np.float32(-9))]
        )
        drawn = generator.choice(beside, count)
        column = COLUMNS.index(axis.feature)
        observations[:, column] = np.where(generator.random(count) < 1 / 3, drawn, observations[:, column])
    return observations


class _Graph:
    """ONNX nodes as they are made; every method gives the name of a value."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        output = name or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, values: npt.NDArray[np.generic]) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(values, name))
        return name

    def whole(self, values: int | list[int]) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def number(self, value: float) -> str:
        return self.constant(np.array(value, dtype=np.float32))

    def columns(self, source: str, features: list[str] | tuple[str, ...]) -> str:
        return self.node("Gather", source, self.whole([COLUMNS.index(name) for name in features]), axis=1)

    def model(self, actions: int) -> onnx.ModelProto:
        observation = helper.make_tensor_value_info(
            "observation", TensorProto.FLOAT, ["N", OBSERVATION_SCHEMA.size]
        )
        action = helper.make_tensor_value_info("action", TensorProto.FLOAT, ["N", actions])
        graph = helper.make_graph(self._nodes, "table", [observation], [action], self._constants)
        opset = helper.make_opsetid("", OPSET)
        proto = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        onnx.checker.check_model(proto)
        return proto
