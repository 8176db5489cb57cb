"""Stable-Baselines3 algorithms made from a preset. `train.py` and `export.py` are the callers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from training.clones import CloneRolloutBuffer
from training.config import Preset
from training.errors import ExportError
from training.networks import policy_kwargs


def one_thread() -> None:
    """Small batches are slower with more: two threads were 40 times slower than one (FINDINGS)."""
    torch.set_num_threads(1)


def linear(start: float, end: float) -> Callable[[float], float]:
    """A schedule over Stable-Baselines3's remaining progress, which runs from 1 to 0."""
    return lambda remaining: end + (start - end) * max(0.0, min(1.0, remaining))


def make_model(preset: Preset, venv: VecEnv, seed: int, device: str = "cpu") -> BaseAlgorithm:
    """A new, untrained model on `venv`."""
    ppo = preset.ppo
    batch = min(ppo.batch_size, venv.num_envs * ppo.n_steps)
    return PPO(
        "MlpPolicy",
        venv,
        learning_rate=linear(ppo.learning_rate, ppo.final_learning_rate),
        n_steps=ppo.n_steps,
        batch_size=batch,
        n_epochs=ppo.n_epochs,
        gamma=ppo.gamma,
        gae_lambda=ppo.gae_lambda,
        clip_range=ppo.clip_range,
        ent_coef=ppo.ent_coef,
        vf_coef=ppo.vf_coef,
        max_grad_norm=ppo.max_grad_norm,
        policy_kwargs=policy_kwargs(preset.network),
        rollout_buffer_class=CloneRolloutBuffer if preset.clones > 1 else None,
        rollout_buffer_kwargs={"clones": preset.clones} if preset.clones > 1 else None,
        seed=seed,
        device=device,
    )


def load_model(path: Path, venv: VecEnv | None = None, device: str = "cpu") -> BaseAlgorithm:
    """A saved model, with its optimizer; raises ExportError where the file is not one of ours."""
    extra: dict[str, Any] = {} if venv is None else {"env": venv}
    try:
        return PPO.load(path, device=device, **extra)
    except FileNotFoundError:
        raise ExportError(f"{path}: no such model") from None
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        raise ExportError(f"{path}: not a Stable-Baselines3 PPO model: {error}") from error
