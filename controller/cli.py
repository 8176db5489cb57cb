"""The `rl-scaler` command: parses arguments, then imports only what the subcommand needs.

Other parts of the product add subcommands through the entry-point group `rl_scaler.commands`: each entry is a
callable that takes the sub-parsers and adds a parser with `set_defaults(run=...)`. The operator needs none of
them: its own subcommands work without, and a part that is not installed says so when it is asked for.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, distributions, entry_points
from typing import Any

from controller import __version__
from controller.errors import RlScalerError

PLUGINS = "rl_scaler.commands"
OWN_COMMANDS = ("operator", "explain", "crd", "version")
SERVER_VARIABLE = "RLSCALER_SERVER"
DEFAULT_SERVER = "http://127.0.0.1:8080"


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
    _add_explain(commands)
    crd = commands.add_parser("crd", help="print the CustomResourceDefinitions")
    crd.add_argument(
        "plural",
        nargs="?",
        default="rlscalers",
        choices=("rlscalers", "rlscalerbudgets", "all"),
        help="which one (default: rlscalers)",
    )
    crd.add_argument(
        "--format", default="yaml", choices=("yaml", "markdown"), help="YAML, or a reference of every field"
    )
    crd.set_defaults(run=_crd)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run=_version)
    if plugins:
        for entry in found_plugins():
            _add_plugin(commands, entry)
    return top


def _add_explain(commands: Any) -> None:
    explain = commands.add_parser(
        "explain",
        help="tell the last decision about an RLScaler, and why",
        description="Prints the last decision about an RLScaler: what was seen, what the policy asked for "
        "and why, what the HPA would have done, what the guard changed, and what would change it.",
    )
    explain.add_argument("name", metavar="NAME", help="name of the RLScaler")
    explain.add_argument(
        "-n",
        "--namespace",
        default="",
        help="its namespace; default: that of the kubeconfig's current context, else `default`",
    )
    explain.add_argument(
        "--server",
        default=os.environ.get(SERVER_VARIABLE, DEFAULT_SERVER),
        help=f"the operator's address; default: ${SERVER_VARIABLE}, else {DEFAULT_SERVER}, which is where "
        "`kubectl port-forward deploy/rl-scaler 8080` puts it",
    )
    explain.add_argument(
        "--kubeconfig", default="", help="a kubeconfig; default: $KUBECONFIG, else ~/.kube/config"
    )
    explain.add_argument(
        "-o", "--output", choices=("text", "json"), default="text", help="what to print; default: text"
    )
    explain.set_defaults(run=_explain)


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


def _explain(args: argparse.Namespace) -> int:
    from controller.explain.command import run

    return run(args)


def _crd(args: argparse.Namespace) -> int:
    from controller.api.crd import DEFINITIONS, crd_yaml

    chosen = list(DEFINITIONS.values()) if args.plural == "all" else [DEFINITIONS[args.plural]]
    if args.format == "markdown":
        from controller.api.reference import reference_markdown

        sys.stdout.write(reference_markdown(chosen))
        return 0
    sys.stdout.write("---\n".join(crd_yaml(one) for one in chosen))
    return 0


def _version(args: argparse.Namespace) -> int:
    print(f"rl-scaler {__version__}")
    return 0
