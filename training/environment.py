"""Environments of presets: what all tasks share, and the autoscaling one behind the preset's action head."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sim.envs import AutoscaleBatch, AutoscaleConfig
from sim.envs.sb3 import AutoscaleVecEnv
from sim.errors import ParameterError
from training.actions import Head, HeadVecEnv, make_head
from training.config import Preset, from_mapping
from training.errors import ConfigError
from training.recordings import RecordedShapes, Recordings

T = TypeVar("T")
OURS = {"action_schema": "action.kind", "action_table": "action", "clones": "clones"}


class ResultsVecEnv(VecEnvWrapper):
    """Keeps what the log wants to know: rewards, and the `summary` of each episode that ended."""

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self._rewards: list[float] = []
        self._summaries: list[dict[str, float]] = []

    def reset(self) -> VecEnvObs:
        """Reset every environment."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Pass a step on."""
        observations, rewards, dones, infos = self.venv.step_wait()
        self._rewards.append(float(np.mean(rewards)))
        self._summaries += [infos[i]["summary"] for i in np.flatnonzero(dones) if "summary" in infos[i]]
        return observations, rewards, dones, infos

    def pop_results(self) -> tuple[float, list[dict[str, float]]]:
        """Mean reward a step and the summaries of the episodes that ended, since the last call."""
        reward = float(np.mean(self._rewards)) if self._rewards else float("nan")
        summaries, self._rewards, self._summaries = self._summaries, [], []
        return reward, summaries


def make_environment(preset: Preset, seed: int, timesteps: int = 0) -> HeadVecEnv:
    """`preset.num_envs` services, seeded by the seed and by the step that the run stands at.

    A resumed run draws new episodes instead of repeating those that it has seen.
    """
    head = make_head(preset.action)
    config = environment_config(preset, head)
    with without_render_warning():
        venv = AutoscaleVecEnv(preset.num_envs, config, episode_seed(seed, timesteps))
    use_recordings(preset, venv.batch, seed)
    return HeadVecEnv(venv, head, preset.action.hold_ticks)


def use_recordings(preset: Preset, batch: AutoscaleBatch, seed: int) -> None:
    """Let the batch draw its traffic from the preset's recordings; without any, nothing changes."""
    recordings = Recordings.load(preset.traces, preset.trace_share)
    if recordings is not None:
        batch.episodes.traffic = RecordedShapes(recordings, batch.episodes.traffic, seed)


def environment_config(preset: Preset, head: Head) -> AutoscaleConfig:
    """The simulator's settings with the preset's on top; the action head decides what actions are."""
    for name, instead in OURS.items():
        if name in preset.environment:
            raise ConfigError(f"environment.{name}: set by the preset's `{instead}` instead")
    whole = preset.action.hold_ticks > 1 or preset.clones > 1
    ours = {"action_schema": head.schema, "action_table": None, "clones": preset.clones}
    config = simulator_config(AutoscaleConfig, {"stagger": not whole, **preset.environment, **ours})
    ticks = getattr(preset.hyperparameters, "n_steps", config.horizon_steps) * preset.action.hold_ticks
    if preset.clones > 1 and ticks % config.horizon_steps:
        raise ConfigError(f"clones: {ticks} ticks a rollout are not whole episodes of {config.horizon_steps}")
    return config


def simulator_config(kind: type[T], content: dict[str, Any], where: str = "environment.") -> T:
    """A configuration of the simulator from a preset's `environment`. Raises ConfigError."""
    try:
        return from_mapping(kind, content, where)
    except ParameterError as error:
        raise ConfigError(f"environment: {error}") from error


def episode_seed(seed: int, timesteps: int) -> int:
    """A seed of environments from the run's and from the step that it stands at."""
    return int(np.random.SeedSequence([seed, timesteps, 1]).generate_state(1)[0])


@contextmanager
def without_render_warning() -> Iterator[None]:
    """Stable-Baselines3 warns of every environment that cannot draw itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The `render_mode` attribute")
        yield
