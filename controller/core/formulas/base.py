"""What the formula policies share: their identity, checks of parameters, and means that skip unknowns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from controller.core.samples import FloatArray
from controller.core.spec import SpecError

if TYPE_CHECKING:
    from controller.core.view import View


class FormulaPolicy:
    """Base of the formulas: frozen dataclasses of parameters, so equal settings are equal policies.

    `needs_capacity` False: the engine asks the policy even while the capacity of a replica is unknown.
    """

    name = ""
    type = "Formula"
    digest = ""
    schema = ""
    needs_capacity = True

    def recommend(self, view: View) -> FloatArray:
        """Recommended replicas float `[N]`; NaN where the formula has nothing to say."""
        raise NotImplementedError


def require(condition: bool, field_name: str, value: object, allowed: str) -> None:
    """Raise SpecError, naming the parameter under spec.policy.formula, unless `condition` holds."""
    if not condition:
        raise SpecError(f"policy.formula.{field_name}", value, allowed)


def replicas_for(load: FloatArray, target_utilisation: FloatArray) -> FloatArray:
    """Whole replicas that carry a load in replicas at a target utilisation; NaN stays NaN."""
    # the tolerance keeps 7 / 0.7 at 10 replicas: binary fractions would make it 11
    return np.asarray(np.ceil(load / target_utilisation - 1e-9))


def mean_known(values: FloatArray) -> FloatArray:
    """Mean over the last axis without NaNs; NaN where nothing is known."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def lead_bins(view: View, step_s: float) -> FloatArray:
    """Bins of `step_s` from now until a replica decided on at the next turn is ready, `[N]`, at least 1."""
    return np.maximum(np.ceil((view.start_up_s + view.sync_period_s) / step_s), 1.0)
