"""Where numba keeps the simulator's compiled code; done before anything of `sim` imports numba.

numba's own check looks at the file of a function only, not at those of the functions that it calls, and
would run stale code after an update. So the code goes into a folder that is named after the sources.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VARIABLE = "NUMBA_CACHE_DIR"
PREFIX = "rl-scaler-"


def keep_code_by_sources() -> None:
    """Point numba to the folder of these sources, unless the user has chosen one; remove those of others."""
    chosen = os.environ.get(VARIABLE)
    if chosen and not Path(chosen).name.startswith(PREFIX):
        return
    home = _home()
    folder = home / f"{PREFIX}{state_of_the_sources()}"
    os.environ[VARIABLE] = str(folder)
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = str(folder)
    for other in home.glob(f"{PREFIX}*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def state_of_the_sources() -> str:
    """Changes with every source file of the simulator."""
    files = sorted((ROOT / "sim").rglob("*.py"))
    facts = [f"{path.relative_to(ROOT)} {path.stat().st_mtime_ns} {path.stat().st_size}" for path in files]
    return hashlib.sha256("\n".join([str(ROOT), *facts]).encode()).hexdigest()[:12]


def _home() -> Path:
    beside = Path(__file__).parent
    if os.access(beside, os.W_OK):
        return beside / "__pycache__"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rl-scaler"
