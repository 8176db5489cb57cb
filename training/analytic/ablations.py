"""Trains variants of the built-in policy and judges them: `python -m training.analytic.ablations`.

Variants are in ablations.yaml beside this file (or `--file`): settings by their dotted names. Each is a run
folder of `training/train.py`; what is finished stays, what is not goes on, so the same command continues
after Ctrl-C. In the end `training.analytic.bars` judges them all on traffic that may be chosen by.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from sim.errors import TraceError
from training.analytic.bars import add_options, judge_all, print_bars, save, sweep_of
from training.config import dump_preset, load_preset, read_preset
from training.errors import ConfigError, RunError
from training.tuning.space import with_values

FILE = Path(__file__).with_name("ablations.yaml")
ROOT = Path(__file__).resolve().parents[2]
KEYS = {"preset", "timesteps", "seed", "variants"}


@dataclass(frozen=True)
class Variants:
    """A preset, how long and with which seed to train it, and settings to change by variant."""

    preset: str
    timesteps: int
    seed: int
    variants: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Variants:
        """From a YAML file. Raises ConfigError."""
        try:
            content = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        if not isinstance(content, dict) or set(content) != KEYS:
            raise ConfigError(f"{path}: {', '.join(sorted(KEYS))} are expected")
        variants = {str(name): dict(values or {}) for name, values in content["variants"].items()}
        return cls(str(content["preset"]), int(content["timesteps"]), int(content["seed"]), variants)

    def only(self, names: Sequence[str]) -> Variants:
        """Those named. Raises ConfigError for a name that is not there."""
        strange = [name for name in names if name not in self.variants]
        if strange:
            raise ConfigError(f"--only: {strange} is not allowed; any of {', '.join(self.variants)} is")
        chosen = {name: self.variants[name] for name in names or self.variants}
        return Variants(self.preset, self.timesteps, self.seed, chosen)

    def write_preset(self, name: str, path: Path) -> None:
        """The preset of a variant, checked."""
        content = yaml.safe_load(dump_preset(load_preset(self.preset)))
        changes = {"timesteps": self.timesteps, "name": slug(name), **self.variants[name]}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(with_values(content, changes), sort_keys=False))
        read_preset(path)


def slug(name: str) -> str:
    """A file's name for a variant."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def train_variant(variants: Variants, name: str, home: Path) -> Path:
    """The variant's artifact, trained or found in its folder. Raises RunError where training fails."""
    preset = home / "preset.yaml"
    finished = sorted(home.glob("*/policy.onnx"))
    if finished:
        return finished[-1]
    variants.write_preset(name, preset)
    begun = sorted(run.parent.parent for run in home.glob("*/checkpoints/*.json"))
    command = [sys.executable, "training/train.py", "--no-evaluate"]
    if begun:
        command += ["--resume", str(begun[-1].resolve())]
    else:
        command += [
            "--preset",
            str(preset.resolve()),
            "--seed",
            str(variants.seed),
            "--out",
            str(home.resolve()),
        ]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status == 130:
        raise KeyboardInterrupt
    if status != 0:
        raise RunError(f"{name}: train.py ended with {status}")
    return sorted(home.glob("*/policy.onnx"))[-1]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 0 done, 2 for what cannot be used, 130 stopped by Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m training.analytic.ablations", description=__doc__)
    parser.add_argument("--file", type=Path, default=FILE, help="the variants")
    parser.add_argument("--only", nargs="*", default=[], help="names of some of them")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="a folder for each variant")
    parser.add_argument("--timesteps", type=float, help="instead of the file's")
    add_options(parser)
    args = parser.parse_args(argv)
    try:
        sweep = sweep_of(args)
        variants = Variants.read(args.file).only(args.only)
        if args.timesteps:
            variants = Variants(variants.preset, int(args.timesteps), variants.seed, variants.variants)
        artifacts = {}
        for name in variants.variants:
            print(f"== {name}", flush=True)
            artifacts[str(train_variant(variants, name, args.out / slug(name)))] = name
        paths = [Path(path) for path in artifacts]
        found = judge_all(paths, args.trace, args.jobs, sweep, args.windows)
    except (ConfigError, RunError, TraceError) as error:
        print(f"ablations: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    print_bars(found, artifacts, Console(width=180))
    save(found, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
