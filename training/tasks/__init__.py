"""The tasks by name, imported when asked for: `--help` needs no torch and no numba."""

from __future__ import annotations

import importlib

from training.errors import ConfigError
from training.tasks.base import Column, Published, Task, mean_of

_MODULES = {
    "autoscale": "training.tasks.autoscale",
    "pools": "training.tasks.pools",
    "scheduling": "training.tasks.scheduling",
    "grid": "training.tasks.grid",
    "web": "training.tasks.web",
}
TASKS = tuple(_MODULES)


def load_task(name: str) -> Task:
    """The task of that name: its module's `TASK`. Raises ConfigError for a name that is none."""
    if name not in _MODULES:
        raise ConfigError(f"env: {name!r} is not one of {', '.join(TASKS)}")
    task: Task = importlib.import_module(_MODULES[name]).TASK
    return task


__all__ = ["TASKS", "Column", "Published", "Task", "load_task", "mean_of"]
