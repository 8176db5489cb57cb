"""The network: a formula for pools whose every part is a learned number, and a Deep Set that corrects it.

The set is first a service: the built-in policy for services gives its hold band (`edges`), which says how
much capacity the load needs. From there, for every pool by the same numbers, whatever their count and order:

    health_p = exp(-(slowness, errors, lateness) . k + a_p)                 at most 1
    total    = clip(sum_p health_p * provisioned_p, exp(lower edge + l), exp(upper edge + l + u))
    want_p   = most_p^m * exp(-b * price_p - r * risk_p + h * ln health_p + w_p)
    planned_p = min(cap_p, x * want_p) / health_p^q, x such that without q they sum to the total
    capacity_p = provisioned_p within planned_p * exp(-down), planned_p * exp(up)
    share_p  ~ ready_p * health_p^s * (planned_p / ready_p)^t * exp(c_p), partly the weights of now

Letters without an index are numbers of the dial (two each: at preference 0 and at 100); a_p, w_p, c_p, and an
addition to l and u, come from the Deep Set (Zaheer et al., NeurIPS 2017):

    z_p = tanh(A pool_p + B set + b);  pooled = (mean_p z_p, max_p z_p)
    (a_p, w_p, c_p) = E tanh(C z_p + D pooled + c);  (l, u) += G tanh(F (set, pooled) + f)

E and G begin at 0: an untrained network is the formula. Absent pools are masked everywhere.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from training.poolsets.sights import (
    POOL_INPUTS,
    SET_INPUTS,
    Sights,
    pool_inputs,
    preference_of,
    set_inputs,
    sights,
)

Tensor = torch.Tensor
MAX_CAPACITY = 4.0
"""Largest capacity that can be asked of a pool, over the set's load."""
DIAL = {
    "lower": (0.0, 0.0),
    "gap": (0.0, 0.0),
    "price": (2.0, 1.0),
    "risk": (0.5, 1.5),
    "size": (1.0, 1.0),
    "slow": (1.0, 1.0),
    "failing": (4.0, 4.0),
    "late": (0.2, 0.2),
    "told": (0.5, 1.0),
    "ill": (1.0, 1.0),
    "make_up": (0.3, 0.3),
    "held_down": (0.05, 0.05),
    "held_up": (0.2, 0.2),
    "steer": (1.0, 1.0),
    "follow": (0.0, 0.0),
    "stay": (-1.5, -1.5),
    "rounding": (-2.0, -2.0),
}
"""Numbers of the formula at preference 0 and at 100, before training."""
TOLERANCE = 0.15
"""Slowness and errors below this (logarithm) and ERRORS are within what beliefs and noise explain."""
ERRORS = 0.01
ROUNDS = 5
"""Rounds of the water filling; each finds all pools that are full at the level so far."""
LEAST = 1e-6
CORRECTION = 1.5
"""Largest correction (logarithm) of what the Deep Set says of a pool; half of it of the band."""


class PoolsNetwork(nn.Module):
    """`pools` `[N, P, F]`, `set` `[N, S]` and the service policy's `edges` `[N, 2]` to `capacity` and `share`
    `[N, P]`.

    Every parameter has a leading axis of 1, or of N in `decide`: then each set has a network of its own.
    """

    def __init__(self, width: int = 16, seed: int = 0) -> None:
        super().__init__()
        self.width = width
        generator = torch.Generator().manual_seed(seed)

        def random(rows: int, columns: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(1, rows, columns, generator=generator) / rows**0.5)

        def zeros(rows: int, columns: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(1, rows, columns))

        of_pool, of_set = len(POOL_INPUTS), len(SET_INPUTS) + 2
        self.dial = nn.Parameter(torch.tensor([list(DIAL.values())], dtype=torch.float32))
        self.pool_in, self.set_in, self.bias_in = (
            random(of_pool, width),
            random(of_set, width),
            zeros(1, width),
        )
        self.own, self.others, self.bias = random(width, width), random(2 * width, width), zeros(1, width)
        self.out = zeros(width, 3)
        self.whole, self.whole_bias = random(of_set + 2 * width, width), zeros(1, width)
        self.whole_out = zeros(width, 2)

    def forward(self, pools: Tensor, whole: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """(capacity, share)."""
        return decide(dict(self.named_parameters()), pools, whole, edges)

    def precise(self) -> Precise:
        """The same in double precision, for export: exponentials of far-off features differ between libraries
        by more than 1e-5 in single precision."""
        return Precise(self)


class Precise(nn.Module):
    """A network whose sums are in double precision; inputs and outputs stay float32."""

    def __init__(self, network: PoolsNetwork) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).double().eval()

    def forward(self, pools: Tensor, whole: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """(capacity, share)."""
        capacity, share = self.network(pools.double(), whole.double(), edges.double())
        return capacity.float(), share.float()


def decide(
    weights: Mapping[str, Tensor], pools: Tensor, whole: Tensor, edges: Tensor
) -> tuple[Tensor, Tensor]:
    """(capacity, share) `[N, P]` under `weights`, whose leading axes are 1 (shared) or N (one a set)."""
    seen = sights(pools)
    per_pool, of_set = _corrections(weights, pools, whole, edges, seen.present)
    dial = _dial(weights["dial"], preference_of(whole))
    sick = (
        dial["slow"] * (seen.slower - TOLERANCE).clamp(min=0.0)
        + dial["failing"] * (seen.failing - ERRORS).clamp(min=0.0)
        + dial["late"] * seen.late
        - per_pool[:, :, 0]
    )
    log_health = -sick.clamp(0.0, 6.0)
    total = _total(seen, log_health, dial, of_set, edges)
    planned = _planned(seen, log_health, dial, per_pool[:, :, 1], total)
    share = _share(seen, log_health, dial, per_pool[:, :, 2], planned)
    return _held(seen, dial, planned), share


def _dial(numbers: Tensor, preference: Tensor) -> dict[str, Tensor]:
    """The formula's numbers `[N, 1]` at each set's preference."""
    first, last = numbers[:, :, 0], numbers[:, :, 1]
    values = first + (last - first) * preference
    return {name: values[:, place : place + 1] for place, name in enumerate(DIAL)}


def _corrections(
    weights: Mapping[str, Tensor], pools: Tensor, whole: Tensor, edges: Tensor, present: Tensor
) -> tuple[Tensor, Tensor]:
    """The Deep Set: corrections of pools `[N, P, 3]` and of the band `[N, 2]`."""
    there = present[:, :, None]
    context = torch.cat([set_inputs(whole), edges.clamp(-1.0, 4.0)], dim=1)[:, None, :]
    hidden = torch.tanh(
        pool_inputs(pools) @ weights["pool_in"] + context @ weights["set_in"] + weights["bias_in"]
    )
    mean = (hidden * there).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1.0)
    largest = (hidden - 2.0 * (1.0 - there)).amax(1, keepdim=True).clamp(min=-1.0)
    pooled = torch.cat([mean, largest], dim=2)
    second = torch.tanh(hidden @ weights["own"] + pooled @ weights["others"] + weights["bias"])
    everything = torch.cat([context, pooled], dim=2) @ weights["whole"] + weights["whole_bias"]
    of_set = torch.tanh(torch.tanh(everything) @ weights["whole_out"])[:, 0, :]
    return CORRECTION * torch.tanh(second @ weights["out"]), 0.5 * CORRECTION * of_set


