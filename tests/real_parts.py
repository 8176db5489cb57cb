"""Real programs that tests run: a missing one skips here, and fails where RLSCALER_REQUIRE_REAL is set."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def real_part(command: str, *, required: bool = True) -> str:
    """Path of a program (`prometheus`, `envoy`, `chromium`, `kubectl`); looks beside Python too.

    `required=False`: skips even in CI, for programs that `make test` does not install.
    """
    beside = str(Path(sys.executable).parent)
    path = shutil.which(command) or shutil.which(command, path=beside)
    if path is not None:
        return path
    message = f"{command} is not installed"
    if required and os.environ.get("RLSCALER_REQUIRE_REAL"):
        pytest.fail(message)
    pytest.skip(message)
