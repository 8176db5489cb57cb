"""The pools policy without one part each, and what there is without it: `benchmarks.pools` plays them.

Each is made anew for a batch, since ejection and smoothed readings remember.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.core.action import decode_hold_band
from controller.core.weighing import Smoother, expected_delay
from sim.envs.pool_batch import PoolsBatch, action_of
from sim.envs.pool_features import split_observation
from sim.pool_baselines import Ejection, readings_of
from training.poolsets.export import BUILTIN, ServiceBand
from training.poolsets.learner import decider_of
from training.poolsets.network import PoolsNetwork
from training.poolsets.playing import Act, ArtifactDecider, Ejecting

FloatArray = npt.NDArray[np.floating[Any]]
BUILTIN_POOLS = BUILTIN.with_name("pools.onnx")


class ServiceSplit:
    """Capacity by the service policy alone, split as maxReplicas are; traffic by expected delay; ejection."""

    def __init__(self, band: ServiceBand) -> None:
        self._band, self._ejection = band, Ejection()
        self._smoother: Smoother | None = None

    def __call__(self, batch: PoolsBatch) -> FloatArray:
        """Actions `[N, 2 P]`."""
        view = batch.view()
        readings = readings_of(view)
        self._smoother = self._smoother or Smoother(*view.present.shape)
        self._smoother.update(readings, view.sync_s.astype(np.float64))
        unit = batch.settings.unit_rps
        load = view.load_rps / unit
        now = np.rint((view.metrics.current * view.capacity_rps * view.present).sum(axis=1) / unit)
        edges = self._band(split_observation(batch.observations, batch.pools)[1])
        wanted = decode_hold_band(edges, now.astype(np.int64), load) / np.maximum(load, 1e-9)
        room = np.where(view.present, view.max_replicas * view.capacity_rps, 0.0)
        plan = np.nan_to_num(wanted)[:, None] * room / room.sum(axis=1, keepdims=True)
        return action_of(plan, self._ejection(view, expected_delay(readings, self._smoother)))


def ablations(artifact: bytes) -> dict[str, Callable[[], Act]]:
    """By name, policies to compare with the artifact's."""
    band = ServiceBand.from_file()
    return {
        "without ejection": lambda: Ejecting(ArtifactDecider(artifact), ejects=False),
        "untrained network (the formula inside it)": lambda: Ejecting(decider_of(PoolsNetwork(), band)),
        "service policy, maxReplicas split, expected delay, ejection": lambda: ServiceSplit(band),
    }
