"""Gymnasium's faces of web balancing: one balancer (`Env`), or N side by side (`VectorEnv`, twin only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sim.envs.render import charts, spark
from sim.envs.vector import BatchEnv, BatchVectorEnv, feature_table, filled_in
from sim.webbalancing.batch import WebConfig, bounds, make_batch
from sim.webbalancing.features import FLEET_SCHEMA, SERVER_SCHEMA

_COLUMNS = 60


def observation_space(config: WebConfig) -> spaces.Box:
    """The Box of `servers` times SERVER_SCHEMA, and FLEET_SCHEMA."""
    return spaces.Box(*bounds(config), dtype=np.float32)


def action_space(config: WebConfig) -> spaces.Discrete:
    """A server."""
    return spaces.Discrete(config.servers)


@dataclass(frozen=True, slots=True)
class Frame:
    """One decision: the clock; requests in flight, EWMAs of latency (s) and errors, share of each server."""

    time_s: float
    in_flight: npt.NDArray[np.float64]
    latency_s: npt.NDArray[np.float64]
    errors: npt.NDArray[np.float64]
    share: npt.NDArray[np.float64]
    action: int


class WebBalancingEnv(BatchEnv):
    """Choose the web server for each batch of requests.

    ## Description
    Batches of 1 to 12 requests come to a balancer, which sends each batch to one of `servers` (4) servers.
    Servers differ in how many requests they work on at once and in how long one takes; what they cannot
    work on waits there, first come, first served. In the phase `troubled` of the curriculum, the default,
    requests come in bursts, and a server may be slow, answer errors quickly (which looks like speed to
    who counts requests in flight), or be down for a while.

    Two faces of the same code, `config.face`: `twin` simulates servers and requests (thousands of decisions
    a second), `real` starts HTTP servers as local processes, sends them HTTP requests when they are due, and
    reads their `/metrics`. Episodes, the balancer's book, observation, reward and figures are shared.

    ## Action space
    `Discrete(servers)`: where the batch goes.

    ## Observation space
    `Box`, float32, shape (servers * {server_size} + {fleet_size},): scale-free. The reference time is the
    fleet's mean service time. First the servers, {server_size} numbers each (their order means nothing):

    {server_table}

    then {fleet_size} of the batch and of all servers:

    {fleet_table}

    ## Rewards
    Minus the cost of requests over 20 times the mean requests of a batch: -1 a decision if all fail. A
    request costs its latency in reference times, at most 20; one that fails (error, refused, no connection,
    given up after 20 reference times) costs 20. With `at_once` (twin) a decision's reward is the cost of its
    own batch, otherwise that of the requests that ended since the last decision: the same over an episode.

    ## Starting state
    Idle servers and the first batch; nothing is known but their configuration. `reset(seed=...)` fixes
    servers, requests and faults, on real servers too (but not how long these take to a millisecond).

    ## Episode end
    Truncated after `batches` (200) decisions; requests still under way end first, and count.

    ## Information
    `info`: `accurate` (1 if the batch went where the least cost was to be expected by the true state),
    `time_s`, and of each server `in_flight`, `latency_s` (0: no answer yet), `errors`, `utilisation` and
    `share`; at an episode's end `summary`: `return`, `accuracy`, `cost`, `errors`, `latency_ms`, `p50_ms`,
    `p99_ms`, `gini` (of requests over capacity), `phase`, `logged`; on real servers also `late_ms`.

    ## Rendering
    `rgb_array`: requests in flight, latencies, where batches went. `ansi`: a line each server.

    ## Version history
    * v0: first version, observation `web-server/v1`.
    """

    def __init__(self, config: WebConfig | None = None, render_mode: str | None = None) -> None:
        self.config = config or WebConfig()
        super().__init__(
            lambda seed: make_batch(self.config, 1, seed, autoreset=False),
            observation_space(self.config),
            action_space(self.config),
            render_mode,
        )

    def close(self) -> None:
        """Stop the servers that the environment has started."""
        if self.batch is not None:
            self.batch.close()

    def frame_of(self, info: dict[str, Any], action: Any) -> Frame:
        """What the pictures need of a step."""
        names = ("time_s", "in_flight", "latency_s", "errors", "share")
        return Frame(**{name: info[name] for name in names}, action=int(action))

    def draw_ansi(self, frames: list[Frame]) -> str:
        """A line of every server over the last decisions: requests in flight."""
        if not frames:
            return "no steps yet"
        last, shown = frames[-1], frames[-_COLUMNS:]
        lines = [f"{last.time_s:.1f} s, the last batch went to server {last.action}"]
        for place in range(self.config.servers):
            bars = spark([float(frame.in_flight[place]) for frame in shown])
            latency = last.latency_s[place]
            waited = f"{1000 * latency:.0f} ms" if latency else "no answer yet"
            said = f"{last.in_flight[place]:.0f} in flight, {waited}, {last.errors[place]:.0%} errors"
            lines.append(f"{f'server {place}':<10}{bars:>{_COLUMNS}}  {said}")
        return "\n".join(lines)

    def draw_rgb(self, frames: list[Frame]) -> npt.NDArray[np.uint8]:
        """Requests in flight and latencies of each server, and its recent share, over decisions."""
        return charts(3, lambda *axes: _draw(frames, *axes))


class WebBalancingVectorEnv(BatchVectorEnv):
    """N balancers of `WebBalancingEnv` in one batch (the twin)."""

    def __init__(self, num_envs: int = 1, config: WebConfig | None = None) -> None:
        self.config = config or WebConfig()
        super().__init__(
            lambda seed: make_batch(self.config, num_envs, seed),
            num_envs,
            observation_space(self.config),
            action_space(self.config),
        )

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the servers that the environment has started."""
        if self.batch is not None:
            self.batch.close()


def _draw(frames: list[Frame], flight: Any, latency: Any, share: Any) -> None:
    steps = np.arange(len(frames))
    for axis, name, label in (
        (flight, "in_flight", "in flight"), (latency, "latency_s", "latency, s"), (share, "share", "share"),
    ):  # fmt: skip
        if frames:
            axis.plot(steps, np.array([getattr(frame, name) for frame in frames]))
        axis.set_ylabel(label)


WebBalancingEnv.__doc__ = filled_in(
    WebBalancingEnv.__doc__,
    {
        "server_size": str(SERVER_SCHEMA.size),
        "fleet_size": str(FLEET_SCHEMA.size),
        "server_table": feature_table(SERVER_SCHEMA.features),
        "fleet_table": feature_table(FLEET_SCHEMA.features),
    },
)
