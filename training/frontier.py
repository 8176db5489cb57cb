"""Cost against violations: each policy's frontier over its dial, and the numbers read off it.

Pure arithmetic over the results of replays; `training/evaluate.py` is the caller. Costs are ratios to the
fluid ideal (load over capacity, summed), violations are shares of requests over the objective (0..1).

How a frontier is read, everywhere in this module:

* A frontier is made of the settings that no other one beats in both figures. Of settings with equal
  violations the cheapest counts, of settings with equal costs the safest.
* Between two of its settings it is interpolated linearly in the logarithms of both. A violation below
  SMALLEST_VIOLATION counts as SMALLEST_VIOLATION there.
* At a level laxer than its cheapest setting it stays at that setting: nobody has to violate more.
* At a level stricter than its safest setting it has no value: NaN, "not reached". Nothing is extrapolated.
* In a mean over windows, or over draws of the bootstrap, what is not reached is counted and shown beside
  the mean; it is never dropped without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.integer[Any]]
LEVELS = (0.001, 0.005, 0.01)
"""The violations at which costs are compared: 0.1, 0.5 and 1 % of requests."""
SMALLEST_VIOLATION = 1e-6
CONFIDENCE = 0.95
ROUNDS = 1000


@dataclass(frozen=True)
class Outcomes:
    """One policy family: arrays `[S, W, K]` of S settings on W windows under K arrival seeds.

    cost: replica-hours over the fluid ideal. violation: share of requests. flaps_per_hour: changes of
    direction. worst_violation: share in the worst five minutes. p99_ms: 99th percentile of latency.
    """

    family: str
    settings: tuple[str, ...]
    cost: FloatArray
    violation: FloatArray
    flaps_per_hour: FloatArray
    worst_violation: FloatArray
    p99_ms: FloatArray

    @property
    def shape(self) -> tuple[int, int, int]:
        """S, W, K."""
        settings, windows, seeds = self.cost.shape
        return settings, windows, seeds

    @property
    def mean_cost(self) -> FloatArray:
        """Geometric mean over windows and seeds, `[S]`."""
        return np.asarray(np.exp(np.mean(np.log(self.cost), axis=(1, 2))))

    @property
    def mean_violation(self) -> FloatArray:
        """Arithmetic mean over windows and seeds, `[S]`; hard windows dominate it."""
        return np.asarray(np.mean(self.violation, axis=(1, 2)))

    @property
    def median_violation(self) -> FloatArray:
        """Median over windows of the mean over seeds, `[S]`."""
        return np.asarray(np.median(self.violation.mean(axis=2), axis=1))

    @property
    def window_cost(self) -> FloatArray:
        """Geometric mean over seeds, `[S, W]`."""
        return np.asarray(np.exp(np.mean(np.log(self.cost), axis=2)))

    @property
    def window_violation(self) -> FloatArray:
        """Mean over seeds, `[S, W]`."""
        return np.asarray(np.mean(self.violation, axis=2))

    def windows(self, index: npt.ArrayLike) -> Outcomes:
        """The same for some of the windows."""
        picked = np.asarray(index)
        return replace(self, **{name: getattr(self, name)[:, picked] for name in FIGURES})


FIGURES = tuple(item.name for item in fields(Outcomes) if item.name not in ("family", "settings"))


@dataclass(frozen=True)
class Interval:
    """A bootstrap percentile interval at CONFIDENCE.

    low, high: infinite where that quantile of the draws did not reach the level. reached: the share of draws
    in which the figure has a finite value. Both are NaN if it is defined in no draw.
    """

    low: float
    high: float
    reached: float


def pareto(cost: FloatArray, violation: FloatArray) -> npt.NDArray[np.intp]:
    """Indices of the settings on the frontier of `[S]` costs and violations, by rising violation."""
    order = np.lexsort((cost, violation))
    kept: list[int] = []
    cheapest = np.inf
    for index in order:
        if cost[index] < cheapest:
            kept.append(int(index))
            cheapest = cost[index]
    return np.array(kept, dtype=np.intp)


def costs_at(cost: FloatArray, violation: FloatArray, level: npt.ArrayLike) -> FloatArray:
    """Costs at a violation level, `[B]`, read off B frontiers `[B, S]`; NaN where not reached.

    level: one, or one for each frontier.
    """
    return _read_all(np.maximum(violation, SMALLEST_VIOLATION), cost, level)


def cost_at(cost: FloatArray, violation: FloatArray, level: float) -> float:
    """Cost at a violation level, read off the frontier of `[S]` settings; NaN where not reached."""
    return float(costs_at(np.atleast_2d(cost), np.atleast_2d(violation), level)[0])


def violations_at(cost: FloatArray, violation: FloatArray, spend: npt.ArrayLike) -> FloatArray:
    """Violations for a cost, `[B]`, read off B frontiers `[B, S]`; NaN where no setting is that cheap."""
    return _read_all(cost, np.maximum(violation, SMALLEST_VIOLATION), spend)


def violation_at(cost: FloatArray, violation: FloatArray, spend: float) -> float:
    """Violation for a cost, read off the frontier of `[S]` settings; NaN where no setting is that cheap."""
    return float(violations_at(np.atleast_2d(cost), np.atleast_2d(violation), spend)[0])


def bracket(cost: FloatArray, violation: FloatArray, level: float) -> tuple[int, ...]:
    """The settings that a cost at a level is read off: two to interpolate between, one, or none."""
    front = pareto(cost, violation)
    safe = np.flatnonzero(violation[front] <= level)
    if len(safe) == 0:
        return ()
    last = int(safe[-1])
    if last + 1 == len(front) or violation[front[last]] == level:
        return (int(front[last]),)
    return int(front[last]), int(front[last + 1])


def one_knob(outcomes: Outcomes, level: float) -> float:
    """Geometric-mean cost at a mean violation, with one setting for all windows."""
    return cost_at(outcomes.mean_cost, outcomes.mean_violation, level)


def one_knob_at_median(outcomes: Outcomes, level: float) -> float:
    """Geometric-mean cost at a median violation, with one setting for all windows."""
    return cost_at(outcomes.mean_cost, outcomes.median_violation, level)


def nearest_setting(outcomes: Outcomes, level: float) -> int:
    """The cheapest setting whose mean violation is at most `level`; the safest where there is none."""
    safe = np.flatnonzero(outcomes.mean_violation <= level)
    if len(safe) == 0:
        lowest = outcomes.mean_violation.min()
        safe = np.flatnonzero(outcomes.mean_violation == lowest)
    return int(safe[np.argmin(outcomes.mean_cost[safe])])


def gap_closed(policy: npt.ArrayLike, baseline: npt.ArrayLike, bound: npt.ArrayLike) -> Any:
    """Share of the way from the baseline's cost to the bound's that a policy goes; NaN where undefined.

    Undefined where one of the three is not reached, or the baseline is as cheap as the bound.
    """
    ours, base, least = (np.asarray(each, dtype=np.float64) for each in (policy, baseline, bound))
    defined = np.isfinite(ours) & np.isfinite(base) & np.isfinite(least) & (base > least)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(defined, (base - ours) / np.where(defined, base - least, 1.0), np.nan)
    return float(share) if share.ndim == 0 else share


def per_window_costs(outcomes: Outcomes, level: float) -> FloatArray:
    """Cost of each window with the dial turned for that window alone, `[W]`; NaN where not reached."""
    return costs_at(outcomes.window_cost.T, outcomes.window_violation.T, level)


@dataclass(frozen=True)
class Draws:
    """Weights `[B, W, K]` of windows and seeds in each draw of a bootstrap, their sum 1.

    over: what was drawn. Every policy is read off the same draws, so that differences are paired.
    """

    weights: FloatArray
    over: str

    def costs(self, outcomes: Outcomes, levels: Sequence[float]) -> list[FloatArray]:
        """One-knob costs at each level in each draw, `[B]` each; NaN where not reached."""
        cost, violation = self.mean_cost(outcomes), self.mean_violation(outcomes)
        return [costs_at(cost, violation, level) for level in levels]

    def mean_cost(self, outcomes: Outcomes) -> FloatArray:
        """Geometric-mean costs in each draw, `[B, S]`."""
        return np.asarray(np.exp(self._mean(np.log(outcomes.cost))))

    def mean_violation(self, outcomes: Outcomes) -> FloatArray:
        """Mean violations in each draw, `[B, S]`."""
        return self._mean(outcomes.violation)

    def _mean(self, values: FloatArray) -> FloatArray:
        rounds = len(self.weights)
        return np.asarray(self.weights.reshape(rounds, -1) @ values.reshape(len(values), -1).T)


def draw(
    traces: npt.ArrayLike, seeds: int, rounds: int = ROUNDS, seed: int = 0, over: str | None = None
) -> Draws:
    """Draws with replacement of `traces`, `windows` or `seeds`.

    traces int `[W]`: which trace each window is cut from. over: what to draw; by default the highest level
    that has more than one member, with all that belongs to it, since windows of one trace resemble
    each other. Drawing `seeds` keeps the windows and draws arrival seeds for each of them.
    """
    members = np.unique(np.asarray(traces), return_inverse=True)[1]
    windows = len(members)
    chosen = over or ("traces" if members.max() > 0 else "windows" if windows > 1 else "seeds")
    generator = np.random.default_rng(seed)
    weights = np.ones((rounds, windows, seeds))
    if chosen == "seeds":
        weights = generator.multinomial(seeds, np.full(seeds, 1 / seeds), (rounds, windows)).astype(float)
    else:
        groups = members if chosen == "traces" else np.arange(windows)
        count = groups.max() + 1
        drawn = generator.multinomial(count, np.full(count, 1 / count), rounds)
        weights *= drawn[:, groups, None]
    return Draws(weights / weights.sum(axis=(1, 2), keepdims=True), chosen)


def interval(values: FloatArray, unreached: float = np.inf) -> Interval:
    """The percentile interval of a figure's draws `[B]`.

    unreached: what NaN stands for (infinity for a cost that is not reached). Infinite values take part in
    the ranking, so that a level which many draws do not reach has an infinite end.
    """
    ranked = np.sort(np.where(np.isnan(values), unreached, values))
    known = ranked[~np.isnan(ranked)]
    reached = float(np.isfinite(values).mean())
    if len(known) == 0 or reached == 0:
        return Interval(float("nan"), float("nan"), 0.0)
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = (np.quantile(known, q, method="inverted_cdf") for q in (tail, 1.0 - tail))
    return Interval(float(low), float(high), reached)


def ratio_interval(ours: FloatArray, base: FloatArray) -> Interval:
    """Of policy cost / baseline cost, from both costs' draws `[B]`: infinite where only the baseline reaches
    the level, 0 where only the policy does; draws in which neither does have no ratio."""
    ratios = np.where(np.isnan(ours) & np.isfinite(base), np.inf, ours / base)
    ratios = np.where(np.isfinite(ours) & np.isnan(base), 0.0, ratios)
    return interval(ratios, unreached=np.nan)


def gap_interval(ours: FloatArray, base: FloatArray, bound: FloatArray) -> Interval:
    """Of the share of the gap closed, from the three costs' draws `[B]`, where it is defined."""
    return interval(np.asarray(gap_closed(ours, base, bound)), unreached=np.nan)


