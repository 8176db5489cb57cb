"""What a report is about: a run folder, a checkpoint's or a bare artifact, and the facts recorded with it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from controller.errors import PolicyError
from controller.policies.onnx_policy import OnnxPolicy
from training.errors import RunError
from training.runs import RunFolder, read_metrics

Facts = list[tuple[str, str]]


@dataclass(frozen=True)
class Subject:
    """rows: of metrics.csv. preset: config.yaml as it is there; {} of a bare artifact."""

    name: str
    path: Path
    run: RunFolder | None
    artifact: Path | None
    """The ONNX file; None where the run has none (yet), or its task makes none."""
    policy: OnnxPolicy | None
    rows: list[dict[str, float]] = field(default_factory=list)
    preset: dict[str, Any] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    unservable: str = ""
    """Why the artifact is none that replays can run; "" if it is, or there is none."""

    @property
    def env(self) -> str:
        """The task it was trained on."""
        return str(self.preset.get("env", "autoscale"))

    def facts(self) -> Facts:
        """What it is, in rows of a table."""
        return _facts_of_run(self) if self.run else _facts_of_artifact(self)


def read_subject(path: Path) -> Subject:
    """The subject at `path`: a run folder, or an .onnx file. Raises RunError for anything else."""
    if path.suffix == ".onnx":
        bare = _policy(path)
        return Subject(bare.name, path, None, path, bare)
    run = RunFolder.open(path)
    preset = yaml.safe_load(run.config.read_text()) or {}
    card = json.loads(run.card.read_text()) if run.card.is_file() else {}
    name = str(preset.get("name", path.name))
    rows = read_metrics(run.metrics)
    artifact = run.artifact if run.artifact.is_file() else None
    policy: OnnxPolicy | None = None
    reason = ""
    if artifact is not None:
        try:
            policy = _policy(artifact)
        except RunError as error:
            # artifacts of other tasks have schemas of their own, older ones may have older schemas
            reason = str(card.get("note") or error)
    return Subject(name, path, run, artifact, policy, rows, preset, card, reason)


def _policy(path: Path) -> OnnxPolicy:
    try:
        return OnnxPolicy.from_file(path)
    except PolicyError as error:
        raise RunError(f"{path}: {error}") from error


def _facts_of_run(subject: Subject) -> Facts:
    run, preset = subject.run, subject.preset
    assert run is not None
    versions = _json(run.path / "versions.json")
    last = subject.rows[-1] if subject.rows else {}
    found = [
        ("preset", f"{preset.get('name', '?')} ({run.config.name} below)"),
        ("environment", subject.env),
        ("algorithm", str(preset.get("algo", "?"))),
        ("seed", _seed(subject)),
        ("steps", _steps(last.get("timesteps"), preset.get("timesteps"))),
        ("wall time", _duration(last.get("elapsed_s"))),
        ("workloads", str(preset.get("workloads", ""))),
        ("git commit", str(versions.pop("git_commit", "unknown"))),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("artifact", _artifact(subject)),
    ]
    return [(name, value) for name, value in found if value]


def _facts_of_artifact(subject: Subject) -> Facts:
    assert subject.policy is not None
    about = subject.policy.metadata.provenance
    versions = about.get("versions") or {}
    found = [
        ("policy", f"{subject.policy.name}, version {subject.policy.metadata.version}"),
        ("command", str(about.get("command", ""))),
        ("seed", str(about.get("seed", ""))),
        ("steps", _steps(about.get("timesteps"), None)),
        ("workloads", str(about.get("workloads", ""))),
        ("git commit", str(about.get("git_commit", ""))),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("artifact", _artifact(subject)),
    ]
    return [(name, value) for name, value in found if value]


def _artifact(subject: Subject) -> str:
    if subject.artifact is None:
        return "none in this folder"
    size = subject.artifact.stat().st_size / 1000
    if subject.policy is None:
        return f"{subject.artifact.name}, {size:.0f} kB: {subject.unservable}"
    schemas = f"{subject.policy.schema} to {subject.policy.action_schema}"
    return f"{subject.artifact.name}, {size:.0f} kB, {schemas}, {subject.policy.digest}"


def _seed(subject: Subject) -> str:
    assert subject.run is not None
    try:
        return str(subject.run.latest_checkpoint().read_state()["seed"])
    except (RunError, KeyError):
        known = subject.card.get("provenance", {}).get("seed")
        # the folder is named <time>-<algo>-<seed>
        return str(known if known is not None else subject.path.resolve().name.rsplit("-", 1)[-1])


def _steps(done: Any, wanted: Any) -> str:
    if done is None or done != done:
        return ""
    of = f" of {int(wanted):,}" if wanted and int(wanted) > int(done) else ""
    return f"{int(done):,}{of}"


def _duration(seconds: float | None) -> str:
    if seconds is None or seconds != seconds:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}
