"""Evolution strategies on whole episodes: every set of the batch has a policy of its own, in mirrored pairs.

A pair lives through the same episode (same pools, traffic, faults and noise) with parameters theta + s * e
and theta - s * e (Salimans et al. 2017, mirrored sampling). What one lost is the other's reference, which
takes out nearly all of what an episode has of luck, and the noise is in the parameters: unlike a Gaussian
action it does not become churn of replicas and weights from step to step. Gradients need no differentiable
simulator, so that guards, ejection and integer replicas are those of the environment.

The loss of an episode is what `benchmarks.pools` compares, put together at a price that rises with the dial:

    ln(cost) + 10^w * (violations + over_p99 * share of steps with a p99 above the objective) + churns

Differences of pairs are divided by what is usual at their preference and clipped, so that rare disasters do
not drown the rest. An update depends on seed, its number and the state alone: a run that was interrupted goes
on as if it had not been.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from controller.core.poolfeatures import POOL_SCHEMA, SET_SCHEMA
from sim.envs.pool_batch import PoolsBatch, PoolsConfig
from training.config import Preset
from training.environment import episode_seed
from training.errors import ConfigError
from training.poolsets.export import SeenRange, ServiceBand
from training.poolsets.network import DIAL, PoolsNetwork, decide
from training.poolsets.playing import Decider, Ejecting, Played, play_batch
from training.poolsets.settings import Evolution

FloatArray = npt.NDArray[np.floating[Any]]
DIAL_SCALES = {
    "lower": 0.05,
    "gap": 0.1,
    "price": 0.3,
    "risk": 0.3,
    "size": 0.15,
    "slow": 0.2,
    "failing": 0.5,
    "late": 0.1,
    "told": 0.3,
    "ill": 0.3,
    "make_up": 0.15,
    "held_down": 0.03,
    "held_up": 0.08,
    "steer": 0.2,
    "follow": 0.15,
    "stay": 0.3,
    "rounding": 0.5,
}
HIDDEN_SCALE, OUT_SCALE = 0.1, 0.05
"""Perturbations of the Deep Set's hidden layers (over the root of their inputs) and of its last ones."""
BINS = 8
"""Of the dial, for the usual size of a pair's difference."""
USUAL_DECAY = 0.9
SEE_EVERY = 8
"""Steps between two looks at the range of observations."""


class Learner:
    """Everything that moves while training: parameters, optimiser, running means, ranges."""

    def __init__(
        self, preset: Preset, config: PoolsConfig, band: ServiceBand, seed: int, updates: int
    ) -> None:
        """updates: those over which the learning rate falls."""
        if preset.num_envs % 2:
            raise ConfigError(
                f"num_envs: {preset.num_envs} is not allowed with algo: evolution; even numbers are"
            )
        self.settings: Evolution = preset.evolution
        self.seed, self.updates, self.done = seed, updates, 0
        self.band = band
        self.network = PoolsNetwork(self.settings.width, seed)
        self.average = copy.deepcopy(self.network)
        self._batch = PoolsBatch(config, preset.num_envs, seed, autoreset=False)
        self._scales = _scales(self.network)
        self._theta = torch.zeros(len(self._scales), requires_grad=True)
        self._first = flat(self.network)
        self._mean = torch.zeros(len(self._scales))
        self._adam = torch.optim.Adam([self._theta], lr=self.settings.learning_rate, betas=(0.9, 0.99))
        self._usual = torch.full((BINS,), math.nan)
        self.seen = {
            "pools": _Range(POOL_SCHEMA.size),
            "set": _Range(SET_SCHEMA.size),
        }

    def update(self) -> dict[str, float]:
        """Play one batch of pairs and move the parameters; what the episodes came to."""
        settings = self.settings
        generator = torch.Generator().manual_seed(episode_seed(self.seed + 1, self.done))
        pairs = self._batch.num_envs // 2
        noise = torch.randn(pairs, len(self._scales), generator=generator)
        both = torch.stack([noise, -noise], dim=1).reshape(2 * pairs, -1) * settings.noise
        rows = self._first + self._scales * (self._theta.detach() + both)
        self._batch.seed(episode_seed(self.seed, self.done))
        played = play_batch(self._batch, Ejecting(self._decider(rows), settings.ejects), self._see)
        losses = torch.from_numpy(loss_of(played, settings)).float()
        difference = self._normalised(losses[0::2] - losses[1::2], played["preference"][0::2])
        self._step((difference[:, None] * noise).mean(0) / (2.0 * settings.noise))
        self.done += 1
        return self._figures(played, losses)

    def state(self) -> dict[str, Any]:
        """What `load` takes; plain tensors and numbers."""
        return {
            "theta": self._theta.detach(),
            "mean": self._mean,
            "adam": self._adam.state_dict(),
            "usual": self._usual,
            "average": self.average.state_dict(),
            "seen": {name: one.state() for name, one in self.seen.items()},
            "done": self.done,
            "band": self.band.data,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        with torch.no_grad():
            self._theta.copy_(state["theta"])
        self._mean, self._usual = state["mean"].clone(), state["usual"].clone()
        self._adam.load_state_dict(state["adam"])
        self.done = int(state["done"])
        for name, one in state["seen"].items():
            self.seen[name].load(one)
        self._publish()

    def _decider(self, rows: torch.Tensor) -> Decider:
        weights = unflat(self.network, rows)

        def said(pools: FloatArray, whole: FloatArray) -> tuple[FloatArray, FloatArray]:
            return run_network(weights, self.band, pools, whole)

        return said

    def _see(self, step: int, pools: FloatArray, whole: FloatArray) -> None:
        if step % SEE_EVERY == 0:
            self.seen["pools"].widen(pools[pools[:, :, 0] > 0.5])
            self.seen["set"].widen(whole)

    def _normalised(self, difference: torch.Tensor, preference: FloatArray) -> torch.Tensor:
        bins = torch.from_numpy(np.clip(preference / 100.0 * BINS, 0, BINS - 1).astype(np.int64))
        for place in range(BINS):
            own = difference[bins == place]
            if len(own):
                size = own.abs().mean()
                old = self._usual[place]
                self._usual[place] = size if old != old else USUAL_DECAY * old + (1 - USUAL_DECAY) * size
        usual = self._usual[bins].clamp(min=1e-6)
        return (difference / usual).clamp(-self.settings.clip, self.settings.clip)

    def _step(self, gradient: torch.Tensor) -> None:
        settings = self.settings
        part = 0.5 * (1.0 + math.cos(math.pi * min(1.0, self.done / max(1, self.updates))))
        rate = settings.final_learning_rate + (settings.learning_rate - settings.final_learning_rate) * part
        self._adam.param_groups[0]["lr"] = rate
        self._theta.grad = gradient
        self._adam.step()
        # as long as there are few updates, the mean of all of them
        decay = min(settings.average, (self.done + 1.0) / (self.done + 10.0))
        self._mean = decay * self._mean + (1.0 - decay) * self._theta.detach()
        self._publish()

    def _publish(self) -> None:
        for network, theta in ((self.network, self._theta.detach()), (self.average, self._mean)):
            weights = unflat(network, (self._first + self._scales * theta)[None])
            with torch.no_grad():
                for name, parameter in network.named_parameters():
                    parameter.copy_(weights[name])

    def _figures(self, played: Played, losses: torch.Tensor) -> dict[str, float]:
        named = ("cost", "violation", "dropped", "route_churn", "flaps_per_hour", "over_p99")
        return {"loss": float(losses.mean()), **{name: float(played[name].mean()) for name in named}}


class _Range:
    """Lowest and highest features so far."""

    def __init__(self, size: int) -> None:
        self.low, self.high = np.full(size, np.inf, np.float32), np.full(size, -np.inf, np.float32)

    def widen(self, rows: FloatArray) -> None:
        if len(rows):
            self.low, self.high = np.minimum(self.low, rows.min(0)), np.maximum(self.high, rows.max(0))

    def state(self) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.low, self.high]))

    def load(self, state: torch.Tensor) -> None:
        self.low, self.high = state.numpy().copy()


