"""Asking a policy again about a decision that it has made: what if a feature had been another?

`Engine.explain` makes these for `rl-scaler explain`. Nothing is taken in, and nothing is remembered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.core.policy import Policy
from controller.core.samples import FloatArray, Samples
from controller.core.view import MakeSetting, View


@dataclass(frozen=True)
class Inquiry:
    """One service's last decision: its policy, what that saw, and a way to show it something else.

    features: float32 `[F]` in the order of OBSERVATION_SCHEMA; empty for a policy that read none.
    """

    policy: Policy
    features: FloatArray
    current: int
    load: float
    now_s: float
    setting: MakeSetting

    def recommend(self, features: FloatArray) -> FloatArray:
        """Replicas float `[K]` for K other moments, features `[K, F]`, at the same replicas and load.

        A policy that looks at recent loads instead of features finds none of them, and says NaN or the same
        for each. Raises what the policy raises.
        """
        matrix = np.asarray(features, dtype=np.float32)
        return np.asarray(self.policy.recommend(self._view(matrix)), dtype=np.float64)

    def _view(self, matrix: FloatArray) -> View:
        size = len(matrix)
        zeros = np.zeros(size, dtype=np.int64)
        load = np.full(size, self.load)
        usable = np.isfinite(load)

        def constant(name: str) -> FloatArray:
            return self.setting(zeros, name)

        return View(
            rows=zeros,
            now_s=np.full(size, self.now_s),
            current=np.full(size, self.current, dtype=np.int64),
            ready=np.full(size, float(self.current)),
            load=load,
            hpa_replicas=np.full(size, np.nan),
            usable=usable,
            failures=zeros,
            capacity_known=usable,
            slo_in_danger=np.zeros(size, dtype=bool),
            preference=constant("preference"),
            target_utilisation=constant("target_utilisation"),
            samples=Samples(current=np.full(size, float(self.current))),
            make_features=lambda index: (matrix[index], np.ones(matrix[index].shape, dtype=bool)),
            make_loads=lambda index, step_s, bins, ago_s: np.full((len(index), bins), np.nan, np.float32),
            make_setting=lambda index, name: self.setting(zeros[index], name),
        )
