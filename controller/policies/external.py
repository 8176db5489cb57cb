"""Whether an ONNX file asks for other files, without the onnx library, which the operator does not have.

Weights may be kept in files beside the model ("external data"), and ONNX Runtime opens them relative to the
working directory, `..` included: a model from elsewhere could take any file of the operator for its weights.
An artifact is one file, so whatever refers to another is refused before ONNX Runtime sees it. Whatever is not
a plain protobuf message of ONNX's fields is refused with it: ONNX Runtime has formats of its own as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14

_CHILDREN: Final[dict[str, dict[int, str]]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
"""Field numbers of onnx.proto3 that lead to tensors."""


def refers_to_files(data: bytes) -> bool:
    """Whether any tensor of the model lies outside of it. Raises ValueError for what is no protobuf."""
    waiting = [("Model", memoryview(data))]
    while waiting:
        kind, message = waiting.pop()
        for number, value in _fields(message):
            if kind == "Tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value == 1)):
                return True
            child = _CHILDREN[kind].get(number)
            if child is not None and isinstance(value, memoryview):
                waiting.append((child, value))
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, its varint or its bytes) of a message; numbers of fixed size are passed over."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
        elif wire == _BYTES:
            size, at = _varint(message, at)
            if size > end - at:
                raise ValueError("a field ends after the file")
            yield number, message[at : at + size]
            at += size
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
    if at != end:
        raise ValueError("a field ends after the file")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("a number ends after the file")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")
