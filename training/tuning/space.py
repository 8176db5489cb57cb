"""What a study may vary: settings of a preset by their dotted names, each with a range or with choices."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml

from training.config import Preset
from training.errors import ConfigError

SPACES = Path(__file__).resolve().parents[1] / "spaces"


@dataclass(frozen=True)
class Dimension:
    """One setting. Either `choices`, or `low` to `high` (whole numbers if both are), linear or not."""

    name: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if self.choices:
            if self.low is not None or self.high is not None:
                raise ConfigError(f"{self.name}: either choices, or low and high; not both")
            return
        low, high = self.low, self.high
        if low is None or high is None or not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigError(f"{self.name}: low: {low!r} and high: {high!r} must be numbers, low below high")
        if self.log and low <= 0:
            raise ConfigError(f"{self.name}: low: {low!r} must be above 0 on a log scale")

    def suggest(self, trial: optuna.Trial) -> Any:
        """This trial's value."""
        if self.choices:
            # storages keep categories as JSON, which has no tuples
            return json.loads(trial.suggest_categorical(self.name, [json.dumps(one) for one in self.choices]))
        assert self.low is not None
        assert self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.name, self.low, self.high, log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


def space_names() -> list[str]:
    """The spaces that ship with the project, by name."""
    return sorted(path.stem for path in SPACES.glob("*.yaml"))


def load_space(name: str) -> list[Dimension]:
    """A space by its name or by the path of a YAML file. Raises ConfigError."""
    path = SPACES / f"{name}.yaml"
    path = path if path.is_file() else Path(name)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise ConfigError(f"--space: {name!r} is not one of {', '.join(space_names())}, nor a YAML file")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{path}: settings with their ranges are expected")
    try:
        return [_dimension(str(key), value) for key, value in content.items()]
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _dimension(name: str, content: Any) -> Dimension:
    known = [item.name for item in dataclasses.fields(Dimension)][1:]
    if not isinstance(content, dict):
        raise ConfigError(f"{name}: a mapping with {', '.join(known)} is expected, not {content!r}")
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"{name}: unknown key {key!r}; {hint}")
    return Dimension(name, **{**content, "choices": tuple(content.get("choices", ()))})


def with_values(preset: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's mapping with some settings replaced by their dotted names.

    Raises ConfigError for a name that leads through something that is no mapping; whether the last part
    exists is checked when the mapping is read as a preset.
    """
    result: dict[str, Any] = copy.deepcopy(dict(preset))
    for name, value in values.items():
        *parents, last = name.split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{name}: {parent!r} is not a group of settings")
        place[last] = value
    return result


def check_space(space: list[Dimension], preset: Preset) -> None:
    """Refuse a space whose settings the preset does not have, or whose values it does not allow."""
    from training.config import dump_preset, from_mapping

    content = yaml.safe_load(dump_preset(preset))
    for dimension in space:
        for value in dimension.choices or (dimension.low, dimension.high):
            from_mapping(Preset, with_values(content, {dimension.name: value}), "")
