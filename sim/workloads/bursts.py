"""Rates with surges: flash crowds, announced events, Markov modulation, bursts out of nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.errors import require
from sim.workloads.base import (
    DAY_S,
    FloatArray,
    check,
    check_each,
    exponential_until,
    poisson_events,
)


@dataclass(frozen=True)
class Mmpp:
    """Markov-modulated rate: levels held for exponential times, the next drawn evenly among the others.

    With the Poisson arrivals of the physics round it, a Markov-modulated Poisson process (Fischer and
    Meier-Hellstern 1993, Performance Evaluation 18).
    """

    levels: tuple[float, ...] = (0.3, 0.6, 1.0)
    """Requests/s of each state."""
    hold_s: float = 600.0
    """Mean stay in a state, s."""

    def __post_init__(self) -> None:
        check(self, positive=("hold_s",))
        check_each(self, "levels")

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Piecewise constant levels."""
        levels = np.asarray(self.levels, float)
        stays = exponential_until(rng, self.hold_s, times_s)
        hops = rng.integers(1, max(len(levels), 2), size=len(stays))
        states = np.cumsum(np.concatenate([[rng.integers(len(levels))], hops])) % len(levels)
        return np.asarray(levels[states[np.searchsorted(stays, times_s, side="right")]])


@dataclass(frozen=True)
class FlashCrowds:
    """A factor of 1 with surges that nobody announced: fast rise, plateau, exponential decay.

    The three phases are those of Ari et al. 2003 (MASCOTS, "Managing flash crowds on the Internet").
    """

    per_day: float = 4.0
    """Mean surges a day."""
    magnitude: float = 4.0
    """Median factor at the top, over 1."""
    magnitude_spread: float = 0.5
    """Log-normal sigma of the magnitude."""
    rise_s: float = 120.0
    """From nothing to the top, s."""
    hold_s: float = 300.0
    """At the top, s."""
    decay_s: float = 900.0
    """Time constant of the way down, s."""

    def __post_init__(self) -> None:
        check(
            self,
            not_negative=("per_day", "magnitude", "magnitude_spread", "rise_s", "hold_s"),
            positive=("decay_s",),
        )

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """1 plus every surge."""
        starts = poisson_events(rng, self.per_day, times_s, before_s=5 * self.decay_s)
        tops = self.magnitude * np.exp(self.magnitude_spread * rng.standard_normal(len(starts)))
        factor = np.ones(len(times_s))
        for start, top in zip(starts, tops, strict=True):
            factor += top * self._surge(times_s - start)
        return factor

    def _surge(self, age_s: FloatArray) -> FloatArray:
        rise = np.clip(age_s / max(self.rise_s, 1e-9), 0.0, 1.0)
        late = np.maximum(age_s - self.rise_s - self.hold_s, 0.0)
        return np.asarray(rise * np.exp(-late / self.decay_s))


