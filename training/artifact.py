"""A trained policy as an ONNX artifact: the graph, its metadata, and the proof that it equals the model.

Observation statistics, argmax and the table of actions are inside the graph, so `[N, F]` features of core go
in and `[N, A]` actions of core come out. `train.py` and `export.py` call this; `controller.policies` reads
it.
"""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from controller.core import OBSERVATION_SCHEMA
from training.actions import Head
from training.errors import ExportError
from training.networks import (
    Actor,
    ActorWithHead,
    BareActor,
    frozen,
    logit_sizes,
    observation_range,
)

ObservationRange = tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.floating[Any]]]
"""Lowest and highest value of every feature that training saw, `[F]` each."""

METADATA_KEY = "rlscaler"
OPSET = 18
PARITY_TOLERANCE = 1e-5
PARITY_OBSERVATIONS = 4096
TIE = 1e-4
LARGEST = 10.0
"""Random observations stay within this where a space has no bounds."""


@dataclass(frozen=True)
class Provenance:
    """Where a policy comes from; part of the artifact's metadata."""

    name: str
    version: str
    command: str
    seed: int
    git_commit: str
    timesteps: int
    workloads: str
    versions: dict[str, str]
    traces: list[dict[str, str]] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """As the metadata has it; name and version stand beside it."""
        return {
            "command": self.command,
            "seed": self.seed,
            "git_commit": self.git_commit,
            "workloads": self.workloads,
            "timesteps": self.timesteps,
            "versions": self.versions,
            **({"traces": self.traces} if self.traces else {}),
        }

    """Recordings that it was trained on: `file` and `sha256` of each."""


def export_policy(
    model: BaseAlgorithm,
    head: Head,
    provenance: Provenance,
    out: Path,
    evaluation: dict[str, Any] | None = None,
    seen: ObservationRange | None = None,
) -> float:
    """Write the artifact to `out`; the largest difference to the model over random observations.

    seen: the range of observations in training, outside of which the operator's guard is careful; by default
    the model's own. Raises ExportError where the model does not fit core's observation, or the graph is not
    equal to it.
    """
    check_size(model.policy)
    proto = build_graph(model.policy, head)
    seen = seen or observation_range(model.policy)
    set_metadata(proto, metadata(head.schema, provenance, evaluation or {}, seen))
    data = proto.SerializeToString()
    difference = parity(model, head, data, random_observations(PARITY_OBSERVATIONS, seed=0))
    return written(data, difference, out)


def check_size(policy: Any) -> None:
    """Raises ExportError for a policy that observes another number of features than core has."""
    shape = policy.observation_space.shape
    if shape != (OBSERVATION_SCHEMA.size,):
        raise ExportError(
            f"the model observes {shape}, the schema {OBSERVATION_SCHEMA.version} has "
            f"{OBSERVATION_SCHEMA.size} features: it was trained with another version; train it again"
        )


