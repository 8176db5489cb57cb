"""The batched autoscaling environment: N services, one decision each in a step, over the operator's own core.

`AutoscaleEnv`, `AutoscaleVectorEnv` and `AutoscaleVecEnv` are thin faces of this class. Observations come
from `Engine.observe`, actions go through `Engine.decide` (decoding, guard), the physics does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.core import ACTION_SCHEMAS, OBSERVATION_SCHEMA, ActionPolicy, Decisions, Engine, Samples, View
from sim.envs.rewards import TERMS, RewardWeights
from sim.errors import ParameterError, require
from sim.physics import Interval, ServiceMetrics, ServiceParams, ServicePhysics
from sim.scenario import Scenario, ScenarioConfig, draw_scenario

FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.integer]

RELATIVE_CHANGES = (-0.5, -0.25, -0.1, -0.005, 0.0, 0.005, 0.1, 0.25, 0.6, 1.0)
_BOX_LIMIT = {"relative-change/v1": (-1.0, 4.0), "hold-band/v1": (-1.0, 3.0)}


@dataclass(frozen=True)
class AutoscaleConfig:
    """Settings of the autoscaling environments."""

    horizon_steps: int = 256
    """Control steps of an episode; it is then truncated, never terminated."""
    action_schema: str = "relative-change/v1"
    """What actions mean: a name of `controller.core.ACTION_SCHEMAS`."""
    action_table: tuple[tuple[float, ...], ...] | None = tuple((change,) for change in RELATIVE_CHANGES)
    """Rows of the schema to choose among (a Discrete space); None: the numbers themselves (a Box)."""
    scenario: ScenarioConfig = field(default_factory=ScenarioConfig)
    """What services and workloads episodes are drawn from."""
    reward: RewardWeights = field(default_factory=RewardWeights)
    """How the reward is made."""
    stagger: bool = False
    """Cut the first episodes at random lengths, so that a batch's resets spread over time."""

    clones: int = 1
    """So many services in a row live through the same episodes: what differs is what their agent does."""

    def __post_init__(self) -> None:
        require(self.clones >= 1, "clones", self.clones, "1 or more")
        require(self.horizon_steps >= 1, "horizon_steps", self.horizon_steps, "1 or more")
        known = ", ".join(ACTION_SCHEMAS)
        require(self.action_schema in ACTION_SCHEMAS, "action_schema", self.action_schema, f"one of {known}")
        size = ACTION_SCHEMAS[self.action_schema].size
        for row in self.action_table or ():
            require(len(row) == size, "action_table", row, f"rows of {size} numbers")
        require(
            self.action_table is None or len(self.action_table) > 1,
            "action_table",
            self.action_table,
            "2 rows",
        )

    @property
    def action_bounds(self) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest action, float32 `[A]` each."""
        size = ACTION_SCHEMAS[self.action_schema].size
        low, high = _BOX_LIMIT.get(self.action_schema, (-10.0, 10.0))
        return np.full(size, low, dtype=np.float32), np.full(size, high, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class BatchStep:
    """One step of N services. `observations` follow the reset where `truncated`; `final` then holds, for
    those rows in order, the observations before it. `terms` and `rewards` are float `[N]`, `episodes`
    summaries."""

    observations: FloatArray
    rewards: FloatArray
    truncated: BoolArray
    terms: dict[str, FloatArray]
    final: FloatArray
    episodes: list[dict[str, float]]


class AutoscaleBatch:
    """N independent services; every one draws its episodes from its own generator, seeded `seed + index`
    (`seed + index // clones`).

    Finished episodes begin anew in the same step, unless `autoreset` is False (one service, reset by hand).
    """

    def __init__(
        self, config: AutoscaleConfig | None = None, num_envs: int = 1, seed: int = 0, autoreset: bool = True
    ) -> None:
        require(num_envs >= 1, "num_envs", num_envs, "1 or more")
        self.config = config or AutoscaleConfig()
        self.num_envs = num_envs
        table = self.config.action_table
        self._table = None if table is None else np.asarray(table, dtype=np.float64)
        self._rngs = [np.random.default_rng(0) for _ in range(num_envs)]
        self._all = np.arange(num_envs)
        self.physics = ServicePhysics(ServiceParams(), num_envs)
        self.scenarios: list[Scenario | None] = [None] * num_envs
        self.physics.set_rates(np.zeros((num_envs, self._rate_slots())), self.config.scenario.rate_period_s)
        self._rates = self.physics.rates
        self._now_s = np.zeros(num_envs)
        self._sync_s = np.ones(num_envs, dtype=np.int64)
        self._left = np.zeros(num_envs, dtype=np.int64)
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._weight, self._scale = np.ones(num_envs), np.ones(num_envs)
        self._ideal, self._requests = np.ones(num_envs), np.ones(num_envs)
        self._direction = np.zeros(num_envs, dtype=np.int64)
        self._sums = np.zeros((num_envs, len(_SUMS)))
        self.autoreset = autoreset
        self.decisions: Decisions | None = None
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """New generators; the next `reset` starts all over."""
        seeds = [seed + index // self.config.clones for index in range(self.num_envs)]
        self._rngs = [np.random.default_rng(one) for one in seeds]
        self._first = np.ones(self.num_envs, dtype=bool)
        spec = draw_scenario(np.random.default_rng(0), self.config.scenario, 1).spec
        # a network as far as the engine is concerned: its fallbacks are those that it has when serving
        self.engine = Engine([spec] * self.num_envs, ActionPolicy())

    def reset(self) -> FloatArray:
        """New episodes everywhere; observations float32 `[N, F]`."""
        self._begin(self._all)
        self._view = self._observe(self._all)
        self.observations = self._view.features
        return self.observations

    def actions_of(self, choices: npt.ArrayLike) -> FloatArray:
        """Rows of the action schema `[N, A]` for what agents chose: indices `[N]`, or the rows themselves."""
        if self._table is not None:
            return np.asarray(self._table[np.asarray(choices).reshape(self.num_envs)])
        size = ACTION_SCHEMAS[self.config.action_schema].size
        return np.asarray(choices, dtype=np.float64).reshape(self.num_envs, size)

    def step(self, choices: npt.ArrayLike) -> BatchStep:
        """Decide, let a sync period pass, observe; finished episodes begin anew."""
        actions = self.actions_of(choices)
        self.decisions = self.engine.decide(self._view, actions, self.config.action_schema)
        desired = self.decisions.desired_replicas
        self.physics.scale(None, desired)
        interval = self.physics.advance(None, self._sync_s)
        self._now_s += self._sync_s
        self._left -= 1
        self._steps += 1
        terms = self._terms(interval, self.decisions)
        rewards = self.config.reward.total(terms, self._weight, self._scale)
        self._account(interval, terms, rewards)
        truncated = self._left <= 0
        view = self._observe(self._all)
        observations = view.features
        done = np.flatnonzero(truncated)
        final, episodes = observations[done], [self._summary(int(row)) for row in done]
        self._situation = self._describe(interval)
        if len(done) and self.autoreset:
            self._begin(done)
            fresh = self._observe(done)
            observations = observations.copy()
            observations[done] = fresh.features
            view = _merged(view, fresh, done)
        self._view, self.observations = view, observations
        return BatchStep(observations, rewards, truncated, terms, final, episodes)

    def situation(self) -> dict[str, FloatArray]:
        """The last step in plain numbers, float `[N]` each, before any reset."""
        return self._situation()

    def metrics(self) -> ServiceMetrics:
        """What the metrics show now."""
        return self.physics.metrics()

    def samples(self, rows: IntArray) -> Samples:
        """The same, as the engine reads it."""
        return to_samples(self.physics.metrics(rows))

    @property
    def now_s(self) -> FloatArray:
        """Each service's own clock, seconds `[N]`."""
        return self._now_s.copy()

    def _rate_slots(self) -> int:
        scenario = self.config.scenario
        longest = max(scenario.sync_periods_s) * self.config.horizon_steps
        window = max(max(scenario.windows_s), 2 * max(scenario.scrape_intervals_s) + 1)
        return int((longest + window + max(scenario.scrape_intervals_s) + 120) / scenario.rate_period_s) + 3

    def _observe(self, rows: IntArray) -> View:
        return self.engine.observe(self._now_s[rows], self.samples(rows), rows)

    def _begin(self, rows: IntArray) -> None:
        drawn = [self._draw(int(row)) for row in rows]
        params = _stacked([scenario.params for scenario in drawn])
        seeds = np.array([scenario.noise_seed for scenario in drawn], dtype=np.uint64)
        replicas = np.array([scenario.replicas for scenario in drawn])
        self.physics.reset(rows, params, seeds, replicas)
        self.engine.reset(rows)
        for row, scenario in zip(rows, drawn, strict=True):
            self._take_on(int(row), scenario)
        self.physics.advance(rows, np.array([scenario.warm_up_s for scenario in drawn]))
        self._settle(rows, drawn)

    def _draw(self, row: int) -> Scenario:
        horizon = self.config.horizon_steps
        scenario = draw_scenario(self._rngs[row], self.config.scenario, horizon)
        self._left[row] = horizon
        if self._first[row] and self.config.stagger:
            self._left[row] = int(self._rngs[row].integers(1, horizon + 1))
        self._first[row] = False
        return scenario

    def _take_on(self, row: int, scenario: Scenario) -> None:
        self.scenarios[row] = scenario
        self.engine.update(row, scenario.spec)
        times, rates = scenario.history
        if len(times):
            self.engine.backfill(times, rates[:, None], np.array([row]))
        kept = min(len(scenario.rates_rps), self._rates.shape[1])
        self._rates[row, :kept] = scenario.rates_rps[:kept]
        self._rates[row, kept:] = scenario.rates_rps[kept - 1]

    def _settle(self, rows: IntArray, drawn: list[Scenario]) -> None:
        self._now_s[rows] = [scenario.start_s for scenario in drawn]
        self._sync_s[rows] = [int(scenario.spec.sync_period_s) for scenario in drawn]
        preference = np.array([scenario.spec.preference for scenario in drawn])
        references = [scenario.reference for scenario in drawn]
        cost = np.array([reference.cost for reference in references])
        violation = np.array([reference.violation for reference in references])
        self._weight[rows] = self.config.reward.violation(preference)
        self._scale[rows] = self.config.reward.scale(preference, cost, violation)
        self._ideal[rows] = [reference.ideal_replicas for reference in references]
        self._requests[rows] = [reference.requests_per_s for reference in references]
        self._steps[rows] = 0
        self._direction[rows] = 0
        self._sums[rows] = 0.0

    def _terms(self, interval: Interval, decisions: Decisions) -> dict[str, FloatArray]:
        change = decisions.desired_replicas - decisions.current_replicas
        self._sums[:, _SUMS.index("flaps")] += self._flaps(change)
        return {
            "cost": interval.replica_s / (self._sync_s * self._ideal),
            "violation": interval.violating / (self._sync_s * self._requests),
            "churn": np.abs(change) / self._ideal,
        }

    def _flaps(self, change: IntArray) -> BoolArray:
        direction = np.sign(change)
        flapped = (direction != 0) & (self._direction != 0) & (direction != self._direction)
        self._direction = np.where(direction != 0, direction, self._direction)
        return np.asarray(flapped)

    def _account(self, interval: Interval, terms: dict[str, FloatArray], rewards: FloatArray) -> None:
        counts = (interval.violating, interval.dropped, interval.arrived)
        columns = (rewards, *(terms[name] for name in TERMS), *counts)
        self._sums[:, : len(columns)] += np.stack(columns, axis=1)

    def _describe(self, interval: Interval) -> Callable[[], dict[str, FloatArray]]:
        decisions, ready = self.decisions, self.physics.ready
        assert decisions is not None

        def situation() -> dict[str, FloatArray]:
            return {
                "desired_replicas": decisions.desired_replicas.astype(np.float64),
                "recommended_replicas": decisions.recommended_replicas,
                "ready_replicas": ready.astype(np.float64),
                "requests_per_s": interval.arrived / interval.seconds,
                "p95_ms": interval.p95_ms,
                "violation_share": interval.violation_share,
            }

        return situation

    def _summary(self, row: int) -> dict[str, float]:
        """What an episode came to, in the names of `info["summary"]`."""
        sums = dict(zip(_SUMS, self._sums[row].tolist(), strict=True))
        steps = int(self._steps[row])
        hours = steps * float(self._sync_s[row]) / 3600.0
        scenario = self.scenarios[row]
        assert scenario is not None
        return {
            "return": sums["return"],
            "steps": float(steps),
            "cost": sums["cost"] / steps,
            "violation": sums["violating"] / max(sums["arrived"], 1e-9),
            "dropped": sums["dropped"] / max(sums["arrived"], 1e-9),
            "churn": sums["churn"] / steps,
            "flaps_per_hour": sums["flaps"] / hours,
            "preference": scenario.spec.preference,
        }


