"""`spec.policy.formula`: a scaling formula by name, with its parameters.

One object holds the parameters of all formulas; each belongs to the formulas that PARAMETERS names, and is
refused with any other. Left out, a parameter has its formula's own default (`controller.core.formulas`).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from controller.api import rules
from controller.api.decimals import parse_decimal
from controller.api.fields import (
    AboveOne,
    Decimal,
    InnerShare,
    Percentile,
    PositiveDecimal,
    Seconds,
    Share,
    whole,
)
from controller.api.model import ApiModel, Rule
from controller.core.formulas import FORMULAS, FormulaPolicy

SeasonSeconds = Literal[3600, 86400]


class Formula(ApiModel):
    """A scaling formula and its parameters."""

    RULES: ClassVar[tuple[Rule, ...]] = rules.FORMULA

    name: Literal["KEDA", "Knative", "HoltWinters", "SeasonalNaive", "MovingMaximum", "ErlangC"] = Field(
        description=(
            "KEDA: request rate over requests per replica. Knative: stable and panic window. HoltWinters, "
            "SeasonalNaive: forecasts. MovingMaximum: the highest recent load, in the manner of Google's "
            "Autopilot. ErlangC: queueing theory."
        )
    )
    requests_per_replica: PositiveDecimal | None = Field(
        default=None,
        description=(
            "KEDA: requests per second for each replica, a decimal in a string. Default: the replica's "
            "capacity x objective.targetUtilization."
        ),
    )
    activation_requests_per_second: Decimal | None = Field(
        default=None,
        description=(
            "KEDA, with minReplicas 0: at or below this request rate the service is idle, a decimal in "
            'a string. Default: "0".'
        ),
    )
    cooldown_seconds: Seconds | None = Field(
        default=None, description="KEDA, with minReplicas 0: seconds of idleness before zero. Default: 300."
    )
    metric: Literal["rps", "concurrency"] | None = Field(
        default=None, description="Knative: request rate (rps) or requests in flight. Default: rps."
    )
    target: PositiveDecimal | None = Field(
        default=None,
        description=(
            "Knative: requests per second, or in flight, for each replica, a decimal in a string. Default: "
            "the replica's capacity x objective.targetUtilization; required with metric concurrency."
        ),
    )
    stable_window_seconds: Annotated[int, whole(6, 1800)] | None = Field(
        default=None, description="Knative: window of the stable mode. Default: 60."
    )
    panic_window_percentage: Annotated[int, whole(1, 100)] | None = Field(
        default=None, description="Knative: panic window in percent of the stable one. Default: 10."
    )
    panic_threshold_percentage: Annotated[int, whole(110, 1000)] | None = Field(
        default=None,
        description=(
            "Knative: panic begins when the panic window asks for this percentage of the ready replicas. "
            "Default: 200."
        ),
    )
    max_scale_up_rate: AboveOne | None = Field(
        default=None,
        description='Knative: at most this many times the ready replicas at once. Default: "1000".',
    )
    max_scale_down_rate: AboveOne | None = Field(
        default=None,
        description='Knative: at least the ready replicas over this. Default: "2".',
    )
    scale_to_zero_grace_seconds: Seconds | None = Field(
        default=None,
        description=(
            "Knative, with minReplicas 0: seconds that the last replica stays after a stable window "
            "without traffic. Default: 30."
        ),
    )
    alpha: Share | None = Field(
        default=None, description='HoltWinters: smoothing of the level, 0 to 1. Default: "0.5".'
    )
    beta: Share | None = Field(
        default=None, description='HoltWinters: smoothing of the trend, 0 to 1. Default: "0.02".'
    )
    gamma: Share | None = Field(
        default=None, description='HoltWinters: smoothing of the season, 0 to 1. Default: "0.3".'
    )
    season_seconds: SeasonSeconds | None = Field(
        default=None,
        description="HoltWinters, SeasonalNaive: length of the season, 3600 or 86400. Default: 86400.",
    )
    level_window_seconds: Annotated[int, whole(60, 3600)] | None = Field(
        default=None,
        description=(
            "SeasonalNaive: seconds over which the level of now and of a season ago are compared. "
            "Default: 600."
        ),
    )
    window_seconds: Annotated[int, whole(60, 86400)] | None = Field(
        default=None, description="MovingMaximum: how far back the load counts. Default: 3600."
    )
    averaging_seconds: Annotated[int, whole(60, 3600)] | None = Field(
        default=None,
        description="MovingMaximum: loads are averaged over this first, a multiple of 60. Default: 300.",
    )
    percentile: Percentile | None = Field(
        default=None,
        description=(
            "MovingMaximum: percentile of the decaying window instead of its maximum: an integer, or a "
            'decimal in a string ("99.5"). Default: the maximum.'
        ),
    )
    half_life_seconds: Annotated[int, whole(60, 2_592_000)] | None = Field(
        default=None,
        description="MovingMaximum with percentile: age at which a load weighs half. Default: 43200.",
    )
    wait_probability: InnerShare | None = Field(
        default=None,
        description=(
            "ErlangC: most that the probability of waiting too long may be, a decimal in a string. Default: "
            "follows objective.preference."
        ),
    )
    requests_at_once: Annotated[int, whole(1, 1000)] | None = Field(
        default=None, description="ErlangC: requests that one replica serves side by side. Default: 1."
    )
    load_window_seconds: Annotated[int, whole(15, 3600)] | None = Field(
        default=None,
        description="ErlangC: the highest load of this many seconds is the one to be served. Default: 300.",
    )


_CORE_NAMES: Final = {
    "requests_per_replica": "requests_per_replica",
    "activation_requests_per_second": "activation_rps",
    "cooldown_seconds": "cooldown_s",
    "metric": "metric",
    "target": "target",
    "stable_window_seconds": "stable_window_s",
    "panic_window_percentage": "panic_window_percentage",
    "panic_threshold_percentage": "panic_threshold_percentage",
    "max_scale_up_rate": "max_scale_up_rate",
    "max_scale_down_rate": "max_scale_down_rate",
    "scale_to_zero_grace_seconds": "scale_to_zero_grace_s",
    "alpha": "alpha",
    "beta": "beta",
    "gamma": "gamma",
    "season_seconds": "season_s",
    "level_window_seconds": "level_window_s",
    "window_seconds": "window_s",
    "averaging_seconds": "averaging_s",
    "percentile": "percentile",
    "half_life_seconds": "half_life_s",
    "wait_probability": "wait_probability",
    "requests_at_once": "requests_at_once",
    "load_window_seconds": "load_window_s",
}
_AS_THEY_ARE: Final = ("metric", "requests_at_once")


def to_formula(formula: Formula) -> FormulaPolicy:
    """The core's policy for a formula: parameters as floats, its own defaults for those left out.

    Raises SpecError for a parameter that the formula does not allow.
    """
    given = {field: getattr(formula, field) for field in _CORE_NAMES}
    parameters = {
        _CORE_NAMES[field]: value if field in _AS_THEY_ARE else _number(value)
        for field, value in given.items()
        if value is not None
    }
    return FORMULAS[formula.name](**parameters)


def _number(value: int | str) -> float:
    return parse_decimal(value) if isinstance(value, str) else float(value)
