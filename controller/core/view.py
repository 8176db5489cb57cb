"""What a policy may look at: one moment of N services, read-only; features are made when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from controller.core.samples import BoolArray, FloatArray, IntArray, Samples


@dataclass
class View:
    """Arrays `[N]`: rows of the engine, time (s), replicas, load in replicas, HPA formula, settings.

    `usable` is False where the load is missing; `failures` counts such readings in a row.
    """

    rows: IntArray
    now_s: FloatArray
    current: IntArray
    ready: FloatArray
    load: FloatArray
    hpa_replicas: FloatArray
    usable: BoolArray
    failures: IntArray
    capacity_known: BoolArray
    slo_in_danger: BoolArray
    preference: FloatArray
    target_utilisation: FloatArray
    samples: Samples
    make_features: Callable[[IntArray], tuple[FloatArray, BoolArray]]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _features(self) -> tuple[FloatArray, BoolArray]:
        return self.make_features(np.arange(len(self.rows)))

    @property
    def features(self) -> FloatArray:
        """Feature matrix, float32 `[N, F]`, in the order of OBSERVATION_SCHEMA."""
        return self._features[0]

    @property
    def valid(self) -> BoolArray:
        """Validity mask `[N, F]`: False where a feature is unknown (0 in the matrix)."""
        return self._features[1]

    def take(self, index: IntArray) -> View:
        """The same moment for some of the services."""
        picked = {
            item.name: getattr(self, item.name)[index]
            for item in fields(self)
            if item.name not in ("samples", "make_features")
        }
        whole = self

        def make_features(local: IntArray) -> tuple[FloatArray, BoolArray]:
            return whole.features[index[local]], whole.valid[index[local]]

        return View(**picked, samples=take_samples(self.samples, index), make_features=make_features)


def take_samples(samples: Samples, index: IntArray) -> Samples:
    """The readings of some of the services."""
    part = Samples.__new__(Samples)
    for name in Samples.__slots__:
        setattr(part, name, getattr(samples, name)[index])
    return part
