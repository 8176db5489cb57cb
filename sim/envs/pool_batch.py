"""The batched pools environment: N sets of pools behind a route, replicas and weights decided together.

`PoolsEnv`, `PoolsVectorEnv` and `PoolsVecEnv` are thin faces of this class. The load of the whole set is
observed by the operator's engine as if the set were one service; replicas go through the operator's guard
(`controller.core.guard`: bounds, `behavior`, the floor in danger), weights through its `guard_weights`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.core import OBSERVATION_SCHEMA, ActionPolicy, Samples
from controller.core.behavior import BehaviorState
from controller.core.guard import GuardInputs, guard
from controller.core.hpa import hpa_replicas
from controller.core.poolfeatures import POOL_SCHEMA, SET_SCHEMA
from controller.core.pools import guard_weights
from sim.envs.pool_features import SHOWN, STATIC, joined, pool_rows
from sim.envs.rewards import CONSTANT_ROWS, TERMS, RewardWeights
from sim.envs.vector import BatchStep
from sim.errors import require
from sim.fused import FusedEngine
from sim.physics.params import ServiceParams
from sim.pool_scenarios import PoolScenario, PoolScenarioConfig, draw_pool_scenario
from sim.pools import (
    MAX_POOLS,
    WEIGHT_TOTAL,
    PoolParams,
    PoolsInterval,
    PoolsMetrics,
    PoolsPhysics,
    RouteParams,
)
from sim.pools.params import K_COST

FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.integer]

TOLERANCE = 0.1
"""Replicas asked for within this of the current ones change nothing, as with the HPA's tolerance."""
MAX_CAPACITY, CAPACITY_STEEPNESS = 4.0, 3.0
POOL_TERMS = (*TERMS, "route_churn")


@dataclass(frozen=True)
class PoolsConfig:
    """Settings of the pools environments."""

    pools: int = 3
    """Most pools of a set; absent ones are masked in the observation."""
    horizon_steps: int = 256
    """Control steps of an episode; it is then truncated, never terminated."""
    levels: tuple[float, ...] | None = None
    """Numbers in -1..1 to choose among (a MultiDiscrete space); None: any number (a Box)."""
    scenario: PoolScenarioConfig = field(default_factory=PoolScenarioConfig)
    """What sets and workloads episodes are drawn from."""
    reward: RewardWeights = field(default_factory=RewardWeights)
    """How the reward is made."""
    stagger: bool = False
    """Cut the first episodes at random lengths, so that a batch's resets spread over time."""
    clones: int = 1
    """So many neighbouring sets live through the same episodes: same pools, traffic, faults and noise."""

    def __post_init__(self) -> None:
        require(self.clones >= 1, "clones", self.clones, "1 or more")
        together = self.clones == 1 or not self.stagger
        require(together, "clones", self.clones, "1 where episodes are cut at random lengths (stagger)")
        least = self.scenario.min_pools
        require(least <= self.pools <= MAX_POOLS, "pools", self.pools, f"in {least} (min_pools)..{MAX_POOLS}")
        require(self.horizon_steps >= 1, "horizon_steps", self.horizon_steps, "1 or more")
        if self.levels is not None:
            require(len(self.levels) > 1, "levels", self.levels, "2 or more")
            inside = all(-1 <= level <= 1 for level in self.levels)
            require(inside, "levels", self.levels, "numbers in -1..1")

    @property
    def observation_size(self) -> int:
        """Numbers in an observation: those of every pool, then those of the set."""
        return self.pools * POOL_SCHEMA.size + SET_SCHEMA.size


def capacity_of(action: FloatArray) -> FloatArray:
    """Capacity that an action in -1..1 asks for over the set's load: 0 at -1, 0.73 at 0, 4 at 1."""
    grown = np.expm1(CAPACITY_STEEPNESS * (np.clip(action, -1.0, 1.0) + 1.0) / 2.0)
    return np.asarray(MAX_CAPACITY * grown / math.expm1(CAPACITY_STEEPNESS))


