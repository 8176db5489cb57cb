"""Workloads by name: for scenario files, the command line, and the record of what a run was made with."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

from sim.errors import ParameterError
from sim.workloads import applications, bursts, compose, noise, shapes
from sim.workloads.base import Workload

WORKLOADS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        shapes.Constant,
        shapes.Diurnal,
        shapes.Weekly,
        shapes.Ramp,
        shapes.Step,
        shapes.Staircase,
        shapes.Cron,
        bursts.Mmpp,
        bursts.FlashCrowds,
        bursts.AnnouncedEvents,
        bursts.Spiky,
        bursts.Outages,
        bursts.DeployDips,
        noise.Noise,
        noise.SelfSimilar,
        noise.OnOff,
        applications.Serverless,
        applications.LlmInference,
        compose.Sum,
        compose.Product,
        compose.Overlay,
        compose.Concatenation,
        compose.TimeShift,
        compose.Scale,
        compose.Recording,
    )
}
"""Every kind of workload by its name."""


def workload_from(mapping: Mapping[str, Any], where: str = "workload") -> Workload:
    """The workload that `{kind: NAME, field: value, ...}` describes; parts are nested mappings.

    Raises ParameterError that names the field (`workload.parts[1].mean`), its value, what is allowed, and
    the nearest names for one that does not exist.
    """
    if not isinstance(mapping, Mapping):
        raise ParameterError(where, mapping, "a mapping with a kind")
    kind = mapping.get("kind")
    if not isinstance(kind, str) or kind not in WORKLOADS:
        raise ParameterError(f"{where}.kind", kind, _one_of(kind, WORKLOADS))
    made = WORKLOADS[kind]
    hints = get_type_hints(made)
    fields = {field.name: field for field in dataclasses.fields(made)}
    given: dict[str, Any] = {}
    for name, value in mapping.items():
        if name == "kind":
            continue
        if name not in fields:
            raise ParameterError(f"{where}.{name}", value, f"a field of {kind}, {_one_of(name, fields)}")
        given[name] = _convert(value, hints[name], f"{where}.{name}")
    missing = [n for n, f in fields.items() if n not in given and f.default is dataclasses.MISSING]
    if missing:
        raise ParameterError(f"{where}.{missing[0]}", None, f"given: {kind} needs it")
    try:
        return made(**given)  # type: ignore[no-any-return]
    except ParameterError as error:
        raise _moved(error, kind, where) from None


def to_mapping(workload: Workload) -> dict[str, Any]:
    """What `workload_from` makes it from again: its kind and every field, in plain YAML and JSON types.

    Raises ParameterError for a workload that is none of `WORKLOADS`.
    """
    kind = type(workload).__name__
    if WORKLOADS.get(kind) is not type(workload):
        raise ParameterError("workload", workload, _one_of(kind, WORKLOADS))
    plain = {f.name: _plain(getattr(workload, f.name)) for f in dataclasses.fields(workload)}  # type: ignore[arg-type]
    return {"kind": kind, **plain}


def _one_of(name: object, known: Mapping[str, Any] | Sequence[str]) -> str:
    """The names that are allowed, and first the ones most like `name`."""
    lower = {each.lower(): each for each in known}
    near = [lower[found] for found in difflib.get_close_matches(str(name).lower(), list(lower), 3, 0.6)]
    listed = "one of " + ", ".join(known)
    return f"{listed}; nearest: {', '.join(near)}" if near else listed


def _moved(error: ParameterError, kind: str, where: str) -> ParameterError:
    """The same error, its field named from the outermost mapping."""
    text = str(error)
    if not error.name.startswith(f"{kind}."):
        return error
    moved = ParameterError.__new__(ParameterError)
    name = where + error.name.removeprefix(kind)
    ValueError.__init__(moved, name + text.removeprefix(error.name))
    moved.name = name
    return moved


def _convert(value: Any, hint: Any, where: str) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return None if value is None else _convert(value, kinds[0], where)
    if get_origin(hint) is tuple:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
            raise ParameterError(where, value, "a list")
        return tuple(_convert(each, get_args(hint)[0], f"{where}[{i}]") for i, each in enumerate(value))
    if hint is Workload:
        return (
            value
            if not isinstance(value, Mapping) and isinstance(value, Workload)
            else workload_from(value, where)
        )
    return _scalar(value, hint, where)


def _scalar(value: Any, hint: Any, where: str) -> Any:
    if hint is bool:
        if not isinstance(value, bool):
            raise ParameterError(where, value, "true or false")
        return value
    if hint is str:
        if not isinstance(value, str):
            raise ParameterError(where, value, "text")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ParameterError(where, value, "a number" if hint is float else "a whole number")
    if hint is int:
        if value != int(value):
            raise ParameterError(where, value, "a whole number")
        return int(value)
    return float(value)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_mapping(value)  # type: ignore[arg-type]
    return value.item() if hasattr(value, "item") else value
