"""The `rl-scaler` command: parses arguments, then imports only what the subcommand needs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from controller import __version__
from controller.errors import RlScalerError


def parser() -> argparse.ArgumentParser:
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
    return top


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
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
