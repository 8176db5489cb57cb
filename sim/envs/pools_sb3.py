"""The pools environment as Stable-Baselines3's own VecEnv: one batch, no copies, no wrappers.

Kept out of `sim.envs`, so that the simulator can be used without Stable-Baselines3.
"""

from __future__ import annotations

import time
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from sim.envs.pool_batch import PoolsBatch, PoolsConfig
from sim.envs.pools import action_space, observation_space
from sim.envs.sb3 import AutoscaleVecEnv


class PoolsVecEnv(AutoscaleVecEnv):
    """N sets of pools. What `infos` hold is what `AutoscaleVecEnv` says: at the end of an episode
    `terminal_observation`, `TimeLimit.truncated` (always True), `episode` and `summary`, else nothing.
    """

    def __init__(self, num_envs: int, config: PoolsConfig | None = None, seed: int = 0) -> None:
        self.config: Any = config or PoolsConfig()
        self.batch: Any = PoolsBatch(self.config, num_envs, seed)
        self.render_mode = None
        self._started_s = time.monotonic()
        self._actions: Any = None
        VecEnv.__init__(self, num_envs, observation_space(self.config), action_space(self.config))
