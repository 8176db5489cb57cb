"""Files of settings that ship with the project or that a user wrote: YAML, or JSON by the name's ending.

`sim.scenario_files` and `sim.grid.files` check what is in them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from sim.errors import SimulationError


def documents_in(folder: Path) -> list[Path]:
    """The YAML files of a folder, by name."""
    return sorted(folder.glob("*.yaml"))


def read_document(
    path: str | Path, shipped: Path, what: str, error: type[SimulationError]
) -> tuple[Path, Any]:
    """The file and its content, unchecked; a bare name is one of the files in the folder `shipped`.

    what: how the shipped ones are called in a message. Raises `error`.
    """
    file = Path(path)
    if not file.suffix and not file.exists():
        file = shipped / f"{path}.yaml"
    kind = "JSON" if file.suffix == ".json" else "YAML"
    try:
        text = file.read_text()
        return file, json.loads(text) if kind == "JSON" else yaml.safe_load(text)
    except OSError as problem:
        known = ", ".join(each.stem for each in documents_in(shipped))
        raise error(f"{path}: {problem.strerror}; {what}: {known}") from None
    except (yaml.YAMLError, json.JSONDecodeError) as problem:
        raise error(f"{file}: is no {kind}: {' '.join(str(problem).split())}") from None
