"""A trained policy as an ONNX artifact: the graph, its metadata, and the proof that it equals the model.

Observation statistics, argmax and the table of actions are inside the graph, so `[N, F]` features of core go
in and `[N, A]` actions of core come out. `train.py` and `export.py` call this; `controller.policies` reads
it.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy

from controller.core import OBSERVATION_SCHEMA
from training.actions import Head
from training.errors import ExportError
from training.networks import Actor

METADATA_KEY = "rlscaler"
OPSET = 18
PARITY_TOLERANCE = 1e-5
PARITY_OBSERVATIONS = 4096
TIE = 1e-4


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


def export_policy(
    model: BaseAlgorithm,
    head: Head,
    provenance: Provenance,
    out: Path,
    evaluation: dict[str, Any] | None = None,
) -> float:
    """Write the artifact to `out`; the largest difference to the model over random observations.

    Raises ExportError where the model does not fit core's observation, or the graph is not equal to it.
    """
    policy = _actor_critic(model)
    shape = policy.observation_space.shape
    if shape != (OBSERVATION_SCHEMA.size,):
        raise ExportError(
            f"the model observes {shape}, the schema {OBSERVATION_SCHEMA.version} has "
            f"{OBSERVATION_SCHEMA.size} features: it was trained with another version; train it again"
        )
    proto = build_graph(policy, head)
    set_metadata(proto, metadata(head.schema, provenance, evaluation or {}))
    data = proto.SerializeToString()
    difference = parity(model, head, data, random_observations(PARITY_OBSERVATIONS, seed=0))
    if difference > PARITY_TOLERANCE:
        raise ExportError(
            f"the graph differs from the model by {difference:g}, more than {PARITY_TOLERANCE:g}"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(data)
    return difference


def build_graph(policy: ActorCriticPolicy, head: Head) -> onnx.ModelProto:
    """The deterministic actor as ONNX: `observation` `[N, F]` to `action` `[N, A]`, N dynamic."""
    return module_graph(copy.deepcopy(Actor(policy, head)).to("cpu").eval())


def module_graph(actor: torch.nn.Module) -> onnx.ModelProto:
    """A module from observations `[N, F]` to actions `[N, A]` as ONNX, N dynamic."""
    example = torch.zeros(2, OBSERVATION_SCHEMA.size)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            actor,
            (example,),
            dynamo=True,
            input_names=["observation"],
            output_names=["action"],
            dynamic_shapes={"observation": {0: torch.export.Dim("N", min=1)}},
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx gave no graph")
    return _bare(program.model_proto)


def metadata(action_schema: str, provenance: Provenance, evaluation: dict[str, Any]) -> dict[str, Any]:
    """What an artifact says of itself; the operator checks the schemas against its own."""
    return {
        "name": provenance.name,
        "version": provenance.version,
        "observation_schema": {
            "version": OBSERVATION_SCHEMA.version,
            "digest": OBSERVATION_SCHEMA.digest,
            "features": list(OBSERVATION_SCHEMA.names),
        },
        "action_schema": action_schema,
        "preference_range": [0, 100],
        "provenance": {
            "command": provenance.command,
            "seed": provenance.seed,
            "git_commit": provenance.git_commit,
            "workloads": provenance.workloads,
            "timesteps": provenance.timesteps,
            "versions": provenance.versions,
        },
        "evaluation": evaluation,
    }


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
    clear = observations[_decided(_actor_critic(model), head, observations)]
    if len(clear) == 0:
        raise ExportError("the model is indifferent everywhere: there is nothing to compare")
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (served,) = session.run(["action"], {"observation": clear})
    chosen, _ = model.predict(clear, deterministic=True)
    return float(np.max(np.abs(np.asarray(served) - head.decode(chosen, clear))))


def _decided(
    policy: ActorCriticPolicy, head: Head, observations: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    """Where every choice is ahead of the next by more than float32 rounding: elsewhere either is right."""
    with torch.no_grad():
        features = policy.pi_features_extractor(torch.as_tensor(observations, device=policy.device))
        logits = policy.action_net(policy.mlp_extractor.forward_actor(features))
    parts = torch.split(logits.cpu(), head.sizes, dim=1)
    leads = [part.topk(min(2, part.shape[1]), dim=1).values.diff(dim=1).abs() for part in parts]
    return np.asarray((torch.cat(leads, dim=1) > TIE).all(dim=1).numpy())


def _actor_critic(model: BaseAlgorithm) -> ActorCriticPolicy:
    policy = model.policy
    if not isinstance(policy, ActorCriticPolicy):
        raise ExportError(f"a policy of type {type(policy).__name__} cannot be exported")
    return policy


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
