"""Grids as files: YAML, or JSON by the name's ending, checked key by key. See docs/grid.md for the format."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from pathlib import Path
from typing import Any

import yaml

from sim.documents import documents_in, read_document
from sim.errors import ParameterError, SimulationError
from sim.grid.parts import Grid

GRIDS = Path(__file__).with_name("grids")


class GridError(SimulationError):
    """A grid file that cannot be used; names the file, the field, its value and what is allowed."""


def grid_files(folder: Path = GRIDS) -> list[Path]:
    """The grids that ship with the project, by name."""
    return documents_in(folder)


def load_grid(path: str | Path) -> Grid:
    """Read and check a grid; a bare name is one of those that ship. Raises GridError."""
    file, document = read_document(path, GRIDS, "grids that ship", GridError)
    try:
        return parse_grid(document, file.stem)
    except GridError as error:
        raise GridError(f"{file}: {error}") from None


def parse_grid(document: Any, name: str = "grid") -> Grid:
    """Check what a file holds; `name` is used where it gives none. Raises GridError that names the place
    ("storages[0].charge_kw"), the value and what is allowed."""
    content = _mapping(document, "the file")
    return typing.cast(Grid, _build(Grid, {"name": name, **content}, ""))


def save_grid(grid: Grid, path: str | Path) -> None:
    """Write a file that `load_grid` reads back to an equal grid; JSON if the name ends so, else YAML."""
    content = dataclasses.asdict(grid)
    plain = json.loads(json.dumps(content))
    file = Path(path)
    text = json.dumps(plain, indent=2) if file.suffix == ".json" else yaml.safe_dump(plain, sort_keys=False)
    file.write_text(text + ("\n" if file.suffix == ".json" else ""))


def _build(kind: Any, content: dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    known = {item.name: item for item in dataclasses.fields(kind)}
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), list(known), 1, 0.5)
            hint = f"; nearest: {near[0]}" if near else ""
            raise _refusal(f"{where}{key}", content[key], f"one of {', '.join(known)}{hint}")
    for name, item in known.items():
        optional = item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
        if name not in content and not optional:
            raise _refusal(f"{where}{name}", None, "given")
    values = {key: _convert(hints[key], value, f"{where}{key}") for key, value in content.items()}
    try:
        return kind(**values)
    except ParameterError as error:
        raise GridError(f"{where}{error}") from None


def _convert(hint: Any, value: Any, where: str) -> Any:
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise _refusal(where, value, "a list")
        kind = typing.get_args(hint)[0]
        return tuple(
            _build(kind, _mapping(one, f"{where}[{i}]"), f"{where}[{i}].") for i, one in enumerate(value)
        )
    if dataclasses.is_dataclass(hint):
        return _build(hint, _mapping(value, where), f"{where}.")
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(one for one in typing.get_args(hint) if one is not type(None))
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is str:
        if not isinstance(value, str):
            raise _refusal(where, value, "text")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refusal(where, value, "a number")
    if hint is int:
        if value != int(value):
            raise _refusal(where, value, "a whole number")
        return int(value)
    return float(value)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _refusal(where, value, "a mapping")
    return value


def _refusal(where: str, value: object, allowed: str) -> GridError:
    return GridError(str(ParameterError(where, value, allowed)))
