"""A plain scalar HorizontalPodAutoscaler: lists, loops and ints, written apart from the batched core.

Follows kubernetes' horizontal.go and replica_calculator.go (autoscaling/v2) function by function.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from controller.core import Behavior, ScalingRules


def replica_count(
    current: int, ready: int, usage_ratio: float, tolerance_down: float, tolerance_up: float
) -> int | None:
    def tolerated(ratio: float) -> bool:
        return 1.0 - tolerance_down <= ratio <= 1.0 + tolerance_up

    if ready <= 0 or math.isnan(usage_ratio):
        return None
    unready = max(current - ready, 0)
    if not (unready > 0 and usage_ratio > 1.0):
        return current if tolerated(usage_ratio) else math.ceil(usage_ratio * ready)
    pods = ready + unready
    new_ratio = usage_ratio * ready / pods
    if tolerated(new_ratio) or new_ratio < 1.0:
        return current
    proposed = math.ceil(new_ratio * pods)
    return current if proposed < current else proposed


@dataclass
class ScalarHpa:
    """One autoscaler with its memory; `step` returns the desired replicas and records the scale."""

    min_replicas: int
    max_replicas: int
    behavior: Behavior
    recommendations: list[tuple[float, int]] = field(default_factory=list)
    ups: list[tuple[float, int]] = field(default_factory=list)
    downs: list[tuple[float, int]] = field(default_factory=list)

    def step(self, now: float, current: int, ready: int, usage_ratio: float) -> int:
        desired = self._desired(now, current, ready, usage_ratio)
        if desired > current:
            self.ups.append((now, desired - current))
        elif desired < current:
            self.downs.append((now, current - desired))
        return desired

    def edit(self, min_replicas: int, max_replicas: int, behavior: Behavior) -> None:
        """The specification changes; what is remembered stays."""
        self.min_replicas, self.max_replicas, self.behavior = min_replicas, max_replicas, behavior

    def _desired(self, now: float, current: int, ready: int, usage_ratio: float) -> int:
        if current == 0 and self.min_replicas != 0:
            return 0
        if current > self.max_replicas:
            return self.max_replicas
        if current < self.min_replicas:
            return self.min_replicas
        up, down = self.behavior.scale_up, self.behavior.scale_down
        proposed = replica_count(current, ready, usage_ratio, down.tolerance, up.tolerance)
        if proposed is None:
            return current
        return self._rate_limited(now, current, self._stabilized(now, current, proposed))

    def _stabilized(self, now: float, current: int, proposed: int) -> int:
        if not self.recommendations:
            self.recommendations = [(now, current)]
        lowest = highest = proposed
        for time, value in self.recommendations:
            if time > now - self.behavior.scale_up.stabilization_window_s:
                lowest = min(lowest, value)
            if time > now - self.behavior.scale_down.stabilization_window_s:
                highest = max(highest, value)
        self.recommendations.append((now, proposed))
        return min(max(current, lowest), highest)

    def _rate_limited(self, now: float, current: int, desired: int) -> int:
        if desired > current:
            limit = max(self._limit(now, current, self.behavior.scale_up, up=True), current)
            return min(desired, min(self.max_replicas, limit))
        if desired < current:
            limit = min(self._limit(now, current, self.behavior.scale_down, up=False), current)
            return max(desired, max(self.min_replicas, limit))
        return desired

    def _limit(self, now: float, current: int, rules: ScalingRules, up: bool) -> int:
        if rules.select_policy == "Disabled":
            return current
        proposals = []
        for policy in rules.policies:
            added = sum(change for time, change in self.ups if time > now - policy.period_s)
            removed = sum(change for time, change in self.downs if time > now - policy.period_s)
            start = current - added + removed
            if policy.type == "Pods":
                proposals.append(start + policy.value if up else start - policy.value)
            elif up:
                proposals.append(math.ceil(start * (1.0 + policy.value / 100.0)))
            else:
                proposals.append(int(start * (1.0 - policy.value / 100.0)))
        smallest_change = rules.select_policy == "Min"
        return min(proposals) if up == smallest_change else max(proposals)
