"""A cluster as the consumer: what its replicas draw, and what a preference that follows the price saves.

The cluster is the autoscaling simulator's (`sim.replay`: a policy behind the operator's guard, one service a
window); its replicas' power is `idle_w` each, whatever they do, and the rest in proportion to the work. Their
price in a step is therefore what a replica's idle hour costs then: `costPerReplica` as a signal. The policy
that follows it lowers `objective.preference` in dear hours and raises it in cheap ones; whether that saves
anything is judged at equal violations, along both policies' frontiers over the dial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.core import OBSERVATION_SCHEMA, View
from controller.policies.loader import load_policy
from sim.baselines import Setting
from sim.replay import DAY_S, Protocol, ReplayResult, Window, replay

FloatArray = npt.NDArray[np.floating]
COLUMN = OBSERVATION_SCHEMA.names.index("preference")


@dataclass(frozen=True)
class Power:
    """What a replica draws: idle_w as soon as it exists, peak_w at full work; overhead is the building's
    (PUE)."""

    idle_w: float = 60.0
    peak_w: float = 150.0
    overhead: float = 1.3

    def kilowatts(self, replicas: FloatArray, work: FloatArray) -> FloatArray:
        """Power of `replicas` of which `work` (in replicas) is busy."""
        busy = np.minimum(work, replicas)
        return np.asarray(self.overhead * (self.idle_w * replicas + (self.peak_w - self.idle_w) * busy) / 1e3)


class PriceFollowing:
    """A policy whose preference moves against the price: `gain` points of the dial for each e-fold.

    prices `[W, H]`: of each window's hours, over its mean. Rows of the engine are windows, again and again.
    """

    def __init__(self, policy: Any, prices: FloatArray, gain: float) -> None:
        self.policy, self.gain = policy, gain
        self._logarithm = np.log(np.maximum(prices, 0.05))
        self.type, self.digest, self.schema = policy.type, policy.digest, policy.schema
        self.name = f"{policy.name}+price"

    def recommend(self, view: View) -> FloatArray:
        """The policy's answer at the moved preference."""
        hour = np.asarray((view.now_s - 2 * DAY_S) // 3600, dtype=np.int64)
        window = view.rows % len(self._logarithm)
        hour = np.clip(hour, 0, self._logarithm.shape[1] - 1)
        moved = np.clip(view.preference - self.gain * self._logarithm[window, hour], 0.0, 100.0)
        made = view.make_features

        def features(index: npt.NDArray[np.integer]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
            values, known = made(index)
            values = values.copy()
            values[:, COLUMN] = moved[index] / 100.0
            return values, known

        return np.asarray(self.policy.recommend(replace(view, preference=moved, make_features=features)))


@dataclass(frozen=True)
class Frontier:
    """Preferences of one gain: violation share and energy bill of each, over all windows; the bill of each
    window `[P, W]`, and its violations."""

    gain: float
    preferences: tuple[float, ...]
    violation: FloatArray
    bill: FloatArray

    def bill_at(self, violation: float, weights: FloatArray) -> float:
        """The bill at a mean violation share, by interpolation in its logarithm; NaN outside the frontier.

        weights `[W]`: how often each window counts.
        """
        share = np.log(np.maximum(self.violation @ weights / weights.sum(), 1e-7))
        money = self.bill @ weights
        order = np.argsort(share)
        wanted = np.log(violation)
        if not share[order[0]] <= wanted <= share[order[-1]]:
            return float("nan")
        return float(np.interp(wanted, share[order], money[order]))


@dataclass(frozen=True)
class Example:
    """Frontiers by gain, and the replicas of the constant one for the grid."""

    frontiers: tuple[Frontier, ...]
    cluster_kw: FloatArray
    """`[W, hours]`: mean power of each window's hours at the middle preference."""


def measure(
    windows: Sequence[Window],
    tariffs: Mapping[str, FloatArray],
    policy_name: str = "default",
    gains: Sequence[float] = (0.0, 10.0, 25.0),
    preferences: Sequence[float] = (10.0, 25.0, 40.0, 55.0, 70.0, 85.0),
    power: Power | None = None,
    seed: int = 0,
) -> dict[str, Example]:
    """Replay every window at every preference under each tariff (prices `[W, hours]`); the first gain is 0,
    the policy as it is. All in one batch: the same arrivals for everybody."""
    rules, model = Protocol(), power or Power()
    policy = load_policy({"builtin": policy_name})
    followers: dict[tuple[str, float], Any] = {("", 0.0): policy}
    for name, prices in tariffs.items():
        relative = prices / prices.mean(axis=1, keepdims=True)
        followers |= {(name, gain): PriceFollowing(policy, relative, gain) for gain in gains[1:]}
    settings = [
        Setting(f"{name} {gain:g} {dial:g}", one, rules.spec(dial))
        for (name, gain), one in followers.items()
        for dial in preferences
    ]
    result = replay(windows, settings, rules, seed, timeline=True)
    kilowatts = _kilowatts(result, rules, model)
    count = len(preferences)
    blocks = {key: slice(place * count, (place + 1) * count) for place, key in enumerate(followers)}
    cluster = _hourly(kilowatts[count // 2], rules.sync_period_s)

    def frontier(name: str, gain: float) -> Frontier:
        block = blocks[(name if gain else "", gain)]
        bills = _bills(kilowatts[block], tariffs[name], rules.sync_period_s)
        return Frontier(gain, tuple(preferences), result.violation[block], bills)

    return {name: Example(tuple(frontier(name, gain) for gain in gains), cluster) for name in tariffs}


def savings(
    example: Example, violation: float, resamples: int = 1000, seed: int = 0
) -> dict[float, tuple[float, float, float]]:
    """What each gain saves of the constant preference's bill at that mean violation: share, and 95 % interval
    over windows; NaN where a frontier does not reach it."""
    base, rng = example.frontiers[0], np.random.default_rng(seed)
    count = base.bill.shape[1]
    draws = rng.multinomial(count, np.full(count, 1.0 / count), resamples).astype(np.float64)
    found = {}
    for other in example.frontiers[1:]:
        share = _saved(base, other, violation, np.ones(count))
        drawn = np.array([_saved(base, other, violation, weights) for weights in draws])
        known = drawn[np.isfinite(drawn)]
        low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
        found[other.gain] = (share, float(low), float(high))
    return found


def _saved(base: Frontier, other: Frontier, violation: float, weights: FloatArray) -> float:
    return 1.0 - other.bill_at(violation, weights) / base.bill_at(violation, weights)


def _kilowatts(result: ReplayResult, rules: Protocol, power: Power) -> FloatArray:
    """Power in each control step `[S, W, steps]`; replicas that are starting or draining draw, too."""
    capacity = float(np.asarray(rules.params.capacity_rps))
    replicas = np.maximum(result.timeline["desired"], result.timeline["ready"])
    return power.kilowatts(replicas, result.timeline["requests_per_s"] / capacity)


def _bills(kilowatts: FloatArray, prices: FloatArray, period_s: int) -> FloatArray:
    """Money for energy `[S, W]`."""
    hours = np.minimum(np.arange(kilowatts.shape[2]) * period_s // 3600, prices.shape[1] - 1)
    return np.asarray(np.nansum(kilowatts * prices[:, hours], axis=2) * period_s / 3600.0)


def _hourly(kilowatts: FloatArray, period_s: int) -> FloatArray:
    """Means of hours `[W, hours]`; NaN after a window's end."""
    per_hour = 3600 // period_s
    whole = kilowatts.shape[1] // per_hour * per_hour
    return np.asarray(kilowatts[:, :whole].reshape(len(kilowatts), -1, per_hour).mean(axis=2))
