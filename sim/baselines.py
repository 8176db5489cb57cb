"""What a policy is compared with: the HPA as tuned by hand, a fixed count, the formula forecast.

The HPA is core's own formula under the HPA's own guard; only specifications are made here. The
clairvoyant bound is `sim.clairvoyant`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from controller.core import (
    Behavior,
    ForecastPolicy,
    HpaPolicy,
    Policy,
    ScalingPolicy,
    ScalingRules,
    ServiceSpec,
    View,
)

HPA_TARGETS = (0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
"""A sweep of target utilisations; from 0.91 on the HPA never scales up (CPU ends at 1, tolerance is 0.1)."""
SCALE_DOWN_WINDOWS_S = (0, 60, 300)
"""Stabilisation windows that a tuned HPA may choose among."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One contestant: a policy and the specification that it runs under."""

    name: str
    policy: Policy
    spec: ServiceSpec


class StaticPolicy:
    """The same replicas always."""

    type = "Static"
    digest = ""
    schema = ""

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas
        self.name = f"static-{replicas}"

    def recommend(self, view: View) -> npt.NDArray[np.floating]:
        """`replicas`, for every service."""
        return np.full(len(view), float(self.replicas))


def with_scale_down_window(spec: ServiceSpec, window_s: int) -> ServiceSpec:
    """The same specification with another `behavior.scaleDown.stabilizationWindowSeconds`."""
    rules = ScalingRules(window_s, "Max", (ScalingPolicy("Percent", 100, 15),))
    return replace(spec, behavior=Behavior(scale_up=spec.behavior.scale_up, scale_down=rules))


def hpa(spec: ServiceSpec, target_utilisation: float = 0.7, scale_down_window_s: int = 300) -> Setting:
    """The Horizontal Pod Autoscaler at one target and window; other defaults are autoscaling/v2's."""
    tuned = replace(
        with_scale_down_window(spec, scale_down_window_s),
        target_utilisation=target_utilisation,
        policy_type="HPA",
    )
    return Setting(f"hpa-{target_utilisation:.0%}-{scale_down_window_s}s", HpaPolicy(), tuned)


def tuned_hpa(
    spec: ServiceSpec,
    targets: tuple[float, ...] = HPA_TARGETS,
    windows_s: tuple[int, ...] = SCALE_DOWN_WINDOWS_S,
) -> list[Setting]:
    """Every target with every scale-down window: what the best-tuned HPA is chosen from."""
    return [hpa(spec, target, window) for window in windows_s for target in targets]


def forecast(spec: ServiceSpec, preference: float, target_utilisation: float = 0.85) -> Setting:
    """Core's formula forecast at one preference."""
    asked = replace(
        spec, preference=preference, target_utilisation=target_utilisation, policy_type="Forecast"
    )
    return Setting(f"forecast-{preference:g}", ForecastPolicy(), asked)


def static(spec: ServiceSpec, replicas: int) -> Setting:
    """Always the same replicas."""
    return Setting(f"static-{replicas}", StaticPolicy(replicas), spec)
