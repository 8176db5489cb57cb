"""The policies' networks: observation statistics inside them, and the actor path alone for export.

The statistics are buffers of the features extractor, so Stable-Baselines3's own zip keeps them, `predict`
applies them, and the exported graph contains them: there is no second file to lose.
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import SACPolicy
from torch import nn

from training.actions import Head
from training.config import Network
from training.errors import ExportError

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}
CLIP = 8.0
"""Standardised features are held within this many deviations."""


class StandardisedFeatures(BaseFeaturesExtractor):
    """(observation - mean) / deviation, clipped; the moments move only by `update`.

    It also keeps the lowest and highest value of each feature that training saw, for the artifact.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    count: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, observation_space: gymnasium.spaces.Box, normalise: bool = True) -> None:
        size = int(np.prod(observation_space.shape))
        super().__init__(observation_space, size)
        self._normalise = normalise
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("count", torch.zeros(1, dtype=torch.float64))
        self.register_buffer("low", torch.full((size,), torch.inf))
        self.register_buffer("high", torch.full((size,), -torch.inf))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Standardise `[N, F]`."""
        if not self._normalise:
            return observations
        scaled = (observations - self.mean) * torch.rsqrt(self.variance + 1e-4)
        return torch.clamp(scaled, -CLIP, CLIP)

    def update(self, observations: npt.NDArray[np.float32]) -> None:
        """Merge a batch `[B, F]` into the moments (Chan et al.'s parallel formula)."""
        batch_mean = torch.as_tensor(observations.mean(axis=0, dtype=np.float64))
        batch_variance = torch.as_tensor(observations.var(axis=0, dtype=np.float64))
        old, new = self.count.item(), float(len(observations))
        total = old + new
        delta = batch_mean - self.mean
        second = self.variance * old + batch_variance * new + delta**2 * old * new / total
        self.mean.copy_(self.mean + delta * new / total)
        self.variance.copy_(second / total)
        self.count.fill_(total)

    def widen(self, observations: npt.NDArray[np.float32]) -> None:
        """Take a batch `[B, F]` into the range of what training saw."""
        self.low.copy_(torch.minimum(self.low, torch.as_tensor(observations.min(axis=0))))
        self.high.copy_(torch.maximum(self.high, torch.as_tensor(observations.max(axis=0))))

    @property
    def range(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
        """(lowest, highest) `[F]` that training saw; None before it saw anything."""
        if not bool(torch.isfinite(self.low).all()):
            return None
        return self.low.cpu().numpy(), self.high.cpu().numpy()


def policy_kwargs(network: Network, critic: str = "vf") -> dict[str, Any]:
    """What Stable-Baselines3's policies are built with; critic: what the policy calls it, "" without one."""
    actor: Any = list(network.actor)
    return {
        "net_arch": {"pi": actor, critic: list(network.critic)} if critic else actor,
        "activation_fn": ACTIVATIONS[network.activation],
        "features_extractor_class": StandardisedFeatures,
        "features_extractor_kwargs": {"normalise": network.normalise},
    }


def statistics(policy: Any) -> list[StandardisedFeatures]:
    """The extractors whose moments training moves: one, or one each of actor, critic and their targets."""
    return [module for module in policy.modules() if isinstance(module, StandardisedFeatures)]


def observation_range(policy: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
    """(lowest, highest) `[F]` that training saw, if the policy kept it."""
    found = statistics(policy)
    return found[0].range if found else None


class Actor(nn.Module):
    """Observations `[N, F]` to what the policy says of them, deterministic: its actor path alone.

    Logits `[N, L]` of choices (values of choices, for DQN), or the mean of a Box's numbers `[N, A]`.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.features, self.layers, self.last = _path(policy)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """`[N, F]` to `[N, L]`."""
        said: torch.Tensor = self.last(self.layers(self.features(observation)))
        return said


class BareActor(nn.Module):
    """What a policy says without a head: a Box's numbers within its bounds, or logits."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.actor = Actor(policy)
        space = policy.action_space
        self._bounds = None
        if isinstance(space, spaces.Box):
            self._bounds = (torch.as_tensor(space.low), torch.as_tensor(space.high))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """`[N, F]` to `[N, A]` or `[N, L]`."""
        said = self.actor(observation)
        return said if self._bounds is None else torch.clamp(said, *self._bounds)


class ActorWithHead(nn.Module):
    """Observation to core's action: the actor, then what the head makes of it."""

    def __init__(self, policy: Any, head: Head) -> None:
        super().__init__()
        if policy.action_space != head.space:
            raise ExportError(f"the policy chooses in {policy.action_space}, the head in {head.space}")
        self.actor = Actor(policy)
        self._head = head

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """`[N, F]` to `[N, A]`."""
        return self._head.graph(self.actor(observation), observation)


class RecurrentActor(nn.Module):
    """One step of a recurrent policy: observation and state in, action and next state out.

    state: `[2, layers, N, H]`, the LSTM's hidden and cell state, zeros at an episode's start.
    """

    def __init__(self, policy: RecurrentActorCriticPolicy, head: Head) -> None:
        super().__init__()
        if policy.action_space != head.space:
            raise ExportError(f"the policy chooses in {policy.action_space}, the head in {head.space}")
        self.features, self.lstm = policy.pi_features_extractor, policy.lstm_actor
        self.layers, self.last = policy.mlp_extractor.policy_net, policy.action_net
        self._head = head

    @property
    def state_shape(self) -> tuple[int, int]:
        """(layers, H)."""
        return int(self.lstm.num_layers), int(self.lstm.hidden_size)

    def forward(self, observation: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`[N, F]` and `[2, layers, N, H]` to `[N, A]` and `[2, layers, N, H]`."""
        logits, following = self.logits(observation, state)
        return self._head.graph(logits, observation), following

    def logits(self, observation: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the head decodes, and the next state."""
        features = self.features(observation).unsqueeze(0)
        latent, (hidden, cell) = self.lstm(features, (state[0], state[1]))
        return self.last(self.layers(latent.squeeze(0))), torch.stack([hidden, cell])


def frozen(module: nn.Module) -> nn.Module:
    """A copy on the CPU that training does not move."""
    return copy.deepcopy(module).to("cpu").eval()


def logit_sizes(space: gymnasium.Space[Any]) -> list[int]:
    """How many logits belong to each choice; of a Box, none."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    return [int(size) for size in space.nvec] if isinstance(space, spaces.MultiDiscrete) else []


def _path(policy: Any) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Features, layers and last layer of the actor. Raises ExportError for a policy without such a path."""
    if isinstance(policy, RecurrentActorCriticPolicy):
        raise ExportError("a recurrent policy has a hidden state, which the operator's artifact cannot hold")
    if isinstance(policy, ActorCriticPolicy):
        return policy.pi_features_extractor, policy.mlp_extractor.policy_net, policy.action_net
    if isinstance(policy, DQNPolicy):
        return policy.q_net.features_extractor, policy.q_net.q_net, nn.Identity()
    if isinstance(policy, SACPolicy):
        actor = policy.actor
        return actor.features_extractor, actor.latent_pi, nn.Sequential(actor.mu, nn.Tanh())
    mlp = getattr(policy, "mlp_extractor", None)
    if mlp is not None and hasattr(policy, "action_net"):  # sb3-contrib's maskable policy has no common base
        return policy.pi_features_extractor, mlp.policy_net, policy.action_net
    raise ExportError(f"a policy of type {type(policy).__name__} cannot be exported")
