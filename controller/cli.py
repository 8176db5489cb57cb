"""The `rl-scaler` command: parses arguments, then imports only what the subcommand needs.

Other parts of the product add subcommands through the entry-point group `rl_scaler.commands`: each entry is a
callable that takes the sub-parsers and adds a parser with `set_defaults(run=...)`. The operator needs none of
them: its own subcommands work without, and a part that is not installed says so when it is asked for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, distributions, entry_points
from typing import Any

from controller import __version__
from controller.errors import RlScalerError

PLUGINS = "rl_scaler.commands"
OWN_COMMANDS = ("operator", "crd", "version")


def parser(plugins: bool = True) -> argparse.ArgumentParser:
    """The parser; without `plugins` it has this module's subcommands only."""
    from controller.settings import add_flags

    top = argparse.ArgumentParser(
        prog="rl-scaler", description="Scales Kubernetes workloads with a learned policy behind a guard."
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    operator = commands.add_parser(
        "operator", help="run the operator", description="Runs the operator until SIGTERM."
    )
    add_flags(operator)
    operator.set_defaults(run=_operator)
    crd = commands.add_parser("crd", help="print the CustomResourceDefinition as YAML")
    crd.set_defaults(run=_crd)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run=_version)
    if plugins:
        for entry in found_plugins():
            _add_plugin(commands, entry)
    return top


def found_plugins() -> list[EntryPoint]:
    """What the installed distributions add, by name.

    Every metadata folder of this product is asked, not only the first on the path: in a source tree an old
    one may lie beside the packages and would hide what has been added since.
    """
    own = (entry for dist in distributions(name="rl-scaler") for entry in dist.entry_points)
    found = {entry.name: entry for entry in own if entry.group == PLUGINS}
    found |= {entry.name: entry for entry in entry_points(group=PLUGINS)}
    return [found[name] for name in sorted(found)]


def _add_plugin(commands: Any, entry: EntryPoint) -> None:
    """Add what the entry point adds; one that cannot be loaded becomes a subcommand that says why."""
    if entry.name in commands.choices:
        return
    try:
        entry.load()(commands)
    except Exception as error:
        message = f"{entry.name} cannot be loaded: {error}"
        if isinstance(error, ModuleNotFoundError):
            message = f"{entry.name} needs {error.name}, which is not installed: pip install 'rl-scaler[sim]'"
        # no prefix that is ever typed: whatever follows is taken, so that the reason is what is shown
        broken = commands.add_parser(entry.name, help=message, add_help=False, prefix_chars="\0")
        broken.add_argument("rest", nargs=argparse.REMAINDER)
        broken.set_defaults(run=lambda args: _fail(message))


def _fail(message: str) -> int:
    raise RlScalerError(message)


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    own = bool(words) and words[0] in OWN_COMMANDS
    args = parser(plugins=not own).parse_args(words)
    try:
        return int(args.run(args))
    except RlScalerError as error:
        print(f"rl-scaler: {error}", file=sys.stderr)
        return 2


def _operator(args: argparse.Namespace) -> int:
    from controller.operator import run
    from controller.settings import Settings

    return run(Settings.load(vars(args)))


def _crd(args: argparse.Namespace) -> int:
    from controller.api.crd import crd_yaml

    sys.stdout.write(crd_yaml())
    return 0


def _version(args: argparse.Namespace) -> int:
    print(f"rl-scaler {__version__}")
    return 0
