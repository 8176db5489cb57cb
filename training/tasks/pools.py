"""`--env pools`: several pools of replicas behind one route, replicas and weights together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.tasks.base import Column, Published, Task, described

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecEnv

    from sim.envs import PoolsConfig
    from training.artifact import Provenance
    from training.config import Preset
    from training.runs import Checkpoint, RunFolder

OBSERVATION_VERSION, ACTION_SCHEMA = "pools-flat/v1", "pools-box/v1"
NOTE = (
    "this policy is for the simulator and for research: the operator refuses its schema "
    f"{OBSERVATION_VERSION!r}, because it decides for the pools of a route in another way"
)


class Pools(Task):
    """`rlscaler/Pools-v0`, its observation flat and its actions as they are."""

    name = "pools"
    algorithms = ("evolution", "ppo", "a2c", "sac")
    default_preset = "pools"
    shown = (
        Column("cost", "cost / ideal cost of plain machines"),
        Column("violation", "share of requests late or failed", percent=True),
        Column("dropped", "share of requests dropped", percent=True, in_bar=False),
        Column("route_churn", "share of the traffic moved a step", in_bar=False),
        Column("flaps_per_hour", "changes of direction an hour", in_bar=False),
    )

    def preset_for(self, algorithm: str | None) -> str:
        """`pools` is the built-in policy's; those of Stable-Baselines3 start from `pools-ppo`."""
        return self.default_preset if algorithm in (None, "evolution") else "pools-ppo"

    def make(self, preset: Preset, seed: int, done: int = 0) -> VecEnv:
        """Sets of pools."""
        from sim.envs.pools_sb3 import PoolsVecEnv
        from training.environment import episode_seed, without_render_warning

        with without_render_warning():
            return PoolsVecEnv(preset.num_envs, _config(preset), episode_seed(seed, done))

    def schemas(self, preset: Preset) -> dict[str, Any]:
        """The features of each pool and of the set, flat; two numbers (or places in `levels`) a pool.

        With `algo: evolution` they are once those of a pool, then those of the set: it takes any number.
        """
        from controller.core import ObservationSchema
        from controller.core.poolfeatures import POOL_SCHEMA, SET_SCHEMA

        if preset.algo == "evolution":
            from training.poolsets.export import ACTION_SCHEMA as CAPACITY_SHARE

            joint = ObservationSchema(SET_SCHEMA.version, POOL_SCHEMA.features + SET_SCHEMA.features)
            return {"observation": described(joint), "action": {"name": CAPACITY_SHARE, "numbers": 2}}
        config = _config(preset)
        features = tuple(
            replace(feature, name=f"pool_{pool}_{feature.name}")
            for pool in range(config.pools)
            for feature in POOL_SCHEMA.features
        )
        action: dict[str, Any] = {"name": ACTION_SCHEMA, "numbers": 2 * config.pools}
        if config.levels is not None:
            action["levels"] = list(config.levels)
        flat = ObservationSchema(OBSERVATION_VERSION, features + SET_SCHEMA.features)
        return {"observation": described(flat), "action": action}

    def export(self, model: BaseAlgorithm, preset: Preset, provenance: Provenance, out: Path) -> Published:
        """The actor as ONNX, in schemas of its own, which the operator refuses by their names."""
        from training.artifact import export_actor

        content = self.schemas(preset)
        difference, card = export_actor(model, content, provenance, out)
        return Published(card, difference, NOTE)

    def evaluate(self, run: RunFolder, model: BaseAlgorithm, checkpoint: Checkpoint) -> dict[str, Any]:
        """The policy and the formula policies on the same held-out episodes."""
        from training.heldout_pools import evaluate_pools

        return evaluate_pools(model, _config(run.preset()))


def _config(preset: Preset) -> PoolsConfig:
    from sim.envs import PoolsConfig
    from training.environment import simulator_config

    return simulator_config(PoolsConfig, {"stagger": True, **preset.environment})


TASK = Pools()
