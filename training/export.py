"""Make an artifact of a trained model: `python training/export.py RUN|model.zip --out policy.onnx`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.errors import TrainingError

if TYPE_CHECKING:
    from training.runs import RunFolder
    from training.tasks import Published


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="export.py",
        description="Export a trained policy to an ONNX artifact, checked equal to the model.",
        epilog="A model's zip is a pickle: only open zips that you or somebody you trust has trained.",
    )
    parser.add_argument(
        "source", type=Path, help="a run folder (its newest checkpoint), or a zip of Stable-Baselines3"
    )
    parser.add_argument(
        "--out", type=Path, help="the file to write; default: policy.onnx in the run folder or beside the zip"
    )
    parser.add_argument("--name", help="the policy's name in its metadata; default: the run's")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when the artifact was written, 2 when the input cannot be used."""
    args = build_parser().parse_args(argv)
    try:
        export(args.source, args.out, args.name)
    except TrainingError as error:
        print(f"export.py: {error}", file=sys.stderr)
        return 2
    return 0


def export(source: Path, out: Path | None, name: str | None) -> None:
    """Export a run folder's newest checkpoint, or the model that `source` is. Raises TrainingError."""
    from training.runs import RunFolder

    if source.suffix == ".zip":
        target, model = out or source.with_suffix(".onnx"), source
        published = _from_zip(source, target, name)
    else:
        run = RunFolder.open(source)
        target, model = out or run.artifact, run.latest_checkpoint().model
        published = _from_run(run, target, name)
    off = (
        ""
        if published.difference is None
        else f", differs from {model.name} by {published.difference:.1e} at most"
    )
    print(f"{target}: {target.stat().st_size} bytes{off}")
    if published.note:
        print(f"note: {published.note}")


def _from_run(run: RunFolder, target: Path, name: str | None) -> Published:
    from training.stamps import check_schemas
    from training.tasks import Published, load_task

    preset, checkpoint = run.preset(), run.latest_checkpoint()
    check_schemas(run.schemas(), load_task(preset.env).schemas(preset), str(run.path))
    if preset.algo == "analytic":
        from training.analytic.run import export as export_analytic

        return Published(difference=export_analytic(run, checkpoint, target, name))
    if preset.algo == "evolution":
        from training.poolsets.run import export as export_pools

        return Published(difference=export_pools(run, checkpoint, target, name))
    if preset.algo == "qlearning":
        from training.qlearning.run import export as export_table

        return Published(difference=export_table(run, checkpoint, target, name))
    return _from_zip(checkpoint.model, target, name)


def _from_zip(path: Path, target: Path, name: str | None) -> Published:
    """A model of Stable-Baselines3, wherever its zip is: it says itself what it is."""
    from training.stamps import check_schemas, read_stamp
    from training.tasks import load_task

    stamp = read_stamp(path)
    preset = stamp.settings()
    task = load_task(preset.env)
    check_schemas(stamp.schemas, task.schemas(preset), str(path))

    from training.algorithms import load_model, one_thread
    from training.publish import provenance_of

    one_thread()
    model = load_model(path, algo=preset.algo)
    return task.export(model, preset, provenance_of(stamp, model.num_timesteps, name), target)


if __name__ == "__main__":
    sys.exit(main())
