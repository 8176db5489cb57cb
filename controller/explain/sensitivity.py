"""Which features of an observation a learned policy's recommendation hangs on, by finite differences.

The policy is asked again, once, with a batch of observations that differ from the recorded one: each feature
moved a little to both sides inside its range, each group of features set to what stands for "not known", and
the load moved by a factor. Nothing of the engine is read or changed. Called on request only, never in a turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from controller.core.action import ACTION_SCHEMAS
from controller.core.observation import COLUMN, LAGS_S, MAXIMA_S, OBSERVATION_SCHEMA
from controller.core.policy import ActionPolicy
from controller.core.samples import FloatArray

Ask = Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]
"""(features `[K, F]`, loads in replicas `[K]`) -> replicas `[K]`, and what they were made of, `[K, A]`."""

SMALL, LARGE = 0.05, 0.2
"""Steps of one feature, as shares of its range; the large one where the small one changes nothing."""
LOAD_FACTORS: Final = (0.5, 0.8, 1.25, 2.0)


@dataclass(frozen=True)
class Group:
    """Features that speak of one thing, and what they are when it is not known or does not count."""

    name: str
    members: tuple[str, ...]
    reference: tuple[float, ...] = ()

    def moved(self, features: FloatArray) -> FloatArray:
        """The observation `[F]` without what this group says."""
        row = features.copy()
        row[[COLUMN[name] for name in self.members]] = self.reference or 0.0
        return row


def _named(prefix: str) -> tuple[str, ...]:
    return tuple(name for name in OBSERVATION_SCHEMA.names if name.startswith(prefix))


GROUPS: Final = (
    Group("how the load has moved in the last hour", _named("load_change_")),
    Group("the peaks of the last hour", _named("load_max_")),
    Group("how restless the load is", (*_named("variability_"), *_named("move_"))),
    Group("the load at this time an hour ago", ("season_1h", "season_1h_known")),
    Group("the load at this time yesterday", ("season_1d", "season_1d_known")),
    Group("the latency against the objective", ("latency_over_slo", "latency_known", "violation_recent")),
    Group("the share of errors", ("error_ratio",)),
    Group("how busy the replicas are", ("utilisation", "capacity_check", "backlog", "capacity_uncertainty")),
    Group("when replicas last changed", ("since_scale_up", "since_scale_down")),
    Group("the time of day", ("hour_sin", "hour_cos", "day_sin", "day_cos")),
    Group("objective.preference against 50", ("preference",), (0.5,)),
    Group("the start-up time against 60 s", ("start_up",)),
    Group("the scale-down window against 300 s", ("scale_down_window",), (1.0,)),
)
LEVELS: Final = (
    "provisioned_over_load",
    "ready_over_load",
    "pending_share",
    "headroom_to_max",
    "headroom_to_min",
    "granularity",
    "shot_noise",
    "sync_period",
)
"""Features without a neutral value: replicas against load and bounds. The load is moved instead."""


@dataclass(frozen=True)
class FeatureEffect:
    """One feature: its value, the step that tells, and the change of replicas below and above it."""

    name: str
    value: float
    step: float
    below: float
    above: float
    slope: float


@dataclass(frozen=True)
class Sensitivity:
    """What the policy says now (`replicas`), and what it would say.

    features: sorted by how much their step changes. groups: (name, replicas due to it), largest first.
    loads: (factor, replicas if the load were that much larger).
    """

    replicas: float
    features: tuple[FeatureEffect, ...]
    groups: tuple[tuple[str, float], ...]
    loads: tuple[tuple[float, float], ...]


def asking(policy: ActionPolicy, current: int) -> Ask:
    """How to ask a network again, at these replicas: one call."""

    def ask(rows: FloatArray, loads: FloatArray) -> tuple[FloatArray, FloatArray]:
        action = policy.act(rows)
        decode = ACTION_SCHEMAS[policy.action_schema].decode
        return decode(action, np.full(len(rows), current, dtype=np.int64), loads), action

    return ask


def sensitivity(ask: Ask, features: FloatArray, load: float) -> Sensitivity:
    """Finite differences round one observation float32 `[F]`, in one call of `ask`. load: replicas.

    Raises ValueError when the policy gives no number for the observation.
    """
    size = OBSERVATION_SCHEMA.size
    if features.shape != (size,):
        raise ValueError(f"features: shape {features.shape} is not allowed, must be ({size},)")
    grouped = [group.moved(features) for group in GROUPS]
    loaded = [with_load(features, factor, load) for factor in LOAD_FACTORS]
    singles = [_stepped(features, share) for share in (-SMALL, SMALL, -LARGE, LARGE)]
    rows = np.vstack([features[None, :], np.array(grouped), np.array(loaded), *singles]).astype(np.float32)
    loads = np.full(len(rows), load)
    first = 1 + len(grouped)
    loads[first : first + len(loaded)] *= LOAD_FACTORS
    said, action = ask(rows, loads)
    if not np.isfinite(said[0]):
        raise ValueError("it gives no number for the recorded observation")
    due = [(group.name, float(said[0] - said[1 + i])) for i, group in enumerate(GROUPS)]
    start = first + len(loaded)
    return Sensitivity(
        replicas=float(said[0]),
        features=_effects(features, said[0], said[start:].reshape(4, size), action[0], action[start:]),
        groups=tuple(sorted(due, key=lambda item: -abs(item[1]))),
        loads=tuple(zip(LOAD_FACTORS, said[first:start].tolist(), strict=True)),
    )


def with_load(features: FloatArray, factor: float, load: float) -> FloatArray:
    """The observation `[F]` as it would be if the load (replicas) now were `factor` times what it is."""
    row, log = features.astype(np.float64), np.log(factor)
    for name in ("provisioned_over_load", "ready_over_load"):
        row[COLUMN[name]] -= log
    for lag in LAGS_S:
        row[COLUMN[f"load_change_{lag}s"]] += log
    for span in MAXIMA_S:
        row[COLUMN[f"load_max_{span}s"]] = max(0.0, row[COLUMN[f"load_max_{span}s"]] - log)
    for name in ("season_1h", "season_1d"):
        if row[COLUMN[name + "_known"]] > 0:
            row[COLUMN[name]] -= log
    row[COLUMN["utilisation"]] *= factor
    row[COLUMN["granularity"]] = 1.0 / (1.0 + load * factor)
    row[COLUMN["shot_noise"]] = min(1.0, row[COLUMN["shot_noise"]] / np.sqrt(factor))
    return np.clip(row, OBSERVATION_SCHEMA.low, OBSERVATION_SCHEMA.high).astype(np.float32)


def _stepped(features: FloatArray, share: float) -> FloatArray:
    """`[F, F]`: row f has feature f moved by a share of its range, inside it."""
    low, high = OBSERVATION_SCHEMA.low, OBSERVATION_SCHEMA.high
    moved = np.clip(features + share * (high - low), low, high)
    rows = np.repeat(features[None, :], len(features), axis=0)
    np.fill_diagonal(rows, moved)
    return rows


def _effects(
    features: FloatArray, base: float, said: FloatArray, action: FloatArray, actions: FloatArray
) -> tuple[FeatureEffect, ...]:
    """said: replicas `[4, F]` for -SMALL, SMALL, -LARGE, LARGE; actions: the same before decoding."""
    change = said - base
    moved = np.abs(actions - action).max(axis=1).reshape(4, -1).max(axis=0)
    effects = []
    for column, name in enumerate(OBSERVATION_SCHEMA.names):
        small, large = change[:2, column], change[2:, column]
        share, told = (SMALL, small) if np.any(small != 0) else (LARGE, large)
        feature = OBSERVATION_SCHEMA.features[column]
        effects.append(
            FeatureEffect(
                name,
                float(features[column]),
                share * (feature.high - feature.low),
                float(told[0]),
                float(told[1]),
                float(moved[column]),
            )
        )
    return tuple(sorted(effects, key=_weight, reverse=True))


def _weight(effect: FeatureEffect) -> tuple[bool, float, float]:
    feature = OBSERVATION_SCHEMA.features[COLUMN[effect.name]]
    small = effect.step < 0.5 * (SMALL + LARGE) * (feature.high - feature.low)
    most = max(abs(effect.below), abs(effect.above))
    return (most > 0 and small, most, effect.slope)
