"""What a model says of itself: its preset, its origin, and the schemas that it was trained on.

A stamp goes into every model that `session` saves (an attribute, plain JSON inside Stable-Baselines3's zip),
so that `export.py` can make an artifact of the zip alone, and into run folders (`schemas.json`).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from training.config import Preset, from_mapping
from training.errors import ExportError

ATTRIBUTE = "rlscaler_stamp"
SHOWN_AT_MOST = 6


@dataclass(frozen=True)
class Stamp:
    """preset: as YAML. commands: the command lines so far. schemas: as `Task.schemas` gives them.
    traces: the recordings that it was trained on."""

    preset: str
    seed: int
    commands: list[str]
    git_commit: str
    versions: dict[str, str]
    schemas: dict[str, Any]
    traces: list[dict[str, str]] = field(default_factory=list)

    def put_on(self, model: Any) -> None:
        """Have the model's zip hold it."""
        setattr(model, ATTRIBUTE, asdict(self))

    def settings(self) -> Preset:
        """The preset."""
        return from_mapping(Preset, yaml.safe_load(self.preset), "")


def read_stamp(path: Path) -> Stamp:
    """The stamp in a model's zip, without unpickling anything. Raises ExportError."""
    if not path.is_file():
        raise ExportError(f"{path}: no such model")
    try:
        with zipfile.ZipFile(path) as archive:
            content = json.loads(archive.read("data"))
        return Stamp(**content[ATTRIBUTE])
    except (zipfile.BadZipFile, ValueError, TypeError) as error:
        raise ExportError(f"{path}: not a Stable-Baselines3 model: {error}") from error
    except KeyError:
        raise ExportError(
            f"{path}: has no {ATTRIBUTE!r}: it was not made by this version of train.py; train it again"
        ) from None


def check_schemas(recorded: dict[str, Any], now: dict[str, Any], where: str) -> None:
    """Raises ExportError that says what differs between a model's schemas and today's."""
    found = differences(recorded, now)
    if found:
        raise ExportError(f"{where}: was trained with other schemas than today's: {'; '.join(found)}")


def differences(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Sentences that say what differs; none: nothing does."""
    return _observations(recorded.get("observation", {}), now.get("observation", {})) + _actions(
        recorded.get("action", {}), now.get("action", {})
    )


def _observations(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    old, new = list(theirs.get("features", [])), list(ours.get("features", []))
    found = []
    if theirs.get("version") != ours.get("version"):
        found.append(f"observation {theirs.get('version')!r} is now {ours.get('version')!r}")
    if len(old) != len(new):
        found.append(f"it observes {len(old)} features, now there are {len(new)}")
    missing = [name for name in new if name not in set(old)]
    unexpected = [name for name in old if name not in set(new)]
    common = set(old) & set(new)
    order = [name for name in old if name in common]
    moved = [
        f"{was} (place {old.index(was)}, now {new.index(was)})"
        for was, there in zip(order, [name for name in new if name in common], strict=True)
        if was != there
    ]
    for word, names in (("missing", missing), ("unexpected", unexpected), ("moved", moved)):
        if names:
            found.append(f"{word}: {_listed(names)}")
    if not found and theirs.get("digest") != ours.get("digest"):
        found.append("the features' names and order agree, their ranges don't")
    return found


def _actions(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    if theirs.get("name") != ours.get("name"):
        return [f"action {theirs.get('name')!r} is now {ours.get('name')!r}"]
    changed = [key for key in sorted({*theirs, *ours}) if theirs.get(key) != ours.get(key)]
    return [
        f"action {ours.get('name')!r}: {key} {theirs.get(key)!r} is now {ours.get(key)!r}" for key in changed
    ]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_AT_MOST
    return ", ".join(names[:SHOWN_AT_MOST]) + (f" and {more} more" if more > 0 else "")
