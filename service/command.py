"""`rl-scaler serve`. The command line finds it through the entry point `rl_scaler.commands`."""

from __future__ import annotations

import argparse
from typing import Any

from controller.errors import RlScalerError
from service.flags import add_flags


def add_serve_command(commands: Any) -> None:
    """Add `serve` to the sub-parsers of `rl-scaler`; what it needs is imported when it runs."""
    serve = commands.add_parser(
        "serve",
        help="place jobs onto servers over HTTP, with a live demonstration",
        description="Serves POST /schedule and the rest of docs/service.md until SIGTERM.",
    )
    add_flags(serve)
    serve.set_defaults(run=_serve)


def _serve(args: argparse.Namespace) -> int:
    try:
        from service.server import run
        from service.settings import Settings
    except ModuleNotFoundError as error:
        raise RlScalerError(
            f"'rl-scaler serve' needs {error.name}, which is not installed: pip install 'rl-scaler[serve]'"
        ) from error
    return run(Settings.load(vars(args)))
