"""Algorithms of Stable-Baselines3 and sb3-contrib, made from a preset. `session` and `export` call this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.vec_env import VecEnv

from training.clones import CloneRolloutBuffer
from training.config import Preset
from training.errors import ConfigError, ExportError
from training.hyperparameters import Ppo
from training.networks import policy_kwargs


class ExploringDQN(DQN):
    """DQN that explores in each environment by itself: the library's tosses one coin for all of them."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Choices `[N]`; without `deterministic`, a share `exploration_rate` of them at random."""
        choices, state = self.policy.predict(observation, state, episode_start, deterministic=True)
        if deterministic:
            return choices, state
        chosen = np.asarray(choices).copy()
        count = int(self.action_space.n)  # type: ignore[attr-defined]
        explores = np.random.random(chosen.shape) < self.exploration_rate
        return np.where(explores, np.random.randint(count, size=chosen.shape), chosen), state


CLASSES: dict[str, type[BaseAlgorithm]] = {
    "ppo": PPO,
    "recurrent-ppo": RecurrentPPO,
    "maskable-ppo": MaskablePPO,
    "a2c": A2C,
    "dqn": ExploringDQN,
    "sac": SAC,
}
WITH_CLONES = ("ppo", "a2c")
OFF_POLICY = ("dqn", "sac")


def one_thread() -> None:
    """Small batches are slower with more: two threads were 40 times slower than one (FINDINGS)."""
    torch.set_num_threads(1)


def linear(start: float, end: float) -> Callable[[float], float]:
    """A schedule over Stable-Baselines3's remaining progress, which runs from 1 to 0."""
    return lambda remaining: end + (start - end) * max(0.0, min(1.0, remaining))


def make_model(
    preset: Preset,
    venv: VecEnv,
    seed: int,
    device: str = "cpu",
    own: tuple[Any, dict[str, Any]] | None = None,
) -> BaseAlgorithm:
    """A new, untrained model on `venv`. own: a policy class and its arguments, in place of the library's."""
    if preset.clones > 1 and preset.algo not in WITH_CLONES:
        raise ConfigError(f"clones: {preset.clones} is not allowed with algo: {preset.algo}; 1 is")
    settings = asdict(preset.hyperparameters)
    rate, last = settings.pop("learning_rate"), settings.pop("final_learning_rate")
    arrange = _off_policy if preset.algo in OFF_POLICY else _on_policy
    policy: Any
    policy, arranged = arrange(preset, venv, settings)
    if own is not None:
        policy, arranged["policy_kwargs"] = own
    kind: Any = CLASSES[preset.algo]
    return kind(  # type: ignore[no-any-return]
        policy, venv, learning_rate=linear(rate, last), seed=seed, device=device, **arranged
    )


def load_model(
    path: Path, venv: VecEnv | None = None, device: str = "cpu", algo: str = "ppo"
) -> BaseAlgorithm:
    """A saved model, with its optimizer; raises ExportError where the file is not one of `algo`."""
    extra: dict[str, Any] = {} if venv is None else {"env": venv}
    try:
        return CLASSES[algo].load(path, device=device, **extra)
    except FileNotFoundError:
        raise ExportError(f"{path}: no such model") from None
    except (ValueError, KeyError, OSError, RuntimeError, AttributeError, TypeError) as error:
        raise ExportError(f"{path}: not a Stable-Baselines3 model of {algo}: {error}") from error


def _on_policy(preset: Preset, venv: VecEnv, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    kwargs = {**policy_kwargs(preset.network), "log_std_init": preset.network.log_std}
    if isinstance(preset.hyperparameters, Ppo):
        settings["batch_size"] = min(settings["batch_size"], venv.num_envs * settings["n_steps"])
    if preset.algo == "recurrent-ppo":
        shared = settings.pop("shared_lstm")
        kwargs |= {name: settings.pop(name) for name in ("lstm_hidden_size", "n_lstm_layers")}
        kwargs |= {"shared_lstm": shared, "enable_critic_lstm": not shared}
    if preset.clones > 1:
        settings["rollout_buffer_class"] = CloneRolloutBuffer
        settings["rollout_buffer_kwargs"] = {"clones": preset.clones}
    policy = "MlpLstmPolicy" if preset.algo == "recurrent-ppo" else "MlpPolicy"
    return policy, {**settings, "policy_kwargs": kwargs}


def _off_policy(preset: Preset, venv: VecEnv, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    settings["train_freq"] = (settings["train_freq"], "step")
    rewards = settings.pop("n_steps")
    if rewards > 1:
        # the library's own n_steps warns at every load that it is ignored
        settings["replay_buffer_class"] = NStepReplayBuffer
        settings["replay_buffer_kwargs"] = {"n_steps": rewards, "gamma": settings["gamma"]}
    if preset.algo == "sac":
        entropy, target = settings["ent_coef"], settings["target_entropy"]
        settings["ent_coef"] = "auto" if entropy is None else entropy
        settings["target_entropy"] = "auto" if target is None else target
    kwargs = policy_kwargs(preset.network, "qf" if preset.algo == "sac" else "")
    return "MlpPolicy", {**settings, "policy_kwargs": kwargs}
