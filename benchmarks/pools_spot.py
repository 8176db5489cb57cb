"""What pools of spot machines save: spot and on-demand pools under the pools policy, against on-demand alone
under the HPA with its best target. `benchmarks.pools` prints it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.core import Pool
from controller.core.hpa import hpa_replicas
from sim.envs.pool_batch import PoolsBatch, PoolsConfig
from sim.pool_scenarios import ABSENT, PoolScenario
from sim.pools import WEIGHT_TOTAL
from training.poolsets.playing import Played, play_batch

FloatArray = npt.NDArray[np.floating[Any]]
TARGETS = (0.85, 0.7, 0.55, 0.4, 0.28, 0.2, 0.14)
"""Utilisation that the HPA aims at."""


def spot_sets(config: PoolsConfig) -> PoolsConfig:
    """Only sets of on-demand and spot pools."""
    return replace(config, scenario=replace(config.scenario, families=(("spot", 1.0),)))


class OnDemandBatch(PoolsBatch):
    """The same episodes with all machines on demand: the first such pool stays, and may be as large as the
    whole set was."""

    def _draw(self, group: int) -> PoolScenario:
        return on_demand_alone(super()._draw(group))


def on_demand_alone(scenario: PoolScenario) -> PoolScenario:
    """The scenario without its other pools: same traffic, service and noise, same faults of that pool."""
    kept = scenario.kinds.index("on-demand")
    capacity = np.asarray(scenario.service.capacity_rps, dtype=np.float64)
    most = sum(pool.max_replicas * one for pool, one in zip(scenario.pools, capacity, strict=True))
    there = int(np.ceil((scenario.replicas * capacity).sum() / capacity[kept]))
    pools = [Pool(f"{ABSENT}-{place}", 0, 0) for place in range(len(scenario.pools))]
    limit = max(int(np.ceil(most / capacity[kept])), there, 2)
    pools[kept] = replace(scenario.pools[kept], max_replicas=limit, min_weight=0, max_weight=WEIGHT_TOTAL)
    only = np.arange(len(pools)) == kept
    kinds = tuple("on-demand" if one else ABSENT for one in only)
    spec = replace(
        scenario.base.spec,
        min_replicas=max(1, pools[kept].min_replicas),
        max_replicas=max(2, limit),
    )
    return replace(
        scenario,
        base=replace(scenario.base, spec=spec),
        kinds=kinds,
        present=only,
        pools=tuple(pools),
        replicas=np.where(only, there, 0),
        weights=np.where(only, WEIGHT_TOTAL, 0),
    )


class HpaBatch(OnDemandBatch):
    """On-demand alone, replicas by the HPA's formula for utilisation, with its tolerance and behaviour."""

    aim = 0.7

    def _wanted(self, action: FloatArray) -> FloatArray:
        shown = self._shown
        current = shown.current.reshape(-1).astype(np.int64)
        ready = np.minimum(shown.ready, shown.current).reshape(-1).astype(np.int64)
        with np.errstate(invalid="ignore"):
            ratio = (shown.utilisation / self.aim).reshape(-1)
        wanted = hpa_replicas(current, ready, ratio, self.behavior.down.tolerance, self.behavior.up.tolerance)
        return wanted.reshape(shown.current.shape)


def play_hpa(config: PoolsConfig, target: float, episodes: int, seed: int) -> Played:
    """On-demand alone with the HPA aiming at `target`."""
    batch = HpaBatch(replace(config, stagger=False), episodes, seed, autoreset=False)
    batch.aim = target
    return play_batch(batch, whole_traffic)


def whole_traffic(batch: PoolsBatch) -> FloatArray:
    """An action that sends all traffic where there is a pool; capacities are said elsewhere."""
    return np.where(batch.settings.present[:, :, None], [0.0, 1.0], [0.0, -1.0]).reshape(batch.num_envs, -1)
