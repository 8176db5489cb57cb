"""A policy for pools and the formula policies on the same held-out episodes, for a run's card.

`training.tasks.pools` and `training.poolsets.run` are the callers; docs/pools.md has the comparison at equal
cost, on episodes of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.base_class import BaseAlgorithm

from sim.envs.pool_batch import PoolsBatch, PoolsConfig
from sim.pool_baselines import BASELINES, PoolPolicy
from training.poolsets.playing import Act, Decider, Ejecting, at_preference, play

SEED = 987_003
"""Of the episodes: no training uses it."""
EPISODES = 128
HEADROOMS = (1.5, 2.0, 3.0)
PREFERENCES = (0.0, 50.0, 100.0)
SHOWN = ("return", "cost", "violation", "over_p99")


def evaluate_pools(model: BaseAlgorithm, config: PoolsConfig) -> dict[str, Any]:
    """What the card of a model of Stable-Baselines3 says: mean return, cost over the ideal, violations (mean,
    median) of policy and formulas, and the share of steps with a p99 above the objective.

    An episode has a preference of its own, which formulas do not see: each is shown at several headrooms.
    """

    def learned(batch: PoolsBatch) -> npt.NDArray[np.floating]:
        return np.asarray(model.predict(batch.observations, deterministic=True)[0])

    return _card(config, {"policy": _played(config, learned)})


def evaluate_decider(decide: Decider, config: PoolsConfig, ejects: bool = True) -> dict[str, Any]:
    """The same of a policy for any number of pools, at each episode's preference and at fixed ones."""
    results = {"policy": _played(config, Ejecting(decide, ejects))}
    for preference in PREFERENCES:
        act = Ejecting(decide, ejects)
        results[f"policy-at-{preference:g}"] = _played(at_preference(config, preference), act)
    return _card(config, results)


def _card(config: PoolsConfig, results: dict[str, dict[str, float]]) -> dict[str, Any]:
    # formulas speak the Box, whatever the policy chooses among
    box = replace(config, levels=None)
    for name, make in BASELINES.items():
        for headroom in HEADROOMS:
            results[f"{name}-{headroom:g}"] = _played(box, _acting(make(), headroom))
    return {"episodes": EPISODES, "steps": config.horizon_steps, "seed": SEED, "results": results}


def _acting(formula: PoolPolicy, headroom: float) -> Act:
    return lambda batch: formula(batch.view(), headroom)


def _played(config: PoolsConfig, act: Act) -> dict[str, float]:
    found = play(config, act, EPISODES, SEED)
    figures = {name: found[name].mean() for name in SHOWN}
    figures["median_violation"] = np.median(found["violation"])
    return {name: float(f"{value:.6g}") for name, value in figures.items()}
