"""An actor that begins as a rule: storages balance the site, dispatchables relieve the line. PPO and A2C use
it.

Beside its layers the actor sees, as they are, the features that already are actions (`balancing`, `covering`,
`relieving`), and at first says just them: it learns when to do something else, not how to follow a meter.
"""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sim.grid.features import SITE_SCHEMA, SOURCE_SCHEMA, STORAGE_SCHEMA, observation_size
from training.networks import StandardisedFeatures

LOG_STD = -1.5
"""Exploration begins at about a fifth of the range of actions: around a rule there is something to lose."""


class RuleFirstPolicy(ActorCriticPolicy):
    """Stable-Baselines3's policy for a Box, with a short cut from some features to the actions.

    dispatchables: how many of the actions are levels, the others are powers of storages.
    """

    def __init__(self, *args: Any, dispatchables: int = 1, **kwargs: Any) -> None:
        self._dispatchables = dispatchables
        super().__init__(*args, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "dispatchables": self._dispatchables}

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        storages = int(self.action_space.shape[0]) - self._dispatchables  # type: ignore[index]
        columns = shortcut_columns(self._dispatchables, storages)
        extractor: Any = self.features_extractor
        layers: Any = self.mlp_extractor
        layers.policy_net = WithFeatures(layers.policy_net, extractor, columns)
        layers.latent_dim_pi += len(columns)

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        layers: Any = self.mlp_extractor
        weights: Any = self.action_net.weight
        count, first = self._dispatchables, weights.shape[1] - len(layers.policy_net.columns)
        with torch.no_grad():
            weights[:, first:] = 0.0
            for row in range(len(weights)):
                # covering and relieving of each dispatchable, then balancing of each storage
                weights[row, first + (2 * row + 1 if row < count else count + row)] = 1.0


class WithFeatures(nn.Module):
    """Layers' output, and behind it some features as they were before they were standardised."""

    columns: torch.Tensor

    def __init__(self, layers: nn.Module, extractor: StandardisedFeatures, columns: list[int]) -> None:
        super().__init__()
        self.layers, self.extractor = layers, extractor
        self.register_buffer("columns", torch.tensor(columns))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`[N, F]` to `[N, L + K]`."""
        deviation = torch.sqrt(self.extractor.variance[self.columns] + 1e-4)
        plain = features[:, self.columns] * deviation + self.extractor.mean[self.columns]
        return torch.cat([self.layers(features), plain], dim=1)


def shortcut_columns(dispatchables: int, storages: int) -> list[int]:
    """Where an observation has `covering` and `relieving` of each dispatchable and `balancing` of each
    storage."""
    covering, relieving = (SOURCE_SCHEMA.names.index(name) for name in ("covering", "relieving"))
    columns = []
    for place in range(dispatchables):
        start = SITE_SCHEMA.size + place * SOURCE_SCHEMA.size
        columns += [start + covering, start + relieving]
    first = observation_size(dispatchables, 0)
    balancing = STORAGE_SCHEMA.names.index("balancing")
    return columns + [first + place * STORAGE_SCHEMA.size + balancing for place in range(storages)]
