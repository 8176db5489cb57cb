"""Web balancing's commands: `python training/web_balancing.py train | evaluate | transfer | validate |
serve-servers`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):
    # a script's own folder on sys.path would shadow installed modules; the checkout's root is what is meant
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.commandline import count, run_command

PHASES = ("equal", "different", "troubled")
COMPARED = (
    "true-delay", "measured-delay", "shortest-expected-delay", "least-connections", "power-of-two",
    "weighted-round-robin", "round-robin", "random",
)  # fmt: skip
TRAINED = "run folders or policy.onnx files, one a training seed"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="web_balancing.py",
        description="Balance web requests over servers: train DQN, compare it, and try it on real servers.",
        epilog="docs/web-balancing.md tells what every figure means.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser(
        "train", add_help=False, help="train: the options of train.py, which this calls with --env web"
    )
    train.add_argument("options", nargs=argparse.REMAINDER)
    _add_evaluate(commands)
    _add_transfer(commands)
    _add_validate(commands)
    _add_serve(commands)
    return parser


def _add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    made = commands.add_parser("evaluate", help="without exploration, in the twin, against formulas")
    made.add_argument("trained", type=Path, nargs="*", metavar="RUN", help=TRAINED)
    made.add_argument("--phase", nargs="+", choices=PHASES, default=list(PHASES), help="default: all three")
    made.add_argument("--episodes", type=count, default=50, help="of each phase; default: 50")
    made.add_argument(
        "--plots", type=Path, metavar="DIR", help="pictures: costs, learning curves, an episode"
    )
    _add_common(made)


def _add_transfer(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    made = commands.add_parser("transfer", help="the same on real HTTP servers, beside the twin")
    made.add_argument("trained", type=Path, nargs="*", metavar="RUN", help=TRAINED)
    made.add_argument("--phase", choices=PHASES, default="troubled", help="default: troubled")
    made.add_argument("--episodes", type=count, default=5, help="default: 5, of some 7 s each a policy")
    made.add_argument(
        "--addresses", nargs="+", default=[], metavar="URL",
        help="servers that run already, started with --control; default: local processes are started",
    )  # fmt: skip
    made.add_argument("--errors", type=Path, default=Path("errors.log"), help="default: errors.log")
    made.add_argument("--plots", type=Path, metavar="DIR", help="a picture: real servers beside the twin")
    _add_common(made)


def _add_validate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    made = commands.add_parser("validate", help="mean latency by load, on real servers and in the twin")
    made.add_argument(
        "--load", type=float, nargs="+", default=[0.3, 0.5, 0.7, 0.85], help="default: 0.3 0.5 0.7 0.85"
    )
    made.add_argument("--plots", type=Path, metavar="DIR", help="a picture: latency by load")
    _add_common(made, policies=False)


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    made = commands.add_parser("serve-servers", help="start HTTP servers and leave them running")
    made.add_argument(
        "--workers", type=count, nargs="+", default=[1, 2, 4, 8], help="of each; default: 1 2 4 8"
    )
    made.add_argument("--service-ms", type=float, default=100.0, help="mean work; default: 100")
    made.add_argument("--port", type=int, default=8101, help="of the first, the others follow; 0: free ones")
    made.add_argument("--control", action="store_true", help="allow POST /control, which transfer needs")
    made.add_argument("--seed", type=int, default=0, help="of the work of requests; default: 0")


def _add_common(made: argparse.ArgumentParser, policies: bool = True) -> None:
    if policies:
        made.add_argument(
            "--policy", nargs="*", default=list(COMPARED), metavar="NAME", help=", ".join(COMPARED)
        )
    made.add_argument("--servers", type=count, default=4, help="default: 4")
    made.add_argument("--batches", type=count, default=200, help="decisions of an episode; default: 200")
    made.add_argument("--seed", type=int, default=0, help="of the episodes; default: 0")
    made.add_argument("--json", type=Path, metavar="OUT", help="every number")
    made.add_argument("--markdown", type=Path, metavar="OUT", help="the tables")
    made.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, help="a bar; default: by the terminal"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line: 0 done, 2 for input that cannot be used, 130 after Ctrl-C."""
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["train"]:
        from training.train import main as train

        return train(train_options(given[1:]))
    args = build_parser().parse_args(given)
    args.argv = given

    return run_command("web_balancing.py", lambda: _work(args))


def _work(args: argparse.Namespace) -> None:
    if args.command == "serve-servers":
        from training.webbalancing.serving import serve_command

        serve_command(args)
        return
    from training.webbalancing import commands

    {
        "evaluate": commands.evaluate_command,
        "transfer": commands.transfer_command,
        "validate": commands.validate_command,
    }[args.command](args)


def train_options(options: list[str]) -> list[str]:
    """The options for train.py: its own, and web balancing where neither a preset nor a run is named."""
    named = any(one.split("=")[0] in ("--preset", "--resume", "--env", "-h", "--help") for one in options)
    return options if named else ["--env", "web", *options]


if __name__ == "__main__":
    sys.exit(main())