def seen_range(state: dict[str, Any]) -> SeenRange | None:
    """What training saw, from a checkpoint; None before it saw anything."""
    sides = {name: tuple(one.numpy()) for name, one in state["seen"].items()}
    if not all(np.isfinite(side).all() for pair in sides.values() for side in pair):
        return None
    return {name: (low, high) for name, (low, high) in sides.items()}


def run_network(
    weights: dict[str, torch.Tensor], band: ServiceBand, pools: FloatArray, whole: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Capacities and shares `[N, P]` for features, in float64 as the environment wants them."""
    of_pools, of_set = np.ascontiguousarray(pools), np.ascontiguousarray(whole)
    given = (torch.from_numpy(each) for each in (of_pools, of_set, band(of_set)))
    with torch.no_grad():
        capacity, share = decide(weights, *given)
    return capacity.numpy().astype(np.float64), share.numpy().astype(np.float64)


def decider_of(network: PoolsNetwork, band: ServiceBand) -> Decider:
    """A network that all sets share."""
    weights = {name: each.detach() for name, each in network.named_parameters()}
    return lambda pools, whole: run_network(weights, band, pools, whole)


def loss_of(played: Played, settings: Evolution) -> FloatArray:
    """The loss of each episode at its own preference, `[episodes]`."""
    low, high = settings.price_exponent
    price = 10.0 ** (low + (high - low) * played["preference"] / 100.0)
    late = played["violation"] + settings.over_p99 * played["over_p99"]
    restless = settings.churn * (played["churn"] + played["route_churn"])
    return np.asarray(np.log(np.maximum(played["cost"], 1e-3)) + price * late + restless)


def flat(network: PoolsNetwork) -> torch.Tensor:
    """All parameters in a row, `[D]`."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()])


def unflat(network: PoolsNetwork, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Rows `[N, D]` as parameters with a leading axis of N."""
    result, start = {}, 0
    for name, parameter in network.named_parameters():
        size = parameter.numel()
        result[name] = rows[:, start : start + size].reshape(len(rows), *parameter.shape[1:])
        start += size
    return result


def _scales(network: PoolsNetwork) -> torch.Tensor:
    scales = []
    for name, parameter in network.named_parameters():
        if name == "dial":
            own = torch.tensor([DIAL_SCALES[one] for one in DIAL])[None, :, None].expand(parameter.shape)
        elif name.endswith("out"):
            own = torch.full(parameter.shape, OUT_SCALE)
        else:
            own = torch.full(parameter.shape, HIDDEN_SCALE / math.sqrt(parameter.shape[1]))
        scales.append(own.reshape(-1))
    return torch.cat(scales)
