"""`--env scheduling`: jobs onto servers, with masks of what is possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.tasks.base import Column, Published, Summary, Task, described, mean_of

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecEnv

    from sim.envs.scheduling_batch import SchedulingConfig
    from training.artifact import Provenance
    from training.config import Preset

OBSERVATION_VERSION, ACTION_SCHEMA = "scheduling-flat/v1", "scheduling-discrete/v1"
SERVED = 64
"""Servers that an exported scheduler has places for, whatever it was trained with."""
NOTE = (
    "this policy schedules jobs (python training/scheduling.py --policy FILE); the autoscaling operator "
    f"refuses its schema {OBSERVATION_VERSION!r}"
)


class Scheduling(Task):
    """`rlscaler/Scheduling-v0`. MaskablePPO gets the network that scores every server by the same layers."""

    name = "scheduling"
    algorithms = ("maskable-ppo", "ppo", "a2c", "dqn")
    default_preset = "scheduling"
    shown = (
        Column("over_reference", "mean slowdown / that of the reference on the same jobs"),
        Column("slowdown", "mean slowdown"),
        Column("wait_s", "mean wait, s", in_bar=False),
        Column("utilisation", "share of cpu taken", percent=True, in_bar=False),
        Column("imbalance", "deviation of servers' cpu shares", in_bar=False),
        Column("rejected", "share of jobs rejected", percent=True, in_bar=False),
    )

    def make(self, preset: Preset, seed: int, done: int = 0) -> VecEnv:
        """Clusters side by side."""
        from sim.envs.scheduling_sb3 import SchedulingVecEnv
        from training.environment import episode_seed, without_render_warning

        with without_render_warning():
            return SchedulingVecEnv(preset.num_envs, _config(preset), episode_seed(seed, done))

    def columns(self, summaries: Sequence[Summary]) -> dict[str, float]:
        """Means over the episodes; of `over_reference`, a ratio, the geometric one."""
        logs = [{"over_reference": math.log(one["over_reference"])} for one in summaries]
        return super().columns(summaries) | {"over_reference": math.exp(mean_of(logs, "over_reference"))}

    def policy(self, preset: Preset) -> tuple[Any, dict[str, Any]] | None:
        """The network of `training.schedulers.network`, as wide as `network.actor`'s first layer."""
        if preset.algo != "maskable-ppo":
            return None
        from training.schedulers.network import ServerScoringPolicy

        return ServerScoringPolicy, {"width": preset.network.actor[0]}

    def schemas(self, preset: Preset) -> dict[str, Any]:
        """The features of each server and of the cluster; a score for each server, for holding, rejecting."""
        return _schemas(_config(preset).servers)

    def export(self, model: BaseAlgorithm, preset: Preset, provenance: Provenance, out: Path) -> Published:
        """The actor as ONNX; the scoring network with places for `SERVED` servers."""
        from training.artifact import export_actor
        from training.schedulers.network import ServerScoringPolicy, with_servers

        servers = _config(preset).servers
        if isinstance(model.policy, ServerScoringPolicy):
            servers = max(servers, SERVED)
            model = with_servers(model, servers)
        difference, card = export_actor(model, _schemas(servers), provenance, out)
        return Published(card, difference, NOTE)

    def evaluate(self, run: Any, model: BaseAlgorithm, checkpoint: Any) -> dict[str, Any]:
        """Mean slowdowns on held-out generated episodes, the policy's and the heuristics'."""
        from training.schedulers.comparison import generated_card

        return generated_card(run.artifact)


def _config(preset: Preset) -> SchedulingConfig:
    from sim.envs.scheduling_batch import SchedulingConfig
    from training.environment import simulator_config

    return simulator_config(SchedulingConfig, preset.environment)


def _schemas(servers: int) -> dict[str, Any]:
    from controller.core import ObservationSchema
    from sim.scheduling.features import CLUSTER_SCHEMA, SERVER_SCHEMA

    features = tuple(
        replace(feature, name=f"server_{place}_{feature.name}")
        for place in range(servers)
        for feature in SERVER_SCHEMA.features
    )
    flat = ObservationSchema(OBSERVATION_VERSION, features + CLUSTER_SCHEMA.features)
    observation = described(flat) | {
        "features": list(SERVER_SCHEMA.names) + list(CLUSTER_SCHEMA.names),
        "servers": servers,
    }
    return {"observation": observation, "action": {"name": ACTION_SCHEMA, "choices": servers + 2}}


TASK = Scheduling()
