"""Make an artifact of a trained model: `python training/export.py RUN|model.zip --out policy.onnx`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.errors import ExportError, TrainingError


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="export.py", description="Export a trained policy to an ONNX artifact."
    )
    parser.add_argument(
        "source", type=Path, help="a run folder (its newest checkpoint), or one checkpoint's zip"
    )
    parser.add_argument("--out", type=Path, help="the file to write; default: policy.onnx in the run folder")
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
    """Export a run folder's newest checkpoint, or the checkpoint that `source` is."""
    from training.actions import make_head
    from training.algorithms import load_model, one_thread
    from training.artifact import export_policy
    from training.publish import provenance
    from training.runs import Checkpoint, RunFolder

    one_thread()
    if source.suffix == ".zip" and source.is_file():
        if not source.stem.isdigit():
            raise ExportError(
                f"{source}: a checkpoint of a run is expected, such as RUN/checkpoints/000001.zip"
            )
        run, checkpoint = RunFolder.open(source.resolve().parents[1]), Checkpoint(source, int(source.stem))
    else:
        run = RunFolder.open(source)
        checkpoint = run.latest_checkpoint()
    target = out or run.artifact
    preset = run.preset()
    if preset.algo == "analytic":
        from training.analytic.run import export as export_analytic

        difference = export_analytic(run, checkpoint, target, name)
    else:
        origin = provenance(run, checkpoint, name)
        difference = export_policy(load_model(checkpoint.model), make_head(preset.action), origin, target)
    size = target.stat().st_size
    print(f"{target}: {size} bytes, differs from {checkpoint.model.name} by {difference:.1e} at most")


if __name__ == "__main__":
    sys.exit(main())
