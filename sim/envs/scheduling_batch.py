"""N schedulers in one batch: episodes of generated jobs, decisions, rewards, observations.

`sim.envs.scheduling` and `sim.envs.scheduling_sb3` are its faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from sim.envs.vector import BatchStep
from sim.errors import require
from sim.scheduling import HEURISTICS, SchedulingParams, SchedulingPhysics, Servers, Workload
from sim.scheduling.features import CLUSTER_SCHEMA, SERVER_SCHEMA, observe
from sim.scheduling.heuristics import read_runs, record_run
from sim.scheduling.layout import (
    C_QUEUED,
    C_REJECTED,
    T_BUSY,
    T_CLOCK,
    T_IMBALANCE,
    T_OVERLOAD,
    T_SLOWDOWN,
    T_WAITING,
    BoolArray,
    FloatArray,
    IntArray,
)
from sim.scheduling.physics import code_of
from sim.scheduling.workloads import SchedulingScenario, draw_episode

NOTES = 4
"""Decisions a job that are noted of a reference."""
LEAST_EXCESS = 0.1
"""Mean slowdown beyond 1 that the reference is taken to have at least: easy episodes are not blown up."""


@dataclass(frozen=True)
class SchedulingWeights:
    """How the terms are weighed: `reward = -sum(weight * term) / scale`, within `worst` of 0."""

    slowdown: float = 1.0
    """Of the jobs' bounded slowdowns, what was added since the last decision beyond running at speed 1."""
    waiting: float = 0.02
    """Of seconds that jobs waited, added up, over the workload's mean duration."""
    balance: float = 0.02
    """Of the deviation of the servers' cpu shares from each other, times the time in mean gaps between
    jobs."""
    overload: float = 0.1
    """Of cpu taken beyond what servers have, as a share, times the same time. 0 unless overcommitted."""
    rejected: float = 50.0
    """Of a job that is rejected: the slowdown that it counts as."""
    worst: float = 100.0
    """What a single decision can cost, or bring, at most."""

    def __post_init__(self) -> None:
        """Refuse weights below 0."""
        for item in fields(self):
            value = getattr(self, item.name)
            require(np.isfinite(value) and value >= 0, f"weights.{item.name}", value, "0 or more")


TERMS = ("slowdown", "waiting", "balance", "overload", "rejected")


@dataclass(frozen=True)
class SchedulingConfig:
    """What `rlscaler/Scheduling-v0` is made of."""

    servers: int = 16
    """The most servers that an episode can have: places in observation and action."""
    jobs: int = 512
    """Jobs of an episode."""
    drain: bool = True
    """Whether an episode goes on until all jobs are finished; else it is cut when the last has arrived."""
    reference: str = "best-fit"
    """The heuristic whose mean slowdown on the same jobs is the scale of rewards."""
    relative: bool = False
    """Whether the slowdown term is counted against what it was for the reference in the same time: the best
    policy stays the same, but what the jobs themselves bring, which no policy can help, falls out of the
    noise (an input-dependent baseline: Mao et al., ICLR 2019)."""
    params: SchedulingParams = field(default_factory=lambda: SchedulingParams(order="size"))
    """How jobs share servers, and how they wait."""
    weights: SchedulingWeights = field(default_factory=SchedulingWeights)
    """How the reward's terms are weighed."""
    scenario: SchedulingScenario = field(default_factory=SchedulingScenario)
    """From what jobs and servers are drawn."""

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        require(self.jobs >= 2, "jobs", self.jobs, "2 or more")
        most = self.scenario.servers[1]
        require(self.servers >= most, "servers", self.servers, f"scenario.servers' most ({most}) or more")
        require(self.reference in HEURISTICS, "reference", self.reference, f"one of {', '.join(HEURISTICS)}")


Episode = tuple[Servers, Workload]


