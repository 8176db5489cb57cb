"""Log lines as JSON objects or text; fields given as `extra=` become keys of their own.

A line about an RLScaler is logged with `extra=about(entry)` and carries its namespace, name and uid.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Protocol

_ABOUT = "rlscaler"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", _ABOUT}
_NOISY = {
    "kopf": logging.WARNING,
    "kubernetes": logging.WARNING,
    "uvicorn": logging.WARNING,
    "asyncio": logging.WARNING,
    "urllib3": logging.INFO,
}


class Named(Protocol):
    """What a line can be about."""

    @property
    def namespace(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def uid(self) -> str: ...


def about(item: Named) -> dict[str, Any]:
    """`extra=` for a line about an RLScaler; a LogRecord has a `name` of its own, hence the detour."""
    return naming(item.namespace, item.name, item.uid)


def naming(namespace: str, name: str, uid: str = "") -> dict[str, Any]:
    """The same from names; an RLScaler that is gone may be known by nothing else."""
    return {_ABOUT: {"namespace": namespace, "name": name} | ({"uid": uid} if uid else {})}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, then the extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, _ABOUT, {})
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD and key[0] != "_"}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Readable lines; extra fields are left out."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
        self.converter = time.gmtime


def configure(level: str, fmt: str) -> None:
    """Send every log line to stderr in one format; libraries speak from warning on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if fmt == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, least in _NOISY.items():
        logging.getLogger(name).setLevel(max(least, root.level))


def _time(created: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created))
    return f"{whole}.{int(created % 1 * 1000):03d}Z"
