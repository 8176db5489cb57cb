"""Weights for the services of a route: ready replicas inside each pool's band, by limited steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from controller.actuation.routes.base import Weigh
from controller.core import Pool, route_weights
from controller.core.pools import WEIGHT_TOTAL, guard_weights, largest_remainder

Ask = Callable[[Sequence[int]], Sequence[float] | None]


def weigher(
    services: Sequence[str],
    pools: Sequence[Pool],
    ready: Sequence[int],
    max_step: int | None = None,
    ask: Ask | None = None,
) -> Weigh | None:
    """How the pools are to share a total, or None while no pool has a ready replica.

    max_step: most percentage points that a weight moves in one turn. A pool without ready replicas gets
    nothing whatever the step is. ask: shares from the current weights, None for these; default: by ready
    replicas.
    """
    if sum(ready) <= 0:
        return None

    def weigh(total: int, now: Mapping[str, int]) -> Mapping[str, int]:
        current = [now[service] for service in services]
        asked: Sequence[float] = route_weights(ready, pools, total) or [0] * len(pools)
        if ask is not None:
            asked = ask(current) or [float(weight) for weight in current]
        if ask is not None or (max_step is not None and sum(current) > 0):
            asked = _guarded(asked, current, ready, pools, total, max_step or WEIGHT_TOTAL)
        return dict(zip(services, map(int, asked), strict=True))

    return weigh


def _guarded(
    asked: Sequence[float],
    current: Sequence[int],
    ready: Sequence[int],
    pools: Sequence[Pool],
    total: int,
    max_step: int,
) -> list[int]:
    """In percentage points, as bounds and steps are; back to the total at the end."""

    def row(values: Sequence[float]) -> np.ndarray:
        return np.array([values])

    before = largest_remainder(current if sum(current) > 0 else ready, WEIGHT_TOTAL)
    shares = guard_weights(
        row([float(weight) for weight in asked]),
        row(before),
        row(ready),
        row([pool.min_weight for pool in pools]),
        row([pool.max_weight for pool in pools]),
        max_step,
    )[0]
    return largest_remainder(shares.tolist(), total)
