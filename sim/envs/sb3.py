"""The autoscaling environment as Stable-Baselines3's own VecEnv: one batch, no copies, no wrappers.

Kept out of `sim.envs`, so that the simulator can be used without Stable-Baselines3.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from sim.envs.autoscale import action_space, observation_space
from sim.envs.batch import AutoscaleBatch, AutoscaleConfig, BatchStep


class AutoscaleVecEnv(VecEnv):
    """N services. `infos[i]` is empty but at the end of an episode, when it holds `terminal_observation`,
    `TimeLimit.truncated` (always True: episodes are only ever cut), `episode` (r, l, t, as VecMonitor gives)
    and `summary` (cost, violation, flaps_per_hour, ...).
    """

    def __init__(self, num_envs: int, config: AutoscaleConfig | None = None, seed: int = 0) -> None:
        self.config = config or AutoscaleConfig()
        self.batch = AutoscaleBatch(self.config, num_envs, seed)
        self.render_mode = None
        self._started_s = time.monotonic()
        self._actions: Any = None
        super().__init__(num_envs, observation_space(), action_space(self.config))

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed service i with `seed + i`; takes effect at the next reset."""
        if seed is None:
            return [None] * self.num_envs
        self.batch.seed(seed)
        return [seed + index for index in range(self.num_envs)]

    def reset(self) -> VecEnvObs:
        """New episodes everywhere."""
        return self.batch.reset()

    def step_async(self, actions: Any) -> None:
        """Remember the actions."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """One control step of every service."""
        result = self.batch.step(self._actions)
        return result.observations, result.rewards.astype(np.float32), result.truncated, self._infos(result)

    def close(self) -> None:
        """Nothing to close."""

    def _infos(self, result: BatchStep) -> list[dict[str, Any]]:
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        elapsed_s = round(time.monotonic() - self._started_s, 6)
        for place, row in enumerate(np.flatnonzero(result.truncated)):
            summary = result.episodes[place]
            infos[row] = {
                "terminal_observation": result.final[place],
                "TimeLimit.truncated": True,
                "episode": {"r": summary["return"], "l": int(summary["steps"]), "t": elapsed_s},
                "summary": summary,
            }
        return infos

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The batch's attribute (of this adapter, if it has it), once for each service asked for."""
        owner = self if hasattr(self, attr_name) else self.batch
        return [getattr(owner, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the batch; the services share it."""
        setattr(self.batch, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the batch once; its result stands for each service asked for."""
        result = getattr(self.batch, method_name)(*method_args, **method_kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: VecEnvIndices = None) -> list[bool]:
        """No service is wrapped."""
        return [False for _ in self._get_indices(indices)]
