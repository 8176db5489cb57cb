"""Formula policies for several pools behind a route: what a learned one has to beat in `rlscaler/Pools-v0`.

Each is a function of a `PoolsView` and of the headroom (joint capacity asked for, over the load) that gives
actions `[N, 2 P]` of the environment's Box, so that all go through the same guards. With one headroom they
buy the same joint capacity as far as maxReplicas allow; they differ in where, and in how they split the
traffic.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sim.envs.pool_batch import PoolsView, action_of

FloatArray = npt.NDArray[np.floating]
PoolPolicy = Callable[[PoolsView, float], FloatArray]


def equal(view: PoolsView, headroom: float = 1.5) -> FloatArray:
    """Each pool the same capacity and the same share of the traffic."""
    shares = _normalised(view.present.astype(np.float64), view)
    return action_of(headroom * shares, shares)


def capacity_proportional(view: PoolsView, headroom: float = 1.5) -> FloatArray:
    """Capacity and traffic in proportion to what the pools could be at most (maxReplicas)."""
    shares = _normalised(view.max_replicas * view.capacity_rps, view)
    return action_of(headroom * shares, shares)


def ready_proportional(view: PoolsView, headroom: float = 1.5) -> FloatArray:
    """Capacity as `equal`, traffic in proportion to the capacity of the ready replicas."""
    plan = _normalised(view.present.astype(np.float64), view)
    return action_of(headroom * plan, _normalised(view.metrics.ready * view.capacity_rps, view))


def cheapest_first(view: PoolsView, headroom: float = 1.5) -> FloatArray:
    """Capacity from the cheapest pool up to its maxReplicas, then from the next; traffic where it is ready.

    Where nothing of the plan is ready yet, traffic stays in proportion to all ready capacity.
    """
    load = np.maximum(np.nan_to_num(view.load_rps, nan=1.0), 1e-9)[:, None]
    room = np.where(view.present, view.max_replicas * view.capacity_rps / load, 0.0)
    order = np.argsort(np.where(view.present, view.price, np.inf), axis=1, kind="stable")
    sorted_room = np.take_along_axis(room, order, axis=1)
    before = np.cumsum(sorted_room, axis=1) - sorted_room
    bought = np.clip(headroom - before, 0.0, sorted_room)
    plan = np.zeros_like(room)
    np.put_along_axis(plan, order, bought, axis=1)
    ready = view.metrics.ready * view.capacity_rps / load
    planned = np.minimum(ready, plan)
    none = planned.sum(axis=1, keepdims=True) <= 0.0
    return action_of(plan, _normalised(np.where(none, ready, planned), view))


BASELINES: dict[str, PoolPolicy] = {
    "equal": equal,
    "capacity-proportional": capacity_proportional,
    "ready-proportional": ready_proportional,
    "cheapest-first": cheapest_first,
}


def _normalised(values: FloatArray, view: PoolsView) -> FloatArray:
    """Shares that sum to 1 over the present pools; equal ones where all values are 0."""
    shares = np.where(view.present, values, 0.0)
    total = shares.sum(axis=1, keepdims=True)
    even = view.present / view.present.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, shares / np.maximum(total, 1e-300), even))
