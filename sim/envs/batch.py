"""The batched autoscaling environment: N services, one decision each in a step, with the operator's
semantics.

`AutoscaleEnv`, `AutoscaleVectorEnv` and `AutoscaleVecEnv` are thin faces of this class. Everything numerical
is in `sim.envs.kernel`, which joins the fused engine (`sim.fused`), the physics and the reward into one pass;
episodes are planned in `sim.envs.episodes`. tests/sim/test_envs.py holds a batch to the operator's own
engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from controller.core import ACTION_SCHEMAS, OBSERVATION_SCHEMA, Behavior, Samples, ScalingRules, ServiceSpec
from controller.core.spec import default_scale_down
from sim.envs import kernel
from sim.envs.episodes import E_FIRST_LENGTH, E_SERVICE, PLAN, Episodes, service_seeds
from sim.envs.rewards import RewardWeights
from sim.envs.vector import BatchStep
from sim.errors import ParameterError, require
from sim.fused import FusedDecisions, FusedEngine
from sim.fused.guarding import SCHEMAS
from sim.physics import ServiceMetrics, ServiceParams, ServicePhysics, to_samples
from sim.scenario import ScenarioConfig

FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.integer]

RELATIVE_CHANGES = (-0.5, -0.25, -0.1, -0.005, 0.0, 0.005, 0.1, 0.25, 0.6, 1.0)
STEP_TERMS = ("cost", "violation", "violation_share", "churn")
"""The reward's terms as `BatchStep` and `info` have them: the first columns of `kernel.INFO`."""
FILL_FROM = 256
"""Batches of this size fill the banks of episodes at once; smaller ones as they go."""
SITUATION = (
    "desired_replicas", "recommended_replicas", "ready_replicas", "requests_per_s", "p95_ms",
    "violation_share",
)  # fmt: skip
"""Columns of `kernel.INFO` that a lone environment's `info` has beside them."""
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