def action_of(capacity: FloatArray, shares: FloatArray) -> FloatArray:
    """The action `[N, 2 P]` that asks for capacities (over the set's load) and traffic shares `[N, P]`."""
    grown = np.clip(capacity, 0.0, MAX_CAPACITY) * math.expm1(CAPACITY_STEEPNESS) / MAX_CAPACITY
    capacities = 2.0 * np.log1p(grown) / CAPACITY_STEEPNESS - 1.0
    largest = np.maximum(shares.max(axis=1, keepdims=True), 1e-9)
    return np.stack([capacities, 2.0 * shares / largest - 1.0], axis=2).reshape(len(capacity), -1)


@dataclass(slots=True)
class _Settings:
    """What stays the same over an episode: arrays `[N]` or `[N, P]`."""

    sync_s: IntArray
    preference: FloatArray
    ideal_cost: FloatArray
    requests_per_s: FloatArray
    unit_rps: FloatArray
    slo_ms: FloatArray
    target: FloatArray
    propagation_s: FloatArray
    max_step: IntArray
    present: BoolArray
    capacity_rps: FloatArray
    price: FloatArray
    start_up_s: FloatArray
    risk: FloatArray
    min_replicas: IntArray
    max_replicas: IntArray
    min_weight: IntArray
    max_weight: IntArray

    @classmethod
    def empty(cls, sets: int, pools: int) -> _Settings:
        whole, shape = np.int64, (sets, pools)
        return cls(
            sync_s=np.ones(sets, dtype=whole),
            preference=np.ones(sets),
            ideal_cost=np.ones(sets),
            requests_per_s=np.ones(sets),
            unit_rps=np.ones(sets),
            slo_ms=np.ones(sets),
            target=np.ones(sets),
            propagation_s=np.ones(sets),
            max_step=np.ones(sets, dtype=whole),
            present=np.ones(shape, dtype=np.bool_),
            capacity_rps=np.ones(shape),
            price=np.ones(shape),
            start_up_s=np.ones(shape),
            risk=np.ones(shape),
            min_replicas=np.ones(shape, dtype=whole),
            max_replicas=np.ones(shape, dtype=whole),
            min_weight=np.ones(shape, dtype=whole),
            max_weight=np.ones(shape, dtype=whole),
        )

    def take_on(self, row: int, scenario: PoolScenario) -> None:
        spec, reference = scenario.base.spec, scenario.base.reference
        self.sync_s[row], self.preference[row] = int(spec.sync_period_s), spec.preference
        self.ideal_cost[row], self.requests_per_s[row] = reference.ideal_replicas, reference.requests_per_s
        self.unit_rps[row], self.slo_ms[row] = spec.capacity_rps, spec.slo_latency_ms
        self.target[row] = spec.target_utilisation
        self.propagation_s[row] = float(np.asarray(scenario.route.propagation_s))
        self.max_step[row] = scenario.max_weight_step
        self.present[row], self.capacity_rps[row] = scenario.present, scenario.capacity_rps
        prices = np.array([pool.cost_per_replica for pool in scenario.pools]) / scenario.capacity_rps
        self.price[row] = prices / prices[scenario.present].mean()
        self.start_up_s[row], self.risk[row] = scenario.start_up_s, scenario.reclaim_risk
        for name in ("min_replicas", "max_replicas", "min_weight", "max_weight"):
            getattr(self, name)[row] = [getattr(pool, name) for pool in scenario.pools]


@dataclass(frozen=True, slots=True)
class PoolsView:
    """What formula policies may look at: metrics `[N, P]`, the load, and what users wrote about pools.

    load_rps: requests/s of the whole set `[N]`, NaN unknown. capacity_rps: what a replica is believed to
    serve; price: cost of capacity over the mean of the set's pools; both `[N, P]`, as the bounds are. now_s,
    sync_s: each set's clock and sync period (s); slo_ms: its latency objective; `[N]`.
    """

    metrics: PoolsMetrics
    load_rps: FloatArray
    capacity_rps: FloatArray
    price: FloatArray
    max_replicas: IntArray
    present: BoolArray
    now_s: FloatArray
    sync_s: IntArray
    slo_ms: FloatArray


