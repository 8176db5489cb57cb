"""The environment of a preset: the simulator's batch, seen through the preset's action head."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from sim.envs import AutoscaleConfig
from sim.envs.sb3 import AutoscaleVecEnv
from sim.errors import ParameterError
from training.actions import Head, HeadVecEnv, make_head
from training.config import Preset, from_mapping
from training.errors import ConfigError

OURS = {"action_schema": "action.kind", "action_table": "action", "clones": "clones"}


def make_environment(preset: Preset, seed: int, timesteps: int = 0) -> HeadVecEnv:
    """`preset.num_envs` services, seeded by the seed and by the step that the run stands at.

    A resumed run draws new episodes instead of repeating those that it has seen.
    """
    head = make_head(preset.action)
    config = environment_config(preset, head)
    mixed = int(np.random.SeedSequence([seed, timesteps, 1]).generate_state(1)[0])
    with warnings.catch_warnings():
        # Stable-Baselines3 warns of every environment that cannot draw itself
        warnings.filterwarnings("ignore", message="The `render_mode` attribute")
        return HeadVecEnv(AutoscaleVecEnv(preset.num_envs, config, mixed), head, preset.action.hold_ticks)


def environment_config(preset: Preset, head: Head) -> AutoscaleConfig:
    """The simulator's settings with the preset's on top; the action head decides what actions are."""
    for name, instead in OURS.items():
        if name in preset.environment:
            raise ConfigError(f"environment.{name}: set by the preset's `{instead}` instead")
    whole = preset.action.hold_ticks > 1 or preset.clones > 1
    ours = {"action_schema": head.schema, "action_table": None, "clones": preset.clones}
    content: dict[str, Any] = {"stagger": not whole, **preset.environment, **ours}
    try:
        config = from_mapping(AutoscaleConfig, content, "environment.")
    except ParameterError as error:
        raise ConfigError(f"environment: {error}") from error
    ticks = preset.ppo.n_steps * preset.action.hold_ticks
    if preset.clones > 1 and ticks % config.horizon_steps:
        raise ConfigError(f"clones: {ticks} ticks a rollout are not whole episodes of {config.horizon_steps}")
    return config


def mean_summaries(summaries: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over the episodes that ended: of all, and of the cheap and the safe third of the dial."""
    row = _means(summaries, "")
    row |= _means([one for one in summaries if one["preference"] < 100 / 3], "_cheap")
    return row | _means([one for one in summaries if one["preference"] > 200 / 3], "_safe")


def _means(summaries: Sequence[dict[str, float]], suffix: str) -> dict[str, float]:
    names = ("cost", "violation", "flaps_per_hour")
    if not summaries:
        return {name + suffix: float("nan") for name in names}
    return {name + suffix: float(np.mean([one[name] for one in summaries])) for name in names}
