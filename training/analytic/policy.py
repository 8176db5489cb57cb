"""The network: features to a hold band whose lower edge is a mixture of anchors plus a margin."""

from __future__ import annotations

import copy
import itertools
import math

import torch
from torch import nn

from controller.core import OBSERVATION_SCHEMA
from controller.core import observation as obs
from controller.core.action import MAX_LOG_HEADROOM
from training.config import Preset
from training.errors import ConfigError
from training.networks import ACTIVATIONS, CLIP

MAX_GAP = 2.0
MAX_LOAD = 1e4
"""Replicas."""
BEYOND = {"scale_down_window": (0.0, 1.0), "pending_share": (0.0, 1.0)}
"""Features that are cut to what training has, since the rest makes no difference to what should be wished
for: the guard carries out windows above 300 s whatever the wish, and replicas on their way out are no use."""
SINCE_S = 300.0
"""Time constant of the feature `since_scale_up`."""
SCHEMA = "hold-band/v1"


class BandNetwork(nn.Module):
    """Observation `[N, F]` to action `[N, 2]` (hold-band/v1).

    lower edge = ln(sum over anchors of softmax(a_k) * exp(anchor_k)), plus a margin. An anchor is the largest
    of some features that are logarithms of loads over the load now, at least 0. In the safest part of the
    dial a formula forecast is a floor under it (`Analytic.floor`). upper edge = lower edge plus a gap of at
    least `Analytic.least_gap`. In the artifact both end at a multiple of the highest load seen
    (`Analytic.served_bound`), or where that floor is; the upper edge by the least gap later.

    Beside core's features it sees the load in replicas as a logarithm, and levels (`Analytic.levels`): the
    quantile of rises, from the least load that counts, over the load now.
    """

    least: torch.Tensor
    most: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, preset: Preset, serving: bool = False) -> None:
        """serving: with the reserve and the bound of the artifact, not those of training."""
        super().__init__()
        levels = preset.analytic.levels
        strange = sorted(set(levels) - {name for name in OBSERVATION_SCHEMA.names if name[:5] == "move_"})
        if strange:
            raise ConfigError(f"analytic.levels: {strange} is not allowed; quantiles of rises (move_...) are")
        self._levels = [OBSERVATION_SCHEMA.names.index(name) for name in levels]
        names = (*OBSERVATION_SCHEMA.names, "log_load", *("level_" + name[5:] for name in levels))
        anchors = (*preset.action.anchors, *preset.analytic.anchors)
        if not anchors or not all(anchors):
            raise ConfigError(f"action.anchors: {anchors} is not allowed; features of load are")
        self._columns = [_columns("action.anchors", anchor, names) for anchor in anchors]
        self._floor_from = preset.analytic.floor_from
        settings = preset.analytic
        reserve, margins = settings.reserve, settings.reserve_margins
        bound: tuple[str, ...] = ()
        if serving:
            reserve, margins = settings.served_reserve, settings.served_reserve_margins
            bound = settings.served_bound
        self._bound = _columns("analytic.served_bound", bound, names)
        self._times = settings.served_bound_times
        self._most_reserve = math.log(settings.served_reserve_times)
        self._floors = {
            "floor": (_columns("analytic.floor", settings.floor, names), settings.floor_margins),
            "floor_cap": (_columns("analytic.floor_cap", settings.floor_cap, names), settings.cap_margins),
            "reserve": (_columns("analytic.reserve", reserve, names), margins),
        }
        self._gap, self._wider = preset.analytic.least_gap
        self._fade = SINCE_S / preset.analytic.gap_fades_s
        self._granularity = names.index("granularity")
        self._since_up = names.index("since_scale_up")
        self._preference = names.index("preference")
        self._log_load = names.index("log_load")
        widths = [len(names), *preset.network.actor]
        layers: list[nn.Module] = []
        for width, following in itertools.pairwise(widths):
            layers += [nn.Linear(width, following), ACTIVATIONS[preset.network.activation]()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], len(anchors) + 2)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()
            self.head.bias[-2] = 0.3
            self.head.bias[-1] = -2.0
        for name, side in (("least", 0), ("most", 1)):
            bounds = [BEYOND.get(one.name, (one.low, one.high))[side] for one in OBSERVATION_SCHEMA.features]
            self.register_buffer(name, torch.tensor(bounds, dtype=torch.float32), persistent=False)
        self.register_buffer("mean", torch.zeros(len(names)))
        self.register_buffer("deviation", torch.ones(len(names)))

    def standardise(self, observations: torch.Tensor) -> None:
        """Take the moments of these observations `[N, F]` as the network's."""
        observations = self._extended(observations)
        self.mean.copy_(observations.mean(0))
        self.deviation.copy_(observations.std(0).clamp(min=0.05))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """`[N, F]` to `[N, 2]`."""
        observation = self._extended(observation)
        scaled = ((observation - self.mean) / self.deviation).clamp(-CLIP, CLIP)
        out = self.head(self.body(scaled).to(self.head.weight.dtype))
        count = len(self._columns)
        share = torch.softmax(out[:, :count], dim=1)
        anchors = [
            observation[:, columns].amax(dim=1) if len(columns) > 1 else observation[:, columns[0]]
            for columns in self._columns
        ]
        loads = torch.stack(anchors, dim=1).clamp(min=0.0).to(out.dtype).exp()
        anchor = (share * loads).sum(dim=1).log()
        wished, most = (anchor + out[:, count]).float(), self._most(observation)
        low = self._above_floor(torch.minimum(wished, most), most, observation)
        low = low.clamp(-MAX_LOG_HEADROOM, MAX_LOG_HEADROOM)
        least_gap = self._least_gap(observation)
        high = low + (least_gap + MAX_GAP * torch.sigmoid(out[:, count + 1]).float())
        high = torch.minimum(high, torch.maximum(most, low) + least_gap)
        return torch.stack([low, high.clamp(max=MAX_LOG_HEADROOM)], dim=1)

    def precise(self) -> BandNetwork:
        """A copy for export whose last layer sums in double precision.

        In single precision two libraries differ by up to 1.3e-5 on observations far from any traffic. Double
        sums in all layers would be no nearer, and half as fast.
        """
        network = copy.deepcopy(self).eval()
        network.head.double()
        return network

    def _extended(self, observation: torch.Tensor) -> torch.Tensor:
        """With what follows from the features behind them, `[N, F + 1 + levels]`."""
        least, most = 1.0 / (1.0 + MAX_LOAD), 1.0 / (1.0 + obs.MIN_LOAD)
        granularity = observation[:, self._granularity].clamp(least, most)
        log_load = (1.0 / granularity - 1.0).log()[:, None]
        levels = observation[:, self._levels] + math.log(obs.MIN_LOAD) - log_load
        bounded = torch.minimum(torch.maximum(observation, self.least), self.most)
        return torch.cat([bounded, log_load, levels.clamp(-3.0, 9.0)], dim=1)

    def _least_gap(self, observation: torch.Tensor) -> torch.Tensor:
        return self._gap + self._wider * observation[:, self._since_up] ** self._fade

    def _most(self, observation: torch.Tensor) -> torch.Tensor:
        """The most that weights ask for `[N]`: a multiple of the highest load, as log over the load now."""
        if not self._bound:
            return torch.full_like(observation[:, 0], math.inf)
        seen = observation[:, self._bound].amax(dim=1).clamp(min=0.0)
        seen = torch.maximum(seen, -observation[:, self._log_load])
        return seen + math.log(self._times)

    def _above_floor(self, low: torch.Tensor, most: torch.Tensor, observation: torch.Tensor) -> torch.Tensor:
        part = (observation[:, self._preference] - self._floor_from) / (1.0 - self._floor_from)

        def over(name: str, otherwise: float) -> torch.Tensor:
            columns, (first, last) = self._floors[name]
            if not columns:
                return torch.full_like(low, otherwise)
            return observation[:, columns].amax(dim=1).clamp(min=0.0) + first + (last - first) * part

        floor = torch.minimum(over("floor", -math.inf), over("floor_cap", math.inf))
        reserve = torch.minimum(over("reserve", -math.inf), most.clamp(min=self._most_reserve))
        floor = torch.maximum(floor, reserve)
        return torch.where(part > 0.0, torch.maximum(low, floor), low)


def _columns(setting: str, wanted: tuple[str, ...], names: tuple[str, ...]) -> list[int]:
    strange = sorted(set(wanted) - set(names))
    if strange:
        raise ConfigError(f"{setting}: {strange} is not allowed; features of load are")
    return [names.index(name) for name in wanted]