@dataclass(frozen=True)
class AnnouncedEvents:
    """A factor of 1 with events that people wait for: build-up, plateau, sharp last peak, decay.

    The defaults follow the 1998 World Cup's web site in the group stage (Arlitt and Jin 2000, IEEE
    Network 14(3); measured on its requests a minute): in the half hour before kick-off the rate grows 2.3
    times, holds at about three times the level before during the match, is 1.4 times that for some minutes
    when it ends, and has fallen by half 40 minutes later.
    """

    at_s: tuple[float, ...] = ()
    """When events begin, s; none: `per_day` of them at random."""
    per_day: float = 2.0
    """Mean events a day, where `at_s` names none."""
    magnitude: float = 2.0
    """Median factor in the event, over 1."""
    magnitude_spread: float = 0.2
    """Log-normal sigma of the magnitude from event to event."""
    build_up_s: float = 1800.0
    """Time constant of the exponential build-up before it begins, s."""
    length_s: float = 6300.0
    """How long it lasts, s: a match, 90 minutes and its interval."""
    finale: float = 0.4
    """Extra share of the magnitude at its end."""
    finale_s: float = 600.0
    """Half width of that last peak, s (triangular)."""
    decay_s: float = 2400.0
    """Time constant of the way down, s."""

    def __post_init__(self) -> None:
        check(
            self,
            not_negative=("per_day", "magnitude", "magnitude_spread", "length_s", "finale"),
            positive=("build_up_s", "finale_s", "decay_s"),
        )
        if self.at_s:
            check_each(self, "at_s", least=-np.finfo(float).max)

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """1 plus every event."""
        starts = np.asarray(self.at_s, float) if self.at_s else self._draw(times_s, rng)
        tops = self.magnitude * np.exp(self.magnitude_spread * rng.standard_normal(len(starts)))
        factor = np.ones(len(times_s))
        for start, top in zip(starts, tops, strict=True):
            factor += top * self.event(times_s - start)
        return factor

    def _draw(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        before_s, after_s = self.length_s + 5 * self.decay_s, 5 * self.build_up_s
        reach = np.array([times_s[0], times_s[-1] + after_s])
        return poisson_events(rng, self.per_day, reach, before_s)

    def event(self, age_s: FloatArray) -> FloatArray:
        """Share of the magnitude `age_s` seconds after the event began (negative: before), `[T]`."""
        build_up = np.exp(np.minimum(age_s, 0.0) / self.build_up_s)
        late = np.maximum(age_s - self.length_s, 0.0)
        finale = self.finale * np.maximum(1.0 - np.abs(age_s - self.length_s) / self.finale_s, 0.0)
        return np.asarray(build_up * np.exp(-late / self.decay_s) + finale)


@dataclass(frozen=True)
class Spiky:
    """Zero-inflated bursts, as one serverless function or a batch caller makes: nothing, then a lot."""

    idle_s: float = 900.0
    """Mean pause between bursts, s."""
    burst_s: float = 120.0
    """Mean length of a burst, s."""
    magnitude: float = 1.0
    """Median requests/s in a burst."""
    magnitude_spread: float = 0.8
    """Log-normal sigma of the magnitude."""
    floor: float = 0.0
    """Requests/s in the pauses."""

    def __post_init__(self) -> None:
        check(self, positive=("idle_s", "burst_s"), not_negative=("magnitude", "magnitude_spread", "floor"))

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The floor, or a burst's level."""
        cycle = exponential_until(rng, self.idle_s + self.burst_s, times_s)
        starts = np.concatenate([[times_s[0] - rng.exponential(self.idle_s)], cycle])
        lengths = rng.exponential(self.burst_s, len(starts))
        levels = self.magnitude * np.exp(self.magnitude_spread * rng.standard_normal(len(starts)))
        index = np.searchsorted(starts, times_s, side="right") - 1
        active = (index >= 0) & (times_s < starts[index] + lengths[index])
        return np.where(active, np.maximum(levels[index], self.floor), self.floor)


@dataclass(frozen=True)
class Outages:
    """A factor of 1 that drops (a failing upstream, a deploy) and comes back higher while clients retry."""

    per_day: float = 2.0
    """Mean outages a day."""
    length_s: float = 300.0
    """Mean length, s; none is shorter than 15 s, a usual scrape interval."""
    depth: float = 0.9
    """Share of the traffic that is gone."""
    rebound: float = 0.5
    """Extra share right after."""
    rebound_s: float = 180.0
    """Time constant with which the extra vanishes, s."""

    def __post_init__(self) -> None:
        check(
            self, not_negative=("per_day", "length_s", "rebound"), share=("depth",), positive=("rebound_s",)
        )

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """1, less in an outage, more after it."""
        starts = poisson_events(rng, self.per_day, times_s, before_s=self.length_s)
        factor = np.ones(len(times_s))
        for start in starts:
            end = start + max(rng.exponential(self.length_s), 15.0)
            factor = np.where((times_s >= start) & (times_s < end), 1.0 - self.depth, factor)
            age = times_s - end
            factor = np.where(
                age >= 0, factor + self.rebound * np.exp(-np.maximum(age, 0) / self.rebound_s), factor
            )
        return factor


@dataclass(frozen=True)
class DeployDips:
    """A factor of 1 with the dips of rolling deployments: on working days, in working hours, in steps.

    While one batch of replicas after another is replaced, a share of the requests is cut off or waits; as
    each batch comes back, clients send what they held back. Shallow, short, and several in a row, where an
    outage is one deep hole.
    """

    per_day: float = 3.0
    """Mean deployments on a working day."""
    batches: int = 4
    """Batches in which the replicas are replaced."""
    batch_s: float = 60.0
    """Time for each batch, s; half of it the dip, half the catching up."""
    depth: float = 0.2
    """Share of the traffic that is missing in a dip and comes in the catching up."""
    from_hour: float = 9.0
    """Hour of the day from which there are deployments."""
    to_hour: float = 18.0
    """Hour of the day until which there are."""

    def __post_init__(self) -> None:
        check(
            self,
            not_negative=("per_day", "from_hour", "to_hour"),
            positive=("batch_s", "batches"),
            share=("depth",),
        )
        kind = "DeployDips"
        require(
            self.batches == int(self.batches), f"{kind}.batches", self.batches, "a whole number, 1 or more"
        )
        require(
            self.from_hour < self.to_hour <= 24, f"{kind}.to_hour", self.to_hour, "above from_hour, up to 24"
        )

    def rates(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """1, less and more in turn while something is deployed."""
        length_s = self.batches * self.batch_s
        first, last = np.floor((times_s[0] - length_s) / DAY_S), np.floor(times_s[-1] / DAY_S)
        factor = np.ones(len(times_s))
        for day in np.arange(first, last + 1):
            count = rng.poisson(self.per_day)
            starts = (day * 24 + rng.uniform(self.from_hour, self.to_hour, count)) * 3600.0
            if day % 7 >= 5:
                continue
            for start in np.sort(starts):
                age = times_s - start
                inside = (age >= 0) & (age < length_s)
                dip = np.mod(age, self.batch_s) < 0.5 * self.batch_s
                factor = np.where(inside, np.where(dip, 1.0 - self.depth, 1.0 + self.depth), factor)
        return factor