class SchedulingBatch:
    """N clusters. episodes: servers and jobs to play in turn instead of drawn ones (cluster i: i, i + N,
    ...)."""

    def __init__(
        self,
        config: SchedulingConfig | None = None,
        num_envs: int = 1,
        seed: int = 0,
        autoreset: bool = True,
        episodes: Sequence[Episode] | None = None,
    ) -> None:
        self.config = config or SchedulingConfig()
        self.num_envs, self.autoreset = num_envs, autoreset
        jobs = max((len(one[1]) for one in episodes), default=2) if episodes else self.config.jobs
        self.physics = SchedulingPhysics(num_envs, self.config.servers, jobs, self.config.params)
        self._reference = SchedulingPhysics(1, self.config.servers, jobs, self.config.params)
        self._episodes = episodes
        self._all = np.arange(num_envs)
        self.observations = np.zeros((num_envs, len(bounds(self.config)[0])), dtype=np.float32)
        self._low, self._high = bounds(self.config)
        self._noted_s = np.zeros((num_envs, NOTES * jobs + 1 if self.config.relative else 1))
        self._noted_sums = np.zeros_like(self._noted_s)
        self._noted, self._marks = np.ones(num_envs, dtype=np.int64), np.zeros(num_envs, dtype=np.int64)
        self._scale, self._reference_slowdown = np.ones(num_envs), np.ones(num_envs)
        self._mean_duration, self._gap = np.ones(num_envs), np.ones(num_envs)
        self._before: FloatArray = np.zeros((num_envs, 5))
        self._sums = np.zeros((num_envs, len(TERMS) + 1))
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._situation: dict[str, FloatArray] = {}
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """New generators; the next `reset` starts all over."""
        self._rngs = [np.random.default_rng(seed + index) for index in range(self.num_envs)]
        self._turn = self._all.copy()

    def reset(self) -> FloatArray:
        """New episodes everywhere; observations float32 `[N, S * 14 + 27]`."""
        self._begin(self._all)
        self._observe(self._all)
        return self.observations.copy()

    def step(self, choices: npt.ArrayLike, /) -> BatchStep:
        """Decide on the offered jobs, int `[N]`: a server 0..S-1, S to hold, S + 1 to reject.

        What the mask forbids becomes holding, or else the first server that has room.
        """
        self.physics.act(np.asarray(choices, dtype=np.int64))
        idle = self.physics.offered < 0
        ended = idle if self.config.drain else idle | ~self.physics.arriving
        terms, rewards = self._reward(ended)
        self._steps += 1
        self._situation = self._describe()
        terminated = ended if self.config.drain else np.zeros(self.num_envs, dtype=np.bool_)
        truncated = ended & ~terminated
        self._observe(self._all)
        observations = self.observations.copy()
        done = np.flatnonzero(ended)
        final, summaries = observations[done], [self.summary(int(row)) for row in done]
        if len(done) and self.autoreset:
            self._begin(done)
            self._observe(done)
            observations[done] = self.observations[done]
        return BatchStep(observations, rewards, truncated, terms, final, summaries, terminated)

    def action_masks(self) -> BoolArray:
        """What is allowed now, bool `[N, S + 2]`."""
        return self.physics.masks()

    def choose(self, heuristic: str) -> IntArray:
        """What a heuristic would decide now, `[N]`."""
        return self.physics.choose(heuristic)

    def situation(self) -> dict[str, FloatArray]:
        """The clusters after the last step, before any reset."""
        return self._situation

    def summary(self, row: int) -> dict[str, float]:
        """A cluster's episode so far, in the names of `info["summary"]`."""
        totals, counts = self.physics.arrays.totals[row], self.physics.counts()
        arrived = max(float(self.physics.arrays.counts[row, 0] - counts["to come"][row]), 1.0)
        span = max(float(totals[T_CLOCK]), 1e-9)
        slowdown = 1.0 + float(totals[T_SLOWDOWN]) / arrived
        sums = dict(zip((*TERMS, "return"), self._sums[row].tolist(), strict=True))
        return {
            "return": sums.pop("return"),
            "steps": float(self._steps[row]),
            "slowdown": slowdown,
            "over_reference": slowdown / float(self._reference_slowdown[row]),
            "wait_s": float(totals[T_WAITING]) / arrived,
            "utilisation": float(totals[T_BUSY]) / span,
            "imbalance": float(totals[T_IMBALANCE]) / span,
            "rejected": float(counts["rejected"][row]) / arrived,
            **{f"sum_{name}": value for name, value in sums.items()},
        }

    def _reward(self, ended: BoolArray) -> tuple[dict[str, FloatArray], FloatArray]:
        now = self._totals(ended)
        change, self._before = now - self._before, now
        terms: dict[str, FloatArray] = {
            "slowdown": change[:, 0],
            "waiting": change[:, 1] / self._mean_duration,
            "balance": change[:, 2] / self._gap,
            "overload": change[:, 3] / self._gap,
            "rejected": change[:, 4],
        }
        weights = self.config.weights
        cost: FloatArray = np.zeros(self.num_envs)
        for name, values in terms.items():
            cost = cost + getattr(weights, name) * values / self._scale
        rewards = -np.clip(cost, -weights.worst, weights.worst)
        self._sums += np.stack([*terms.values(), rewards], axis=1)
        return terms, rewards

    def _totals(self, ended: BoolArray) -> FloatArray:
        arrays = self.physics.arrays
        totals = arrays.totals[:, [T_SLOWDOWN, T_WAITING, T_IMBALANCE, T_OVERLOAD]]
        if self.config.relative:
            of_reference = np.empty(self.num_envs)
            # who is done sooner than the reference is spared the rest of what that lost
            clocks = np.where(ended, np.inf, arrays.totals[:, T_CLOCK])
            read_runs(clocks, self._noted_s, self._noted_sums, self._noted, self._marks, of_reference)
            totals[:, 0] -= of_reference
        return np.column_stack([totals, arrays.counts[:, C_REJECTED]])

    def _begin(self, rows: IntArray) -> None:
        for row in rows:
            servers, workload = self._next(int(row))
            seed = int(self._rngs[row].integers(2**62))
            self.physics.load(int(row), servers, workload, seed)
            self._set_scales(int(row), servers, workload, seed)
        self.physics.begin(rows)
        self._before[rows] = self._totals(np.zeros(self.num_envs, dtype=np.bool_))[rows]
        self._sums[rows], self._steps[rows] = 0.0, 0

    def _next(self, row: int) -> Episode:
        if self._episodes is None:
            return draw_episode(self._rngs[row], self.config.scenario, self.config.jobs)
        episode: Episode = self._episodes[int(self._turn[row]) % len(self._episodes)]
        self._turn[row] += self.num_envs
        return episode

    def _set_scales(self, row: int, servers: Servers, workload: Workload, seed: int) -> None:
        """What the reward's terms are measured by, from the reference's life on the same jobs."""
        reference = self._reference
        reference.load(0, servers, workload, seed)
        reference.begin()
        if self.config.relative:
            notes = (self._noted_s[row], self._noted_sums[row])
            code = code_of(self.config.reference)
            self._noted[row] = record_run(code, 0, self.config.drain, reference.arrays, *notes)
            self._marks[row] = 0
        else:
            reference.run(self.config.reference, drain=self.config.drain)
        excess = float(reference.arrays.totals[0, T_SLOWDOWN]) / len(workload)
        self._scale[row] = max(excess, LEAST_EXCESS)
        self._reference_slowdown[row] = 1.0 + excess
        self._mean_duration[row] = workload.duration_s.mean()
        self._gap[row] = max(float(workload.submit_s[-1]) / len(workload), 1e-9)

    def _observe(self, rows: IntArray) -> None:
        observe(rows, self.physics.arrays, self._low, self._high, self.observations)

    def _describe(self) -> dict[str, FloatArray]:
        a = self.physics.arrays
        there = a.speed > 0
        return {
            "time_s": a.totals[:, T_CLOCK].copy(),
            "queue": a.counts[:, C_QUEUED].astype(np.float64),
            "speed": a.speed.copy(),
            "cpu_share": a.used_cpu / np.where(there, a.has_cpu, 1.0),
            "memory_share": a.used_memory / np.where(there, a.has_memory, 1.0),
            "running": a.running.astype(np.float64),
            "mean_slowdown": 1.0 + a.totals[:, T_SLOWDOWN] / np.maximum(a.counts[:, 1], 1),
        }


def bounds(config: SchedulingConfig) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Least and most of every number of an observation, float32 each; 0, for what is not there, within."""
    low = np.concatenate([np.tile(SERVER_SCHEMA.low, config.servers), CLUSTER_SCHEMA.low])
    high = np.concatenate([np.tile(SERVER_SCHEMA.high, config.servers), CLUSTER_SCHEMA.high])
    return np.minimum(low, 0.0).astype(np.float32), np.maximum(high, 0.0).astype(np.float32)
