"""The smart-grid environment as Stable-Baselines3's own VecEnv; kept out of `sim.envs`, which does not need
it."""

from __future__ import annotations

from sim.envs.grid import action_space, observation_space
from sim.envs.sb3 import BatchVecEnv
from sim.grid.batch import GridBatch, SmartGridConfig


class SmartGridVecEnv(BatchVecEnv):
    """N grids of `rlscaler/SmartGrid-v0`."""

    def __init__(self, num_envs: int, config: SmartGridConfig | None = None, seed: int = 0) -> None:
        self.config = config or SmartGridConfig()
        batch = GridBatch(self.config, num_envs, seed)
        super().__init__(batch, observation_space(self.config), action_space(self.config))
