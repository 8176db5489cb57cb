"""Policies for pools at equal cost: frontiers over a dial, interpolated, with paired bootstrap intervals.

`benchmarks.pools` and `benchmarks.pools_spot` call this. A frontier is what a policy reaches with one setting
of its dial for all episodes: headroom for a formula, preference for the trained policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.poolsets.playing import Played

FloatArray = npt.NDArray[np.floating[Any]]
RESAMPLES = 2000
BOUNDS = (2.5, 97.5)
"""Percentiles of a 95 % interval."""


@dataclass(frozen=True)
class Frontier:
    """Figures of the same episodes at each place of a dial. log_cost: natural logarithm of the cost over the
    ideal. violation: share of requests. p99: of the set over the objective (see `play_batch`). All are
    `[places, episodes]`."""

    dial: tuple[float, ...]
    log_cost: FloatArray
    violation: FloatArray
    p99: FloatArray

    @classmethod
    def swept(cls, dial: Sequence[float], play: Callable[[float], Played]) -> Frontier:
        """Play at each place of the dial."""
        played = [play(place) for place in dial]
        return cls(
            tuple(dial),
            np.stack([np.log(np.maximum(one["cost"], 1e-3)) for one in played]),
            np.stack([one["violation"] for one in played]),
            np.stack([one["p99_over_slo"] for one in played]),
        )

    def means(self, name: str, rows: npt.NDArray[np.int64]) -> FloatArray:
        """Mean figures at each place `[places, samples]` for samples of episodes `[samples, episodes]`."""
        figures: FloatArray = getattr(self, name)
        return np.stack([place[rows].mean(axis=1) for place in figures])


def samples(episodes: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """All episodes first, then resampled ones, `[1 + RESAMPLES, episodes]`."""
    drawn = np.random.default_rng(seed).integers(0, episodes, (RESAMPLES, episodes))
    return np.concatenate([np.arange(episodes)[None], drawn])


def along(
    frontier: Frontier, at: str, level: FloatArray | float, wanted: str, rows: npt.NDArray[np.int64]
) -> FloatArray:
    """Mean `wanted` where the mean `at` is `level` (one, or one a sample), for each sample; NaN where the
    frontier is not there.

    Between neighbouring places of the dial both change linearly, as if either setting were used a part of the
    time; where several segments pass the level the best one counts.
    """
    x, y = frontier.means(at, rows), frontier.means(wanted, rows)
    best = np.full(x.shape[1], np.nan)
    for place in range(len(x) - 1):
        first, last = x[place], x[place + 1]
        inside = (np.minimum(first, last) <= level) & (level <= np.maximum(first, last)) & (first != last)
        part = np.where(inside, (level - first) / np.where(first != last, last - first, 1.0), 0.0)
        value = y[place] + part * (y[place + 1] - y[place])
        best = np.where(inside, np.fmin(best, value), best)
    return best


def levels(
    frontiers: Sequence[Frontier], at: str, shares: Sequence[float], rows: npt.NDArray[np.int64]
) -> list[FloatArray]:
    """Means `at` that all frontiers reach, for each sample: at these shares of the way from the lowest such
    to the highest. They move with the sample, since a sample of dear episodes is dear for everybody."""
    means = [frontier.means(at, rows) for frontier in frontiers]
    low = np.max([one.min(axis=0) for one in means], axis=0)
    high = np.min([one.max(axis=0) for one in means], axis=0)
    return [low + share * (high - low) for share in shares]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: FloatArray) -> Estimate:
        """The first is the figure, the others are its resamples; those that reach nothing are left out, and
        where they are more than a tenth there is no interval."""
        rest = values[1:]
        known = rest[np.isfinite(rest)]
        if not np.isfinite(values[0]) or len(known) < 0.9 * len(rest):
            return cls(float(values[0]), float("nan"), float("nan"))
        low, high = np.percentile(known, BOUNDS)
        return cls(float(values[0]), float(low), float(high))

    def shown(self, unit: str) -> str:
        """As in a table; unit: a format such as `.2%`, of a value whose sign matters."""
        if not np.isfinite(self.value):
            return "not reached"
        if not np.isfinite(self.low):
            return f"{self.value:{unit}}"
        return f"{self.value:{unit}} ({self.low:{unit}} to {self.high:{unit}})"