def _total(
    seen: Sights, log_health: Tensor, dial: dict[str, Tensor], of_set: Tensor, edges: Tensor
) -> Tensor:
    """Healthy capacity that the set should have, over its load, `[N, 1]`."""
    lower = edges[:, :1].clamp(-3.0, 6.0) + dial["lower"] + of_set[:, :1]
    upper = lower + ((edges[:, 1:] - edges[:, :1]) + dial["gap"] + of_set[:, 1:]).clamp(min=0.0)
    now = (seen.now * log_health.exp()).sum(1, keepdim=True)
    return torch.minimum(torch.maximum(now, lower.exp()), upper.clamp(max=8.0).exp())


def _planned(
    seen: Sights, log_health: Tensor, dial: dict[str, Tensor], wish: Tensor, total: Tensor
) -> Tensor:
    """Capacity of each pool `[N, P]` that sums to the total as far as their bounds allow."""
    health = log_health.exp()
    cap = torch.minimum(seen.most, seen.highest * total) * health
    want = (
        dial["size"] * seen.most.clamp(LEAST, 20.0).log()
        - dial["price"] * seen.price
        - dial["risk"] * seen.risk
        - dial["told"] * seen.told
        + dial["ill"] * log_health
        + wish
    )
    want = (want - (want - 100.0 * (1.0 - seen.present)).amax(1, keepdim=True)).clamp(-20.0, 0.0).exp()
    want = want * seen.present
    level = total / want.sum(1, keepdim=True).clamp(min=LEAST)
    for _ in range(ROUNDS):
        full = (level * want >= cap).to(want.dtype)
        left = (total - (full * cap).sum(1, keepdim=True)).clamp(min=0.0)
        room = ((1.0 - full) * want).sum(1, keepdim=True)
        level = torch.where(room > LEAST, torch.maximum(left / room.clamp(min=LEAST), level), level)
    planned = torch.minimum(level * want, cap) * (-dial["make_up"].clamp(0.0, 1.0) * log_health).exp()
    planned = torch.minimum(planned, seen.most)
    return torch.maximum(planned, torch.minimum(seen.lowest * total, seen.most)) * seen.present


def _share(
    seen: Sights, log_health: Tensor, dial: dict[str, Tensor], wish: Tensor, planned: Tensor
) -> Tensor:
    """Traffic shares `[N, P]` that sum to 1 over the pools with a ready replica; 0 where there is none."""
    serves = (seen.ready > 0.0).to(planned.dtype)
    ready = seen.ready.clamp(LEAST)
    ahead = (planned.clamp(LEAST) / ready).log().clamp(-2.0, 0.5)
    wanted = ready.log() + dial["steer"] * log_health + dial["follow"] * ahead + wish
    wanted = (wanted - (wanted - 100.0 * (1.0 - serves)).amax(1, keepdim=True)).clamp(-20.0, 0.0).exp()
    wanted = _normal(wanted * serves)
    now = seen.asked * serves
    stay = torch.sigmoid(dial["stay"]) * (now.sum(1, keepdim=True) > 0.0)
    return _normal((1.0 - stay) * wanted + stay * _normal(now))


def _held(seen: Sights, dial: dict[str, Tensor], planned: Tensor) -> Tensor:
    """What there is, unless it is too far from what is planned; a part of a replica is rounded down."""
    least = planned * (-dial["held_down"].clamp(0.0, 1.0)).exp()
    most = planned * dial["held_up"].clamp(0.0, 2.0).exp()
    wanted = torch.minimum(torch.maximum(seen.now, least), most)
    spared = 0.05 + 0.45 * torch.sigmoid(dial["rounding"])
    return (wanted - spared * seen.one).clamp(0.0, MAX_CAPACITY) * seen.present


def _normal(values: Tensor) -> Tensor:
    return values / values.sum(1, keepdim=True).clamp(min=LEAST * LEAST)
