"""What thousands of RLScalers say alike is one object: specs but for the target's name, and labels.

The registry reads them through here. Without it ten thousand objects of one template would take some 100 MB
more, and as many parsings of the same.
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
"""Distinct specs that are remembered."""

_specs: dict[bytes, tuple[RLScalerSpec, ServiceSpec]] = {}


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
        if len(_specs) >= MOST_KEPT:
            _specs.clear()
        _specs[key] = found
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


def interned(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels in which equal strings are one object."""
    return {sys.intern(name): sys.intern(value) for name, value in labels.items()}
