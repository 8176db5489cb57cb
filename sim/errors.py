"""What the simulator raises on bad input; every message names the place, the value and what is allowed.

SimulationError
  x  TraceError       a trace file or an operation on a trace
  x  ParameterError   a parameter of the physics, a workload or an environment
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class SimulationError(ValueError):
    """Base of all; `str()` is a sentence fit for a command line."""


class TraceError(SimulationError):
    """A trace cannot be read, or cannot be cut or scaled as asked."""


class ParameterError(SimulationError):
    """A parameter has a value that is not allowed."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name}: {value!r} is not allowed, must be {allowed}")
        self.name = name


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raise ParameterError unless `condition` holds."""
    if not condition:
        raise ParameterError(name, value, allowed)


def require_all(accepted: npt.NDArray[np.bool_], name: str, values: npt.NDArray[Any], allowed: str) -> None:
    """Raise ParameterError with the first value that is not accepted."""
    if not accepted.all():
        raise ParameterError(name, float(values[~accepted].flat[0]), allowed)