def _read_all(x: FloatArray, y: FloatArray, at: npt.ArrayLike) -> FloatArray:
    rows = np.ascontiguousarray(x, dtype=np.float64)
    wanted = np.broadcast_to(np.asarray(at, dtype=np.float64), (len(rows),))
    values = np.ascontiguousarray(y, dtype=np.float64)
    return np.asarray(_read(rows, values, np.ascontiguousarray(wanted)))


@nb.njit(cache=True)
def _read(x, y, at):  # type: ignore[no-untyped-def]
    """y at `at` on each row's frontier (x rising, y falling), by the rules of the module's docstring."""
    rows, size = x.shape
    result = np.full(rows, np.nan)
    for b in range(rows):
        if np.isnan(at[b]):
            continue
        left, right, least = -1, -1, np.inf
        for k in range(size):
            # the last frontier point at or below `at` is the smallest y there, of equals the smallest x
            if x[b, k] <= at[b] and (y[b, k] < least or (y[b, k] == least and x[b, k] < x[b, left])):
                left, least = k, y[b, k]
        if left < 0:
            continue
        for k in range(size):
            # the first beyond it: smaller y at the smallest x, of equals the smallest y
            if x[b, k] > at[b] and y[b, k] < least:
                nearer = right < 0 or x[b, k] < x[b, right]
                if nearer or (x[b, k] == x[b, right] and y[b, k] < y[b, right]):
                    right = k
        if right < 0 or x[b, left] == at[b]:
            result[b] = y[b, left]
            continue
        span = np.log(x[b, right]) - np.log(x[b, left])
        part = (np.log(at[b]) - np.log(x[b, left])) / span
        result[b] = np.exp(np.log(y[b, left]) * (1.0 - part) + np.log(y[b, right]) * part)
    return result
