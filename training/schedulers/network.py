"""The scheduler's network: every server is scored by the same layers, so it serves any number of servers.

    h_s   = act(A server_s + B cluster)                      of each server that is there
    pool  = (mean_s h_s, max_s h_s)
    g_s   = act(C h_s + D pool)                              score of a server = w . g_s
    k     = act(E (cluster, pool))                           scores of holding and of rejecting = W k

(Zaheer et al., Deep Sets, NeurIPS 2017.) The order of servers means nothing, and no weight's shape depends
on their number. The critic sees the cluster, and means and maxima over its servers: what it needs is cheap.
Observations are shares and logarithms of ratios already; nothing is standardised.

`ServerScoringPolicy` is a policy class for sb3-contrib's MaskablePPO; `with_servers` makes the same policy
for another number of servers.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sim.envs.scheduling import action_space, observation_space
from sim.envs.scheduling_batch import SchedulingConfig
from sim.scheduling.features import CLUSTER_FEATURES, SERVER_FEATURES
from sim.scheduling.workloads import SchedulingScenario

WIDTH = 32
HOLD_AT_FIRST, REJECT_AT_FIRST = -2.0, -4.0
"""Scores of holding and rejecting before training: a fresh policy places jobs."""
VALUE_SCALE = 30.0
"""Of the critic's output: about a discount's horizon of rewards."""
_FAR = -1e4


class ClusterNet(nn.Module):
    """Observations `[N, S * 14 + 27]` to what is known of each server `[N, S, W]` and of the whole `[N,
    W]`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_server = nn.Linear(SERVER_FEATURES, width)
        self.of_cluster = nn.Linear(CLUSTER_FEATURES, width)
        self.of_hidden = nn.Linear(width, width)
        self.of_pool = nn.Linear(2 * width, width)
        self.of_whole = nn.Linear(CLUSTER_FEATURES + 2 * width, width)

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(servers `[N, S, W]`, whole `[N, W]`)."""
        servers, cluster = split(observation)
        present = servers[:, :, :1]
        hidden = torch.relu(self.of_server(servers) + self.of_cluster(cluster).unsqueeze(1)) * present
        mean = hidden.sum(1) / present.sum(1).clamp(min=1.0)
        pool = torch.cat([mean, hidden.amax(1)], 1)
        scored = torch.relu(self.of_hidden(hidden) + self.of_pool(pool).unsqueeze(1))
        return scored, torch.relu(self.of_whole(torch.cat([cluster, pool], 1)))


class Scores(nn.Module):
    """Observations to scores of the servers, of holding and of rejecting `[N, S + 2]`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = ClusterNet(width)
        self.of_place = nn.Linear(width, 1)
        self.of_rest = nn.Linear(width, 2)
        with torch.no_grad():
            for layer in (self.of_place, self.of_rest):
                layer.weight.mul_(0.1)
                layer.bias.zero_()
            self.of_rest.bias.copy_(torch.tensor([HOLD_AT_FIRST, REJECT_AT_FIRST]))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """`[N, F]` to `[N, S + 2]`; a server that is not there, or has no room, is far below all others."""
        servers, whole = self.net(observation)
        room = split(observation)[0][:, :, 1]
        scores = self.of_place(servers).squeeze(2)
        return torch.cat(
            [torch.where(room > 0.5, scores, torch.full_like(scores, _FAR)), self.of_rest(whole)], 1
        )


class Value(nn.Module):
    """Observations to the value `[N, 1]`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = (CLUSTER_FEATURES + 2 * SERVER_FEATURES, 2 * width, 2 * width)
        self.net = nn.Sequential(
            nn.Linear(layers[0], layers[1]), nn.Tanh(), nn.Linear(layers[1], layers[2]), nn.Tanh(),
            nn.Linear(layers[2], 1),
        )  # fmt: skip

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """`[N, F]` to `[N, 1]`."""
        servers, cluster = split(observation)
        mean = servers.sum(1) / servers[:, :, :1].sum(1).clamp(min=1.0)
        value: torch.Tensor = self.net(torch.cat([cluster, mean, servers.amax(1)], 1))
        return VALUE_SCALE * value


class ScoresAndValue(nn.Module):
    """What Stable-Baselines3 calls the extractor of an actor's and a critic's latents: here both are
    final."""

    def __init__(self, actions: int, width: int) -> None:
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = actions, 1
        self.policy_net, self.value_net = Scores(width), Value(width)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(scores, value)."""
        return self.policy_net(features), self.value_net(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        """Scores alone."""
        scores: torch.Tensor = self.policy_net(features)
        return scores

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        """The value alone."""
        value: torch.Tensor = self.value_net(features)
        return value


class ServerScoringPolicy(MaskableActorCriticPolicy):
    """MaskablePPO's policy with the network of this module. width: of its hidden layers."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Any,
        width: int = WIDTH,
        **kwargs: Any,
    ) -> None:
        self.width = width
        kwargs |= {"features_extractor_class": FlattenExtractor, "ortho_init": False}
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor: Any = ScoresAndValue(int(self.action_space.n), self.width)  # type: ignore[attr-defined]

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        # the extractor has said all
        self.action_net = nn.Identity()
        self.value_net = nn.Identity()  # type: ignore[assignment]
        self.optimizer = self.optimizer_class(  # type: ignore[call-arg]
            self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {"width": self.width}


def split(observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(servers `[N, S, 14]`, cluster `[N, 27]`)."""
    cut = observation.shape[1] - CLUSTER_FEATURES
    return observation[:, :cut].reshape(-1, cut // SERVER_FEATURES, SERVER_FEATURES), observation[:, cut:]


def with_servers(model: Any, servers: int) -> Any:
    """A model of MaskablePPO with a `ServerScoringPolicy`, for `servers` servers: the same weights."""
    config = SchedulingConfig(servers=servers, scenario=SchedulingScenario(servers=(servers, servers)))
    wide = ServerScoringPolicy(
        observation_space(config), action_space(config), lambda _: 0.0, width=model.policy.width
    )
    wide.load_state_dict(model.policy.state_dict())
    return SimpleNamespace(policy=wide)