_SUMS = ("return", *TERMS, "violating", "dropped", "arrived", "flaps")


def to_samples(shown: ServiceMetrics) -> Samples:
    """Simulated metrics as the engine reads real ones."""
    return Samples(
        request_rate=shown.request_rate,
        latency_ms=shown.latency_ms,
        error_ratio=shown.error_ratio,
        utilisation=shown.utilisation,
        ready=shown.ready,
        current=shown.current,
        in_flight=shown.in_flight,
    )


def observation_bounds() -> tuple[FloatArray, FloatArray]:
    """Lowest and highest observation, float32 `[F]` each; 0 stands for unknown, so both include it."""
    low, high = OBSERVATION_SCHEMA.low, OBSERVATION_SCHEMA.high
    return np.minimum(low, 0.0).astype(np.float32), np.maximum(high, 0.0).astype(np.float32)


def _stacked(params: list[ServiceParams]) -> ServiceParams:
    return ServiceParams(
        **{item.name: np.array([getattr(one, item.name) for one in params]) for item in fields(ServiceParams)}
    )


def _merged(view: View, part: View, rows: IntArray) -> View:
    """The view of all with some rows replaced; it serves `decide`, not `features`."""
    values: dict[str, Any] = {}
    for item in fields(View):
        whole = getattr(view, item.name)
        if isinstance(whole, np.ndarray):
            whole = whole.copy()
            whole[rows] = getattr(part, item.name)
        values[item.name] = whole
    samples = Samples.__new__(Samples)
    for name in Samples.__slots__:
        column = getattr(view.samples, name).copy()
        column[rows] = getattr(part.samples, name)
        setattr(samples, name, column)
    values["samples"] = samples
    values["make_features"] = _refuse_features
    return View(**values)


def _refuse_features(index: IntArray) -> tuple[FloatArray, BoolArray]:
    raise ParameterError("features", len(index), "read from `observations`: this view was put together")
