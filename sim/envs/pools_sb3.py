"""The pools environment as Stable-Baselines3's own VecEnv: one batch, no copies, no wrappers.

Kept out of `sim.envs`, so that the simulator can be used without Stable-Baselines3.
"""

from __future__ import annotations

from sim.envs.pool_batch import PoolsBatch, PoolsConfig
from sim.envs.pools import action_space, observation_space
from sim.envs.sb3 import BatchVecEnv


class PoolsVecEnv(BatchVecEnv):
    """N sets of pools of `rlscaler/Pools-v0`."""

    def __init__(self, num_envs: int, config: PoolsConfig | None = None, seed: int = 0) -> None:
        self.config = config or PoolsConfig()
        batch = PoolsBatch(self.config, num_envs, seed)
        super().__init__(batch, observation_space(self.config), action_space(self.config))
