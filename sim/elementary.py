"""Logarithm and exponential that the compiler can put into vector registers; called by the kernels only.

libm's are calls, which keep a loop from being vectorised. These are plain arithmetic on the number's bits,
accurate to a few units in the last place, and give the same result in every lane and in every batch.
"""

from __future__ import annotations

import numba as nb
import numpy as np

_ONE_BITS = np.int64(0x3FF0000000000000)
_ROOT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
_MANTISSA = np.int64(0x000FFFFFFFFFFFFF)
_SHIFT, _BIAS = np.int64(52), np.int64(1023)
_ROUND = 6755399441055744.0
"""1.5 * 2^52: adding it leaves the rounded integer in the lowest bits of a float64."""
_ROUND_BITS = np.int64(0x4338000000000000)
_LN2_HIGH, _LN2_LOW, _LOG2_E = 6.93147180369123816490e-01, 1.90821492927058770002e-10, 1.4426950408889634
LOWEST_EXPONENT = -700.0


@nb.njit(cache=True, error_model="numpy", inline="always")
def fast_log(x: float) -> float:
    """ln x of a normal positive number: fdlibm's e_log.c (Sun Microsystems 1993), error below 2e-16 relative
    or absolute, whichever is more."""
    shifted = np.float64(x).view(np.int64) + (_ONE_BITS - _ROOT_HALF_BITS)
    power = np.int64((shifted >> _SHIFT) - _BIAS + _ROUND_BITS).view(np.float64) - _ROUND
    f = np.int64((shifted & _MANTISSA) + _ROOT_HALF_BITS).view(np.float64) - 1.0
    s = f / (2.0 + f)
    z = s * s
    rest = z * (0.6666666666666735130 + z * (0.3999999999940941908 + z * (0.2857142874366239149
           + z * (0.2222219843214978396 + z * (0.1818357216161805012 + z * (0.1531383769920937332
           + z * 0.1479819860511658591))))))  # fmt: skip
    return power * _LN2_HIGH + (power * _LN2_LOW + (f - s * (f - rest)))


@nb.njit(cache=True, error_model="numpy", inline="always")
def fast_exp(x: float) -> float:
    """e^x for x <= 700, and e^-700 below -700: Cody and Waite's reduction to |r| <= ln(2) / 2, then Taylor's
    series to r^12; relative error below 1e-15."""
    bounded = max(x, LOWEST_EXPONENT)
    shifted = bounded * _LOG2_E + _ROUND
    power = shifted - _ROUND
    r = (bounded - power * _LN2_HIGH) - power * _LN2_LOW
    series = 1.0 + r * (1.0 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r * (1 / 120 + r * (1 / 720
             + r * (1 / 5040 + r * (1 / 40320 + r * (1 / 362880 + r * (1 / 3628800
             + r * (1 / 39916800 + r * (1 / 479001600))))))))))))  # fmt: skip
    scale = np.int64((np.float64(shifted).view(np.int64) + _BIAS) << _SHIFT).view(np.float64)
    return series * scale
