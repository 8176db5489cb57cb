"""Who schedules: the heuristics in an order of the queue, or a trained policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from sim.envs.scheduling_batch import SchedulingBatch
from sim.scheduling import HEURISTICS, ORDERS
from sim.scheduling.features import CLUSTER_FEATURES, CLUSTER_SCHEMA, SERVER_FEATURES, SERVER_SCHEMA
from training.contestants import label_of
from training.errors import ConfigError, ExportError

LEARNED = "learned"
BUILT_IN = Path(__file__).parent / "scheduling.onnx"
Order = Literal["arrival", "size", "strict"]
Choose = Callable[[SchedulingBatch, npt.NDArray[Any]], npt.NDArray[np.integer[Any]]]


@dataclass(frozen=True)
class Contestant:
    """A policy and the order in which it wants waiting jobs offered."""

    name: str
    order: Order
    heuristic: str | None
    choose: Choose


def contestant(name: str) -> Contestant:
    """By name: a heuristic, also with an order (`best-fit/arrival`; size by default), `learned`, or an .onnx
    file.

    Raises ConfigError for a name that is none, ExportError for a file that is no scheduler.
    """
    plain, _, order = name.partition("/")
    if plain == LEARNED:
        return learned(BUILT_IN, LEARNED)
    if plain.endswith(".onnx") or name.endswith(".onnx"):
        return learned(Path(name), label_of(name))
    if plain not in HEURISTICS or (order and order not in ORDERS):
        raise ConfigError(
            f"--policy: {name!r} is not {LEARNED}, an .onnx file, or one of {', '.join(HEURISTICS)}, "
            f"each also with /{', /'.join(ORDERS)}"
        )
    return Contestant(
        name, cast(Order, order or "size"), plain, lambda batch, observations: batch.choose(plain)
    )


def contestants_of(names: Sequence[str]) -> list[Contestant]:
    """Each name once. Raises ConfigError where two of them would have one row."""
    found: dict[str, Contestant] = {}
    for name in dict.fromkeys(names):
        one = contestant(name)
        if one.name in found:
            raise ConfigError(f"--policy: two files are called {one.name!r}; {name!r} needs another name")
        found[one.name] = one
    return list(found.values())


def learned(path: Path, name: str) -> Contestant:
    """A policy that `train.py --env scheduling` exported. Raises ExportError where the file is none."""
    import onnxruntime

    from training.artifact import read_metadata
    from training.tasks.scheduling import OBSERVATION_VERSION

    if not path.is_file():
        raise ExportError(f"{path}: no such policy")
    data = path.read_bytes()
    schema = read_metadata(data).get("observation_schema", {})
    names = [*SERVER_SCHEMA.names, *CLUSTER_SCHEMA.names]
    if schema.get("version") != OBSERVATION_VERSION or schema.get("features") != names:
        raise ExportError(
            f"{path}: observes {schema.get('version')!r}, or other features than this version's schedulers, "
            f"which observe {OBSERVATION_VERSION!r}"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    size = int(session.get_inputs()[0].shape[1])
    most = (size - CLUSTER_FEATURES) // SERVER_FEATURES

    def choose(batch: SchedulingBatch, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        asked = np.flatnonzero(batch.physics.offered >= 0)
        choices = np.full(len(observations), batch.physics.servers, dtype=np.int64)
        seen = widened(observations[asked], batch.physics.servers, most)
        scores = session.run(["logits"], {"observation": seen})[0]
        chosen = np.concatenate([scores[:, : batch.physics.servers], scores[:, most:]], axis=1)
        choices[asked] = np.where(batch.action_masks()[asked], chosen, -np.inf).argmax(axis=1)
        return choices

    return Contestant(name, "size", None, choose)


def widened(observations: npt.NDArray[np.float32], servers: int, most: int) -> npt.NDArray[np.float32]:
    """Observations of `servers` servers as of `most`, of which the others are not there."""
    if servers > most:
        raise ConfigError(f"servers: {servers} is not allowed, this policy's graph holds {most}")
    wide = np.zeros((len(observations), most * SERVER_FEATURES + CLUSTER_FEATURES), dtype=np.float32)
    cut = servers * SERVER_FEATURES
    wide[:, :cut] = observations[:, :cut]
    wide[:, most * SERVER_FEATURES :] = observations[:, cut:]
    return wide
