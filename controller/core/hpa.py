"""The Horizontal Pod Autoscaler's replica formula, batched over services.

Source: `GetResourceReplicas` and `calcPlainMetricReplicas` of kubernetes'
pkg/controller/podautoscaler/replica_calculator.go (autoscaling/v2).
"""

from __future__ import annotations

import numpy as np

from controller.core.samples import BoolArray, FloatArray, IntArray

MAX_REPLICAS = 2**31 - 1


def within_tolerance(ratio: FloatArray, tolerance_down: FloatArray, tolerance_up: FloatArray) -> BoolArray:
    """Whether a usage ratio (metric over its target) is too near to 1 to act on."""
    return (ratio >= 1.0 - tolerance_down) & (ratio <= 1.0 + tolerance_up)


def hpa_replicas(
    current: IntArray,
    ready: IntArray,
    usage_ratio: FloatArray,
    tolerance_down: FloatArray,
    tolerance_up: FloatArray,
    missing: IntArray | None = None,
) -> FloatArray:
    """Replicas that the HPA formula recommends, before bounds and `behavior`; all arrays `[N]`.

    usage_ratio: mean metric of the ready pods that report, over its target. missing: ready pods
    that report nothing. Pods that are not ready count as 0 % when going up; pods without metrics
    count as 100 % of the target when going down and as 0 % when going up. NaN where there is no
    ratio or no ready pod that reports: the formula then has nothing to say.
    """
    lost = np.zeros_like(current) if missing is None else missing
    reporting = np.maximum(ready - lost, 0)
    unready = np.maximum(current - ready, 0)
    up = usage_ratio > 1.0
    rebalanced = up & (unready > 0)
    plain = ~rebalanced & (lost == 0)
    counted = reporting + lost + np.where(rebalanced, unready, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        filled = usage_ratio * reporting + np.where(usage_ratio < 1.0, lost, 0)
        ratio = np.where(plain, usage_ratio, filled / np.maximum(counted, 1))
        proposed = np.ceil(ratio * np.where(plain, reporting, counted))
        flipped = ((usage_ratio < 1.0) & (ratio > 1.0)) | (up & (ratio < 1.0))
        against = ((ratio < 1.0) & (proposed > current)) | ((ratio > 1.0) & (proposed < current))
    held = within_tolerance(ratio, tolerance_down, tolerance_up) | (~plain & (flipped | against))
    result = np.minimum(np.where(held, current, proposed), MAX_REPLICAS)
    return np.where(np.isfinite(usage_ratio) & (reporting > 0), result, np.nan)
