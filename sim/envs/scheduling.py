"""Gymnasium's faces of the scheduling environment: one cluster (`Env`), or N side by side (`VectorEnv`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sim.envs.render import charts, spark
from sim.envs.scheduling_batch import SchedulingBatch, SchedulingConfig, bounds
from sim.envs.vector import BatchEnv, BatchVectorEnv, BoolArray, FloatArray, feature_table, filled_in
from sim.scheduling.features import CLUSTER_SCHEMA, SERVER_SCHEMA

_COLUMNS = 60


def observation_space(config: SchedulingConfig) -> spaces.Box:
    """The Box of `servers` times SERVER_SCHEMA, and CLUSTER_SCHEMA."""
    low, high = bounds(config)
    return spaces.Box(low, high, dtype=np.float32)


def action_space(config: SchedulingConfig) -> spaces.Discrete:
    """A server, hold, or reject."""
    return spaces.Discrete(config.servers + 2)


@dataclass(frozen=True, slots=True)
class Frame:
    """One decision: the clock, the queue, each server's speed (0: no such one) and share of cpu, mean
    slowdown."""

    time_s: float
    queue: float
    speed: npt.NDArray[np.float64]
    cpu_share: npt.NDArray[np.float64]
    running: npt.NDArray[np.float64]
    mean_slowdown: float
    action: int


class SchedulingEnv(BatchEnv):
    """Place jobs onto servers, hold them back, or turn them away.

    ## Description
    Jobs with a demand of cpu and memory and an estimate of their duration arrive at a cluster of 4 to
    `servers` (16) servers, which may differ in size and speed. One at a time they are offered to the agent,
    when they arrive, and again when another job has ended, in the queue's order (shortest estimate first by
    default). By default a placed job's demand is reserved until it ends, as in Kubernetes, Borg or Slurm;
    with `params.overcommit` above 1, cpu may be oversold, and an overloaded server is slow. Holding a job
    that fits can be right: a long job on the last free server makes every short one wait for it. Physics and
    heuristics: `sim.scheduling`.

    ## Action space
    `Discrete(servers + 2)`: a server, `servers` to hold the job in the queue, `servers + 1` to reject it.
    `action_masks()`, and `info["action_mask"]`, tell what is allowed: servers with room; holding, while
    anything runs; rejecting, with `params.reject_freely` or a full queue. What is not allowed becomes
    holding, or else the first server with room.

    ## Observation space
    `Box`, float32, shape (servers * {server_size} + {cluster_size},): scale-free. First the servers,
    {server_size} numbers each (all 0 where there is no such server; their order means nothing):

    {server_table}

    then {cluster_size} of the offered job and the whole cluster:

    {cluster_table}

    ## Rewards
    `-(slowdown + 0.02 waiting + 0.02 balance + 0.1 overload + 50 rejected) / scale`, at least -100; weights:
    `sim.envs.scheduling_batch.SchedulingWeights`. The terms, in `info`, since the last decision:

    * `slowdown`: what was added to the sum of all jobs' bounded slowdowns, (wait + run) / max(duration, 10
    s),
      beyond what running at speed 1 adds. Its sum over an episode, over the number of jobs, plus 1, is the
      mean slowdown (the reward of DeepRM: Mao et al., HotNets 2016);
    * `waiting`: seconds that jobs waited, over the workload's mean duration;
    * `balance`: standard deviation over servers of the share of cpu taken, times time in mean gaps between
      jobs;
    * `overload`: cpu taken beyond what servers have, over servers, times the same time;
    * `rejected`: jobs rejected.

    `scale` is the mean slowdown beyond 1 that best-fit has on the same jobs: it scores about -1 a job.

    ## Starting state
    An empty cluster and the first job. `sim.scheduling.workloads` draws servers, durations with light to very
    heavy tails, demands, arrivals and how wrong estimates are. `reset(seed=...)` fixes all of it.

    ## Episode end
    Terminated when all `jobs` (512) jobs have finished. With `drain=False` truncated when the last has
    arrived: bootstrap the value there.

    ## Information
    Each step: the terms, `time_s`, `queue` (jobs), `mean_slowdown` so far, `action_mask`, and, float arrays
    `[servers]`, `speed` (0: no such server), `cpu_share`, `memory_share`, `running`. At the end also
    `summary`.

    ## Rendering
    `rgb_array`: each server's cpu over the last 240 decisions, the queue, the mean slowdown (needs
    matplotlib). `ansi`: lines of text, one a server.

    ## Version history
    * v0: first version, observation `scheduling/v1`.
    """

    def __init__(self, config: SchedulingConfig | None = None, render_mode: str | None = None) -> None:
        self.config = config or SchedulingConfig()
        super().__init__(
            lambda seed: SchedulingBatch(self.config, 1, seed, autoreset=False),
            observation_space(self.config),
            action_space(self.config),
            render_mode,
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Draw a new episode; the first reset without a seed takes a random one."""
        observation, info = super().reset(seed=seed, options=options)
        return observation, info | {"action_mask": self.action_masks()}

    def step(self, action: Any) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Decide on the offered job."""
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, info | {"action_mask": self.action_masks()}

    def action_masks(self) -> BoolArray:
        """What is allowed now, bool `[servers + 2]` (the name that MaskablePPO asks for)."""
        masks: BoolArray = self.running().action_masks()[0]
        return masks

    def frame_of(self, info: dict[str, Any], action: Any) -> Frame:
        """What the pictures need of a step."""
        names = ("time_s", "queue", "speed", "cpu_share", "running", "mean_slowdown")
        return Frame(**{name: info[name] for name in names}, action=int(action))

    def draw_ansi(self, frames: list[Frame]) -> str:
        """A line each of the queue and of every server, over the last decisions."""
        if not frames:
            return "no steps yet"
        last, shown = frames[-1], frames[-_COLUMNS:]
        queue = spark([frame.queue for frame in shown])
        said = f"{last.queue:.0f} waiting at {last.time_s:.0f} s, mean slowdown {last.mean_slowdown:.2f}"
        lines = [f"{'queue':<10}{queue:>{_COLUMNS}}  {said}"]
        for place in np.flatnonzero(last.speed):
            # a first value of 1 keeps the bars' scale the same for all
            bars = spark([1.0, *(float(frame.cpu_share[place]) for frame in shown)])[1:]
            said = f"{last.cpu_share[place]:4.0%} cpu, {last.running[place]:.0f} jobs"
            lines.append(f"{f'server {place}':<10}{bars:>{_COLUMNS}}  {said}")
        return "\n".join([*lines, f"action    {self._named(last.action)}"])

    def draw_rgb(self, frames: list[Frame]) -> npt.NDArray[np.uint8]:
        """Servers' cpu as a heat map over time, the queue, the mean slowdown."""
        return charts(3, lambda *axes: _draw(frames, *axes))

    def _named(self, action: int) -> str:
        if action < self.config.servers:
            return f"onto server {action}"
        return "held" if action == self.config.servers else "rejected"


