"""Random numbers that are a pure function of (seed, counter), compiled.

Every service draws by its own seed and clock, never from a shared stream, so that two runs with
different actions see the same arrivals (common random numbers), and a batch of any size gives each
service the same life.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_STREAM = np.uint64(0xD6E8FEB86659FD93)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_TO_UNIT = 1.0 / 9007199254740992.0
SMALL_MEAN = 12.0


@nb.njit(cache=True, inline="always")
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


@nb.njit(cache=True)
def normal(u: float) -> float:
    """Standard normal quantile of `u` in (0, 1): P. J. Acklam's rational approximation (error < 1.2e-9)."""
    if u < 0.02425 or u > 0.97575:
        q = math.sqrt(-2.0 * math.log(u if u < 0.5 else 1.0 - u))
        top = ((((-7.784894002430293e-3 * q - 3.223964580411365e-1) * q - 2.400758277161838) * q
                - 2.549732539343734) * q + 4.374664141464968) * q + 2.938163982698783  # fmt: skip
        below = (((7.784695709041462e-3 * q + 3.224671290700398e-1) * q + 2.445134137142996) * q
                 + 3.754408661907416) * q + 1.0  # fmt: skip
        return top / below if u < 0.5 else -top / below
    q = u - 0.5
    r = q * q
    top = ((((-3.969683028665376e1 * r + 2.209460984245205e2) * r - 2.759285104469687e2) * r
            + 1.383577518672690e2) * r - 3.066479806614716e1) * r + 2.506628277459239  # fmt: skip
    below = ((((-5.447609879822406e1 * r + 1.615858368580409e2) * r - 1.556989798598866e2) * r
              + 6.680131188771972e1) * r - 1.328068155288572e1) * r + 1.0  # fmt: skip
    return top * q / below


@nb.njit(cache=True)
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
    return max(0.0, math.floor(mean + math.sqrt(mean) * z + (z * z - 1.0) / 6.0 + 0.5))
