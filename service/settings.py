"""The flags of `rl-scaler serve`, checked before anything begins."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from service.errors import FieldError, ServiceError
from service.flags import MEMORY, TOKEN_VARIABLE
from service.servers import Fleet, from_file, from_flags

LEAST_TOKEN = 16
Ends = Literal["estimate", "report"]
Order = Literal["size", "arrival", "strict"]


@dataclass(frozen=True)
class Settings:
    """How the service runs."""

    fleet: Fleet
    host: str = "127.0.0.1"
    port: int = 8000
    strategy: str = "learned"
    policy_file: Path | None = None
    ends: Ends = "estimate"
    """estimate: a running job ends by itself when its estimate has run out. report: only when told."""
    default_estimate_s: float = 60.0
    order: Order = "size"
    queue_limit: int = 10_000
    state: str = MEMORY
    keep_jobs: int = 100_000
    token: str = ""
    allowed_hosts: tuple[str, ...] = ()
    """Names by which the service may be asked without a token, besides those of the loopback."""
    frame_ancestors: str = "'none'"
    most_streams: int = 32
    most_body: int = 1_048_576
    seed: int = 0
    log_level: str = "info"
    log_format: Literal["text", "json"] = "text"
    scale_policy: str | None = None
    """An artifact that decides at `/scale`, a file or a built-in policy's name; None: the shipped one."""

    def __post_init__(self) -> None:
        """Refuse what cannot work; raises ServiceError."""
        for field, low, high in (
            ("port", 0, 65535), ("queue_limit", 1, 100_000), ("keep_jobs", 1, 10**9), ("seed", 0, 2**62),
            ("most_streams", 1, 10_000), ("most_body", 1024, 2**30), ("default_estimate_s", 1e-3, 1e8),
        ):  # fmt: skip
            value = getattr(self, field)
            if not low <= value <= high:
                raise FieldError(FLAGS.get(field, f"--{field.replace('_', '-')}"), value, f"{low} to {high}")
        if self.token and (len(self.token) < LEAST_TOKEN or not self.token.isascii()):
            raise FieldError("token", "(hidden)", f"{LEAST_TOKEN} characters or more, ASCII")
        if not self.token and not is_loopback(self.host):
            raise ServiceError(
                f"--host: {self.host!r} can be reached from other machines, which is not allowed without a "
                f"token: give --token-file FILE or {TOKEN_VARIABLE}, or stay on 127.0.0.1"
            )

    @staticmethod
    def load(args: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
        """From parsed flags. Raises ServiceError."""
        environment = os.environ if environment is None else environment
        servers_file = args["servers_file"]
        if servers_file and (args["server"] or args["servers"] is not None):
            raise ServiceError("--servers-file: not allowed together with --server or --servers")
        if args["server"] and args["servers"] is not None:
            raise ServiceError("--server: not allowed together with --servers")
        count = 8 if args["servers"] is None else args["servers"]
        fleet = (
            from_file(Path(servers_file))
            if servers_file
            else from_flags(count, args["server_size"], args["server"])
        )
        return Settings(
            fleet,
            args["host"],
            args["port"],
            args["strategy"],
            Path(args["policy_file"]) if args["policy_file"] else None,
            cast(Ends, args["ends"]),
            args["default_estimate"],
            cast(Order, args["queue_order"]),
            args["queue_limit"],
            args["state"],
            args["keep_jobs"],
            _token(args["token_file"], environment),
            tuple(args["allowed_host"]),
            args["frame_ancestors"],
            args["streams"],
            args["body_limit"],
            args["seed"],
            args["log_level"],
            args["log_format"],
            args["scale_policy"],
        )


FLAGS = {
    "most_streams": "--streams",
    "most_body": "--body-limit",
    "default_estimate_s": "--default-estimate",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _token(path: str | None, environment: Mapping[str, str]) -> str:
    if not path:
        return environment.get(TOKEN_VARIABLE, "").strip()
    try:
        token = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(f"--token-file: {path} cannot be read: {error}") from error
    if not token:
        raise FieldError("--token-file", path, "a file with a token in it")
    return token
