"""The observation of pools read backwards: ratios in plain units, and the network's scaled inputs.

`training.poolsets.network` is the caller. All is a function of one observation, so the policy needs no
memory; what the operator's and the simulator's schema say is in `controller.core.poolfeatures`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from controller.core.poolfeatures import POOL_SCHEMA, SET_SCHEMA

Tensor = torch.Tensor
CLIP = 4.0
"""Scaled inputs are held within this."""
SET_INPUTS = {
    "provisioned_over_load": 0.5,
    "ready_over_load": 0.5,
    "pending_share": 1.0,
    "granularity": 2.0,
    "shot_noise": 2.0,
    "load_change_60s": 2.0,
    "load_change_300s": 1.0,
    "load_max_300s": 1.0,
    "load_max_3600s": 0.5,
    "variability_600s": 2.0,
    "move_q995_1h": 0.5,
    "latency_over_slo": 0.5,
    "violation_recent": 2.0,
    "error_ratio": 2.0,
    "utilisation": 1.0,
    "capacity_check": 1.0,
    "backlog": 0.5,
    "start_up": 0.5,
    "sync_period": 1.0,
    "scale_down_window": 1.0,
    "since_scale_up": 1.0,
    "since_scale_down": 1.0,
    "preference": 2.0,
    "pools": 2.0,
    "propagation": 0.3,
    "max_weight_step": 1.0,
}
"""What of the set the network's hidden layers see, and by how much it is multiplied."""
POOL_INPUTS = {
    "price": 0.7,
    "reclaim_risk": 2.0,
    "notice_share": 2.0,
    "granularity": 2.0,
    "replica_size": 0.5,
    "ready_over_load": 0.5,
    "ready_over_set_load": 0.5,
    "provisioned_over_set_load": 0.5,
    "headroom_to_max": 0.5,
    "ready_share": 2.0,
    "weight_asked": 2.0,
    "weight_in_force": 2.0,
    "load_share": 2.0,
    "weight_room_up": 1.0,
    "utilisation": 1.0,
    "latency_over_slo": 0.5,
    "latency_known": 1.0,
    "error_ratio": 2.0,
    "backlog": 0.5,
    "capacity_check": 1.0,
    "pending_share": 1.0,
    "start_up": 0.5,
}
"""The same of each pool."""
_POOL = {name: column for column, name in enumerate(POOL_SCHEMA.names)}
_SET = {name: column for column, name in enumerate(SET_SCHEMA.names)}


@dataclass(frozen=True, slots=True)
class Sights:
    """Pools in plain units, `[N, P]`; capacities are over the load of the whole set.

    one: capacity of one replica. now: of the replicas asked for. ready: of the ready ones. most: of
    maxReplicas. asked, highest, lowest: weight asked for, maxWeight and minWeight, 0..1. slower: by how much
    (logarithm) it serves less than believed, beside the pool of which that is least true. late: logarithm of
    its latency over the objective, as far as it is above both the objective and the fastest pool. failing:
    its error ratio.
    """

    present: Tensor
    one: Tensor
    now: Tensor
    ready: Tensor
    most: Tensor
    asked: Tensor
    highest: Tensor
    lowest: Tensor
    price: Tensor
    risk: Tensor
    told: Tensor
    slower: Tensor
    late: Tensor
    failing: Tensor


def sights(pools: Tensor) -> Sights:
    """Read features `[N, P, F]` backwards."""
    present = (pools[:, :, _POOL["present"]] > 0.5).to(pools.dtype)

    def of(name: str) -> Tensor:
        return pools[:, :, _POOL[name]] * present

    replicas = 1.0 / (of("granularity") + (1.0 - present)).clamp(min=1e-4) - 1.0
    one = of("provisioned_over_set_load").exp() / replicas.clamp(min=0.5)
    ready = replicas - of("pending_share") * replicas.clamp(min=1.0)
    asked = of("weight_asked")
    return Sights(
        present=present,
        one=one,
        now=replicas * one * present,
        ready=torch.where(ready > 0.5, of("ready_over_set_load").exp(), torch.zeros_like(ready)) * present,
        most=of("headroom_to_max").exp() * replicas.clamp(min=1.0) * one * present,
        asked=asked,
        highest=asked + of("weight_room_up"),
        lowest=(asked - of("weight_room_down")).clamp(min=0.0),
        price=of("price"),
        risk=of("reclaim_risk"),
        told=of("notice_share"),
        slower=_above_least(of("capacity_check"), present * (of("utilisation") > 0.1).to(one.dtype)),
        late=torch.minimum(
            of("latency_over_slo").clamp(min=0.0), _above_least(of("latency_over_slo"), of("latency_known"))
        ),
        failing=of("error_ratio") ** 2,
    )


def pool_inputs(pools: Tensor) -> Tensor:
    """What the hidden layers see of each pool, `[N, P, len(POOL_INPUTS)]`."""
    return _scaled(pools, [_POOL[name] for name in POOL_INPUTS], list(POOL_INPUTS.values()))


def set_inputs(whole: Tensor) -> Tensor:
    """What the hidden layers see of the set, `[N, len(SET_INPUTS)]`."""
    return _scaled(whole, [_SET[name] for name in SET_INPUTS], list(SET_INPUTS.values()))


def preference_of(whole: Tensor) -> Tensor:
    """The dial, `[N, 1]` in 0..1."""
    return whole[:, _SET["preference"] : _SET["preference"] + 1].clamp(0.0, 1.0)


def _scaled(features: Tensor, columns: list[int], factors: list[float]) -> Tensor:
    chosen = features[..., columns] * torch.tensor(factors, dtype=features.dtype)
    return chosen.clamp(-CLIP, CLIP)


def _above_least(values: Tensor, known: Tensor) -> Tensor:
    """By how much each known value is above the least known one of its set; 0 for the others."""
    far = 100.0 * (1.0 - known)
    return (values - (values + far).amin(dim=1, keepdim=True)).clamp(min=0.0) * known
