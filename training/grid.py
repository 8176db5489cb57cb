"""The smart grid's commands: `python training/grid.py evaluate | pictures | datacentre`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):
    # a script's own folder on sys.path would shadow installed modules; the checkout's root is what is meant
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.commandline import count, run_command, write_output
from training.errors import ConfigError

if TYPE_CHECKING:
    from training.smartgrid.policies import GridArtifact
    from training.smartgrid.setups import Setup

TRACES = "RLSCALER_TRACES"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="grid.py", description="Evaluate and show policies for small grids."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    evaluate = commands.add_parser(
        "evaluate", help="policies, rules and a planner over perfect foresight's bill"
    )
    evaluate.add_argument(
        "--policy", action="append", default=[], metavar="NAME=FILE[,FILE...]",
        help="trained policies (policy.onnx), one a seed, under one name; may be repeated",
    )  # fmt: skip
    evaluate.add_argument("--traces", type=Path, help=f"folder of energy recordings; default: ${TRACES}")
    evaluate.add_argument("--every", type=count, default=1, help="every n-th recorded week; default: 1")
    evaluate.add_argument("--generated", type=count, default=64, help="held-out generated weeks; default: 64")
    evaluate.add_argument(
        "--no-planner", action="store_true", help="leave the receding horizon out: it is slow"
    )
    evaluate.add_argument("--json", type=Path, help="write all figures there")
    pictures = commands.add_parser("pictures", help="sim_results.gif and grid_state.gif")
    pictures.add_argument("--out", type=Path, required=True, help="folder for both")
    pictures.add_argument("--grid", default="village", help="grid of both: a file, or one that ships")
    pictures.add_argument(
        "--series", type=Path, help="an energy CSV; default: drawn weather, load and prices"
    )
    pictures.add_argument("--policy", type=Path, help="a trained policy with enough slots for that grid")
    pictures.add_argument("--seed", type=int, default=0, help="of the drawn week; default: 0")
    pictures.add_argument("--hours", type=count, default=48, help="length of grid_state.gif; default: 48")
    centre = commands.add_parser("datacentre", help="what a preference that follows the price saves")
    centre.add_argument(
        "--traces", type=Path, help=f"folder with energy and rps recordings; default: ${TRACES}"
    )
    centre.add_argument("--windows", type=count, default=20, help="days of generated traffic; default: 20")
    centre.add_argument("--recorded", action="store_true", help="recorded traffic (rps_*.csv) instead")
    centre.add_argument("--policy", default="default", help="a built-in policy; default: default")
    centre.add_argument("--seed", type=int, default=0)
    centre.add_argument("--json", type=Path, help="write all figures there")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line: 0 done, 2 for input that cannot be used, 130 after Ctrl-C."""
    args = build_parser().parse_args(argv)
    work = {"evaluate": _evaluate, "pictures": _pictures, "datacentre": _datacentre}[args.command]
    return run_command("grid.py", lambda: work(args))


def _evaluate(args: argparse.Namespace) -> None:
    from training.smartgrid.evaluation import as_json, evaluate, pooled, table
    from training.smartgrid.setups import generated_setup, recorded_setups

    trained = _trained(args.policy)
    folder = _folder(args.traces)
    setups: list[Setup] = [] if folder is None else recorded_setups(folder, args.every)
    setups.append(generated_setup(args.generated))
    outcomes = evaluate(
        setups, trained, not args.no_planner, lambda name: print(f"done: {name}", file=sys.stderr)
    )
    homes = [one for one in outcomes if one.setup.startswith("home")]
    if homes:
        outcomes.insert(len(homes), pooled(homes))
    print(table(outcomes))
    if folder is None:
        print(f"no recordings: give --traces or set {TRACES}", file=sys.stderr)
    _write(args.json, as_json(outcomes))


def _pictures(args: argparse.Namespace) -> None:
    import numpy as np

    from sim.grid.baselines import BASELINES, GridPolicy, RecedingHorizon
    from sim.grid.batch import SmartGridConfig, cut_scenario
    from sim.grid.files import load_grid
    from sim.grid.scenarios import with_series
    from sim.grid.series import fit_series, load_series
    from training.smartgrid.pictures import RESULTS, STATE, Foresight, results_gif, state_gif
    from training.smartgrid.policies import GridArtifact

    grid = load_grid(args.grid)
    config = SmartGridConfig.of(grid)
    rng = np.random.default_rng(args.seed)
    if args.series is None:
        scenario = with_series(rng, grid, "spot", 0.15, config.horizon_h)
    else:
        scenario = cut_scenario(grid, fit_series(grid, load_series(args.series)), config.horizon_h, rng)
    policies: dict[str, GridPolicy] = {**BASELINES, "receding horizon": RecedingHorizon(days=7)}
    if args.policy is not None:
        trained = GridArtifact(args.policy)
        config = replace(config, dispatchables=trained.dispatchables, storages=trained.storages)
        policies["trained"] = trained
    policies["perfect foresight"] = Foresight(scenario, config)
    shown = policies.get("trained", policies["receding horizon"])
    for path in (
        results_gif(args.out / RESULTS, scenario, policies, config),
        state_gif(args.out / STATE, scenario, shown, config, args.hours),
    ):
        print(f"{path} ({path.stat().st_size / 1e6:.2f} MB)")


def _datacentre(args: argparse.Namespace) -> None:
    from training.smartgrid.example import report, run

    folder = _folder(args.traces)
    if folder is None:
        raise ConfigError(f"--traces: needed for the prices; or set {TRACES}")
    found = run(folder, args.windows, args.recorded, args.policy, args.seed)
    print(report(found))
    _write(args.json, found)


def _trained(named: list[str]) -> dict[str, list[GridArtifact]]:
    from training.smartgrid.policies import GridArtifact

    result: dict[str, list[GridArtifact]] = {}
    for text in named:
        name, mark, files = text.partition("=")
        if not mark or not name or not files:
            raise ConfigError(f"--policy {text!r}: must be NAME=FILE or NAME=FILE,FILE,...")
        result[name] = [GridArtifact(Path(file)) for file in files.split(",")]
    return result


def _folder(given: Path | None) -> Path | None:
    chosen = given or (Path(os.environ[TRACES]) if os.environ.get(TRACES) else None)
    if chosen is not None and not chosen.is_dir():
        raise ConfigError(f"--traces {chosen}: no such folder")
    return chosen


def _write(path: Path | None, content: dict[str, Any]) -> None:
    if path is not None:
        write_output(path, json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
