"""How the simulator's loops are compiled.

Inner functions are only called by other compiled code, on arrays that their caller keeps alive. So they need
not count references to them: `_nrt=False` leaves out numba's atomic increments, which on short calls cost
more than the work. They must not allocate arrays. Divisions by zero give infinities as in numpy, not
exceptions, whose checks keep loops from being vectorised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba as nb

_OPTIONS: dict[str, Any] = {"cache": True, "error_model": "numpy"}
_UNCOUNTED: dict[str, Any] = {**_OPTIONS, "_nrt": False}


def counted(function: Callable[..., Any]) -> Any:
    """Compile a function with reference counting: one that Python calls, or that makes arrays."""
    return nb.njit(**_OPTIONS)(function)


def inner(function: Callable[..., Any]) -> Any:
    """Compile a function that is called by compiled code only, and allocates nothing."""
    return nb.njit(**_UNCOUNTED)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """The same, and put it into its callers' code whatever its size."""
    return nb.njit(forceinline=True, **_UNCOUNTED)(function)
