"""DQN's network for servers: the value of each is computed by the same layers from what is known of it.

    h_s  = relu(A server_s + B fleet)
    pool = (mean_s h_s, max_s h_s)
    Q_s  = w . relu(C h_s + D pool)

(Zaheer et al., Deep Sets, NeurIPS 2017.) So the order of servers means nothing, and one that is seldom seen
in a place is no less known. Observations are shares and logarithms of ratios; nothing is standardised.
`training.tasks.web` gives `ServerValuesPolicy` to Stable-Baselines3's DQN.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import torch
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import nn

from sim.webbalancing.features import FLEET_FEATURES, SERVER_FEATURES

EXPORTED_SCALE = 0.1
"""Of exported values: artifacts equal their models to 1e-5, and float32 rounds large values more coarsely."""


class ServerValues(nn.Module):
    """Observations `[N, S * 13 + 3]` to values `[N, S]`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_server = nn.Linear(SERVER_FEATURES, width)
        self.of_fleet = nn.Linear(FLEET_FEATURES, width)
        self.of_hidden = nn.Linear(width, width)
        self.of_pool = nn.Linear(2 * width, width)
        self.value = nn.Linear(width, 1)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """The value of sending the batch to each server."""
        cut = observation.shape[1] - FLEET_FEATURES
        servers = observation[:, :cut].reshape(-1, cut // SERVER_FEATURES, SERVER_FEATURES)
        hidden = torch.relu(self.of_server(servers) + self.of_fleet(observation[:, cut:]).unsqueeze(1))
        pool = torch.cat([hidden.mean(1), hidden.amax(1)], 1)
        scored = torch.relu(self.of_hidden(hidden) + self.of_pool(pool).unsqueeze(1))
        values: torch.Tensor = self.value(scored).squeeze(2)
        return values


class ServerValuesPolicy(DQNPolicy):
    """DQN's policy with the network of this module. width: of its hidden layers."""

    def __init__(self, *args: Any, width: int = 64, **kwargs: Any) -> None:
        self.width = width
        super().__init__(*args, **kwargs)

    def make_q_net(self) -> QNetwork:
        """The library's, with our layers in it."""
        made = super().make_q_net()
        made.q_net = ServerValues(self.width)  # type: ignore[assignment]
        return made.to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {"width": self.width}


def with_smaller_values(model: Any) -> Any:
    """A model with a `ServerValuesPolicy`, its values EXPORTED_SCALE times as large: the same choices."""
    policy = copy.deepcopy(model.policy)
    last = policy.q_net.q_net.value
    with torch.no_grad():
        last.weight.mul_(EXPORTED_SCALE)
        last.bias.mul_(EXPORTED_SCALE)
    return SimpleNamespace(policy=policy)
