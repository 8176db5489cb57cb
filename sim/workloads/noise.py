"""Chance with memory: log-normal noise on a few time scales, and two ways to self-similar traffic.

Web and network traffic looks equally bursty on every time scale (Leland et al. 1994, IEEE/ACM ToN 2(1);
Crovella and Bestavros 1997, IEEE/ACM ToN 5(6): Hurst parameters of 0.75 to 0.9). `SelfSimilar` makes it
exactly, `OnOff` from the mechanism that explains it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sim.errors import require
from sim.workloads.base import FloatArray, bin_edges, check, check_each, coloured, step_s


@dataclass(frozen=True)
class Noise:
    """A log-normal factor with memory; several time scales at once resemble self-similar traffic."""

    sigma: float = 0.1
    """Standard deviation of the logarithm, over all scales."""
    scales_s: tuple[float, ...] = (30.0, 300.0, 3000.0)
    """Correlation times, s, equally strong."""

    def __post_init__(self) -> None:
        check(self, not_negative=("sigma",))
        check_each(self, "scales_s", least=1e-3)

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """exp of a sum of Ornstein-Uhlenbeck processes, mean about 1."""
        each = self.sigma / math.sqrt(len(self.scales_s))
        total = np.zeros(len(times_s))
        for scale_s in self.scales_s:
            total += each * coloured(times_s, scale_s, rng)
        return np.exp(total - 0.5 * self.sigma**2)


@dataclass(frozen=True)
class SelfSimilar:
    """A log-normal factor of fractional Gaussian noise, mean 1, with the Hurst parameter asked for."""

    hurst: float = 0.8
    """0.5: no memory; towards 1: longer and longer memory. Crovella and Bestavros 1997: 0.75 to 0.9."""
    sigma: float = 0.3
    """Standard deviation of the logarithm in one bin of the times asked for."""

    def __post_init__(self) -> None:
        check(self, not_negative=("sigma",))
        require(0.5 <= self.hurst < 1, "SelfSimilar.hurst", self.hurst, "in 0.5..1, 1 excluded")

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """exp of the noise, one value for each step of the times; interpolated if they are not regular."""
        step = step_s(times_s)
        count = round((times_s[-1] - times_s[0]) / step) + 1
        noise = fractional_noise(max(count, len(times_s)), self.hurst, rng)
        grid = times_s[0] + np.arange(len(noise)) * step
        return np.exp(self.sigma * np.interp(times_s, grid, noise) - 0.5 * self.sigma**2)


def fractional_noise(count: int, hurst: float, rng: np.random.Generator) -> FloatArray:
    """`[count]` fractional Gaussian noise of mean 0 and variance 1.

    Exact (Davies and Harte 1987, Biometrika 74): the autocovariance |k+1|^2H / 2 - |k|^2H + |k-1|^2H / 2 is
    put on a circle whose Fourier transform, never negative for it, gives the standard deviations of
    independent normal coefficients.
    """
    lags = np.arange(count + 1, dtype=float)
    power = 2.0 * hurst
    covariance = 0.5 * (np.abs(lags + 1) ** power - 2 * lags**power + np.abs(lags - 1) ** power)
    circle = np.concatenate([covariance, covariance[-2:0:-1]])
    size = len(circle)
    spectrum = np.maximum(np.fft.rfft(circle).real, 0.0)
    normal = rng.standard_normal((2, len(spectrum)))
    coefficients = (normal[0] + 1j * normal[1]) * np.sqrt(0.5 * size * spectrum)
    # the two ends of a real signal's spectrum are real, and so carry their variance in one part
    for end in (0, -1):
        coefficients[end] = normal[0, end] * math.sqrt(size * spectrum[end])
    return np.asarray(np.fft.irfft(coefficients, size)[:count])


@dataclass(frozen=True)
class OnOff:
    """Many callers that are busy and silent in turn, for times with heavy (Pareto) tails.

    Their sum tends to self-similar traffic with Hurst parameter (3 - shape) / 2, shape the smaller of the
    two (Willinger, Taqqu, Sherman and Wilson 1997, IEEE/ACM ToN 5(1)).
    """

    mean: float = 1.0
    """Requests/s of all sources together, on average."""
    sources: int = 50
    """How many; fewer are burstier."""
    on_s: float = 60.0
    """Mean time that a source is busy, s."""
    off_s: float = 180.0
    """Mean time that it is silent, s."""
    shape: float = 1.4
    """Pareto's exponent of both, in 1..2; 1.4 gives a Hurst parameter of 0.8."""

    def __post_init__(self) -> None:
        check(self, not_negative=("mean",), positive=("on_s", "off_s", "sources"))
        require(
            self.sources == int(self.sources) and self.sources <= 10_000,
            "OnOff.sources",
            self.sources,
            "a whole number in 1..10000",
        )
        require(1 < self.shape < 2, "OnOff.shape", self.shape, "between 1 and 2, both excluded")

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Mean rate in the bin that each time starts."""
        edges = bin_edges(times_s)
        busy = np.zeros(len(edges))
        for _ in range(int(self.sources)):
            busy += self._busy_until(edges, rng)
        share = self.on_s / (self.on_s + self.off_s)
        return np.asarray(np.diff(busy) / np.diff(edges) * self.mean / (self.sources * share))

    def _busy_until(self, edges: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Seconds that one source, in its steady state, has been busy up to each edge."""
        busy_first = rng.random() < self.on_s / (self.on_s + self.off_s)
        span = edges[-1] - edges[0]
        first_mean = self.on_s if busy_first else self.off_s
        switches = [np.array([self._remaining(first_mean, rng)])]
        on_next = not busy_first
        while switches[-1][-1] < span:
            count = 2 * math.ceil((span - switches[-1][-1]) / (self.on_s + self.off_s) + 8)
            means = np.where((np.arange(count) % 2 == 0) == on_next, self.on_s, self.off_s)
            least = means * (self.shape - 1) / self.shape
            lengths = least * (1.0 + rng.pareto(self.shape, count))
            switches.append(switches[-1][-1] + np.cumsum(lengths))
        moments = np.concatenate([[0.0], *switches])
        on = (np.arange(len(moments) - 1) % 2 == 0) == busy_first
        grown = np.concatenate([[0.0], np.cumsum(np.diff(moments) * on)])
        return np.asarray(np.interp(edges - edges[0], moments, grown))

    def _remaining(self, mean_s: float, rng: np.random.Generator) -> float:
        """What is left of a Pareto time in which a random moment falls: the equilibrium distribution."""
        least = mean_s * (self.shape - 1) / self.shape
        chance = rng.random()
        if chance < 1 - 1 / self.shape:
            return mean_s * chance
        return float(least * (self.shape * (1 - chance)) ** (-1 / (self.shape - 1)))
