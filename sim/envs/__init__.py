"""Reinforcement-learning environments; `import sim.envs` registers `rlscaler/Autoscale-v0` and
`rlscaler/Pools-v0` with Gymnasium.

`sim.envs.sb3.AutoscaleVecEnv` is apart, so that this package needs no Stable-Baselines3.
"""

import gymnasium

from sim.envs.autoscale import AutoscaleEnv, AutoscaleVectorEnv
from sim.envs.batch import AutoscaleBatch, AutoscaleConfig, BatchStep
from sim.envs.pool_batch import PoolsBatch, PoolsConfig
from sim.envs.pools import PoolsEnv, PoolsVectorEnv
from sim.envs.rewards import RewardWeights

ENV_ID = "rlscaler/Autoscale-v0"
POOLS_ENV_ID = "rlscaler/Pools-v0"

if ENV_ID not in gymnasium.registry:
    gymnasium.register(
        ENV_ID,
        entry_point="sim.envs.autoscale:AutoscaleEnv",
        vector_entry_point="sim.envs.autoscale:AutoscaleVectorEnv",
    )

if POOLS_ENV_ID not in gymnasium.registry:
    gymnasium.register(
        POOLS_ENV_ID,
        entry_point="sim.envs.pools:PoolsEnv",
        vector_entry_point="sim.envs.pools:PoolsVectorEnv",
    )

__all__ = [
    "ENV_ID",
    "POOLS_ENV_ID",
    "AutoscaleBatch",
    "AutoscaleConfig",
    "AutoscaleEnv",
    "AutoscaleVectorEnv",
    "BatchStep",
    "PoolsBatch",
    "PoolsConfig",
    "PoolsEnv",
    "PoolsVectorEnv",
    "RewardWeights",
]