class SchedulingVectorEnv(BatchVectorEnv):
    """N clusters of `SchedulingEnv` in one batch; `info["action_mask"]` is bool `[N, servers + 2]`."""

    def __init__(self, num_envs: int = 1, config: SchedulingConfig | None = None) -> None:
        self.config = config or SchedulingConfig()
        super().__init__(
            lambda seed: SchedulingBatch(self.config, num_envs, seed),
            num_envs,
            observation_space(self.config),
            action_space(self.config),
        )

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """New episodes everywhere; `seed` is one number (cluster i gets seed + i)."""
        observations, info = super().reset(seed=seed, options=options)
        return observations, info | {"action_mask": self.batch.action_masks()}

    def step(  # type: ignore[override]
        self, actions: Any
    ) -> tuple[FloatArray, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Decide in every cluster."""
        *result, info = super().step(actions)
        return (*result, info | {"action_mask": self.batch.action_masks()})  # type: ignore[return-value]


def _draw(frames: list[Frame], load: Any, queue: Any, slowdown: Any) -> None:
    steps = np.arange(len(frames))
    if frames:
        shares, there = np.array([frame.cpu_share for frame in frames]), frames[-1].speed > 0
        servers = np.arange(int(there.sum()) + 1)
        load.pcolormesh(
            np.arange(len(frames) + 1), servers, shares[:, there].T, vmin=0.0, vmax=1.0, cmap="viridis"
        )
    load.set_ylabel("servers' cpu")
    queue.step(steps, [frame.queue for frame in frames], where="post", color="tab:orange")
    queue.set_ylabel("waiting")
    slowdown.plot(steps, [frame.mean_slowdown for frame in frames], color="tab:red")
    slowdown.set_ylabel("mean slowdown")


SchedulingEnv.__doc__ = filled_in(
    SchedulingEnv.__doc__,
    {
        "server_size": str(SERVER_SCHEMA.size),
        "cluster_size": str(CLUSTER_SCHEMA.size),
        "server_table": feature_table(SERVER_SCHEMA.features),
        "cluster_table": feature_table(CLUSTER_SCHEMA.features),
    },
)
