"""Bodies that `kubectl create configmap|secret|namespace|serviceaccount` sends as protobuf, decoded to JSON.

Only these few kinds: everything else that this project meets talks JSON. Field numbers are from
k8s.io/api/core/v1/generated.proto and k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

from sim.twin.errors import Json, unsupported_media_type

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_MAP, _BYTES_MAP, _TEXT = "map", "bytes map", "text"
_META = {1: ("name", _TEXT), 2: ("generateName", _TEXT), 3: ("namespace", _TEXT)}
_META |= {11: ("labels", _MAP), 12: ("annotations", _MAP)}
_KINDS = {
    "ConfigMap": {2: ("data", _MAP), 3: ("binaryData", _BYTES_MAP)},
    "Secret": {2: ("data", _BYTES_MAP), 3: ("type", _TEXT), 4: ("stringData", _MAP)},
    "Namespace": {},
    "ServiceAccount": {},
}


def decode(body: bytes) -> Json:
    """A `runtime.Unknown` envelope to the object in it.

    Raises:
        ApiError: 415 for kinds other than the ones above.
    """
    if not body.startswith(_MAGIC):
        raise unsupported_media_type(["application/json", "application/yaml"])
    envelope = dict(_fields(body[len(_MAGIC) :]))
    header = dict(_fields(envelope[1]))
    kind = header[2].decode()
    if kind not in _KINDS:
        raise unsupported_media_type(["application/json", "application/yaml"])
    obj = _message(envelope[2], _KINDS[kind])
    meta = next((raw for number, raw in _fields(envelope[2]) if number == 1), b"")
    return {"apiVersion": header[1].decode(), "kind": kind, "metadata": _message(meta, _META)} | obj


def _message(raw: bytes, schema: dict[int, tuple[str, str]]) -> Json:
    result: Json = {}
    for number, value in _fields(raw):
        name, kind = schema.get(number, ("", ""))
        if kind == _TEXT and value:
            result[name] = value.decode()
        elif kind in (_MAP, _BYTES_MAP):
            entry = dict(_fields(value))
            item = entry.get(2, b"")
            text = base64.b64encode(item).decode() if kind == _BYTES_MAP else item.decode()
            result.setdefault(name, {})[entry[1].decode()] = text
    return result


def _fields(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """(field number, bytes) of each length-delimited field; varints are skipped over."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        size, at = _varint(raw, at)
        if tag & 7 == 2:
            yield tag >> 3, raw[at : at + size]
            at += size


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
