"""Advantages against clones: what a decision earned beyond what the same traffic earned others.

Nearly all of the variance of an autoscaler's return comes from its traffic, which no decision changes.
Services that live through the same traffic are its best baseline (Mao et al., "Variance reduction for
reinforcement learning in input-driven environments", ICLR 2019): their mean takes that variance away and
leaves the policy gradient's expectation as it is. Dividing by the clones' spread keeps hard traffic from
drowning the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.buffers import RolloutBuffer

SMALLEST_SPREAD = 0.25
"""Groups that differ less than this share of the usual spread are not blown up to it: that would be noise."""


class CloneRolloutBuffer(RolloutBuffer):
    """Generalised advantages, centred and scaled in groups of `clones` neighbours."""

    def __init__(self, *args: Any, clones: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clones = clones

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: npt.NDArray[np.bool_]) -> None:
        """As in Stable-Baselines3, then against the clones; the critic's returns stay as they are."""
        super().compute_returns_and_advantage(last_values, dones)
        self.advantages = against_clones(self.advantages, self._clones)


def against_clones(advantages: npt.NDArray[np.float32], clones: int) -> npt.NDArray[np.float32]:
    """Advantages `[T, N]` less the mean of the other clones at that moment, over their group's spread."""
    steps, services = advantages.shape
    groups = advantages.reshape(steps, services // clones, clones)
    centred = (groups - groups.mean(axis=2, keepdims=True)) * (clones / (clones - 1))
    spread = np.sqrt(np.mean(centred**2, axis=(0, 2), keepdims=True))
    scaled = centred / (spread + SMALLEST_SPREAD * np.mean(spread) + 1e-8)
    return np.asarray(scaled.reshape(steps, services), dtype=np.float32)
