"""Traffic of two kinds of application, from what their operators have published: functions and LLM inference.

Both draw arrivals, not only a rate: a bin's rate is what arrived in it over its length. Where the physics
draws Poisson arrivals round that rate, its variance comes on top (the index of dispersion grows by 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sim.errors import require
from sim.workloads.base import (
    DAY_S,
    HOUR_S,
    MAX_ARRIVALS,
    FloatArray,
    bin_edges,
    check,
    check_each,
    counts_in,
    exponential_until,
    gamma_renewal,
)


@dataclass(frozen=True)
class Serverless:
    """The functions of a tenant together: a few popular ones, many that hardly ever run, timers.

    After Shahrad et al. 2020 (USENIX ATC, "Serverless in the Wild"): rates differ by up to eight orders of
    magnitude, 15.6 % of functions are started by timers, most of the others have gaps with a coefficient of
    variation above 1.
    """

    mean: float = 1.0
    """Requests/s of all functions, on average."""
    functions: int = 20
    """How many."""
    popularity_sigma: float = 2.5
    """Log-normal sigma of the functions' rates."""
    timer_share: float = 0.156
    """Share of functions that run at full minutes of their period (Shahrad et al., table of triggers)."""
    timer_periods_s: tuple[float, ...] = (60.0, 300.0, 900.0, 3600.0)
    """Periods of timers, s, drawn evenly; all of one period run at once."""
    variation: float = 2.5
    """Coefficient of variation of the other functions' gaps; 1 is Poisson."""
    day_amplitude: float = 0.3
    """Share by which a day's wave swings the other functions' rates."""

    def __post_init__(self) -> None:
        check(
            self,
            not_negative=("mean", "popularity_sigma"),
            positive=("variation", "functions"),
            share=("timer_share", "day_amplitude"),
        )
        check_each(self, "timer_periods_s", least=1.0)
        require(
            self.functions == int(self.functions) and self.functions <= 10_000,
            "Serverless.functions",
            self.functions,
            "a whole number in 1..10000",
        )

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """What arrives in the bin that each time starts, over its length."""
        edges = bin_edges(times_s)
        width = np.diff(edges)
        popularity = np.exp(self.popularity_sigma * rng.standard_normal(int(self.functions)))
        each_rps = self.mean * popularity / popularity.sum()
        timers = rng.random(int(self.functions)) < self.timer_share
        wave = 1 + self.day_amplitude * np.cos(2 * math.pi * (edges[:-1] - 15 * HOUR_S) / DAY_S)
        arrived = np.zeros(len(times_s))
        for rate, timer in zip(each_rps, timers, strict=True):
            if timer:
                arrived += self._timer(rate, edges, rng)
            else:
                arrived += renewal_counts(rng, edges, rate * width * wave, self.variation)
        return np.asarray(arrived / width)

    def _timer(self, rate: float, edges: FloatArray, rng: np.random.Generator) -> FloatArray:
        period = float(rng.choice(self.timer_periods_s))
        ticks = np.arange(math.ceil(edges[0] / period), math.ceil(edges[-1] / period)) * period
        weights = np.full(len(ticks), rate * period)
        return np.asarray(np.histogram(ticks, edges, weights=weights)[0], dtype=float)


def renewal_counts(
    rng: np.random.Generator, edges_s: FloatArray, expected: FloatArray, variation: float
) -> FloatArray:
    """Arrivals of a gamma renewal process in each bin `[T]`, with `expected` `[T]` on average.

    Above 30 a bin they are not drawn one by one: a bin's count is then gamma-distributed with the variance
    that a renewal process's count tends to, variation^2 times its mean (Cox 1962, Renewal Theory).
    """
    if expected.sum() <= min(30 * len(expected), MAX_ARRIVALS):
        return counts_in(edges_s, gamma_renewal(rng, edges_s, expected, variation))
    return np.asarray(rng.gamma(np.maximum(expected, 1e-12) / variation**2, variation**2))


