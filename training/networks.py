"""The policy's network: observation statistics inside it, and the actor path alone for export.

The statistics are buffers of the features extractor, so Stable-Baselines3's own zip keeps them, `predict`
applies them, and the exported graph contains them: there is no second file to lose.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from training.actions import Head
from training.config import Network
from training.errors import ExportError

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}
CLIP = 8.0
"""Standardised features are held within this many deviations."""


class StandardisedFeatures(BaseFeaturesExtractor):
    """(observation - mean) / deviation, clipped; the moments move only by `update`."""

    mean: torch.Tensor
    variance: torch.Tensor
    count: torch.Tensor

    def __init__(self, observation_space: gymnasium.spaces.Box) -> None:
        size = int(np.prod(observation_space.shape))
        super().__init__(observation_space, size)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("count", torch.zeros(1, dtype=torch.float64))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Standardise `[N, F]`."""
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


def policy_kwargs(network: Network) -> dict[str, Any]:
    """What Stable-Baselines3's ActorCriticPolicy is built with."""
    kwargs: dict[str, Any] = {
        "net_arch": {"pi": list(network.actor), "vf": list(network.critic)},
        "activation_fn": ACTIVATIONS[network.activation],
    }
    if network.normalise:
        kwargs["features_extractor_class"] = StandardisedFeatures
    return kwargs


def statistics(policy: Any) -> StandardisedFeatures | None:
    """The extractor whose moments training moves, if the policy has one."""
    extractor = getattr(policy, "features_extractor", None)
    return extractor if isinstance(extractor, StandardisedFeatures) else None


class Actor(nn.Module):
    """Observation to action, deterministic: statistics, actor layers, then what the head makes of it."""

    def __init__(self, policy: ActorCriticPolicy, head: Head) -> None:
        super().__init__()
        if policy.action_space != head.space:
            raise ExportError(f"the policy chooses in {policy.action_space}, the head in {head.space}")
        self.features = policy.pi_features_extractor
        self.layers = policy.mlp_extractor.policy_net
        self.logits = policy.action_net
        self._head = head

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """`[N, F]` to `[N, A]`."""
        logits = self.logits(self.layers(self.features(observation)))
        return self._head.graph(logits, observation)
