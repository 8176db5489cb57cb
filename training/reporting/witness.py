"""A policy that remembers what it saw and said, for replays that a report looks into afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controller.core import View
from controller.core.action import ACTION_SCHEMAS
from controller.core.samples import BoolArray, FloatArray
from controller.policies.onnx_policy import OnnxPolicy
from sim.baselines import Setting
from sim.replay import ReplayResult, Window, replay
from training.frontier import IntArray
from training.playing import Setup

ALL = 10**9
"""Replicas that are above any band: decoding for them gives its upper edge, for none its lower one."""


@dataclass(frozen=True)
class Seen:
    """Moments of a replay, in time's order: features float32 `[M, F]`, action `[M, A]`, load in replicas,
    replicas asked for until then, the window and the control step, `[M]` each."""

    features: FloatArray
    action: FloatArray
    load: FloatArray
    current: FloatArray
    window: IntArray
    step: IntArray

    def at(self, window: int, step: int) -> int:
        """The moment at that step of that window, or the last one before it."""
        return int(np.flatnonzero((self.window == window) & (self.step <= step))[-1])


class Witness:
    """Stands before `policy` in a replay of windows under one setting, and keeps every `every`-th tick."""

    def __init__(self, policy: OnnxPolicy, every: int = 1) -> None:
        self.policy, self.every = policy, every
        self.name, self.type = policy.name, policy.type
        self.digest, self.schema = policy.digest, policy.schema
        self._tick = -1
        self._parts: list[tuple[FloatArray, ...]] = []

    def recommend(self, view: View) -> FloatArray:
        """What the policy recommends."""
        self._tick += 1
        features = view.features
        action = self.policy.act(features)
        if self._tick % self.every == 0:
            step = np.full(len(view), self._tick)
            kept = (features, action, view.load, view.current, view.rows, step)
            # views are valid until the next reading
            self._parts.append(tuple(np.array(each) for each in kept))
        return ACTION_SCHEMAS[self.policy.action_schema].decode(action, view.current, view.load)

    def unfamiliar(self, view: View) -> BoolArray:
        """As the policy judges."""
        return self.policy.unfamiliar(view)

    def seen(self) -> Seen:
        """All that was kept."""
        return Seen(*(np.concatenate(part) for part in zip(*self._parts, strict=True)))


def replay_watched(
    policy: OnnxPolicy, setting: Setting, windows: Sequence[Window], setup: Setup, every: int = 1
) -> tuple[ReplayResult, Seen]:
    """The setting on these windows with its timeline, and what the policy saw at every `every`-th tick."""
    witness = Witness(policy, every)
    watched = Setting(setting.name, witness, setting.spec)
    result = replay(windows, [watched], setup.protocol, setup.seed, True, setup.engine)
    return result, witness.seen()


def edges(policy: OnnxPolicy, features: FloatArray, load: FloatArray, current: float) -> FloatArray:
    """Lowest and highest replicas `[2, N]` that a policy lets stand at these observations.

    A band's edges; of a policy that says a change, what it makes of `current` replicas, twice.
    """
    action = policy.act(features)
    decode = ACTION_SCHEMAS[policy.action_schema].decode
    low, high = (0, ALL) if policy.action_schema == "hold-band/v1" else (current, current)
    return np.stack([decode(action, np.full(len(features), each), load) for each in (low, high)])
