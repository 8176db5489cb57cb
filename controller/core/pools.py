"""Pools that share one traffic: how replicas are split and how route weights follow them.

Formulas for one service at a time: cheapest pool first inside its weight band, and weights
proportional to ready replicas, as integers by largest remainder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from controller.core.spec import Pool

WEIGHT_TOTAL = 100


def split_replicas(desired: int, pools: Sequence[Pool]) -> list[int]:
    """Replicas for each pool: floors first, then the cheapest pool up to its share, then any room.

    The sum is `desired` wherever the pools' floors and ceilings allow it, and more where the floors
    alone (minReplicas, and the share that minWeight asks for) come to more.
    """
    result = [
        min(max(pool.min_replicas, math.ceil(desired * pool.min_weight / WEIGHT_TOTAL)), pool.max_replicas)
        for pool in pools
    ]
    order = sorted(range(len(pools)), key=lambda i: (pools[i].cost_per_replica, i))
    shares = [math.floor(desired * pool.max_weight / WEIGHT_TOTAL) for pool in pools]
    for caps in (shares, [pool.max_replicas for pool in pools]):
        for i in order:
            room = min(caps[i], pools[i].max_replicas) - result[i]
            result[i] += max(0, min(room, desired - sum(result)))
    return result


def route_weights(ready: Sequence[int], pools: Sequence[Pool], total: int = WEIGHT_TOTAL) -> list[int] | None:
    """Integer weights that sum to `total`, proportional to ready replicas inside each pool's band.

    A pool with no ready replica gets 0. None when no pool is ready: the weights then stay as they are.
    Where the bands of the ready pools cannot sum to the total, they are stretched.
    """
    if sum(ready) <= 0:
        return None
    serving = [i for i, count in enumerate(ready) if count > 0]
    low = {i: pools[i].min_weight * total / WEIGHT_TOTAL for i in serving}
    high = {i: pools[i].max_weight * total / WEIGHT_TOTAL for i in serving}
    if sum(high.values()) < total:
        high = {i: float(total) for i in serving}
    if sum(low.values()) > total:
        low = dict.fromkeys(serving, 0.0)
    shares = _fill({i: float(ready[i]) for i in serving}, low, high, float(total))
    return largest_remainder([shares.get(i, 0.0) for i in range(len(pools))], total)


def _fill(
    demand: dict[int, float], low: dict[int, float], high: dict[int, float], total: float
) -> dict[int, float]:
    """Proportional shares clipped into bands: the scale is found by bisection (clipping is monotone)."""
    bottom, top = 0.0, total / min(demand.values()) + 1.0
    for _ in range(100):
        scale = (bottom + top) / 2
        shares = {i: min(max(demand[i] * scale, low[i]), high[i]) for i in demand}
        if sum(shares.values()) < total:
            bottom = scale
        else:
            top = scale
    return shares


def largest_remainder(shares: Sequence[float], total: int) -> list[int]:
    """Non-negative shares -> integers that sum to `total`; the largest remainders are rounded up."""
    whole = sum(shares)
    exact = [share * total / whole for share in shares]
    result = [math.floor(value + 1e-9) for value in exact]
    order = sorted(range(len(shares)), key=lambda i: (result[i] - exact[i], i))
    for i in order[: total - sum(result)]:
        result[i] += 1
    return result
