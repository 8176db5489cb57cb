"""Gymnasium's faces of the pools environment: one set of pools (`Env`), or N side by side (`VectorEnv`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from controller.core.poolfeatures import POOL_SCHEMA, SET_SCHEMA
from sim.envs.pool_batch import PoolsBatch, PoolsConfig
from sim.envs.pool_features import observation_bounds
from sim.envs.render import COLUMNS, charts, spark
from sim.envs.vector import BatchEnv, BatchVectorEnv, feature_table, filled_in


def observation_space(config: PoolsConfig) -> spaces.Space[Any]:
    """The Box of `pools` times POOL_SCHEMA and SET_SCHEMA."""
    low, high = observation_bounds(config.pools)
    return spaces.Box(low, high, dtype=np.float32)


def action_space(config: PoolsConfig) -> spaces.Space[Any]:
    """A Box in -1..1, or a MultiDiscrete over `levels`; two numbers a pool."""
    if config.levels is not None:
        return spaces.MultiDiscrete(np.full(2 * config.pools, len(config.levels)))
    return spaces.Box(-1.0, 1.0, (2 * config.pools,), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Frame:
    """One control step; lists are of pools."""

    requests_per_s: float
    p95_ms: float
    violation_share: float
    desired: list[float]
    ready: list[float]
    weights: list[float]

    @staticmethod
    def of(info: dict[str, Any]) -> _Frame:
        pools = [info[name].tolist() for name in ("desired_replicas", "ready_replicas", "weights")]
        return _Frame(info["requests_per_s"], info["p95_ms"], info["violation_share"], *pools)


class PoolsEnv(BatchEnv):
    """Choose the replicas of several pools that share one traffic, and how a route splits it.

    ## Description
    A service runs as 2 to `pools` (3) pools behind one route: on-demand and spot machines, zones,
    accelerators beside plain machines, or a stable version and a canary, which differ in capacity, price,
    start-up time, latency and in what can happen to them. Every `syncPeriodSeconds` the agent asks for
    replicas and weights. Replicas take a start-up time to serve and are billed from their creation, at the
    price of their pool; weights are in force after a propagation delay. Spot replicas are reclaimed, with
    or without notice, one by one or together, and cannot always be replaced at once. Pools fail grey: they
    become slow, or answer some requests with errors, while all of their replicas are ready. A pool without
    a ready replica fails its share. The guard for replicas (bounds, `behavior` windows and rates, the floor
    while the objective is in danger) and the one for weights (bands, largest step, nothing for a pool
    without a ready replica) are the operator's code and may answer an action with something else than it
    asked for. Physics: `sim.pools`.

    ## Action space
    `Box(-1, 1, (2 P,), float32)`: for each pool in turn

    | # | name | low | high | meaning |
    |---|---|---|---|---|
    | 2 p | capacity | -1 | 1 | capacity for pool p, over the set's load now: `c(a)` |
    | 2 p + 1 | weight | -1 | 1 | its share of the traffic: `(a + 1) / 2` over the sum of all pools' |

    `c(a) = 4 (e^(3 (a + 1) / 2) - 1) / (e^3 - 1)`: 0 at -1, 0.73 at 0, 4 at 1; in replicas, rounded up.
    Replicas within 10 % of the current ones are left as they are. A pool that has or may get traffic keeps
    one replica. Where the load is not known, replicas stay; where all shares are 0, weights do. What is
    asked of an absent pool is ignored. With `PoolsConfig(levels=(...))` a `MultiDiscrete([L] * 2 P)`:
    places in that list of numbers in -1..1.

    ## Observation space
    `Box`, float32, shape (P * {pool_size} + {set_size},), scale-free; a value that is not known is 0. First
    the pools, {pool_size} numbers each (all 0 where there is no such pool; the order of pools means
    nothing):

    {pool_table}

    then {set_size} of the whole set: the features of `rlscaler/Autoscale-v0`, of all pools as one service
    in units of the plain machine (rates summed, latency and errors weighted by requests, utilisation by
    capacity), and three settings:

    {set_table}

    `sim.envs.pool_features.split_observation` takes the two parts apart.

    ## Rewards
    Banded by default, in -3..0, the objective first: `-band(x)` if at most the allowed share of the step's
    requests violate (5 % at preference 0, 0.5 % at 50, 0.05 % at 100), else `-(2 + 0.9 excess + 0.1
    band(x))`, with `x = (cost + 0.05 churn + 0.05 route_churn) / scale`, `band(x) = x / (1 + x)`, and
    `excess` the logarithmic place of the share between the allowed one and all. The terms, in `info`:

    * `cost`: what replicas cost, over the sync period and the workload's mean ideal cost (load over
      capacity, at least one replica, of the plain machine at price 1);
    * `violation_share`: of the step's requests, those over the latency objective, timed out or failed;
    * `violation`: the same, over the workload's mean requests of a step;
    * `churn`: price of the replicas changed, over the ideal cost;
    * `route_churn`: share of the traffic that was asked to move.

    `scale` is what a plain reactive rule would pay on one pool of plain machines. Weights, the weighted
    reward and all formulas: `sim.envs.RewardWeights`.

    ## Starting state
    `sim.pool_scenarios.PoolScenarioConfig` draws family, pools, route, service, workload and past; replicas
    fit a random split of the load at a random utilisation. The metrics have run for at least a minute.
    `reset(seed=...)` fixes all of it.

    ## Episode end
    Never terminated; truncated after `horizon_steps` (256) control steps: bootstrap the value there.

    ## Information
    Each step: the reward's terms, `requests_per_s`, `p95_ms` and `p99_ms` over all pools, and, float arrays
    `[P]`, `desired_replicas`, `ready_replicas`, `weights` (in force), `weights_asked`. At truncation also
    `summary`, the episode in numbers.

    ## Rendering
    `rgb_array`: load, ready replicas and weights of each pool, p95 of the last 240 steps (needs
    matplotlib). `ansi`: lines of text, one a pool.

    ## Version history
    * v0: first version, observation `pools/v1`.
    """

    def __init__(self, config: PoolsConfig | None = None, render_mode: str | None = None) -> None:
        # a lone environment has no other resets to keep away from
        self.config = replace(config or PoolsConfig(), stagger=False)
        super().__init__(
            lambda seed: PoolsBatch(self.config, 1, seed, autoreset=False),
            observation_space(self.config),
            action_space(self.config),
            render_mode,
        )

    def frame_of(self, info: dict[str, Any], action: Any) -> _Frame:
        """A step's load, replicas, weights and latency."""
        return _Frame.of(info)

    def draw_ansi(self, frames: list[_Frame]) -> str:
        """A line of the set, with a spark line of its load, and one of each pool."""
        return _draw_ansi(frames, self._names())

    def draw_rgb(self, frames: list[_Frame]) -> npt.NDArray[np.uint8]:
        """Four charts over time."""
        return _draw_rgb(frames, self._names())

    def _names(self) -> list[str]:
        scenario = self.batch.scenarios[0]
        return [pool.name for pool in scenario.pools] if scenario is not None else []


