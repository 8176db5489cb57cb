"""Shared by the training tests: a tiny preset, one finished run of the real script, how to run scripts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = """
name: tiny
timesteps: 512
num_envs: 8
checkpoint_every: 256
network: {actor: [16], critic: [16]}
ppo: {n_steps: 16, batch_size: 64, n_epochs: 2}
environment: {horizon_steps: 32, scenario: {histories_s: [0.0, 3600.0]}}
"""
Script = Callable[..., "subprocess.CompletedProcess[str]"]


def environment() -> dict[str, str]:
    """The environment without PYTHONPATH: the scripts must find the checkout by themselves."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return kept | {"OMP_NUM_THREADS": "1"}


def run_script(name: str, *args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`python training/<name> args` as a user runs it, in another process."""
    command = [sys.executable, str(ROOT / "training" / name), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=cwd, env=environment())


@pytest.fixture(scope="session")
def tiny_preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset that trains in a second."""
    path = tmp_path_factory.mktemp("preset") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def tiny_run(tiny_preset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of the real script."""
    out = tmp_path_factory.mktemp("runs")
    done = run_script("train.py", "--no-evaluate", "--preset", tiny_preset, "--out", out, "--seed", 3)
    assert done.returncode == 0, done.stderr
    (folder,) = out.iterdir()
    return folder
