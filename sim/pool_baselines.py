"""Formula policies for several pools behind a route: what a learned one has to beat in `rlscaler/Pools-v0`.

Each is a function of a `PoolsView` and of the headroom (joint capacity asked for, over the load) that gives
actions `[N, 2 P]` of the environment's Box, so that all go through the same guards. With one headroom they
buy the same joint capacity as far as maxReplicas allow; they differ in where, and in how they split the
traffic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from controller.core.ejection import Ejector, Unejected, with_ejections
from controller.core.weighing import WEIGHINGS, PoolReadings, Smoother
from sim.envs.pool_batch import PoolsView, action_of, capacity_of

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


class Weighed:
    """Capacity as `capacity_proportional`, traffic by one of the operator's formulas. It remembers: one
    object plays one batch from its reset on."""

    def __init__(self, weighing: str) -> None:
        self._weighing = WEIGHINGS[weighing]
        self._smoother: Smoother | None = None

    def __call__(
        self, view: PoolsView, headroom: float = 1.5, unejected: Unejected | None = None
    ) -> FloatArray:
        """Actions `[N, 2 P]`. unejected: what is known of pools that were ejected, where they may be."""
        readings = readings_of(view)
        self._smoother = self._smoother or Smoother(*view.present.shape)
        if unejected is not None:
            readings = replace(readings, weights=unejected.weights(readings.weights))
            self._smoother.forget_latency(unejected.held)
        self._smoother.update(readings, view.sync_s.astype(np.float64))
        plan = _normalised(view.max_replicas * view.capacity_rps, view)
        return action_of(headroom * plan, self._weighing(readings, self._smoother))


class Ejection:
    """The operator's outlier ejection behind any shares; one object serves one batch from its reset on."""

    def __init__(self) -> None:
        self._ejector: Ejector | None = None
        self._unejected: Unejected | None = None

    def __call__(self, view: PoolsView, shares: FloatArray) -> FloatArray:
        """The shares `[N, P]`, but for pools that are sick a probe."""
        self._ejector = self._ejector or Ejector(*view.present.shape)
        elapsed_s = view.sync_s.astype(np.float64)
        factors = self._ejector.update(view.now_s, elapsed_s, readings_of(view), view.slo_ms)
        self._unejected = self.unejected(view).after(view.metrics.weights_asked, factors)
        return with_ejections(shares, factors)

    def unejected(self, view: PoolsView) -> Unejected:
        """What pools would have had they not been ejected, for formulas that step from the weights."""
        return self._unejected or Unejected.new(*view.present.shape)


class Ejected:
    """Another formula, with ejection behind it."""

    def __init__(self, formula: PoolPolicy) -> None:
        self._formula, self._ejection = formula, Ejection()

    def __call__(self, view: PoolsView, headroom: float = 1.5) -> FloatArray:
        """Actions `[N, 2 P]`."""
        if isinstance(self._formula, Weighed):
            actions = self._formula(view, headroom, self._ejection.unejected(view))
        else:
            actions = self._formula(view, headroom)
        actions = actions.reshape(*view.present.shape, 2)
        shares = self._ejection(view, (actions[:, :, 1] + 1.0) / 2.0)
        return action_of(capacity_of(actions[:, :, 0]), shares)


def readings_of(view: PoolsView) -> PoolReadings:
    """What the operator's formulas look at."""
    shown = view.metrics
    return PoolReadings(
        ready=np.where(view.present, shown.ready, 0.0),
        capacity_rps=view.capacity_rps,
        request_rate=shown.request_rate,
        latency_ms=shown.latency_ms,
        error_ratio=shown.error_ratio,
        utilisation=shown.utilisation,
        in_flight=shown.in_flight,
        price=view.price,
        max_replicas=np.asarray(np.where(view.present, view.max_replicas, 0)),
        weights=shown.weights_asked,
        load_rps=view.load_rps,
    )


FORMULAS: dict[str, Callable[[], PoolPolicy]] = {
    "equal": lambda: equal,
    "capacity-proportional": lambda: capacity_proportional,
    "ready-proportional": lambda: ready_proportional,
    "latency-gradient": lambda: Weighed("LatencyGradient"),
    "expected-delay": lambda: Weighed("ExpectedDelay"),
    "cheapest-first": lambda: cheapest_first,
}
"""By name, each made anew for a batch."""


def _ejected(name: str) -> Callable[[], PoolPolicy]:
    return lambda: Ejected(FORMULAS[name]())


BASELINES: dict[str, Callable[[], PoolPolicy]] = FORMULAS | {
    f"{name} + ejection": _ejected(name) for name in FORMULAS
}
"""All formulas, without ejection and with it."""


def _normalised(values: FloatArray, view: PoolsView) -> FloatArray:
    """Shares that sum to 1 over the present pools; equal ones where all values are 0."""
    shares = np.where(view.present, values, 0.0)
    total = shares.sum(axis=1, keepdims=True)
    even = view.present / view.present.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, shares / np.maximum(total, 1e-300), even))
