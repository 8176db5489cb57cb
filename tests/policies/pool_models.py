"""Small ONNX models for pools: a formula that a test can follow, and ones that each break one rule.

The formula: capacity 2 over the load, shared by 1 / price; traffic by ready capacity, less where latency is
above the objective.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from controller.core.poolfeatures import POOL_COLUMN, POOL_SCHEMA, SET_SCHEMA

FEATURES, SET_FEATURES = POOL_SCHEMA.size, SET_SCHEMA.size
HEADROOM = 2.0


def described(schema: Any) -> dict[str, Any]:
    return {"version": schema.version, "digest": schema.digest, "features": list(schema.names)}


def metadata(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "pools",
        "name": "tiny-pools",
        "version": "1",
        "pool_schema": described(POOL_SCHEMA),
        "set_schema": described(SET_SCHEMA),
        "action_schema": "pools-capacity-share/v1",
        "preference_range": [0, 100],
        "provenance": {"command": "tests", "seed": 0},
        "evaluation": {},
    } | changes


def column(name: str) -> list[onnx.NodeProto]:
    """A pool's feature, `[N, P]`, under its own name."""
    return [
        helper.make_node("Constant", [], [f"{name}_at"], value_int=POOL_COLUMN[name]),
        helper.make_node("Gather", ["pools", f"{name}_at"], [name], axis=2),
    ]


def normal(values: str, result: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("ReduceSum", [values, "pool_axis"], [f"{values}_sum"], keepdims=1),
        helper.make_node("Max", [f"{values}_sum", "least"], [f"{values}_some"]),
        helper.make_node("Div", [values, f"{values}_some"], [result]),
    ]


def formula() -> list[onnx.NodeProto]:
    read = [node for name in ("present", "price", "ready_share", "latency_over_slo") for node in column(name)]
    return [
        *read,
        helper.make_node("Neg", ["price"], ["cheapness"]),
        helper.make_node("Exp", ["cheapness"], ["cheap"]),
        helper.make_node("Mul", ["cheap", "present"], ["wished"]),
        *normal("wished", "wished_share"),
        helper.make_node("Mul", ["wished_share", "headroom"], ["capacity"]),
        helper.make_node("Relu", ["latency_over_slo"], ["late"]),
        helper.make_node("Mul", ["late", "steepness"], ["penalty"]),
        helper.make_node("Neg", ["penalty"], ["health"]),
        helper.make_node("Exp", ["health"], ["healthy"]),
        helper.make_node("Mul", ["healthy", "ready_share"], ["traffic"]),
        *normal("traffic", "share"),
    ]


def model(
    nodes: list[onnx.NodeProto] | None = None,
    properties: dict[str, Any] | None = None,
    axes: tuple[Any, Any] = ("N", "P"),
    features: int = FEATURES,
    outputs: tuple[str, ...] = ("capacity", "share"),
    inputs: tuple[str, str] = ("pools", "set"),
) -> bytes:
    """The formula unless other `nodes` are given."""
    constants = {"headroom": HEADROOM, "steepness": 2.0, "least": 1e-9}
    held = [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()]
    held.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "pool_axis"))
    graph = helper.make_graph(
        nodes or formula(),
        "pools",
        [
            helper.make_tensor_value_info(inputs[0], TensorProto.FLOAT, [*axes, features]),
            helper.make_tensor_value_info(inputs[1], TensorProto.FLOAT, [axes[0], SET_FEATURES]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(axes)) for name in outputs],
        held,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(proto, {"rlscaler": json.dumps(properties or metadata())})
    return bytes(proto.SerializeToString())


def dividing() -> bytes:
    """Shares that are no numbers for sets with a pool whose reclaim risk is above 0, and for these alone."""
    return model(
        [
            *formula()[:-1],
            helper.make_node("Div", ["traffic", "traffic_some"], ["fair"]),
            *column("reclaim_risk"),
            helper.make_node("Neg", ["reclaim_risk"], ["negative"]),
            helper.make_node("Sqrt", ["negative"], ["root"]),
            helper.make_node("Add", ["fair", "root"], ["share"]),
        ]
    )
