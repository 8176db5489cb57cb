"""Tiny ONNX models for the tests: good ones, and ones that each break one rule."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from controller.core import OBSERVATION_SCHEMA

FEATURES = OBSERVATION_SCHEMA.size


def metadata(**changes: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "version": "1",
        "observation_schema": {
            "version": OBSERVATION_SCHEMA.version,
            "digest": OBSERVATION_SCHEMA.digest,
            "features": list(OBSERVATION_SCHEMA.names),
        },
        "action_schema": "relative-change/v1",
        "preference_range": [0, 100],
        "provenance": {"command": "tests", "seed": 0},
        "evaluation": {},
    } | changes


def weights(features: int = FEATURES, actions: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (features, actions)).astype(np.float32)


def model(
    nodes: list[onnx.NodeProto] | None = None,
    rows: Any = "N",
    features: Any = FEATURES,
    actions: int = 1,
    input_name: str = "observation",
    output_name: str = "action",
    input_type: int = TensorProto.FLOAT,
    output_shape: list[Any] | None = None,
    properties: dict[str, Any] | str | None = None,
    opset: list[onnx.OperatorSetIdProto] | None = None,
) -> bytes:
    """`action = tanh(observation @ W)` unless other `nodes` are given; W is `weights(...)`."""
    size = features if isinstance(features, int) else FEATURES
    default = [
        helper.make_node("MatMul", [input_name, "W"], ["hidden"]),
        helper.make_node("Tanh", ["hidden"], [output_name]),
    ]
    graph = helper.make_graph(
        nodes or default,
        "policy",
        [helper.make_tensor_value_info(input_name, input_type, [rows, features])],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, output_shape or [rows, actions])],
        [numpy_helper.from_array(weights(size, actions), "W")],
    )
    proto = helper.make_model(graph, opset_imports=opset or [helper.make_opsetid("", 18)], ir_version=10)
    text = properties if isinstance(properties, str) else json.dumps(properties or metadata())
    helper.set_model_props(proto, {"rlscaler": text})
    return bytes(proto.SerializeToString())


def bare() -> bytes:
    """A model without any metadata."""
    proto = onnx.load_from_string(model())
    proto.ClearField("metadata_props")
    return bytes(proto.SerializeToString())


def dividing() -> bytes:
    """0 / 0 or x / 0 wherever the first feature is 0: NaN or infinite actions for those rows alone."""
    return model(
        [
            helper.make_node("MatMul", ["observation", "W"], ["hidden"]),
            helper.make_node("Constant", [], ["start"], value_ints=[0]),
            helper.make_node("Constant", [], ["end"], value_ints=[1]),
            helper.make_node("Constant", [], ["axis"], value_ints=[1]),
            helper.make_node("Slice", ["observation", "start", "end", "axis"], ["first"]),
            helper.make_node("Div", ["hidden", "first"], ["action"]),
        ]
    )


def never_a_number() -> bytes:
    """The square root of a negative number, whatever is observed."""
    return model(
        [
            helper.make_node("MatMul", ["observation", "W"], ["hidden"]),
            helper.make_node("Exp", ["hidden"], ["positive"]),
            helper.make_node("Neg", ["positive"], ["negative"]),
            helper.make_node("Sqrt", ["negative"], ["action"]),
        ]
    )


def failing_on_negative() -> bytes:
    """Loads and passes the trial, but fails at run time: an index out of range for a negative first row."""
    return model(
        [
            helper.make_node("MatMul", ["observation", "W"], ["hidden"]),
            helper.make_node("Constant", [], ["top"], value_ints=[0]),
            helper.make_node("Gather", ["observation", "top"], ["row"], axis=0),
            helper.make_node("ReduceMin", ["row"], ["least"], keepdims=0),
            helper.make_node("Constant", [], ["limit"], value_float=-50.0),
            helper.make_node("Less", ["least", "limit"], ["bad"]),
            helper.make_node("Cast", ["bad"], ["flag"], to=TensorProto.INT64),
            helper.make_node("Constant", [], ["far"], value_int=100000),
            helper.make_node("Mul", ["flag", "far"], ["index"]),
            helper.make_node("Gather", ["observation", "index"], ["never"], axis=0),
            helper.make_node("ReduceSum", ["never"], ["sum"], keepdims=0),
            helper.make_node("Constant", [], ["nil"], value_float=0.0),
            helper.make_node("Mul", ["sum", "nil"], ["zero"]),
            helper.make_node("Add", ["hidden", "zero"], ["action"]),
        ]
    )


def looping(times: int) -> bytes:
    """A graph that counts to `times` before it answers."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still"]),
            helper.make_node("Sin", ["sum"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    return model(
        [
            helper.make_node("MatMul", ["observation", "W"], ["hidden"]),
            helper.make_node("Constant", [], ["times"], value_int=times),
            helper.make_node("Loop", ["times", "", "hidden"], ["action"], body=body),
        ]
    )


def random() -> bytes:
    """Noise in the action: not what a serving policy may do."""
    return model(
        [
            helper.make_node("MatMul", ["observation", "W"], ["hidden"]),
            helper.make_node("RandomNormalLike", ["hidden"], ["noise"]),
            helper.make_node("Add", ["hidden", "noise"], ["action"]),
        ]
    )


def with_custom_operator() -> bytes:
    return model(
        [helper.make_node("Exfiltrate", ["observation"], ["action"], domain="evil.example")],
        opset=[helper.make_opsetid("", 18), helper.make_opsetid("evil.example", 1)],
    )


def with_weights_in(path: str) -> bytes:
    """The weights lie in another file."""
    proto = onnx.load_from_string(model())
    tensor = proto.graph.initializer[0]
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", path), ("offset", "0"), ("length", str(size))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return bytes(proto.SerializeToString())


def with_a_constant_in(path: str, deep: bool = False) -> bytes:
    """A constant, in the graph or in the body of a loop, lies in another file."""
    proto = onnx.load_from_string(looping(1))
    tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", path
    node = helper.make_node("Constant", [], ["far"], value=tensor)
    loop = next(each for each in proto.graph.node if each.op_type == "Loop")
    (loop.attribute[0].g if deep else proto.graph).node.append(node)
    return bytes(proto.SerializeToString())


def greedy(megabytes: int) -> bytes:
    """Asks for so much memory for each row: a constant that grows with the batch."""
    return model(
        [
            helper.make_node("MatMul", ["observation", "W"], ["hidden"]),
            helper.make_node("Shape", ["observation"], ["shape"], end=1),
            helper.make_node("Constant", [], ["each"], value_ints=[megabytes * 1024 * 256]),
            helper.make_node("Mul", ["shape", "each"], ["size"]),
            helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
            helper.make_node("Add", ["hidden", "sum"], ["action"]),
        ]
    )


def looping_on_negative(times: int) -> bytes:
    """Passes the trial, but counts to `times` where the least observation is below -50."""
    proto = onnx.load_from_string(looping(times))
    nodes = [
        helper.make_node("ReduceMin", ["observation"], ["least"], keepdims=0),
        helper.make_node("Constant", [], ["limit"], value_float=-50.0),
        helper.make_node("Less", ["least", "limit"], ["bad"]),
    ]
    loop = next(each for each in proto.graph.node if each.op_type == "Loop")
    loop.input[1] = "bad"
    for place, node in enumerate(nodes):
        proto.graph.node.insert(place, node)
    return bytes(proto.SerializeToString())


def doubles() -> bytes:
    """An action in float64."""
    proto = onnx.load_from_string(
        model(
            [
                helper.make_node("MatMul", ["observation", "W"], ["hidden"]),
                helper.make_node("Cast", ["hidden"], ["action"], to=TensorProto.DOUBLE),
            ]
        )
    )
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    return bytes(proto.SerializeToString())
