"""Who is compared: the formulas of `sim.webbalancing.policies`, and policies that were trained, by files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from sim.webbalancing.batch import WebBatch
from sim.webbalancing.layout import IntArray
from sim.webbalancing.policies import POLICIES, Policy
from training.artifact import read_metadata
from training.errors import ConfigError, ExportError
from training.runs import RunFolder
from training.tasks.web import schemas_of

LEARNED = "dqn"


class Learned(Policy):
    """A policy that `train.py --env web` exported: the server of the largest value, nothing at random.

    Raises ExportError for a file that is none, or that was trained with other servers or features.
    """

    def __init__(self, path: Path, servers: int) -> None:
        super().__init__()
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ExportError(f"{path}: {error.strerror}") from None
        content = read_metadata(data)
        found, wanted = content.get("observation_schema", {}), schemas_of(servers)["observation"]
        if (found.get("version"), found.get("digest")) != (wanted["version"], wanted["digest"]):
            raise ExportError(
                f"{path}: observes {found.get('version')!r} with {len(found.get('features', []))} features; "
                f"{wanted['version']!r} with {len(wanted['features'])} ({servers} servers) is expected"
            )
        self.seed_trained = int(content["provenance"]["seed"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def choose(self, batch: WebBatch) -> IntArray:
        """The server of the largest value."""
        (values,) = self._session.run(["logits"], {"observation": batch.observations})
        return np.asarray(np.asarray(values).argmax(axis=1))


@dataclass(frozen=True)
class Contestant:
    """One name in the tables: a formula, or the same training with several seeds."""

    name: str
    policies: tuple[Policy, ...]


def contestants(files: Sequence[Path], names: Sequence[str], servers: int) -> list[Contestant]:
    """The trained ones first, as one, then formulas by name. Raises ConfigError or ExportError.

    files: run folders or .onnx files.
    """
    found = []
    if files:
        learned = tuple(Learned(artifact_of(path), servers) for path in files)
        found.append(Contestant(LEARNED, learned))
    for name in dict.fromkeys(names):
        if name not in POLICIES:
            raise ConfigError(f"--policy: {name!r} is not one of {', '.join(POLICIES)}")
        found.append(Contestant(name, (POLICIES[name](),)))
    return found


def artifact_of(path: Path) -> Path:
    """The artifact of a run folder, or the file itself."""
    if path.suffix == ".onnx":
        return path
    run = RunFolder.open(path)
    if not run.artifact.is_file():
        raise ExportError(f"{path}: has no policy yet; finish it, or python training/export.py {path}")
    return run.artifact
