"""Pools that share one traffic: how replicas are split and how route weights follow them.

Formulas for one service at a time: cheapest pool first inside its weight band, and weights
proportional to ready replicas, as integers by largest remainder. `guard_weights` is the last word on the
weights that a policy asks for, for N services at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from controller.core.samples import BoolArray, FloatArray, IntArray
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


def guard_weights(
    asked: FloatArray,
    current: IntArray,
    ready: IntArray | FloatArray,
    min_weight: IntArray,
    max_weight: IntArray,
    max_step: IntArray | int = WEIGHT_TOTAL,
) -> IntArray:
    """The integer weights `[N, P]` nearest to those asked for that keep the rules; each row sums to 100.

    asked: non-negative shares `[N, P]` of any sum; a row with a value that is not finite, or that asks
    nothing of any ready pool, asks for the current weights. current, min_weight, max_weight: int `[N, P]`.
    ready: replicas `[N, P]`; an absent pool has none. max_step: largest change of a weight, int or `[N]`.

    In this order, the first being the last to give way:
    1. a pool with no ready replica gets nothing, at once; where no pool is ready, weights stay as they are;
    2. minWeight and maxWeight of the pools that are ready; a weight that is outside comes back by steps;
    3. no weight moves by more than `max_step`, but as far as 1 and 2 need it.

    Nearest is in the Euclidean sense, after the asked shares of the ready pools were scaled to 100.
    """
    serving = np.asarray(ready) > 0
    lowest, highest = _weight_bounds(current, serving, min_weight, max_weight, max_step)
    wanted = _wanted(np.asarray(asked, dtype=np.float64), current, serving)
    rounded = _rounded(_projected(wanted, lowest, highest), highest)
    anybody = np.asarray(serving.any(axis=1))[:, None]
    return np.where(anybody, rounded, current).astype(np.int64)


def _weight_bounds(
    current: IntArray,
    serving: BoolArray,
    min_weight: IntArray,
    max_weight: IntArray,
    max_step: IntArray | int,
) -> tuple[FloatArray, FloatArray]:
    """(lowest, highest) weights; where none could keep the rules they give way, steps first, by the least."""
    step = np.asarray(max_step, dtype=np.int64).reshape(-1, 1)
    low, high = np.where(serving, min_weight, 0), np.where(serving, max_weight, 0)
    nearest, farthest = current - step, current + step
    lowest = np.where(serving, np.clip(low, nearest, farthest), 0).astype(np.float64)
    highest = np.where(serving, np.clip(high, nearest, farthest), 0).astype(np.float64)
    for wider in (high, np.where(serving, WEIGHT_TOTAL, 0)):
        short = highest.sum(axis=1, keepdims=True) < WEIGHT_TOTAL
        if short.any():
            highest = np.where(short, _projected(highest, highest, np.maximum(wider, highest)), highest)
    for wider in (low, np.zeros_like(low)):
        long = lowest.sum(axis=1, keepdims=True) > WEIGHT_TOTAL
        if long.any():
            lowest = np.where(long, _projected(lowest, np.minimum(wider, lowest), lowest), lowest)
    return lowest, highest


def _wanted(asked: FloatArray, current: IntArray, serving: BoolArray) -> FloatArray:
    said = np.isfinite(asked).all(axis=1, keepdims=True)
    shares = np.where(said & serving, np.maximum(np.nan_to_num(asked), 0.0), 0.0)
    for otherwise in (np.where(serving, current, 0), serving):
        silent = shares.sum(axis=1, keepdims=True) <= 0.0
        shares = np.where(silent, otherwise, shares)
    return np.asarray(shares * WEIGHT_TOTAL / np.maximum(shares.sum(axis=1, keepdims=True), 1e-300))


def _projected(wanted: FloatArray, lowest: FloatArray, highest: FloatArray) -> FloatArray:
    """The point of the box that sums to the total nearest to `wanted`: clip(wanted + shift), the shift found
    exactly between the two of its break points where the sum passes the total."""
    shifts = np.sort(np.concatenate([lowest - wanted, highest - wanted], axis=1), axis=1)
    sums = np.clip(wanted[:, None, :] + shifts[:, :, None], lowest[:, None, :], highest[:, None, :]).sum(
        axis=2
    )
    after = np.clip((sums < WEIGHT_TOTAL).sum(axis=1), 1, shifts.shape[1] - 1)[:, None]
    left, right = np.take_along_axis(shifts, after - 1, axis=1), np.take_along_axis(shifts, after, axis=1)
    below, above = np.take_along_axis(sums, after - 1, axis=1), np.take_along_axis(sums, after, axis=1)
    part = np.where(above > below, (WEIGHT_TOTAL - below) / np.maximum(above - below, 1e-300), 0.0)
    shift = left + np.clip(part, 0.0, 1.0) * (right - left)
    return np.asarray(np.clip(wanted + shift, lowest, highest))


def _rounded(exact: FloatArray, highest: FloatArray) -> IntArray:
    """Integers that sum to the total: rounded down, then the largest remainders up, none above its bound."""
    whole = np.floor(exact + 1e-9).astype(np.int64)
    remainder = np.where(whole < highest, exact - whole, -1.0)
    missing = WEIGHT_TOTAL - whole.sum(axis=1, keepdims=True)
    rank = np.argsort(np.argsort(-remainder, axis=1, kind="stable"), axis=1, kind="stable")
    return np.asarray(whole + (rank < missing))
