"""Web balancing as Stable-Baselines3's own VecEnv; apart, so that the package needs no Stable-Baselines3."""

from __future__ import annotations

from sim.envs.sb3 import BatchVecEnv
from sim.webbalancing.batch import WebConfig, make_batch
from sim.webbalancing.environment import action_space, observation_space


class WebVecEnv(BatchVecEnv):
    """N balancers of `rlscaler/WebBalancing-v0`; one with `face: real`."""

    def __init__(self, num_envs: int, config: WebConfig | None = None, seed: int = 0) -> None:
        self.config = config or WebConfig()
        batch = make_batch(self.config, num_envs, seed)
        super().__init__(batch, observation_space(self.config), action_space(self.config))

    def close(self) -> None:
        """Stop the servers that the environment has started."""
        self.batch.close()
