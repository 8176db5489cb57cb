"""Batches as Stable-Baselines3's own VecEnv: one batch, no copies, no wrappers.

Kept out of `sim.envs`, so that the simulator can be used without Stable-Baselines3.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from sim.envs.autoscale import action_space, observation_space
from sim.envs.batch import AutoscaleBatch, AutoscaleConfig
from sim.envs.vector import Batch, BatchStep


class BatchVecEnv(VecEnv):
    """N worlds of a batch. `infos[i]` is empty but at the end of an episode, when it holds
    `terminal_observation`, `TimeLimit.truncated` (whether it was cut rather than over), `episode` (r, l, t,
    as VecMonitor gives) and `summary`.
    """

    def __init__(
        self, batch: Batch, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
    ) -> None:
        self.batch: Any = batch
        self.render_mode = None
        self._started_s = time.monotonic()
        self._actions: Any = None
        super().__init__(batch.num_envs, observation_space, action_space)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed world i with `seed + i`; takes effect at the next reset."""
        if seed is None:
            return [None] * self.num_envs
        self.batch.seed(seed)
        return [seed + index for index in range(self.num_envs)]

    def reset(self) -> VecEnvObs:
        """New episodes everywhere."""
        observations: VecEnvObs = self.batch.reset()
        return observations

    def step_async(self, actions: Any) -> None:
        """Remember the actions."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """One step of every world."""
        result = self.batch.step(self._actions)
        return result.observations, result.rewards.astype(np.float32), result.ended, self._infos(result)

    def close(self) -> None:
        """Nothing to close."""

    def _infos(self, result: BatchStep) -> list[dict[str, Any]]:
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        elapsed_s = round(time.monotonic() - self._started_s, 6)
        for place, row in enumerate(np.flatnonzero(result.ended)):
            summary = result.episodes[place]
            over = result.terminated is not None and bool(result.terminated[row])
            infos[row] = {
                "terminal_observation": result.final[place],
                "TimeLimit.truncated": not over,
                "episode": {"r": summary["return"], "l": int(summary["steps"]), "t": elapsed_s},
                "summary": summary,
            }
        return infos

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The batch's attribute (of this adapter, if it has it), once for each world asked for."""
        owner = self if hasattr(self, attr_name) else self.batch
        return [getattr(owner, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the batch; the worlds share it."""
        setattr(self.batch, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the batch once; its result stands for each world asked for.

        `action_masks`, which MaskablePPO asks for, gives each world its own row.
        """
        result = getattr(self.batch, method_name)(*method_args, **method_kwargs)
        own_rows = method_name == "action_masks"
        return [result[row] if own_rows else result for row in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: VecEnvIndices = None) -> list[bool]:
        """No world is wrapped."""
        return [False for _ in self._get_indices(indices)]


class AutoscaleVecEnv(BatchVecEnv):
    """N services of `rlscaler/Autoscale-v0`."""

    def __init__(self, num_envs: int, config: AutoscaleConfig | None = None, seed: int = 0) -> None:
        self.config = config or AutoscaleConfig()
        batch = AutoscaleBatch(self.config, num_envs, seed)
        super().__init__(batch, observation_space(), action_space(self.config))
