"""What a policy may look at: one moment of N services, read-only.

Features, recent loads and settings are made when asked for, from the engine's state, so that a policy
that does not need them pays nothing. The engine makes views; a view is valid until the next reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from controller.core.observation import COARSE_STEP_S, FINE_SLOTS, FINE_STEP_S
from controller.core.samples import BoolArray, FloatArray, IntArray, Samples

MAX_FINE_BINS = FINE_SLOTS
MAX_COARSE_BINS = 1500
"""An hour of bins of 15 s, and 25 hours of bins of 60 s: what `View.fine` and `View.coarse` reach back."""

MakeFeatures = Callable[[IntArray], tuple[FloatArray, BoolArray]]
"""(index `[K]` into the view) -> features float32 `[K, F]` and their mask `[K, F]`."""
MakeLoads = Callable[[IntArray, float, int, float], FloatArray]
"""(index `[K]` into the view, FINE_STEP_S or COARSE_STEP_S, bins, ago_s) -> float32 `[K, bins]`."""
MakeSetting = Callable[[IntArray, str], FloatArray]
"""(index `[K]` into the view, name of one of View's settings) -> float64 `[K]`."""


@dataclass
class View:
    """Arrays `[N]`: rows of the engine, time (s), replicas, load in replicas, HPA formula, settings.

    `usable` is False where the load is missing; `failures` counts such readings in a row.
    The three `make_` functions are how whoever makes the view answers what is asked for later.
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
    make_features: MakeFeatures
    make_loads: MakeLoads
    make_setting: MakeSetting

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _features(self) -> tuple[FloatArray, BoolArray]:
        return self.make_features(self._all)

    @property
    def looked_at(self) -> bool:
        """Whether anybody has asked for features."""
        return "_features" in self.__dict__

    @property
    def features(self) -> FloatArray:
        """Feature matrix, float32 `[N, F]`, in the order of OBSERVATION_SCHEMA."""
        return self._features[0]

    @property
    def valid(self) -> BoolArray:
        """Validity mask `[N, F]`: False where a feature is unknown (0 in the matrix)."""
        return self._features[1]

    def fine(self, bins: int, ago_s: float = 0.0) -> FloatArray:
        """Loads in replicas of the last `bins` bins of 15 s: float32 `[N, bins]`, NaN where unknown.

        Bins lie on the grid of absolute time: bin k holds the mean of the readings with
        floor(now_s / 15) == k. Oldest first; the last column is bin floor((now_s - ago_s) / 15), which at
        ago_s = 0 holds this very reading. A reading also fills the bins before it that its sync period
        covers and no other reading fell into. A load is the rate of that time over the capacity believed
        in now, or utilisation x ready of a service without request rates. At most MAX_FINE_BINS bins,
        ago_s included; older ones are NaN. Raises ValueError when `bins` is outside 1..MAX_FINE_BINS.
        """
        _require_bins(bins, MAX_FINE_BINS)
        return self.make_loads(self._all, FINE_STEP_S, bins, ago_s)

    def coarse(self, bins: int, ago_s: float = 0.0) -> FloatArray:
        """The same in bins of 60 s, at most MAX_COARSE_BINS of them: float32 `[N, bins]`."""
        _require_bins(bins, MAX_COARSE_BINS)
        return self.make_loads(self._all, COARSE_STEP_S, bins, ago_s)

    @property
    def min_replicas(self) -> FloatArray:
        """minReplicas `[N]`."""
        return self._setting("min_replicas")

    @property
    def max_replicas(self) -> FloatArray:
        """maxReplicas `[N]`."""
        return self._setting("max_replicas")

    @property
    def sync_period_s(self) -> FloatArray:
        """Seconds between decisions `[N]`."""
        return self._setting("sync_period_s")

    @property
    def start_up_s(self) -> FloatArray:
        """Seconds from the creation of a replica until it is ready `[N]`."""
        return self._setting("start_up_s")

    @property
    def slo_latency_ms(self) -> FloatArray:
        """The latency objective in milliseconds `[N]`; NaN without one."""
        return self._setting("slo_latency_ms")

    @property
    def slo_percentile(self) -> FloatArray:
        """The percentile of the latency objective in percent `[N]`, such as 95."""
        return self._setting("slo_percentile")

    @property
    def capacity_rps(self) -> FloatArray:
        """Requests/s that one replica is believed to serve `[N]`; NaN if unknown or without request rates."""
        return self._setting("capacity_rps")

    @property
    def tolerance_up(self) -> FloatArray:
        """`behavior.scaleUp.tolerance` `[N]`, a share."""
        return self._setting("tolerance_up")

    @property
    def tolerance_down(self) -> FloatArray:
        """`behavior.scaleDown.tolerance` `[N]`, a share."""
        return self._setting("tolerance_down")

    @property
    def _all(self) -> IntArray:
        return np.arange(len(self.rows))

    def _setting(self, name: str) -> FloatArray:
        return self.make_setting(self._all, name)

    def take(self, index: IntArray) -> View:
        """The same moment for some of the services."""
        picked = {
            item.name: getattr(self, item.name)[index]
            for item in fields(self)
            if item.name not in ("samples", "make_features", "make_loads", "make_setting")
        }
        whole = self

        def make_features(local: IntArray) -> tuple[FloatArray, BoolArray]:
            return whole.features[index[local]], whole.valid[index[local]]

        return View(
            **picked,
            samples=take_samples(self.samples, index),
            make_features=make_features,
            make_loads=lambda local, step_s, bins, ago_s: whole.make_loads(index[local], step_s, bins, ago_s),
            make_setting=lambda local, name: whole.make_setting(index[local], name),
        )


def take_samples(samples: Samples, index: IntArray) -> Samples:
    """The readings of some of the services."""
    part = Samples.__new__(Samples)
    for name in Samples.__slots__:
        setattr(part, name, getattr(samples, name)[index])
    return part


def _require_bins(bins: int, most: int) -> None:
    if not 1 <= bins <= most:
        raise ValueError(f"bins: {bins} is not allowed, must be in 1..{most}")
