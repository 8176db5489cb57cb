"""Policies: observation -> recommended replicas, for N services in one call.

A policy never acts: the guard is last. Formula policies live here; networks subclass ActionPolicy
(`controller.policies` for ONNX artifacts).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from controller.core.action import ACTION_SCHEMAS
from controller.core.observation import COLUMN, MIN_LOAD
from controller.core.samples import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from controller.core.view import View

logger = logging.getLogger(__name__)


class Policy(Protocol):
    """`recommend(view)` -> replicas float `[N]`, NaN where the policy has nothing to say."""

    name: str
    type: str
    digest: str
    schema: str

    def recommend(self, view: View) -> FloatArray:
        """Recommended replicas of the services in `view`."""
        ...


class HpaPolicy:
    """The Horizontal Pod Autoscaler's formula on utilisation, or on load over capacity without it."""

    name = "hpa"
    type = "HPA"
    digest = ""
    schema = ""

    def recommend(self, view: View) -> FloatArray:
        """The formula's replicas; NaN without a ratio or without a ready replica."""
        return view.hpa_replicas


class ForecastPolicy:
    """Quantile of the service's own rises over the lead time, plus its short maximum, over a target.

    The best single predictor of a prototype study on real traffic; `preference` picks the quantile.
    """

    name = "forecast"
    type = "Forecast"
    digest = ""
    schema = ""

    def recommend(self, view: View) -> FloatArray:
        """Replicas that carry the load to be expected at the end of the start-up time."""
        matrix = view.features
        usual = matrix[:, COLUMN["move_q900_1h"]]
        rare = np.maximum(matrix[:, COLUMN["move_q995_1h"]], matrix[:, COLUMN["move_q999_1d"]])
        share = view.preference / 100.0
        rise = np.maximum((1.0 - share) * usual + share * rare, matrix[:, COLUMN["load_max_300s"]])
        load = np.maximum(view.load, MIN_LOAD) * np.exp(np.maximum(rise, 0.0))
        return np.where(np.isnan(view.load), np.nan, np.ceil(load / view.target_utilisation))


class ActionPolicy:
    """Base of networks: `act` gives actions, the named action schema says what they mean."""

    name = "policy"
    type = "RL"
    digest = ""
    schema = ""
    action_schema = "relative-change/v1"

    def act(self, features: FloatArray) -> FloatArray:
        """Action float `[N, A]` for features float32 `[N, F]`."""
        raise NotImplementedError

    def recommend(self, view: View) -> FloatArray:
        """Replicas decoded from one batched call of `act`."""
        return self.recommend_features(view.features, view.current, view.load)

    def recommend_features(self, features: FloatArray, current: IntArray, load: FloatArray) -> FloatArray:
        """Replicas float `[N]` for features `[N, F]` at these replicas and loads (in replicas), `[N]`."""
        return ACTION_SCHEMAS[self.action_schema].decode(self.act(features), current, load)


class UnavailablePolicy:
    """Stands in for an artifact that could not be loaded: it never says anything, and says why."""

    type = "RL"
    digest = ""
    schema = ""

    def __init__(self, reason: str, message: str, name: str = "unavailable") -> None:
        self.name = name
        self.reason = reason
        self.message = message

    def recommend(self, view: View) -> FloatArray:
        """NaN for every service."""
        return np.full(len(view), np.nan)


def ask(policies: Sequence[Policy], owner: IntArray, view: View) -> tuple[FloatArray, BoolArray]:
    """Each policy once, for its services: replicas float `[N]` (NaN: nothing said), and which observations
    it calls unlike its training, bool `[N]`.

    owner: index into `policies` for each service of the view, int `[N]`. A policy that fails is logged and
    says nothing.
    """
    recommended = np.full(len(view), np.nan)
    unfamiliar = np.zeros(len(view), dtype=np.bool_)
    for index in np.unique(owner):
        mine = np.flatnonzero(owner == index)
        part = view if len(mine) == len(view) else view.take(mine)
        policy = policies[index]
        try:
            recommended[mine] = policy.recommend(part)
            judge = getattr(policy, "unfamiliar", None)
            if judge is not None:
                unfamiliar[mine] = judge(part)
        except Exception:
            # one broken policy must not take the other services of this tick with it
            logger.exception("policy %s failed for %d services", policy.name, len(mine))
            recommended[mine] = np.nan
    return recommended, unfamiliar
