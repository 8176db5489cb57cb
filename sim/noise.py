"""Random numbers that are a pure function of (seed, counter), compiled.

Every service draws by its own seed and clock, never from a shared stream, so that two runs with
different actions see the same arrivals (common random numbers), and a batch of any size gives each
service the same life.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from sim.compiled import counted
from sim.elementary import fast_log

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_STREAM = np.uint64(0xD6E8FEB86659FD93)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_TO_UNIT = 1.0 / 9007199254740992.0
SMALL_MEAN = 12.0
"""Below it Poisson numbers are exact."""
SMALL_SHAPE = 0.5
LARGE_MEAN = 100.0
MOST_BY_INVERSION = 1e5


@nb.njit(cache=True, error_model="numpy", inline="always")
def uniform(seed: int, counter: int, stream: int) -> float:
    """A number in (0, 1). SplitMix64's finaliser (Steele, Lea, Flood 2014) over seed, counter and stream."""
    z = np.uint64(seed) + np.uint64(counter) * _GOLDEN + np.uint64(stream) * _STREAM
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    z = z ^ (z >> _S31)
    z = (z + _GOLDEN) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    z = z ^ (z >> _S31)
    return (np.float64(z >> _S11) + 0.5) * _TO_UNIT


@nb.njit(cache=True, error_model="numpy", inline="always")
def normal_is_central(u: float) -> bool:
    """Whether `normal_centre` gives the quantile of `u`."""
    return 0.02425 <= u <= 0.97575


@nb.njit(cache=True, error_model="numpy", inline="always")
def normal_centre(u: float) -> float:
    """Standard normal quantile of `u` in 0.02425..0.97575: the central part of Acklam's approximation."""
    q = u - 0.5
    r = q * q
    top = ((((-3.969683028665376e1 * r + 2.209460984245205e2) * r - 2.759285104469687e2) * r
            + 1.383577518672690e2) * r - 3.066479806614716e1) * r + 2.506628277459239  # fmt: skip
    below = ((((-5.447609879822406e1 * r + 1.615858368580409e2) * r - 1.556989798598866e2) * r
              + 6.680131188771972e1) * r - 1.328068155288572e1) * r + 1.0  # fmt: skip
    return top * q / below


@nb.njit(cache=True, error_model="numpy", inline="always")
def normal_tail(u: float) -> float:
    """Standard normal quantile of `u` outside 0.02425..0.97575: the outer parts of Acklam's approximation."""
    q = math.sqrt(-2.0 * fast_log(min(u, 1.0 - u)))
    top = ((((-7.784894002430293e-3 * q - 3.223964580411365e-1) * q - 2.400758277161838) * q
            - 2.549732539343734) * q + 4.374664141464968) * q + 2.938163982698783  # fmt: skip
    below = (((7.784695709041462e-3 * q + 3.224671290700398e-1) * q + 2.445134137142996) * q
             + 3.754408661907416) * q + 1.0  # fmt: skip
    ratio = top / below
    return ratio if u < 0.5 else -ratio


@counted
def normal(u: float) -> float:
    """Standard normal quantile of `u` in (0, 1): P. J. Acklam's rational approximation (error < 1.2e-9)."""
    return normal_centre(u) if normal_is_central(u) else normal_tail(u)


@counted
def poisson(mean: float, u: float) -> float:
    """Poisson quantile of `u` at `mean`: exact below a mean of 12, then by Cornish and Fisher's expansion.

    It never falls when `mean` rises, which keeps common random numbers comparable.
    """
    if mean <= 0.0:
        return 0.0
    if mean < SMALL_MEAN:
        probability = math.exp(-mean)
        total = probability
        count = 0.0
        while u > total and count < 80.0:
            count += 1.0
            probability *= mean / count
            total += probability
        return count
    z = normal(u)
    return float(max(0.0, math.floor(mean + math.sqrt(mean) * z + (z * z - 1.0) / 6.0 + 0.5)))


@counted
def negative_binomial(mean: float, dispersion: float, u: float, v: float) -> float:
    """Negative binomial with `mean` and variance `dispersion` * mean (above 1), from two uniform numbers.

    It is Poisson round a gamma variable with shape mean / (dispersion - 1). From a shape of 0.5 the gamma is
    Wilson and Hilferty's cube of a normal variable (Proc. National Academy of Sciences 17, 1931), whose
    mean and variance are within 2 % there; below, it is the exact quantile of `u`, by inversion.
    """
    if mean <= 0.0:
        return 0.0
    shape = mean / (dispersion - 1.0)
    if shape >= SMALL_SHAPE:
        ninth = 1.0 / (9.0 * shape)
        factor = max(0.0, 1.0 - ninth + math.sqrt(ninth) * normal(v))
        return float(poisson(mean * factor * factor * factor, u))
    probability = math.exp(-shape * math.log(dispersion))
    ratio = 1.0 - 1.0 / dispersion
    total = probability
    count = 0.0
    while u > total and count < MOST_BY_INVERSION:
        probability *= ratio * (count + shape) / (count + 1.0)
        count += 1.0
        total += probability
    return count


@counted
def binomial(trials: float, probability: float, u: float) -> float:
    """Binomial quantile of `u`: exact by inversion up to a mean of 100, above it by the normal approximation.

    With one more trial it rises by 0 or 1, never more, up to that mean.
    """
    if u <= 1.0 - trials * probability:
        return 0.0  # (1 - p)^n is no less than 1 - n p
    if probability >= 1.0:
        return trials
    mean = trials * probability
    if mean > LARGE_MEAN:
        drawn = math.floor(mean + math.sqrt(mean * (1.0 - probability)) * normal(u) + 0.5)
        return float(min(max(drawn, 0.0), trials))
    odds = probability / (1.0 - probability)
    here = math.exp(trials * math.log1p(-probability))
    total = here
    count = 0.0
    while u > total and count < trials:
        here *= odds * (trials - count) / (count + 1.0)
        count += 1.0
        total += here
    return count
