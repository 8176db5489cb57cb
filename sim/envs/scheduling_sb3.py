"""The scheduling environment as Stable-Baselines3's own VecEnv, with masks for sb3-contrib's MaskablePPO.

Kept out of `sim.envs`, so that the simulator can be used without Stable-Baselines3.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.envs.sb3 import BatchVecEnv
from sim.envs.scheduling import action_space, observation_space
from sim.envs.scheduling_batch import Episode, SchedulingBatch, SchedulingConfig


class SchedulingVecEnv(BatchVecEnv):
    """N clusters of `rlscaler/Scheduling-v0`; `env_method("action_masks")` gives each one's own row."""

    def __init__(
        self,
        num_envs: int,
        config: SchedulingConfig | None = None,
        seed: int = 0,
        episodes: Sequence[Episode] | None = None,
    ) -> None:
        self.config = config or SchedulingConfig()
        batch = SchedulingBatch(self.config, num_envs, seed, episodes=episodes)
        super().__init__(batch, observation_space(self.config), action_space(self.config))
