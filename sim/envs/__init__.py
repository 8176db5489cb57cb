"""Reinforcement-learning environments; `import sim.envs` registers `rlscaler/Autoscale-v0` and
`rlscaler/Pools-v0` with Gymnasium.

`sim.envs.sb3` and `sim.envs.pools_sb3` are apart, so that this package needs no Stable-Baselines3.
"""

import gymnasium

from sim.envs.autoscale import AutoscaleEnv, AutoscaleVectorEnv
from sim.envs.batch import AutoscaleBatch, AutoscaleConfig
from sim.envs.pool_batch import PoolsBatch, PoolsConfig
from sim.envs.pools import PoolsEnv, PoolsVectorEnv
from sim.envs.rewards import RewardWeights
from sim.envs.vector import Batch, BatchEnv, BatchStep, BatchVectorEnv

ENV_ID = "rlscaler/Autoscale-v0"
POOLS_ENV_ID = "rlscaler/Pools-v0"
SCHEDULING_ENV_ID = "rlscaler/Scheduling-v0"
GRID_ENV_ID = "rlscaler/SmartGrid-v0"

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

if SCHEDULING_ENV_ID not in gymnasium.registry:
    gymnasium.register(
        SCHEDULING_ENV_ID,
        entry_point="sim.envs.scheduling:SchedulingEnv",
        vector_entry_point="sim.envs.scheduling:SchedulingVectorEnv",
    )

if GRID_ENV_ID not in gymnasium.registry:
    gymnasium.register(
        GRID_ENV_ID,
        entry_point="sim.envs.grid:SmartGridEnv",
        vector_entry_point="sim.envs.grid:SmartGridVectorEnv",
    )

__all__ = [
    "ENV_ID",
    "GRID_ENV_ID",
    "POOLS_ENV_ID",
    "SCHEDULING_ENV_ID",
    "AutoscaleBatch",
    "AutoscaleConfig",
    "AutoscaleEnv",
    "AutoscaleVectorEnv",
    "Batch",
    "BatchEnv",
    "BatchStep",
    "BatchVectorEnv",
    "PoolsBatch",
    "PoolsConfig",
    "PoolsEnv",
    "PoolsVectorEnv",
    "RewardWeights",
]
