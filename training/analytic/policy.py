"""The network: features to a hold band whose lower edge is a mixture of anchors plus a margin."""

from __future__ import annotations

import copy
import itertools

import torch
from torch import nn

from controller.core import OBSERVATION_SCHEMA
from controller.core.action import MAX_LOG_HEADROOM
from training.config import Preset
from training.errors import ConfigError
from training.networks import ACTIVATIONS, CLIP

MAX_GAP = 2.0
SCHEMA = "hold-band/v1"


class BandNetwork(nn.Module):
    """Observation `[N, F]` to action `[N, 2]` (hold-band/v1).

    lower edge = ln(sum over anchors of softmax(a_k) * exp(anchor_k)), plus a margin. An anchor is the largest
    of some features that are logarithms of loads over the load now, at least 0. In the safest part of the
    dial a formula forecast is a floor under it (`Analytic.floor`). upper edge = lower edge plus a gap of at
    least `Analytic.least_gap`.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        names = OBSERVATION_SCHEMA.names
        anchors = preset.action.anchors
        unknown = sorted({name for anchor in anchors for name in anchor} - set(names))
        if unknown or not anchors or not all(anchors):
            raise ConfigError(f"action.anchors: {unknown or anchors} is not allowed; features of load are")
        self._columns = [[names.index(name) for name in anchor] for anchor in anchors]
        strange = sorted(set(preset.analytic.floor) - set(names))
        if strange:
            raise ConfigError(f"analytic.floor: {strange} is not allowed; features of load are")
        self._floor = [names.index(name) for name in preset.analytic.floor]
        self._floor_from, self._floor_margins = preset.analytic.floor_from, preset.analytic.floor_margins
        self._gap, self._wider = preset.analytic.least_gap
        self._since_up = names.index("since_scale_up")
        self._preference = names.index("preference")
        widths = [OBSERVATION_SCHEMA.size, *preset.network.actor]
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
        self.register_buffer("mean", torch.zeros(OBSERVATION_SCHEMA.size))
        self.register_buffer("deviation", torch.ones(OBSERVATION_SCHEMA.size))

    def standardise(self, observations: torch.Tensor) -> None:
        """Take the moments of these observations `[N, F]` as the network's."""
        self.mean.copy_(observations.mean(0))
        self.deviation.copy_(observations.std(0).clamp(min=0.05))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """`[N, F]` to `[N, 2]`."""
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
        low = self._above_floor((anchor + out[:, count]).float(), observation)
        low = low.clamp(-MAX_LOG_HEADROOM, MAX_LOG_HEADROOM)
        gap = self._least_gap(observation) + MAX_GAP * torch.sigmoid(out[:, count + 1]).float()
        return torch.stack([low, (low + gap).clamp(max=MAX_LOG_HEADROOM)], dim=1)

    def precise(self) -> BandNetwork:
        """A copy for export whose last layer sums in double precision.

        In single precision two libraries differ by up to 1.3e-5 on observations far from any traffic. Double
        sums in all layers would be no nearer, and half as fast.
        """
        network = copy.deepcopy(self).eval()
        network.head.double()
        return network

    def _least_gap(self, observation: torch.Tensor) -> torch.Tensor:
        return self._gap + self._wider * observation[:, self._since_up]

    def _above_floor(self, low: torch.Tensor, observation: torch.Tensor) -> torch.Tensor:
        if not self._floor:
            return low
        first, last = self._floor_margins
        preference = observation[:, self._preference]
        part = (preference - self._floor_from) / (1.0 - self._floor_from)
        floor = observation[:, self._floor].amax(dim=1).clamp(min=0.0) + first + (last - first) * part
        return torch.where(part > 0.0, torch.maximum(low, floor), low)
