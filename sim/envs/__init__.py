"""Reinforcement-learning environments; `import sim.envs` registers them with Gymnasium as `rlscaler/...-v0`.

`sim.envs.sb3` and the modules named `*_sb3` are apart, so that this package needs no Stable-Baselines3.
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
WEB_ENV_ID = "rlscaler/WebBalancing-v0"

for env_id, env in (
    (ENV_ID, "sim.envs.autoscale:Autoscale"),
    (POOLS_ENV_ID, "sim.envs.pools:Pools"),
    (SCHEDULING_ENV_ID, "sim.envs.scheduling:Scheduling"),
    (GRID_ENV_ID, "sim.envs.grid:SmartGrid"),
    (WEB_ENV_ID, "sim.webbalancing.environment:WebBalancing"),
):
    if env_id not in gymnasium.registry:
        gymnasium.register(env_id, entry_point=f"{env}Env", vector_entry_point=f"{env}VectorEnv")

__all__ = [
    "ENV_ID",
    "GRID_ENV_ID",
    "POOLS_ENV_ID",
    "SCHEDULING_ENV_ID",
    "WEB_ENV_ID",
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
