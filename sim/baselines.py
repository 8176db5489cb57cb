"""What a policy is compared with, and the settings along each one's dial.

The HPA, the forecast and the formulas of other systems are core's own policies under core's own guard, the
very objects that the operator runs; only specifications are made here. `sweep` gives the settings that
`training/evaluate.py` draws a cost-violation frontier from. The clairvoyant bound is `sim.clairvoyant`;
docs/baselines.md describes all of them.
"""

from __future__ import annotations

from collections.abc import Callable
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
from controller.core.formulas import (
    ErlangCPolicy,
    FormulaPolicy,
    HoltWintersPolicy,
    KedaPolicy,
    KnativePolicy,
    MovingMaximumPolicy,
    SeasonalNaivePolicy,
)
from sim.errors import require

HPA_TARGETS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9)
"""A sweep of target utilisations; from 0.91 on the HPA never scales up (CPU ends at 1, tolerance is 0.1)."""
TARGETS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Target utilisations of the formulas whose dial is `objective.targetUtilization`."""
FORECAST_TARGETS = (0.4, 0.55, 0.7, 0.85, 1.0)
FORECAST_PREFERENCES = (0.0, 50.0, 100.0)
ERLANG_DIAL = (
    (0.1, 50.0),
    (0.15, 50.0),
    (0.2, 50.0),
    (0.3, 50.0),
    (0.4, 50.0),
    (0.5, 50.0),
    (0.6, 50.0),
    (0.7, 50.0),
    (0.8, 0.0),
    (0.8, 50.0),
    (0.8, 100.0),
    (0.9, 50.0),
    (1.0, 50.0),
)
"""Target utilisation and preference of the queueing formula; 1.0 is the textbook's."""
STATIC_STEPS = 15
SCALE_DOWN_WINDOWS_S = (0, 60, 300)
"""Stabilisation windows that a tuned HPA may choose among."""
# one object for all settings: an engine asks each of its policies once for all their services
_HPA = HpaPolicy()
_FORECAST = ForecastPolicy()


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
    return Setting(f"hpa-{target_utilisation:.0%}-{scale_down_window_s}s", _HPA, tuned)


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
    return Setting(f"forecast-{preference:g}", _FORECAST, asked)


def static(spec: ServiceSpec, replicas: int) -> Setting:
    """Always the same replicas."""
    return Setting(f"static-{replicas}", StaticPolicy(replicas), spec)


def formula(spec: ServiceSpec, policy: FormulaPolicy, target_utilisation: float) -> Setting:
    """A formula at one target utilisation."""
    tuned = replace(spec, target_utilisation=target_utilisation, policy_type="Formula")
    return Setting(f"{policy.name}-{target_utilisation:.0%}", policy, tuned)


def sweep(name: str, spec: ServiceSpec) -> list[Setting]:
    """Settings of a baseline along its dial, cheapest last or first: see BASELINES, and "Static".

    `spec` gives bounds, objective, capacity, start-up time and behaviour; the HPA's sweep also sets its
    scale-down window. Raises ParameterError for an unknown name.
    """
    require(name in _SWEEPS, "baseline", name, f"one of {', '.join(_SWEEPS)}")
    return _SWEEPS[name](spec)


def _targets(
    policy: FormulaPolicy, targets: tuple[float, ...] = TARGETS
) -> Callable[[ServiceSpec], list[Setting]]:
    return lambda spec: [formula(spec, policy, target) for target in targets]


def _forecasts(spec: ServiceSpec) -> list[Setting]:
    made = []
    for target in FORECAST_TARGETS:
        for preference in FORECAST_PREFERENCES:
            one = forecast(spec, preference, target)
            made.append(replace(one, name=f"{one.name}-{target:.0%}"))
    return made


def _erlang(spec: ServiceSpec) -> list[Setting]:
    policy = ErlangCPolicy()
    settings = []
    for target, preference in ERLANG_DIAL:
        one = formula(replace(spec, preference=preference), policy, target)
        settings.append(replace(one, name=f"{one.name}-{preference:g}"))
    return settings


def _statics(spec: ServiceSpec) -> list[Setting]:
    counts = np.linspace(max(spec.min_replicas, 1), spec.max_replicas, STATIC_STEPS).round().astype(int)
    return [static(spec, int(count)) for count in np.unique(counts)]


_SWEEPS: dict[str, Callable[[ServiceSpec], list[Setting]]] = {
    "HPA": tuned_hpa,
    "KEDA": _targets(KedaPolicy()),
    "Knative": _targets(KnativePolicy()),
    "HoltWinters": _targets(HoltWintersPolicy()),
    "SeasonalNaive": _targets(SeasonalNaivePolicy()),
    "MovingMaximum": _targets(MovingMaximumPolicy()),
    "Forecast": _forecasts,
    "ErlangC": _erlang,
    "Static": _statics,
}
BASELINES = tuple(name for name in _SWEEPS if name != "Static")
"""Names that `sweep` knows, but for a fixed count, whose useful range depends on the peak."""
