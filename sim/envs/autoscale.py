"""Gymnasium's faces of the autoscaling environment: one service (`Env`), or N side by side (`VectorEnv`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from controller.core import OBSERVATION_SCHEMA
from sim.envs.batch import AutoscaleBatch, AutoscaleConfig, observation_bounds
from sim.envs.kernel import INFO
from sim.envs.render import Frame, draw_ansi, draw_rgb
from sim.envs.vector import BatchEnv, BatchVectorEnv, FloatArray, feature_table, filled_in

_SIZE = OBSERVATION_SCHEMA.size
_TOLD = INFO[: INFO.index("p95_ms") + 1]
_WHOLE = (int, np.int64, np.int32)


def observation_space() -> spaces.Space[Any]:
    """The Box of `OBSERVATION_SCHEMA`."""
    low, high = observation_bounds()
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def action_space(config: AutoscaleConfig) -> spaces.Space[Any]:
    """A Discrete over `action_table`, or the Box of the action schema without one."""
    if config.action_table is not None:
        return spaces.Discrete(len(config.action_table))
    low, high = config.action_bounds
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


class AutoscaleEnv(BatchEnv):
    """Choose the replicas of one service under changing load, as the operator would.

    ## Description
    A service of unknown character gets traffic that rises, bursts and falls. Every
    `syncPeriodSeconds` the agent changes the replicas that are asked for. New replicas take a
    start-up time to serve and are billed from their creation; too few make requests wait, miss the
    latency objective, and time out. Observation, decoding of the action and the guard (bounds,
    `behavior` windows and rates, the floor while the objective is in danger) are the operator's own
    code: the guard may answer an action with other replicas than it asked for.

    ## Action space
    By default `Discrete(10)`, relative changes of the provisioned replicas, any change at least one
    replica:

    | action | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 |
    |---|---|---|---|---|---|---|---|---|---|---|
    | change | -50 % | -25 % | -10 % | -1 replica* | none | +1 replica* | +10 % | +25 % | +60 % | +100 % |

    (* 0.5 % where that is more.) With `AutoscaleConfig(action_table=None)` a float32 `Box` of the
    action schema itself: `relative-change/v1`, shape (1,), in [-1, 4]; `hold-band/v1`, shape (2,), in
    [-1, 3]: log headroom round the load, at the lower and at the upper edge.

    ## Observation space
    `Box`, float32, shape ({size},), scale-free; a value that is not known is 0. Low and high are the limits
    of the Box:

    {observations}

    ## Rewards
    Each control step, from terms that are in `info`:

    * `cost`: replica-seconds billed, over the sync period and the workload's mean ideal replicas
      (load over capacity, at least minReplicas);
    * `violation`: requests over the latency objective or failed, over the workload's mean requests of a step;
    * `violation_share`: the same requests over those of this very step;
    * `churn`: replicas changed, over the mean ideal replicas.

    By default the objective comes first (`RewardWeights(kind="banded")`), with preference p in 0..100:

    | step | allowed share of violations | reward | range |
    |---|---|---|---|
    | holds its objective | `violation_share <= 5 % * 0.01^(p / 100)` | `-band(x)` | (-1, 0] |
    | does not | above that | `-(2 + 0.9 * excess + 0.1 * band(x))` | [-3, -2] |

    `x = (cost + 0.05 * churn) / scale`, `band(x) = x / (1 + x)`, `scale` the cost of a plain reactive rule
    on the same workload, `excess = ln(violation_share / allowed) / ln(1 / allowed)`.
    `RewardWeights(kind="weighted")` is `-(cost + 10^w * min(violation, 5) + 0.05 * churn) / scale`, w from
    0.5 at p = 0 to 3 at 100, `scale` the rule's cost + sqrt(10^w * (its violations + 1 %)).
    `sim.envs.rewards` explains both.

    ## Starting state
    Service, specification, workload and past are drawn as `sim.scenario.ScenarioConfig` says (by
    `sim.envs.episodes`, whose docstring says what episodes share): capacity 1 to 10,000 requests/s (the
    specification errs by up to 30 %, or leaves it out), peak load 2 to 500 replicas, start-up 5 to 180 s,
    preference 0 to 100, scale-down window 0, 60 or 300 s. The metrics have run for at least a minute, and
    the history features know up to a day. `reset(seed=...)` fixes all of it.

    ## Episode end
    Never terminated; truncated after `horizon_steps` (256) control steps: bootstrap the value there.

    ## Information
    Each step: the reward's terms; `desired_replicas` (what the guard let through), `recommended_replicas`
    (what the action asked for), `ready_replicas`, `requests_per_s` (mean of the step), `p95_ms` (mean over
    the step's requests; NaN where there were none). At truncation also `summary`, the episode in numbers:
    return, steps, cost (mean), violation and dropped (shares of requests), churn (mean), flaps_per_hour,
    preference.

    ## Rendering
    `rgb_array`: load, replicas and p95 of the last 240 steps, uint8 `[400, 640, 3]` (needs matplotlib).
    `ansi`: lines of text with spark lines of load, replicas and latency against the objective, and the last
    action.

    ## Version history
    * v0: first version, observation `{version}`. Within v0 so far: the banded reward became the default;
      episodes are cut from shared banks of traffic and services.
    """

    def __init__(self, config: AutoscaleConfig | None = None, render_mode: str | None = None) -> None:
        # a lone environment has no other resets to keep away from
        self.config = replace(config or AutoscaleConfig(), stagger=False)
        super().__init__(
            lambda seed: AutoscaleBatch(self.config, 1, seed, autoreset=False),
            observation_space(),
            action_space(self.config),
            render_mode,
        )
        self._choices = len(self.config.action_table or ())
        self._rewards = np.zeros(1)

    def step(self, action: Any) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """One control step: as the base's, without what it spends on batches of many."""
        batch = self.running()
        if not self.accepts(action):
            raise ValueError(f"action: {action!r} is not in {self.action_space}")
        observation, told = np.empty((1, _SIZE), dtype=np.float32), np.empty((1, len(INFO)))
        batch.advance(action, observation, told, self._rewards)
        info: dict[str, Any] = dict(zip(_TOLD, told[0].tolist(), strict=False))
        truncated = batch.finished(0)
        if truncated:
            info["summary"] = batch.summary(0)
        self.remember(info, action)
        return observation[0], float(self._rewards[0]), False, truncated, info

    def accepts(self, action: Any) -> bool:
        """As `action_space.contains`, without its cost for what is nearly always given."""
        if self._choices and type(action) in _WHOLE:
            return bool(0 <= action < self._choices)
        return super().accepts(action)

    def frame_of(self, info: dict[str, Any], action: Any) -> Frame:
        """A step's load, replicas, latency and action."""
        return Frame.of(info, action, self.batch.spec(0))

    def draw_ansi(self, frames: list[Frame]) -> str:
        """Lines of text with spark lines."""
        return draw_ansi(frames)

    def draw_rgb(self, frames: list[Frame]) -> npt.NDArray[np.uint8]:
        """Three charts over time."""
        return draw_rgb(frames)


class AutoscaleVectorEnv(BatchVectorEnv):
    """N services of `AutoscaleEnv` in one batch; service i seeded with `seed + i` lives as a lone one would.

    Autoreset mode SAME_STEP: at truncation the observation is the next episode's first, the last one of the
    ended episode is `info["final_obs"]`, its summary `info["final_info"]["summary"]`.
    """

    def __init__(self, num_envs: int = 1, config: AutoscaleConfig | None = None) -> None:
        self.config = config or AutoscaleConfig()
        super().__init__(
            lambda seed: AutoscaleBatch(self.config, num_envs, seed),
            num_envs,
            observation_space(),
            action_space(self.config),
        )


AutoscaleEnv.__doc__ = filled_in(
    AutoscaleEnv.__doc__,
    {
        "observations": feature_table(OBSERVATION_SCHEMA.features),
        "size": str(_SIZE),
        "version": OBSERVATION_SCHEMA.version,
    },
)
