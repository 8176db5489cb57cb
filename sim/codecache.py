"""Where numba keeps the simulator's compiled code; done before anything of `sim` imports numba.

numba's own check looks at the file of a function only, not at those of the functions that it calls, and
would run stale code after an update. So the code goes into a folder that is named after the sources.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VARIABLE = "NUMBA_CACHE_DIR"
PREFIX = "rl-scaler-"
UNUSED_S = 86_400.0
"""A folder of other sources is removed when nobody has begun with it for so long: another process may run."""


def keep_code_by_sources() -> None:
    """Point numba to the folder of these sources, unless the user has chosen one; remove old folders."""
    chosen = os.environ.get(VARIABLE)
    if chosen and not Path(chosen).name.startswith(PREFIX):
        return
    home = _home()
    folder = home / f"{PREFIX}{state_of_the_sources()}"
    os.environ[VARIABLE] = str(folder)
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = str(folder)
    _tidy(home, folder)


def _tidy(home: Path, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        old = [each for each in home.glob(f"{PREFIX}*") if each.stat().st_mtime < time.time() - UNUSED_S]
    except OSError:
        return  # nothing can be kept there, or another process tidies too
    for other in old:
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
