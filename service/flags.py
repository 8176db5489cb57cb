"""The flags of `rl-scaler serve`. Light: every `rl-scaler` command imports it for its parser."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

TOKEN_VARIABLE = "RLSCALER_SERVE_TOKEN"
MEMORY = ":memory:"
"""A state that is not kept."""


def default_state(environment: Mapping[str, str] | None = None) -> str:
    """Where the state is kept if nothing is said: the user's state folder."""
    environment = os.environ if environment is None else environment
    home = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return str(Path(home) / "rl-scaler" / "serve.db")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """All flags of the command."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; beyond loopback a token is needed")
    add("--port", type=int, default=8000, help="port; 0: any that is free (default: 8000)")
    add("--servers", type=int, metavar="N", help="so many equal servers (default: 8)")
    add("--server-size", default="8,32", metavar="CPU,MEMORY[,SPEED]", help="of --servers (default: 8,32)")
    add(
        "--server",
        action="append",
        default=[],
        metavar="NAME=CPU,MEMORY[,SPEED]",
        help="a server; once for each",
    )
    add("--servers-file", metavar="FILE.yaml", help="servers: [{name, cpu, memory, speed, count}]")
    add(
        "--strategy", default="learned", help="who decides unless a request says otherwise (default: learned)"
    )
    add("--policy-file", metavar="FILE.onnx", help="another learned scheduler than the one that is shipped")
    add(
        "--scale-policy",
        metavar="FILE.onnx",
        help="who decides at /scale: an artifact of train.py, or a built-in policy such as default "
        "(default: PPO that adds and removes servers)",
    )
    add(
        "--ends",
        choices=("estimate", "report"),
        default="estimate",
        help="when a job ends: when its estimate has run out or it is reported, or only when it is reported",
    )
    add("--default-estimate", type=float, default=60.0, metavar="S", help="of jobs without one (default: 60)")
    add(
        "--queue-order",
        choices=("size", "arrival", "strict"),
        default="size",
        help="shortest estimate first, first come with those passed over that fit nowhere, or first come",
    )
    add("--queue-limit", type=int, default=10_000, metavar="N", help="jobs that can wait (default: 10000)")
    add(
        "--state",
        default=default_state(),
        metavar="FILE",
        help=f"SQLite file; {MEMORY} keeps nothing (default: %(default)s)",
    )
    add("--keep-jobs", type=int, default=100_000, metavar="N", help="that are gone (default: 100000)")
    add("--token-file", metavar="FILE", help=f"holds the token that requests must bear (or {TOKEN_VARIABLE})")
    add(
        "--allowed-host", action="append", default=[], metavar="NAME", help="accepted in Host without a token"
    )
    add("--frame-ancestors", default="'none'", metavar="SOURCES", help="who may show /demo in a frame")
    add("--streams", type=int, default=32, metavar="N", help="event streams at once (default: 32)")
    add("--body-limit", type=int, default=1_048_576, metavar="BYTES", help="of a request (default: 1048576)")
    add("--seed", type=int, default=0, help="of strategies that draw, and of the demonstration")
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    add("--log-format", choices=("text", "json"), default="text")
