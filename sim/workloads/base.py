"""What every generator shares: the protocol, units, validation of parameters, random moments and noise.

A workload is a shape: `rates(times_s, rng)`. Everything here is a pure function of its arguments and of the
random generator, over whole arrays, so that parts of it can be compiled.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import numba as nb
import numpy as np
import numpy.typing as npt

from sim.errors import require

FloatArray = npt.NDArray[np.floating[Any]]
HOUR_S = 3600.0
DAY_S = 86400.0
WEEK_S = 7 * DAY_S
MAX_ARRIVALS = 1_000_000
"""Arrivals that a generator draws one by one; above it their counts a bin are drawn, to bound memory."""


@runtime_checkable
class Workload(Protocol):
    """Anything with `rates(times_s [T] ascending, rng) -> [T]`, none negative."""

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Rates at these seconds: requests/s, or a share for factors that multiply others."""
        ...


def check(
    workload: object,
    *,
    positive: tuple[str, ...] = (),
    not_negative: tuple[str, ...] = (),
    share: tuple[str, ...] = (),
    finite: tuple[str, ...] = (),
) -> None:
    """Raise ParameterError that names class and field unless each number lies where it may."""
    rules = (
        (positive, lambda value: value > 0, "a finite number greater than 0"),
        (not_negative, lambda value: value >= 0, "a finite number, 0 or more"),
        (share, lambda value: 0 <= value <= 1, "in 0..1"),
        (finite, lambda value: True, "a finite number"),
    )
    kind = type(workload).__name__
    for names, holds, allowed in rules:
        for name in names:
            value = getattr(workload, name)
            require(is_number(value) and holds(value), f"{kind}.{name}", value, allowed)


def check_each(workload: object, name: str, least: float = 0.0) -> None:
    """Raise ParameterError unless the field is a sequence of at least one finite number >= `least`."""
    values = getattr(workload, name)
    where, allowed = (
        f"{type(workload).__name__}.{name}",
        f"one or more finite numbers, each {least:g} or more",
    )
    require(isinstance(values, tuple) and len(values) > 0, where, values, allowed)
    for value in values:
        require(is_number(value) and value >= least, where, value, allowed)


def is_number(value: object) -> bool:
    """A finite real number; neither text nor a truth value."""
    return (
        isinstance(value, (int, float, np.integer, np.floating))
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def step_s(times_s: FloatArray) -> float:
    """Usual distance between two of the times in seconds; 1 if there is but one."""
    return float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1.0


def bin_edges(times_s: FloatArray) -> FloatArray:
    """`[T + 1]`: each time starts a bin that ends where the next one starts."""
    return np.append(times_s, times_s[-1] + step_s(times_s))


def exponential_until(rng: np.random.Generator, mean_s: float, times_s: FloatArray) -> FloatArray:
    """Ascending moments with exponential gaps that cover `times_s`."""
    span = times_s[-1] - times_s[0]
    expected = span / max(mean_s, 1e-3)
    gaps = rng.exponential(mean_s, int(expected + 6 * math.sqrt(expected) + 10))
    moments = times_s[0] + np.cumsum(gaps)
    return np.asarray(moments[moments <= times_s[-1]])


def poisson_events(
    rng: np.random.Generator, per_day: float, times_s: FloatArray, before_s: float
) -> FloatArray:
    """Ascending moments of a Poisson process from `before_s` before the first time to the last."""
    span = times_s[-1] - times_s[0] + before_s
    count = rng.poisson(per_day * span / DAY_S)
    return np.sort(rng.uniform(times_s[0] - before_s, times_s[-1], count))


def coloured(times_s: FloatArray, scale_s: float, rng: np.random.Generator) -> FloatArray:
    """A stationary Ornstein-Uhlenbeck process of variance 1, drawn coarsely and interpolated."""
    first_step = float(times_s[1] - times_s[0]) if len(times_s) > 1 else 1.0
    step = max(scale_s / 3.0, first_step)
    count = math.ceil((times_s[-1] - times_s[0]) / step) + 2
    keep = math.exp(-step / scale_s)
    shocks = rng.standard_normal(count)
    shocks[1:] *= math.sqrt(1.0 - keep**2)
    return np.asarray(np.interp(times_s, times_s[0] + np.arange(count) * step, _filter(shocks, keep)))


@nb.njit(cache=True)
def _filter(shocks, keep):  # type: ignore[no-untyped-def]
    result = np.empty_like(shocks)
    value = 0.0
    for index in range(len(shocks)):
        value = keep * value + shocks[index]
        result[index] = value
    return result


def gamma_renewal(
    rng: np.random.Generator, edges_s: FloatArray, expected: FloatArray, variation: float
) -> FloatArray:
    """Arrival moments in `edges_s` `[T + 1]`, with `expected` `[T]` arrivals in each bin on average.

    A renewal process whose gaps are gamma-distributed with coefficient of variation `variation` (1:
    Poisson), drawn in operational time, in which the intensity is 1, and mapped back (time rescaling:
    Cox and Lewis 1966, The Statistical Analysis of Series of Events). It has run for some gaps before the
    first edge, so that it is stationary.
    """
    total = float(expected.sum())
    if total <= 0:
        return np.empty(0)
    shape, scale = 1.0 / variation**2, variation**2
    before = 10.0 * (1.0 + scale)
    span = total + before
    count = int(span + 6 * variation * math.sqrt(span) + 20)
    moments = np.cumsum(rng.gamma(shape, scale, count))
    while moments[-1] < span:
        moments = np.concatenate([moments, moments[-1] + np.cumsum(rng.gamma(shape, scale, count))])
    moments = moments[(moments >= before) & (moments < span)] - before
    return _invert(moments, np.concatenate([[0.0], np.cumsum(expected)]), edges_s)


def _invert(moments: FloatArray, grown: FloatArray, edges_s: FloatArray) -> FloatArray:
    """Where `grown` reaches each moment; a bin that grows by nothing is passed over."""
    index = np.clip(np.searchsorted(grown, moments, side="right") - 1, 0, len(grown) - 2)
    width = np.maximum(grown[index + 1] - grown[index], 1e-300)
    share = np.clip((moments - grown[index]) / width, 0.0, 1.0)
    return np.asarray(edges_s[index] + share * (edges_s[index + 1] - edges_s[index]))


def counts_in(edges_s: FloatArray, moments_s: FloatArray) -> FloatArray:
    """How many of the ascending moments fall into each bin, `[T]`."""
    return np.diff(np.searchsorted(moments_s, edges_s)).astype(float)