class PoolsBatch:
    """N independent sets; every one draws its episodes from its own generator, seeded `seed + index`, or
    `seed + index // clones`.

    Finished episodes begin anew in the same step, unless `autoreset` is False (one set, reset by hand).
    """

    def __init__(
        self, config: PoolsConfig | None = None, num_envs: int = 1, seed: int = 0, autoreset: bool = True
    ) -> None:
        require(num_envs >= 1, "num_envs", num_envs, "1 or more")
        self.config = config or PoolsConfig()
        self.num_envs, self.pools = num_envs, self.config.pools
        self.autoreset = autoreset
        self._all = np.arange(num_envs)
        self._levels = None if self.config.levels is None else np.asarray(self.config.levels)
        self.physics = PoolsPhysics(num_envs, self.pools)
        self.scenarios: list[PoolScenario | None] = [None] * num_envs
        service = self.config.scenario.service
        slots = _rate_slots(self.config)
        self.physics.set_rates(np.zeros((num_envs, slots)), service.rate_period_s)
        self.settings = _Settings.empty(num_envs, self.pools)
        self._now_s = np.zeros(num_envs)
        self._left, self._steps = np.zeros(num_envs, dtype=np.int64), np.zeros(num_envs, dtype=np.int64)
        self._constants = np.ones((len(CONSTANT_ROWS), num_envs))
        self._direction = np.zeros((num_envs, self.pools), dtype=np.int64)
        self._sums = np.zeros((num_envs, len(_SUMS)))
        self._load_rps, self._usable = np.zeros(num_envs), np.zeros(num_envs, dtype=bool)
        self.observations = np.zeros((num_envs, self.config.observation_size), dtype=np.float32)
        self._shown = self.physics.metrics()
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """New generators; the next `reset` starts all over."""
        groups = -(-self.num_envs // self.config.clones)
        self._rngs = [np.random.default_rng(seed + index) for index in range(groups)]
        self._first = np.ones(self.num_envs, dtype=bool)
        example = draw_pool_scenario(np.random.default_rng(0), self.config.scenario, self.pools, 1)
        self.engine = FusedEngine([example.base.spec] * self.num_envs, ActionPolicy())
        self.behavior = BehaviorState(self.num_envs * self.pools)

    def reset(self) -> FloatArray:
        """New episodes everywhere; observations float32 `[N, P * F + S]`."""
        self._begin(self._all)
        self._observe(self._all)
        return self.observations.copy()

    def step(self, choices: npt.ArrayLike) -> BatchStep:
        """Decide, let a sync period pass, observe; finished episodes begin anew.

        choices: float `[N, 2 P]`, capacity and weight of each pool in turn, or indices of `levels`.
        """
        before, weights_before = self.physics.replicas, self.physics.weights_asked
        desired, weights = self._decide(self.actions_of(choices))
        self.physics.scale(None, desired)
        self.physics.route(None, weights)
        interval = self.physics.advance(None, self.settings.sync_s)
        self._now_s += self.settings.sync_s
        self._left -= 1
        self._steps += 1
        terms = self._terms(interval, desired - before, weights - weights_before)
        rewards = self.config.reward.total(terms, self._constants)
        self._account(interval, terms, rewards, desired - before)
        self._situation = self._describe(interval, desired)
        truncated = self._left <= 0
        self._observe(self._all)
        observations = self.observations.copy()
        done = np.flatnonzero(truncated)
        final, episodes = observations[done], [self._summary(int(row)) for row in done]
        if len(done) and self.autoreset:
            self._begin(done)
            self._observe(done)
            observations[done] = self.observations[done]
        return BatchStep(observations, rewards, truncated, terms, final, episodes)

    def actions_of(self, choices: npt.ArrayLike) -> FloatArray:
        """Actions in -1..1 `[N, P, 2]` (capacity, weight) for what agents chose."""
        shape = (self.num_envs, self.pools, 2)
        if self._levels is None:
            return np.asarray(choices, dtype=np.float64).reshape(shape)
        return np.asarray(self._levels[np.asarray(choices, dtype=np.int64)]).reshape(shape)

    def view(self) -> PoolsView:
        """What formula policies look at, now."""
        settings = self.settings
        return PoolsView(
            self._shown,
            np.where(self._usable, self._load_rps, np.nan),
            settings.capacity_rps,
            settings.price,
            settings.max_replicas,
            settings.present,
            self._now_s.copy(),
            settings.sync_s,
            settings.slo_ms,
        )

    def situation(self) -> dict[str, FloatArray]:
        """The last step in plain numbers, float `[N]` or `[N, P]` each, before any reset."""
        return self._situation()

    @property
    def now_s(self) -> FloatArray:
        """Each set's own clock, seconds `[N]`."""
        return self._now_s.copy()

    def _decide(self, actions: FloatArray) -> tuple[IntArray, IntArray]:
        """Replicas and weights int `[N, P]` after the guards."""
        shown, settings = self._shown, self.settings
        weights = guard_weights(
            np.where(settings.present, (np.clip(actions[:, :, 1], -1.0, 1.0) + 1.0) / 2.0, 0.0),
            shown.weights_asked,
            shown.ready,
            settings.min_weight,
            settings.max_weight,
            settings.max_step,
        )
        wanted = self._wanted(actions[:, :, 0])
        used = (weights > 0) | (shown.weights_asked > 0) | (shown.weights > 0)
        return self._guarded(wanted, used), weights

    def _wanted(self, action: FloatArray) -> FloatArray:
        """Replicas float `[N, P]` that an action asks for; NaN where the load is not known."""
        current = self._shown.current
        wanted_rps = capacity_of(action) * np.where(self._usable, self._load_rps, np.nan)[:, None]
        wanted = np.ceil(wanted_rps / self.settings.capacity_rps - 1e-9)
        near = (np.abs(wanted - current) <= TOLERANCE * current) & (wanted > 0)
        return np.where(near, current, wanted)

    def _guarded(self, wanted: FloatArray, used: BoolArray) -> IntArray:
        """The operator's guard, each pool a service; one that has, or may get, traffic keeps a replica."""
        shown, settings = self._shown, self.settings
        flat = np.arange(wanted.size)
        current = shown.current.reshape(-1).astype(np.int64)
        with np.errstate(invalid="ignore"):
            danger = shown.latency_ms > settings.slo_ms[:, None]
            ratio = shown.utilisation / settings.target[:, None]
        formula = hpa_replicas(
            current,
            np.minimum(shown.ready, shown.current).reshape(-1).astype(np.int64),
            ratio.reshape(-1),
            self.behavior.down.tolerance,
            self.behavior.up.tolerance,
        )
        recommended = wanted.reshape(-1)
        inputs = GuardInputs(
            rows=flat,
            now_s=np.repeat(self._now_s, self.pools),
            current=current,
            hpa_replicas=formula,
            usable=np.repeat(self._usable, self.pools),
            slo_in_danger=danger.reshape(-1),
            unfamiliar=np.zeros(len(flat), dtype=bool),
            idle=~used.reshape(-1),
            wake_replicas=np.nan_to_num(recommended).astype(np.int64),
            min_replicas=settings.min_replicas.reshape(-1),
            max_replicas=settings.max_replicas.reshape(-1),
        )
        desired = guard(inputs, recommended, self.behavior).desired
        self.behavior.record(flat, inputs.now_s, current, desired)
        return desired.reshape(self.num_envs, self.pools)

    def _begin(self, rows: IntArray) -> None:
        drawn = self._drawn(rows)
        seeds = np.array([scenario.base.noise_seed for scenario in drawn], dtype=np.uint64)
        self.physics.reset(
            rows,
            ServiceParams(**_stacked([scenario.service for scenario in drawn], self.pools)),
            PoolParams(**_stacked([scenario.params for scenario in drawn], self.pools)),
            RouteParams(**_stacked([scenario.route for scenario in drawn], 0)),
            seeds,
            np.stack([scenario.replicas for scenario in drawn]),
            np.stack([scenario.weights for scenario in drawn]),
            np.stack([scenario.present for scenario in drawn]),
        )
        self.engine.reset(rows)
        for row, scenario in zip(rows, drawn, strict=True):
            self._take_on(int(row), scenario)
        self.behavior.reset((rows[:, None] * self.pools + np.arange(self.pools)).reshape(-1))
        self.physics.advance(rows, np.array([scenario.base.warm_up_s for scenario in drawn]))
        references = [scenario.base.reference for scenario in drawn]
        self._constants[:, rows] = self.config.reward.constants(
            self.settings.preference[rows],
            np.array([reference.cost for reference in references]),
            np.array([reference.violation for reference in references]),
        )
        self._now_s[rows] = [scenario.base.start_s for scenario in drawn]
        self._steps[rows], self._direction[rows], self._sums[rows] = 0, 0, 0.0

    def _drawn(self, rows: IntArray) -> list[PoolScenario]:
        """New episodes for these rows; clones begin together, so that one draw serves all of them."""
        drawn: dict[int, PoolScenario] = {}
        for row in rows.tolist():
            group = row // self.config.clones
            drawn[group] = drawn[group] if group in drawn else self._draw(group)
            self._left[row] = self.config.horizon_steps
            if self._first[row] and self.config.stagger:
                self._left[row] = int(self._rngs[group].integers(1, self.config.horizon_steps + 1))
            self._first[row] = False
        return [drawn[row // self.config.clones] for row in rows.tolist()]

    def _draw(self, group: int) -> PoolScenario:
        return draw_pool_scenario(
            self._rngs[group], self.config.scenario, self.pools, self.config.horizon_steps
        )

    def _take_on(self, row: int, scenario: PoolScenario) -> None:
        self.scenarios[row] = scenario
        base, rates = scenario.base, self.physics.rates
        self.engine.update(row, base.spec)
        for pool in range(self.pools):
            place = row * self.pools + pool
            behavior = base.spec.behavior
            self.behavior.configure(place, behavior.scale_up, behavior.scale_down, base.spec.sync_period_s)
        times, past = base.history
        if len(times):
            self.engine.backfill(times, past[:, None], np.array([row]))
        kept = min(len(base.rates_rps), rates.shape[1])
        rates[row, :kept] = base.rates_rps[:kept]
        rates[row, kept:] = base.rates_rps[kept - 1]
        self.settings.take_on(row, scenario)

    def _observe(self, rows: IntArray) -> None:
        """Take in the metrics of these sets, and write their observations."""
        shown, settings = self.physics.metrics(rows), self.settings
        unit = settings.unit_rps[rows]
        samples = Samples(*joined(shown, settings.capacity_rps[rows], unit))
        view = self.engine.observe(self._now_s[rows], samples, rows)
        self._usable[rows] = view.usable
        self._load_rps[rows] = np.where(view.usable, view.load * unit, np.nan)
        if len(rows) == self.num_envs:
            self._shown = shown
        else:
            self._shown = _replaced(self._shown, shown, rows)
        cut = self.pools * POOL_SCHEMA.size
        of_pools = np.zeros((len(rows), cut), dtype=np.float32)
        pool_rows(
            np.stack([getattr(shown, name) for name in SHOWN]),
            np.stack([getattr(settings, name)[rows] for name in STATIC]),
            self._load_rps[rows], unit, settings.slo_ms[rows], of_pools,
        )  # fmt: skip
        self.observations[rows, :cut] = np.clip(
            of_pools, np.tile(POOL_SCHEMA.low, self.pools), np.tile(POOL_SCHEMA.high, self.pools)
        )
        last = cut + OBSERVATION_SCHEMA.size
        self.observations[rows, cut:last] = view.features
        self.observations[rows, last] = 1.0 / settings.present[rows].sum(axis=1)
        self.observations[rows, last + 1] = np.log1p(settings.propagation_s[rows])
        self.observations[rows, last + 2] = settings.max_step[rows] / WEIGHT_TOTAL

    def _terms(self, interval: PoolsInterval, change: IntArray, shift: IntArray) -> dict[str, FloatArray]:
        settings = self.settings
        prices = self.physics.arrays.params[:, :, K_COST]
        return {
            "cost": interval.cost.sum(axis=1) / (settings.sync_s * settings.ideal_cost),
            "violation": interval.violating.sum(axis=1) / (settings.sync_s * settings.requests_per_s),
            "violation_share": interval.violation_share,
            "churn": (np.abs(change) * prices).sum(axis=1) / settings.ideal_cost,
            "route_churn": np.abs(shift).sum(axis=1) / (2.0 * WEIGHT_TOTAL),
        }

    def _account(
        self, interval: PoolsInterval, terms: dict[str, FloatArray], rewards: FloatArray, change: IntArray
    ) -> None:
        direction = np.sign(change)
        flapped = (direction != 0) & (self._direction != 0) & (direction != self._direction)
        self._direction = np.where(direction != 0, direction, self._direction)
        counts = (interval.violating, interval.dropped, interval.arrived, flapped)
        totals = (np.sum(count, axis=1) for count in counts)
        columns = (rewards, *(terms[name] for name in POOL_TERMS), *totals)
        self._sums += np.stack(columns, axis=1)

    def _describe(self, interval: PoolsInterval, desired: IntArray) -> Callable[[], dict[str, FloatArray]]:
        physics = self.physics
        ready, weights = physics.ready, physics.weights
        asked = physics.weights_asked

        def situation() -> dict[str, FloatArray]:
            return {
                "requests_per_s": interval.arrived.sum(axis=1) / interval.seconds,
                "p95_ms": interval.percentile_ms(95),
                "p99_ms": interval.percentile_ms(99),
                "violation_share": interval.violation_share,
                "desired_replicas": desired.astype(np.float64),
                "ready_replicas": ready.astype(np.float64),
                "weights": weights.astype(np.float64),
                "weights_asked": asked.astype(np.float64),
            }

        return situation

    def _summary(self, row: int) -> dict[str, float]:
        """What an episode came to, in the names of `info["summary"]`."""
        sums = dict(zip(_SUMS, self._sums[row].tolist(), strict=True))
        steps = int(self._steps[row])
        hours = steps * float(self.settings.sync_s[row]) / 3600.0
        arrived = max(sums["arrived"], 1e-9)
        return {
            "return": sums["return"],
            "steps": float(steps),
            "cost": sums["cost"] / steps,
            "violation": sums["violating"] / arrived,
            "dropped": sums["dropped"] / arrived,
            "churn": sums["churn"] / steps,
            "route_churn": sums["route_churn"] / steps,
            "flaps_per_hour": sums["flaps"] / hours,
            "preference": float(self.settings.preference[row]),
        }


_SUMS = ("return", *POOL_TERMS, "violating", "dropped", "arrived", "flaps")


def _rate_slots(config: PoolsConfig) -> int:
    service = config.scenario.service
    longest = max(service.sync_periods_s) * config.horizon_steps
    window = max(max(service.windows_s), 2 * max(service.scrape_intervals_s) + 1)
    return int((longest + window + max(service.scrape_intervals_s) + 120) / service.rate_period_s) + 3


def _stacked(params: list[Any], pools: int) -> dict[str, FloatArray]:
    """Fields of several parameter sets as arrays `[N, P]`, or `[N]` where `pools` is 0."""
    columns: dict[str, FloatArray] = {}
    for item in fields(params[0]):
        values = np.array([getattr(one, item.name) for one in params], dtype=np.float64)
        columns[item.name] = values[:, None] if pools and values.ndim == 1 else values
    return columns


def _replaced(whole: PoolsMetrics, part: PoolsMetrics, rows: IntArray) -> PoolsMetrics:
    columns = {}
    for name in PoolsMetrics.__slots__:
        values = getattr(whole, name).copy()
        values[rows] = getattr(part, name)
        columns[name] = values
    return PoolsMetrics(**columns)
