"""The image, as far as can be checked without an engine: its instructions, and the wheel they install."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Instruction = tuple[str, str]


def instructions() -> list[Instruction]:
    return parsed((ROOT / "Dockerfile").read_text())


def parsed(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in joined.splitlines()]


def stages() -> list[list[Instruction]]:
    found: list[list[Instruction]] = []
    for name, value in instructions():
        if name == "FROM":
            found.append([])
        found[-1].append((name, value))
    return found


def of(stage: list[Instruction], name: str) -> list[str]:
    return [value for found, value in stage if found == name]


def copied_from_context(stage: list[Instruction]) -> list[str]:
    copies = [value.split() for value in of(stage, "COPY") if not value.startswith("--from")]
    return [source for copy in copies for source in copy[:-1] if not source.startswith("--")]


def stage_called(name: str) -> list[Instruction]:
    (found,) = [stage for stage in stages() if of(stage, "FROM")[0].endswith(f" AS {name}")]
    return found


OPERATOR = copied_from_context(stages()[0])
EVERYTHING = sorted({source for stage in stages() for source in copied_from_context(stage)})


def test_the_last_stage_starts_from_a_slim_image_and_copies_only_the_install() -> None:
    build, final = stage_called("build"), stages()[-1]
    assert of(build, "FROM") == ["python:3.11-slim-bookworm AS build"]
    assert of(final, "FROM") == ["python:3.11-slim-bookworm"]
    assert of(final, "COPY") == ["--from=build /opt/rl-scaler /opt/rl-scaler"]
    assert not of(final, "RUN")


def test_it_runs_as_a_numeric_user_that_is_not_root() -> None:
    (user,) = of(stages()[-1], "USER")
    assert re.fullmatch(r"65532:65532", user)


def test_the_command_is_rl_scaler_without_a_shell() -> None:
    final = stages()[-1]
    assert json.loads(of(final, "ENTRYPOINT")[0]) == ["rl-scaler"]
    assert json.loads(of(final, "CMD")[0]) == ["operator"]
    assert of(final, "EXPOSE") == ["8080"]


def test_nothing_is_written_at_run_time() -> None:
    environment = " ".join(of(stages()[-1], "ENV"))
    assert "PYTHONDONTWRITEBYTECODE=1" in environment
    assert "HOME=/tmp" in environment


def test_the_user_has_a_name_although_no_passwd_entry_gives_it_one() -> None:
    """kopf's identity is made of getpass.getuser(), which fails for an unknown number without USER."""
    assert "USER=rl-scaler" in " ".join(of(stages()[-1], "ENV"))


def test_the_install_is_the_lean_one_pinned_by_the_constraints() -> None:
    (install,) = [run for run in of(stages()[0], "RUN") if "pip install" in run]
    assert "--constraint constraints.txt . " in install
    assert "[" not in install, "no extras in the image"


@pytest.mark.parametrize("source", EVERYTHING)
def test_what_is_copied_is_there_and_not_ignored(source: str) -> None:
    assert (ROOT / source).exists()
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    assert f"!{source}" in patterns


def test_the_context_holds_nothing_else() -> None:
    patterns = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("#", "")
    ]
    assert patterns[0] == "*"
    assert {line[1:] for line in patterns if line.startswith("!")} == set(EVERYTHING)


def wheel_of(sources: Iterable[str], folder: Path) -> Path:
    """The wheel that these files alone build."""
    context, wheels = folder / "context", folder / "wheels"
    context.mkdir()
    for source in sources:
        _copy(ROOT / source, context / source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels)]
    command += ["--no-build-isolation"] if importlib.util.find_spec("setuptools") else []
    subprocess.run([*command, str(context)], check=True, capture_output=True, timeout=120)
    (wheel,) = wheels.glob("rl_scaler-*.whl")
    return wheel


def unpacked(stage: str, folder: Path) -> Path:
    """A folder with what a stage of the Dockerfile would install."""
    installed = folder / "site-packages"
    zipfile.ZipFile(wheel_of(copied_from_context(stage_called(stage)), folder)).extractall(installed)
    return installed


def test_the_copied_files_build_a_wheel_with_the_operator_and_its_policy(tmp_path: Path) -> None:
    wheel = wheel_of(OPERATOR, tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert packages == {"controller"}
    assert "controller/__main__.py" in names
    assert any(fnmatch(name, "controller/policies/builtin/*.onnx") for name in names)
    pages = {path.name for path in (ROOT / "controller" / "server" / "static").iterdir()}
    assert pages == {Path(name).name for name in names if fnmatch(name, "controller/server/static/*")}


def test_the_training_image_has_the_train_extra_and_tunes() -> None:
    build, final = stage_called("build-training"), stage_called("training")
    (install,) = [run for run in of(build, "RUN") if "pip install" in run]
    assert "--constraint constraints.txt" in install
    assert "'.[train]'" in install
    assert "psycopg" in install, "studies of several machines are kept in PostgreSQL"
    assert of(final, "COPY") == ["--from=build-training /opt/rl-scaler /opt/rl-scaler"]
    assert json.loads(of(final, "ENTRYPOINT")[0]) == ["python", "-m", "training.tune"]


def test_the_training_image_runs_as_the_operators_does() -> None:
    final, training = stages()[-1], stage_called("training")
    assert of(training, "FROM")[0].removesuffix(" AS training") == of(final, "FROM")[0]
    for name in ("USER", "WORKDIR", "ENV"):
        assert of(training, name) == of(final, name), name


def test_the_default_target_is_the_operator() -> None:
    assert json.loads(of(stages()[-1], "ENTRYPOINT")[0]) == ["rl-scaler"]


def test_the_training_files_build_a_wheel_that_can_tune_anywhere(tmp_path: Path) -> None:
    installed = unpacked("build-training", tmp_path)
    asked = [sys.executable, "-m", "training.tune", "--preset", "nonsense"]
    # run in the folder: what is installed here must not stand in for what the wheel lacks
    done = subprocess.run(asked, cwd=installed, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    for preset in sorted(path.stem for path in (ROOT / "training" / "configs").glob("*.yaml")):
        assert preset in done.stderr, "presets come with it"


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)
