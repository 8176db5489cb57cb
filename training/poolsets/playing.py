"""Pools policies at play in `rlscaler/Pools-v0`: whole episodes, side by side, ejection after the policy.

Training, the run's card and `benchmarks.pools` call this. What plays here is what the operator runs: the
policy's shares go through `controller.core.ejection` and then through the environment's guards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from sim.envs.pool_batch import PoolsBatch, PoolsConfig, action_of
from sim.envs.pool_features import split_observation
from sim.pool_baselines import Ejection

FloatArray = npt.NDArray[np.floating[Any]]
Decider = Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]
"""Features of pools `[N, P, F]` and of sets `[N, S]` to capacities and shares `[N, P]`."""
Act = Callable[[PoolsBatch], FloatArray]
"""What a policy says of a batch: actions `[N, 2 P]`."""
Watch = Callable[[int, FloatArray, FloatArray], None]
LARGEST_RATIO = 10.0
"""Of a p99 to the objective, in means."""


class Ejecting:
    """A decider as a policy of the environment, the operator's ejection behind it. One plays one batch."""

    def __init__(self, decide: Decider, ejects: bool = True) -> None:
        self._decide = decide
        self._ejection = Ejection() if ejects else None

    def __call__(self, batch: PoolsBatch) -> FloatArray:
        """Actions for what the batch shows now."""
        capacity, share = self._decide(*split_observation(batch.observations, batch.pools))
        if self._ejection is not None:
            share = self._ejection(batch.view(), share)
        return action_of(capacity, share)


class ArtifactDecider:
    """An artifact of kind pools, run by ONNX Runtime as the operator does."""

    def __init__(self, data: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def __call__(self, pools: FloatArray, whole: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Capacities and shares."""
        given = {"pools": np.ascontiguousarray(pools), "set": np.ascontiguousarray(whole)}
        capacity, share = self._session.run(["capacity", "share"], given)
        return np.asarray(capacity), np.asarray(share)


@dataclass(frozen=True, slots=True)
class Played:
    """What whole episodes came to, by the names of `info["summary"]`, and the set's p99: `[episodes]`."""

    figures: Mapping[str, FloatArray]

    def __getitem__(self, name: str) -> FloatArray:
        return self.figures[name]


def at_preference(config: PoolsConfig, preference: float) -> PoolsConfig:
    """The same episodes with the dial at one place."""
    service = replace(config.scenario.service, preference=(preference, preference))
    return replace(config, scenario=replace(config.scenario, service=service))


def play(config: PoolsConfig, act: Act, episodes: int, seed: int) -> Played:
    """Play whole episodes side by side; equal seeds are equal episodes, whoever plays."""
    return play_batch(PoolsBatch(replace(config, stagger=False), episodes, seed, autoreset=False), act)


def play_batch(batch: PoolsBatch, act: Act, watch: Watch | None = None) -> Played:
    """Play an episode in every row of a batch from its reset on.

    `p99_over_slo` is the mean over an episode's steps of the set's p99 over its objective, at most 10 each
    (an outage has no end); `over_p99` the share of steps in which it is above the objective. watch is shown
    every step's features.
    """
    batch.reset()
    steps = batch.config.horizon_steps
    late, over = np.zeros(batch.num_envs), np.zeros(batch.num_envs)
    slo_ms = batch.settings.slo_ms.copy()
    for step in range(steps):
        if watch is not None:
            watch(step, *split_observation(batch.observations, batch.pools))
        result = batch.step(act(batch))
        ratio = np.nan_to_num(batch.situation()["p99_ms"] / slo_ms, nan=0.0, posinf=LARGEST_RATIO)
        late += np.minimum(ratio, LARGEST_RATIO)
        over += ratio > 1.0
    figures = {name: np.array([one[name] for one in result.episodes]) for name in result.episodes[0]}
    return Played(figures | {"p99_over_slo": late / steps, "over_p99": over / steps})
