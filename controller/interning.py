"""What thousands of RLScalers say alike is one object: specs but for the target's name, and conditions.

The registry reads specs and statuses through here. Without it ten thousand objects of one template would
take some 100 MB more, and as many parsings of the same.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import orjson

from controller.api.convert import to_service_spec
from controller.api.types import RLScalerSpec, ScaleTargetRef
from controller.api.validation import parse_spec
from controller.core import ServiceSpec

MOST_KEPT = 8192
"""Distinct specs, and distinct parts of statuses, that are remembered."""

_specs: dict[bytes, tuple[RLScalerSpec, ServiceSpec]] = {}
_parts: dict[tuple[Any, ...], dict[str, Any]] = {}


def read_spec(raw: Mapping[str, Any]) -> tuple[RLScalerSpec, ServiceSpec]:
    """A spec as types, and as the core sees it. Raises SpecError.

    Nothing but scaleTargetRef depends on the target's name: a spec that has been read under another name is
    not read again.
    """
    spec_of = dict(raw)
    key, name = _template(spec_of)
    known = _specs.get(key) if key else None
    if known is not None:
        spec, service = known
        assert spec.scale_target_ref is not None
        ref = _ref_named(spec.scale_target_ref, name)
        if ref is not None:
            return spec.model_copy(update={"scale_target_ref": ref}), service
    spec = parse_spec(spec_of)
    found = spec, to_service_spec(spec)
    if key:
        _remember(_specs, key, found)
    return found


def _template(raw: Mapping[str, Any]) -> tuple[bytes, str]:
    """What identifies a spec apart from its target's name, and that name; b"" where there is none."""
    ref = raw.get("scaleTargetRef")
    if not isinstance(ref, dict) or not isinstance(ref.get("name"), str):
        return b"", ""
    try:
        rest = {**raw, "scaleTargetRef": {**ref, "name": ""}}
        return orjson.dumps(rest, option=orjson.OPT_SORT_KEYS), ref["name"]
    except TypeError:
        return b"", ""


def _ref_named(ref: ScaleTargetRef, name: str) -> ScaleTargetRef | None:
    """The reference under another name, or None where the name is not allowed: then the parser says why."""
    try:
        return type(ref).model_validate({**ref.model_dump(by_alias=True), "name": name})
    except ValueError:
        return None


def interned(value: Any) -> Any:
    """A copy of a status (or of a part) in which equal strings, and equal flat objects of lists, are one."""
    if isinstance(value, dict):
        return {sys.intern(key): interned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shared(interned(item)) for item in value]
    return sys.intern(value) if type(value) is str else value


def _shared(part: Any) -> Any:
    """The part itself, or an equal one that is kept already; such as a condition."""
    if not isinstance(part, dict) or any(isinstance(item, (dict, list)) for item in part.values()):
        return part
    key = tuple((name, type(item), item) for name, item in part.items())
    return _parts.get(key) or _remember(_parts, key, part)


def _remember(pool: dict[Any, Any], key: Any, value: Any) -> Any:
    if len(pool) >= MOST_KEPT:
        pool.clear()
    pool[key] = value
    return value
