"""Hyperparameters of the algorithms, each a section of a preset: Stable-Baselines3's and sb3-contrib's.

`training.config.Preset` holds them, `training.algorithms` hands them over. Names are those of the libraries.
Nothing heavy is imported here, so that `train.py --help` stays fast.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from training.errors import ConfigError


@dataclass(frozen=True)
class OnPolicy:
    """What PPO and its relatives and A2C share: they learn from rollouts of the policy as it is."""

    learning_rate: float = 3e-4
    """The optimiser's step at the start."""
    final_learning_rate: float = 0.0
    """The optimiser's step at the end; in between it falls linearly."""
    n_steps: int = 64
    """Control steps an environment between two updates."""
    gamma: float = 0.99
    """Discount a control step."""
    gae_lambda: float = 0.95
    """Generalised advantage estimation's trace decay."""
    ent_coef: float = 0.003
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the critic's loss."""
    max_grad_norm: float = 0.5
    """Clip of the gradient's norm."""

    def __post_init__(self) -> None:
        """Refuse values that would fail later with a worse message."""
        positive(self, "n_steps", "learning_rate")
        shares(self, "gamma", "gae_lambda")


@dataclass(frozen=True)
class Ppo(OnPolicy):
    """PPO: several passes over a rollout, the policy's change clipped."""

    batch_size: int = 2048
    """Samples in a minibatch; divides `num_envs * n_steps`."""
    n_epochs: int = 4
    """Passes over each rollout."""
    clip_range: float = 0.2
    """PPO's clip of the probability ratio."""

    def __post_init__(self) -> None:
        """Refuse values that would fail later with a worse message."""
        super().__post_init__()
        positive(self, "batch_size", "n_epochs", "clip_range")


@dataclass(frozen=True)
class RecurrentPpo(Ppo):
    """sb3-contrib's RecurrentPPO: PPO with an LSTM before the actor's and the critic's layers."""

    lstm_hidden_size: int = 64
    """Width of the LSTM."""
    n_lstm_layers: int = 1
    """LSTMs on top of each other."""
    shared_lstm: bool = True
    """Whether the critic reads the actor's LSTM (whose gradients it then leaves alone)."""

    def __post_init__(self) -> None:
        """Refuse values that would fail later with a worse message."""
        super().__post_init__()
        positive(self, "lstm_hidden_size", "n_lstm_layers")


@dataclass(frozen=True)
class MaskablePpo(Ppo):
    """sb3-contrib's MaskablePPO: PPO that never samples what the environment's `action_masks` forbids."""


@dataclass(frozen=True)
class A2c(OnPolicy):
    """A2C: one step of the optimiser a rollout."""

    n_steps: int = 16
    """Control steps an environment between two updates."""
    gae_lambda: float = 1.0
    """Generalised advantage estimation's trace decay."""
    normalize_advantage: bool = True
    """Whether advantages are standardised in each rollout."""
    use_rms_prop: bool = True
    """RMSprop, as in the original; otherwise Adam."""


@dataclass(frozen=True)
class OffPolicy:
    """What DQN and SAC share: they learn from a buffer of what any policy did."""

    learning_rate: float = 3e-4
    """Adam's step at the start."""
    final_learning_rate: float = 0.0
    """Adam's step at the end; in between it falls linearly."""
    buffer_size: int = 200_000
    """Control steps kept to learn from, over all environments. The newest checkpoint keeps them too."""
    learning_starts: int = 20_000
    """Control steps of random choices before the first update, over all environments."""
    batch_size: int = 512
    """Samples in a gradient step."""
    train_freq: int = 4
    """Control steps an environment between two updates."""
    gradient_steps: int = 8
    """Gradient steps an update."""
    n_steps: int = 1
    """Rewards in a row that a target adds up before it trusts the network's estimate."""
    gamma: float = 0.95
    """Discount a control step."""
    tau: float = 0.005
    """Share of the new weights that the target network takes on at each of its updates."""

    def __post_init__(self) -> None:
        """Refuse values that would fail later with a worse message."""
        positive(
            self, "learning_rate", "buffer_size", "batch_size", "train_freq", "gradient_steps", "n_steps"
        )
        shares(self, "gamma", "tau")


@dataclass(frozen=True)
class Dqn(OffPolicy):
    """DQN with a target network."""

    target_update_interval: int = 10_000
    """Control steps, over all environments, between two updates of the target network."""
    tau: float = 1.0
    """Share of the new weights that the target network takes on at each of its updates."""
    exploration_fraction: float = 0.3
    """Share of the run in which exploration falls."""
    exploration_initial_eps: float = 1.0
    """Share of random choices at the start."""
    exploration_final_eps: float = 0.03
    """Share of random choices at the end."""
    max_grad_norm: float = 10.0
    """Clip of the gradient's norm."""


@dataclass(frozen=True)
class Sac(OffPolicy):
    """Soft actor-critic, the entropy's weight learned."""

    ent_coef: float | None = None
    """Weight of the entropy; null: learned, for `target_entropy`."""
    target_entropy: float | None = None
    """Entropy to learn the weight for; null: minus the number of action dimensions."""


def positive(settings: object, *names: str) -> None:
    """Refuse values that are not above 0."""
    for name in names:
        value = getattr(settings, name)
        if not value > 0:
            allowed = "at least 1" if isinstance(value, int) else "a number above 0"
            raise ConfigError(f"{_section(settings)}.{name}: {value} is not allowed; {allowed} is")


def shares(settings: object, *names: str) -> None:
    """Refuse values outside 0..1."""
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value <= 1:
            raise ConfigError(f"{_section(settings)}.{name}: {value} is not allowed; a number in 0..1 is")


def _section(settings: object) -> str:
    """The section's name in a preset: RecurrentPpo is `recurrent_ppo`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(settings).__name__).lower()