def written(data: bytes, difference: float, out: Path, of: str = "model") -> float:
    """Write a graph that is equal to what it was made of; raises ExportError for one that is not."""
    if not difference <= PARITY_TOLERANCE:
        raise ExportError(
            f"the graph differs from the {of} by {difference:g}, more than {PARITY_TOLERANCE:g}"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(data)
    return difference


def export_actor(
    model: BaseAlgorithm, schemas: dict[str, Any], provenance: Provenance, out: Path
) -> tuple[float, dict[str, Any]]:
    """Write the actor of any environment's model: `observation` `[N, F]` to what it says; (difference, card).

    A Box's numbers come out as `action` `[N, A]`, clipped to its bounds; choices as `logits` `[N, L]`, of
    which the largest of each choice's is taken. schemas: as `Task.schemas` gives them; their names are the
    environment's own, so that the operator refuses the file with a message.
    """
    actor = frozen(BareActor(model.policy))
    space: Any = model.policy.observation_space
    size = int(np.prod(space.shape))
    output = "logits" if logit_sizes(model.policy.action_space) else "action"
    proto = module_graph(actor, size, output)
    content = metadata(str(schemas["action"]["name"]), provenance, {})
    content |= {"observation_schema": schemas["observation"], "action": schemas["action"]}
    seen = observation_range(model.policy)
    if seen is not None:
        content["observation_range"] = _plain_range(seen, size)
    set_metadata(proto, content)
    data = proto.SerializeToString()
    generator = np.random.default_rng(0)
    observations = generator.uniform(
        np.maximum(space.low, -LARGEST), np.minimum(space.high, LARGEST), (PARITY_OBSERVATIONS, size)
    ).astype(np.float32)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (served,) = session.run([output], {"observation": observations})
    with torch.no_grad():
        own = actor(torch.from_numpy(observations)).numpy()
    difference = float(np.max(np.abs(np.asarray(served) - own)))
    return written(data, difference, out), content


def build_graph(policy: Any, head: Head) -> onnx.ModelProto:
    """The deterministic actor as ONNX: `observation` `[N, F]` to `action` `[N, A]`, N dynamic."""
    return module_graph(frozen(ActorWithHead(policy, head)))


def module_graph(
    actor: torch.nn.Module, size: int = OBSERVATION_SCHEMA.size, output: str = "action"
) -> onnx.ModelProto:
    """A module from observations `[N, F]` to actions `[N, A]` as ONNX, N dynamic."""
    services = torch.export.Dim("N", min=1)
    return traced_graph(
        actor, {"observation": torch.zeros(2, size)}, [output], {"observation": {0: services}}
    )


def traced_graph(
    module: torch.nn.Module, inputs: dict[str, torch.Tensor], outputs: list[str], dynamic: dict[str, Any]
) -> onnx.ModelProto:
    """A module as ONNX, without the exporter's notes. inputs: examples by name, in order."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=dynamic,
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx gave no graph")
    return _bare(program.model_proto)


def metadata(
    action_schema: str,
    provenance: Provenance,
    evaluation: dict[str, Any],
    seen: ObservationRange | None = None,
) -> dict[str, Any]:
    """What an artifact says of itself; the operator checks the schemas against its own.

    seen: the range of observations in training.
    """
    content: dict[str, Any] = {
        "name": provenance.name,
        "version": provenance.version,
        "observation_schema": {
            "version": OBSERVATION_SCHEMA.version,
            "digest": OBSERVATION_SCHEMA.digest,
            "features": list(OBSERVATION_SCHEMA.names),
        },
        "action_schema": action_schema,
        "preference_range": [0, 100],
        "provenance": provenance.told(),
        "evaluation": evaluation,
    }
    if seen is not None:
        content["observation_range"] = _plain_range(seen)
    return content


def _plain_range(seen: ObservationRange, size: int = OBSERVATION_SCHEMA.size) -> dict[str, list[float]]:
    """As `controller.policies` reads it. Raises ExportError unless it is a finite, ordered pair a feature."""
    low, high = (np.asarray(side, dtype=np.float64) for side in seen)
    if low.shape != (size,) or high.shape != (size,):
        raise ExportError(f"observation_range: shapes {low.shape} and {high.shape}; ({size},) is expected")
    if not (np.isfinite(low) & np.isfinite(high) & (low <= high)).all():
        raise ExportError("observation_range: a low is not finite or above its high")
    # six digits: float32 has seven, and the operator allows a margin
    return {"low": [float(f"{one:.6g}") for one in low], "high": [float(f"{one:.6g}") for one in high]}


def read_metadata(data: bytes) -> dict[str, Any]:
    """The `rlscaler` metadata of an artifact; raises ExportError where there is none."""
    for item in onnx.load_from_string(data).metadata_props:
        if item.key == METADATA_KEY:
            return dict(json.loads(item.value))
    raise ExportError(f"the ONNX file has no {METADATA_KEY!r} metadata: it is not one of ours")


def add_evaluation(path: Path, evaluation: dict[str, Any]) -> None:
    """Put an evaluation card into an artifact's metadata, in place."""
    proto = onnx.load_from_string(path.read_bytes())
    content = read_metadata(path.read_bytes())
    content["evaluation"] = evaluation
    set_metadata(proto, content)
    path.write_bytes(proto.SerializeToString())


def random_observations(count: int, seed: int) -> npt.NDArray[np.float32]:
    """Observations `[count, F]` over the whole range of every feature, its edges included."""
    generator = np.random.default_rng(seed)
    low, high = OBSERVATION_SCHEMA.low, OBSERVATION_SCHEMA.high
    values = generator.uniform(low, high, size=(count, OBSERVATION_SCHEMA.size))
    edge = generator.random(values.shape)
    values = np.where(edge < 0.05, low, np.where(edge > 0.95, high, values))
    return values.astype(np.float32)


def parity(model: BaseAlgorithm, head: Head, data: bytes, observations: npt.NDArray[np.float32]) -> float:
    """Largest |difference| of core's actions between deterministic `model.predict` and ONNX Runtime.

    Observations at which the model's best two choices are equal but for rounding are left out.
    """
    clear = observations[_decided(model.policy, head, observations)]
    if len(clear) == 0:
        raise ExportError("the model is indifferent everywhere: there is nothing to compare")
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (served,) = session.run(["action"], {"observation": clear})
    chosen, _ = model.predict(clear, deterministic=True)
    return float(np.max(np.abs(np.asarray(served) - head.decode(chosen, clear))))


def _decided(policy: Any, head: Head, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Where every choice is ahead of the next by more than float32 rounding: elsewhere either is right."""
    if not head.sizes:
        return np.ones(len(observations), dtype=bool)
    with torch.no_grad():
        logits = Actor(policy)(torch.as_tensor(observations, device=policy.device))
    return decided(logits.cpu(), head.sizes)


def decided(logits: torch.Tensor, sizes: list[int]) -> npt.NDArray[np.bool_]:
    """Rows of `[N, L]` in which each choice's likeliest is ahead of the next by more than TIE."""
    parts = torch.split(logits, sizes, dim=1)
    leads = [part.topk(min(2, part.shape[1]), dim=1).values.diff(dim=1).abs() for part in parts]
    return np.asarray((torch.cat(leads, dim=1) > TIE).all(dim=1).numpy())


def _bare(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's notes (source lines, paths of the machine), which are most of the file."""
    graph = proto.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
    for part in (*graph.node, *graph.initializer):
        part.ClearField("doc_string")
    graph.ClearField("metadata_props")
    graph.ClearField("value_info")
    proto.ClearField("metadata_props")
    onnx.checker.check_model(proto)
    return proto


def set_metadata(proto: onnx.ModelProto, content: dict[str, Any]) -> None:
    """Put the `rlscaler` metadata into the model, in place of any before."""
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(content, sort_keys=True)})
