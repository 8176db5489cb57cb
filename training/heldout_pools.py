"""A policy for pools and the formula policies on the same held-out episodes, for a run's card.

`training.tasks.pools` is the caller; docs/pools.md has the formulas on episodes of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.base_class import BaseAlgorithm

from sim.envs.pool_batch import PoolsBatch, PoolsConfig
from sim.pool_baselines import BASELINES, PoolPolicy

SEED = 987_003
"""Of the episodes: no training uses it."""
EPISODES = 128
HEADROOMS = (1.5, 2.0, 3.0)
Act = Callable[[PoolsBatch], npt.NDArray[np.floating]]


def evaluate_pools(model: BaseAlgorithm, config: PoolsConfig) -> dict[str, Any]:
    """What a card says: mean return, cost over the ideal, violations (mean, median) of policy and formulas.

    An episode has a preference of its own, which formulas do not see: each is shown at several headrooms.
    """
    whole = replace(config, stagger=False)

    def learned(batch: PoolsBatch) -> npt.NDArray[np.floating]:
        return np.asarray(model.predict(batch.observations, deterministic=True)[0])

    results = {"policy": _played(whole, learned)}
    # formulas speak the Box, whatever the policy chooses among
    box = replace(whole, levels=None)
    for name, make in BASELINES.items():
        for headroom in HEADROOMS:
            results[f"{name}-{headroom:g}"] = _played(box, _acting(make(), headroom))
    return {"episodes": EPISODES, "steps": whole.horizon_steps, "seed": SEED, "results": results}


def _acting(formula: PoolPolicy, headroom: float) -> Act:
    return lambda batch: formula(batch.view(), headroom)


def _played(config: PoolsConfig, act: Act) -> dict[str, float]:
    batch = PoolsBatch(config, EPISODES, SEED)
    batch.reset()
    for _ in range(config.horizon_steps):
        result = batch.step(act(batch))
    found = {
        name: np.array([one[name] for one in result.episodes]) for name in ("return", "cost", "violation")
    }
    figures = {
        "return": found["return"].mean(),
        "cost": found["cost"].mean(),
        "violation": found["violation"].mean(),
        "median_violation": np.median(found["violation"]),
    }
    return {name: float(f"{value:.6g}") for name, value in figures.items()}
