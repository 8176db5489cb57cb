"""Servers as users describe them, from flags or YAML, checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from service.errors import FieldError, ServiceError
from sim.scheduling import Servers

MOST_SERVERS = 1000
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Server:
    """cpu, memory: in the user's units (cores and GiB, say). speed: 1 is the server that estimates are of."""

    name: str
    cpu: float
    memory: float
    speed: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no server; raises FieldError."""
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            allowed = "letters, digits, '.', '_' and '-', 63 at most, no sign at the ends"
            raise FieldError("server.name", self.name, allowed)
        for field, most in (("cpu", 1e6), ("memory", 1e9), ("speed", 1e3)):
            value = getattr(self, field)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not (math.isfinite(value) and 0.001 <= value <= most):
                raise FieldError(f"server {self.name}: {field}", value, f"a number, 0.001 to {most:g}")
            object.__setattr__(self, field, float(value))

    def as_json(self) -> dict[str, Any]:
        """Fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Fleet:
    """The servers of a cluster. Raises FieldError for none, too many, or a name used twice."""

    servers: tuple[Server, ...]

    def __post_init__(self) -> None:
        """Refuse what is no cluster."""
        if not 1 <= len(self.servers) <= MOST_SERVERS:
            raise FieldError("servers", len(self.servers), f"1 to {MOST_SERVERS} of them")
        names = self.names
        for name in names:
            if names.count(name) > 1:
                raise FieldError("server.name", name, "used for one server only")

    def __len__(self) -> int:
        return len(self.servers)

    @property
    def names(self) -> list[str]:
        """In the servers' order."""
        return [server.name for server in self.servers]

    @property
    def unit_cpu(self) -> float:
        """The largest server's cpu: what the schedulers' rules count in."""
        return max(server.cpu for server in self.servers)

    @property
    def unit_memory(self) -> float:
        """The same of memory."""
        return max(server.memory for server in self.servers)

    def scaled(self) -> Servers:
        """For the simulator, in largest servers."""
        return Servers(
            np.array([server.cpu / self.unit_cpu for server in self.servers]),
            np.array([server.memory / self.unit_memory for server in self.servers]),
            np.array([server.speed for server in self.servers]),
        )


def size(text: str, name: str, flag: str) -> Server:
    """A server from `CPU,MEMORY[,SPEED]`. Raises FieldError."""
    parts = text.split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3):
        raise FieldError(flag, text, "CPU,MEMORY or CPU,MEMORY,SPEED, numbers such as 8,32 or 8,32,0.5")
    return Server(name, *numbers)


def from_flags(count: int, each: str, single: Sequence[str]) -> Fleet:
    """`count` equal servers, or (wins) those of `NAME=CPU,MEMORY[,SPEED]`."""
    if single:
        named = []
        for text in single:
            name, equals, rest = text.partition("=")
            if not equals:
                raise FieldError("--server", text, "NAME=CPU,MEMORY or NAME=CPU,MEMORY,SPEED")
            named.append(size(rest, name, "--server"))
        return Fleet(tuple(named))
    if not 1 <= count <= MOST_SERVERS:
        raise FieldError("--servers", count, f"a number from 1 to {MOST_SERVERS}")
    return Fleet(tuple(size(each, f"server-{k + 1}", "--server-size") for k in range(count)))


def from_file(path: Path) -> Fleet:
    """From YAML: `servers:`, a list of `{name, cpu, memory, speed?, count?}`; with a count, several
    `name-1`..."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ServiceError(f"--servers-file: {path} cannot be read: {error}") from error
    rows = content.get("servers") if isinstance(content, Mapping) else None
    if not isinstance(rows, list):
        raise FieldError(f"{path}: servers", rows, "a list of {name, cpu, memory, speed, count}")
    found: list[Server] = []
    for place, row in enumerate(rows):
        found.extend(_from_row(row, f"{path}: servers[{place}]"))
        if len(found) > MOST_SERVERS:
            raise FieldError(f"{path}: servers", len(found), f"{MOST_SERVERS} at most")
    return Fleet(tuple(found))


def _from_row(row: Any, where: str) -> list[Server]:
    known = {"name", "cpu", "memory", "speed", "count"}
    if not isinstance(row, Mapping):
        raise FieldError(where, row, "a mapping of name, cpu, memory, speed, count")
    for field in row:
        if field not in known:
            raise FieldError(
                f"{where}.{field}", row[field], f"left out; {', '.join(sorted(known))} are known"
            )
    for field in ("name", "cpu", "memory"):
        if field not in row:
            raise FieldError(f"{where}.{field}", None, "given")
    count = row.get("count")
    if count is None:
        return [Server(row["name"], row["cpu"], row["memory"], row.get("speed", 1.0))]
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_SERVERS:
        raise FieldError(f"{where}.count", count, f"a whole number from 1 to {MOST_SERVERS}")
    return [
        Server(f"{row['name']}-{k + 1}", row["cpu"], row["memory"], row.get("speed", 1.0))
        for k in range(count)
    ]