@dataclass(frozen=True)
class LlmInference:
    """Requests to a language model: bursty sessions, conversations of several turns, silent stretches.

    Sessions start with gamma-distributed gaps whose coefficient of variation is above 1 (Wang et al. 2024,
    "BurstGPT", arXiv:2401.17644; Xiang et al. 2025, "ServeGen", arXiv:2505.09999); each has a geometric
    number of turns, log-normal think times between them; and a small deployment is silent for part of the
    time, so that its rate is zero-inflated.
    """

    mean: float = 1.0
    """Requests/s (turns), on average over active and silent times."""
    variation: float = 2.0
    """Coefficient of variation of the gaps between sessions' starts; 1 is Poisson."""
    turns: float = 3.5
    """Mean turns of a conversation, 1 or more (ServeGen reports about 3.5 in multi-turn ones)."""
    think_s: float = 100.0
    """Median time from one turn to the next, s (ServeGen: about 100)."""
    think_spread: float = 1.0
    """Log-normal sigma of it."""
    idle_share: float = 0.0
    """Share of the time without any new session; 0 for a large service."""
    active_s: float = 3600.0
    """Mean length of a stretch with sessions, s, where `idle_share` is above 0."""
    day_amplitude: float = 0.4
    """Share by which a day's wave swings the rate of sessions."""
    peak_s: float = 14 * HOUR_S
    """When in the day it is highest, s."""

    def __post_init__(self) -> None:
        check(
            self,
            not_negative=("mean", "think_spread"),
            positive=("variation", "think_s", "active_s"),
            share=("day_amplitude",),
            finite=("peak_s",),
        )
        require(self.turns >= 1, "LlmInference.turns", self.turns, "1 or more")
        require(0 <= self.idle_share < 1, "LlmInference.idle_share", self.idle_share, "in 0..1, 1 excluded")

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """What arrives in the bin that each time starts, over its length."""
        edges = bin_edges(times_s)
        width = np.diff(edges)
        if self.mean * (edges[-1] - edges[0]) > MAX_ARRIVALS:
            expected = self.intensity(edges[:-1], rng) * width * self.turns
            # turns spread over minutes add no more than their number to a bin's variance
            return np.asarray(renewal_counts(rng, edges, expected, self.variation) / width)
        return np.asarray(counts_in(edges, self.arrivals(edges, rng)) / width)

    def arrivals(self, edges_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Ascending moments of the requests within the edges `[T + 1]` of bins, in seconds.

        Conversations that began before the first edge are among them, from as far back as 99 % of think
        times times the mean number of turns reach.
        """
        reach = self.turns * self.think_s * math.exp(2.33 * self.think_spread)
        step = float(np.median(np.diff(edges_s)))
        before = edges_s[0] - np.arange(math.ceil(reach / step), 0, -1) * step
        grid = np.concatenate([before, edges_s])
        expected = self.intensity(grid[:-1], rng) * np.diff(grid)
        starts = gamma_renewal(rng, grid, expected, self.variation)
        requests = self._turns(starts, rng)
        return np.sort(requests[(requests >= edges_s[0]) & (requests < edges_s[-1])])

    def intensity(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Sessions/s that start on average at these times: the day's wave, nothing in silent stretches."""
        wave = 1 + self.day_amplitude * np.cos(2 * math.pi * (times_s - self.peak_s) / DAY_S)
        sessions = self.mean / self.turns * wave
        if self.idle_share <= 0:
            return np.asarray(sessions)
        idle_s = self.active_s * self.idle_share / (1 - self.idle_share)
        return np.asarray(
            np.where(_active(times_s, self.active_s, idle_s, rng), sessions, 0.0) / (1 - self.idle_share)
        )

    def _turns(self, starts: FloatArray, rng: np.random.Generator) -> FloatArray:
        following = rng.geometric(1.0 / self.turns, len(starts)) - 1
        session = np.repeat(np.arange(len(starts)), following)
        think = self.think_s * np.exp(self.think_spread * rng.standard_normal(len(session)))
        grown = np.cumsum(think)
        first = np.concatenate([[0], np.cumsum(following)[:-1]]) if len(starts) else np.empty(0, int)
        before = np.where(first > 0, np.concatenate([[0.0], grown])[first], 0.0)
        return np.concatenate([starts, starts[session] + grown - before[session]])


def _active(times_s: FloatArray, on_s: float, off_s: float, rng: np.random.Generator) -> np.ndarray:
    """Whether a two-state Markov process with these mean stays is in its first state, bool `[T]`."""
    on_first = rng.random() < on_s / (on_s + off_s)
    pairs = exponential_until(rng, 1.0, np.array([0.0, (times_s[-1] - times_s[0]) / min(on_s, off_s) + 1.0]))
    gaps = np.diff(np.concatenate([[0.0], pairs]))
    on = (np.arange(len(gaps)) % 2 == 0) == on_first
    switches = times_s[0] + np.cumsum(gaps * np.where(on, on_s, off_s))
    state = np.searchsorted(switches, times_s, side="right") % 2 == 0
    return np.asarray(state == on_first)