class PoolsVectorEnv(BatchVectorEnv):
    """N sets of `PoolsEnv` in one batch; set i seeded with `seed + i` lives as a lone one would.

    Autoreset mode SAME_STEP: at truncation the observation is the next episode's first, the last one of the
    ended episode is `info["final_obs"]`, its summary `info["final_info"]["summary"]`.
    """

    def __init__(self, num_envs: int = 1, config: PoolsConfig | None = None) -> None:
        self.config = config or PoolsConfig()
        super().__init__(
            lambda seed: PoolsBatch(self.config, num_envs, seed),
            num_envs,
            observation_space(self.config),
            action_space(self.config),
        )


def _draw_ansi(frames: list[_Frame], names: list[str]) -> str:
    if not frames:
        return "no steps yet"
    last = frames[-1]
    loads = spark([frame.requests_per_s for frame in frames[-COLUMNS:]])
    late = f"p95 {last.p95_ms:.0f} ms  {last.violation_share:.1%} late"
    lines = [f"{loads} {last.requests_per_s:8.1f} requests/s  {late}"]
    for name, ready, desired, weight in zip(names, last.ready, last.desired, last.weights, strict=True):
        bar = "█" * round(weight / 5)
        lines.append(f"{name:16s} {ready:4.0f}/{desired:.0f} replicas ready  {weight:3.0f} % {bar}")
    return "\n".join(lines)


def _draw_rgb(frames: list[_Frame], names: list[str]) -> npt.NDArray[np.uint8]:
    """Four charts over time, uint8 `[400, 640, 3]`."""

    def draw(load: Any, replicas: Any, weights: Any, latency: Any) -> None:
        steps = np.arange(len(frames))
        load.plot(steps, [frame.requests_per_s for frame in frames], color="tab:grey")
        load.set_ylabel("requests/s")
        for place, name in enumerate(names):
            replicas.step(steps, [frame.ready[place] for frame in frames], where="post", label=name)
            weights.step(steps, [frame.weights[place] for frame in frames], where="post")
        replicas.set_ylabel("ready")
        replicas.legend(loc="upper left", fontsize="xx-small")
        weights.set_ylabel("weight")
        latency.plot(steps, [frame.p95_ms for frame in frames], color="tab:red")
        latency.set_ylabel("p95 ms")

    return charts(4, draw)


PoolsEnv.__doc__ = filled_in(
    PoolsEnv.__doc__,
    {
        "pool_size": str(POOL_SCHEMA.size),
        "set_size": str(SET_SCHEMA.size),
        "pool_table": feature_table(POOL_SCHEMA.features),
        "set_table": feature_table(SET_SCHEMA.features),
    },
)