class AutoscaleBatch:
    """N independent services; every one has a life of its own, seeded `seed + index` (`seed + index //
    clones`).

    A life is a sequence of episodes, each a function of the service's seed and of its number in that life.
    Finished episodes begin anew in the same step, unless `autoreset` is False (one service, reset by hand).
    Arrays that `step` and `reset` return are the caller's: they are not written to again.
    """

    def __init__(
        self, config: AutoscaleConfig | None = None, num_envs: int = 1, seed: int = 0, autoreset: bool = True
    ) -> None:
        require(num_envs >= 1, "num_envs", num_envs, "1 or more")
        self.config = config or AutoscaleConfig()
        self.num_envs = num_envs
        self.autoreset = autoreset
        self.episodes = Episodes(self.config.scenario, self.config.horizon_steps)
        if num_envs >= FILL_FROM:
            self.episodes.fill()
        self.physics = ServicePhysics(ServiceParams(), num_envs)
        rates = np.zeros((num_envs, self.episodes.rate_nodes), dtype=np.float32)
        self.physics.set_rates(rates, self.config.scenario.rate_period_s)
        self.engine = FusedEngine([_longest_spec(self.config.scenario)] * num_envs)
        size = ACTION_SCHEMAS[self.config.action_schema].size
        table = self.config.action_table
        self._table = np.asarray([] if table is None else table, dtype=np.float64).reshape(-1, size)
        self._schema, self._reward = SCHEMAS[self.config.action_schema], self.config.reward.settings
        self._all = np.arange(num_envs, dtype=np.int64)
        self._no_choices, self._no_actions = np.zeros(0, dtype=np.int64), np.zeros((0, size))
        self._episode = np.zeros((num_envs, len(kernel.EPISODE)))
        self._plans = np.zeros((num_envs, len(PLAN)))
        self._number = np.zeros(num_envs, dtype=np.int64)
        self._work = kernel.make_work(max(self.episodes.needed, 2))
        self._info: FloatArray = np.zeros((num_envs, len(kernel.INFO)))
        self.observations: FloatArray = np.zeros((num_envs, OBSERVATION_SCHEMA.size), dtype=np.float32)
        self._bind()
        self.seed(seed)

    def _bind(self) -> None:
        """Where the compiled step finds everything; anew when the physics or the engine exchanged an
        array."""
        self._state = kernel.State(
            self._all,
            self._table,
            self._reward,
            self._episode,
            self.physics.arrays,
            self.engine.arrays,
            self._work,
        )
        self._addresses = kernel.addresses(self._state)

    def seed(self, seed: int) -> None:
        """New lives; the next `reset` starts all over."""
        self._seeds = service_seeds(seed, self.num_envs, self.config.clones)
        self._number[:] = 0

    def reset(self) -> FloatArray:
        """New episodes everywhere; observations float32 `[N, F]`."""
        self.observations = self._begin(self._all)
        return self.observations

    def step(self, choices: npt.ArrayLike) -> BatchStep:
        """Decide, let a sync period pass, observe; finished episodes begin anew.

        choices: rows of the action table, int `[N]`; without a table actions of the schema, float `[N, A]`.
        """
        observations = np.empty((self.num_envs, OBSERVATION_SCHEMA.size), dtype=np.float32)
        info = np.empty((self.num_envs, len(kernel.INFO)))
        rewards = np.empty(self.num_envs)
        self.advance(choices, observations, info, rewards)
        truncated = self._episode[:, kernel.N_LEFT] <= 0.0
        done = np.flatnonzero(truncated)
        final, summaries = observations[done], [self.summary(int(row)) for row in done]
        if len(done) and self.autoreset:
            observations[done] = self._begin(done)
        self.observations = observations
        terms = {name: info[:, column] for column, name in enumerate(STEP_TERMS)}
        return BatchStep(observations, rewards, truncated, terms, final, summaries)

    def advance(
        self, choices: npt.ArrayLike, observations: FloatArray, info: FloatArray, rewards: FloatArray
    ) -> None:
        """A step without resets, into the caller's arrays: `[N, F]` float32, `[N, kernel.INFO]`, `[N]`."""
        chosen: IntArray = self._no_choices
        actions: FloatArray = self._no_actions
        if len(self._table):
            chosen = np.asarray(choices, dtype=np.int64).reshape(self.num_envs)
            if chosen.min() < 0 or chosen.max() >= len(self._table):
                raise ParameterError("choices", chosen, f"in 0..{len(self._table) - 1}")
        else:
            actions = np.asarray(choices, dtype=np.float64).reshape(self.num_envs, self._table.shape[1])
        state = self._state
        if state.physics is not self.physics.arrays or state.engine is not self.engine.arrays:
            self._bind()
        kernel.step_state(self._addresses, self._schema, chosen, actions, observations, info, rewards)
        self._info = info

    def situation(self) -> dict[str, FloatArray]:
        """The last step in plain numbers, float `[N]` each, before any reset."""
        return {name: self._info[:, column] for column, name in enumerate(kernel.INFO) if name in SITUATION}

    def finished(self, row: int) -> bool:
        """Whether a service's episode has come to its horizon."""
        return bool(self._episode[row, kernel.N_LEFT] <= 0.0)

    def summary(self, row: int) -> dict[str, float]:
        """What an episode came to, in the names of `info["summary"]`."""
        now = dict(zip(kernel.EPISODE, self._episode[row].tolist(), strict=True))
        steps, arrived = now["steps"], max(now["arrived"], 1e-9)
        return {
            "return": now["return"],
            "steps": steps,
            "cost": now["cost"] / steps,
            "violation": now["violating"] / arrived,
            "dropped": now["dropped"] / arrived,
            "churn": now["churn"] / steps,
            "flaps_per_hour": now["flaps"] / (steps * now["sync_s"] / 3600.0),
            "preference": now["preference"],
        }

    @property
    def decisions(self) -> FusedDecisions:
        """The last step's decisions."""
        told = dict(zip(kernel.INFO, self._info.T, strict=True))
        return FusedDecisions(
            current_replicas=told["current_replicas"].astype(np.int64),
            recommended_replicas=told["recommended_replicas"],
            hpa_replicas=told["hpa_replicas"],
            desired_replicas=told["desired_replicas"].astype(np.int64),
            fallback=told["fallback"].astype(np.int64),
            load=told["load"],
        )

    @property
    def now_s(self) -> FloatArray:
        """Each service's own clock, seconds `[N]`."""
        return self._episode[:, kernel.N_NOW].copy()

    def metrics(self) -> ServiceMetrics:
        """What the metrics show now."""
        return self.physics.metrics()

    def samples(self, rows: IntArray) -> Samples:
        """The same, as the engine reads it."""
        return to_samples(self.physics.metrics(rows))

    def spec(self, row: int) -> ServiceSpec:
        """The specification of a service's running episode."""
        return self.episodes.spec(self._plans[row])

    def params(self, row: int) -> ServiceParams:
        """The constants of a service's running episode."""
        return self.episodes.params(self._plans[row])

    def history(self, row: int) -> tuple[FloatArray, FloatArray]:
        """What a service's running episode began with knowing: (times s, requests/s), as `backfill` takes
        them."""
        plan, traffic, services = self._plans[row], self.episodes.traffic, self.episodes.services
        rate_rps = kernel.stretch_rps(plan, services.peak_rps[int(plan[E_SERVICE])], traffic.shapes)
        times, seen = np.zeros(self.episodes.needed), np.zeros(self.episodes.needed)
        period_s = self.config.scenario.rate_period_s
        count = kernel.lay_history(plan, rate_rps, period_s, traffic.shapes, times, seen)
        return times[:count], seen[:count]

    def _begin(self, rows: IntArray) -> FloatArray:
        """New episodes for these services; their observations float32 `[rows, F]`."""
        episodes, reward = self.episodes, self.config.reward
        plans = episodes.plan(self._seeds[rows], self._number[rows])
        lengths = np.full(len(rows), float(self.config.horizon_steps))
        if self.config.stagger:
            cut = np.floor(plans[:, E_FIRST_LENGTH] * self.config.horizon_steps) + 1.0
            lengths = np.where(self._number[rows] == 0, cut, lengths)
        self._number[rows] += 1
        self._plans[rows] = plans
        services, observations = episodes.services, np.empty((len(rows), OBSERVATION_SCHEMA.size), np.float32)
        kernel.begin_rows(
            rows, plans, lengths, services.params, services.settings, services.rules, services.peak_rps,
            episodes.traffic.shapes, self.physics.arrays, self.engine.arrays, self._episode, self._work,
            observations,
        )  # fmt: skip
        begun = self._episode[rows]
        constants = reward.constants(
            begun[:, kernel.N_PREFERENCE], begun[:, kernel.N_COST], begun[:, kernel.N_VIOLATION]
        )
        self._episode[rows, kernel.N_CONSTANTS : kernel.N_CONSTANTS + len(constants)] = constants.T
        return observations


def observation_bounds() -> tuple[FloatArray, FloatArray]:
    """Lowest and highest observation, float32 `[F]` each; 0 stands for unknown, so both include it."""
    low, high = OBSERVATION_SCHEMA.low, OBSERVATION_SCHEMA.high
    return np.minimum(low, 0.0).astype(np.float32), np.maximum(high, 0.0).astype(np.float32)


def _longest_spec(config: ScenarioConfig) -> ServiceSpec:
    """A specification that makes the engine's rings as long as any drawn one needs them."""
    window_s = max(config.scale_down_windows_s)
    rules = ScalingRules(window_s, "Max", default_scale_down().policies)
    return ServiceSpec(sync_period_s=float(min(config.sync_periods_s)), behavior=Behavior(scale_down=rules))
