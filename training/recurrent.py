"""Recurrent policies outside of training: as ONNX with its state as input and output, and in `sim.replay`.

The operator decides a service from one observation and keeps nothing of a policy between two, so that it can
be killed at any moment; its artifacts have no place for a hidden state, and it refuses these files by their
action schema. `sim.replay` and evaluations run them through `StatefulPolicy`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy

from controller.core import ACTION_SCHEMAS
from controller.core.policy import ActionPolicy
from controller.core.view import View
from training.actions import Head
from training.artifact import (
    Provenance,
    check_size,
    decided,
    metadata,
    random_observations,
    read_metadata,
    set_metadata,
    traced_graph,
    written,
)
from training.errors import ExportError
from training.networks import RecurrentActor, frozen, observation_range

FloatArray = npt.NDArray[np.floating]
Step = Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]
"""Observations `[N, F]` and state `[2, layers, N, H]` to actions `[N, A]` and the next state."""
PREFIX = "recurrent/"
NOTE = (
    "not servable by the operator: a recurrent policy has a hidden state, which the operator's artifact has "
    "no place for; sim.replay and evaluations can run it (training.recurrent)"
)
PARITY_SERVICES, PARITY_STEPS = 256, 16


class StatefulPolicy(ActionPolicy):
    """A policy with a memory of each service: one object for one replay, whose services begin without one."""

    def __init__(self, name: str, action_schema: str, step: Step, layers: int, width: int) -> None:
        """action_schema: what actions mean, as core has it."""
        self.name, self.action_schema = name, action_schema
        self._step = step
        self._state = np.zeros((2, layers, 0, width), dtype=np.float32)

    def recommend(self, view: View) -> FloatArray:
        """Replicas, each service's memory moved on."""
        rows = np.asarray(view.rows)
        more = int(rows.max(initial=-1)) + 1 - self._state.shape[2]
        if more > 0:
            self._state = np.pad(self._state, ((0, 0), (0, 0), (0, more), (0, 0)))
        action, state = self._step(
            np.ascontiguousarray(view.features, dtype=np.float32),
            np.ascontiguousarray(self._state[:, :, rows]),
        )
        self._state[:, :, rows] = state
        return ACTION_SCHEMAS[self.action_schema].decode(action, view.current, view.load)


def is_recurrent(model: Any) -> bool:
    """Whether a model's policy has a hidden state."""
    return isinstance(model.policy, RecurrentActorCriticPolicy)


def torch_policy(policy: RecurrentActorCriticPolicy, head: Head) -> StatefulPolicy:
    """The policy as it is now."""
    actor = RecurrentActor(policy, head)

    @torch.no_grad()
    def step(features: FloatArray, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        action, following = actor(torch.as_tensor(features), torch.as_tensor(state))
        return action.numpy(), following.numpy()

    return StatefulPolicy("recurrent", head.schema, step, *actor.state_shape)


def load_recurrent(path: Path) -> StatefulPolicy:
    """The policy of a file that `export_recurrent` wrote. Raises ExportError for another file."""
    data = path.read_bytes()
    content = read_metadata(data)
    schema = str(content["action_schema"])
    if not schema.startswith(PREFIX):
        raise ExportError(f"{path}: action schema {schema!r} is not that of a recurrent policy")
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    layers, width = content["state"]

    def step(features: FloatArray, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        action, following = session.run(["action", "next_state"], {"observation": features, "state": state})
        return np.asarray(action), np.asarray(following)

    return StatefulPolicy(str(content["name"]), schema.removeprefix(PREFIX), step, layers, width)


def export_recurrent(model: Any, head: Head, provenance: Provenance, out: Path) -> float:
    """Write the policy with `state` and `next_state`; the largest difference to it over random sequences."""
    check_size(model.policy)
    actor = frozen(RecurrentActor(model.policy, head))
    assert isinstance(actor, RecurrentActor)
    proto = recurrent_graph(actor)
    content = metadata(PREFIX + head.schema, provenance, {}, observation_range(model.policy))
    set_metadata(proto, content | {"state": list(actor.state_shape)})
    data = proto.SerializeToString()
    return written(data, recurrent_parity(actor, head, data), out)


def recurrent_graph(actor: RecurrentActor) -> onnx.ModelProto:
    """`observation` `[N, F]` and `state` to `action` `[N, A]` and `next_state`, N dynamic."""
    layers, width = actor.state_shape
    services = torch.export.Dim("N", min=1)
    examples = {
        "observation": torch.from_numpy(random_observations(2, 0)),
        "state": torch.zeros(2, layers, 2, width),
    }
    dynamic = {"observation": {0: services}, "state": {2: services}}
    return traced_graph(actor, examples, ["action", "next_state"], dynamic)


def recurrent_parity(actor: RecurrentActor, head: Head, data: bytes) -> float:
    """Largest |difference| of states, and of actions where the choice is clear, over random sequences.

    Each step goes on from torch's state, so that one near tie does not decide all that follows.
    """
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    layers, width = actor.state_shape
    state, worst = torch.zeros(2, layers, PARITY_SERVICES, width), 0.0
    for step in range(PARITY_STEPS):
        observations = random_observations(PARITY_SERVICES, seed=step)
        served, after = session.run(None, {"observation": observations, "state": state.numpy()})
        with torch.no_grad():
            given = torch.from_numpy(observations)
            logits, following = actor.logits(given, state)
            action = head.graph(logits, given)
        clear = decided(logits, head.sizes) if head.sizes else np.ones(PARITY_SERVICES, dtype=bool)
        state = following
        worst = max(worst, float(np.max(np.abs(after - state.numpy()))))
        apart = np.abs(served - action.numpy())[clear]
        worst = max(worst, float(apart.max(initial=0.0)))
    return worst
