"""From an RLScaler to the decision core's view of it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from controller.api.convert import backend_service, scale_targets, target_label, to_service_spec, total_bounds
from controller.api.decimals import format_decimal, parse_decimal
from controller.api.formula import Formula, to_formula
from controller.api.rules import PARAMETERS
from controller.api.types import Policy, RLScalerSpec
from controller.api.validation import InvalidSpec, parse_spec
from controller.core import FORMULAS, FormulaPolicy
from controller.core import spec as core
from controller.core.formulas import (
    ErlangCPolicy,
    HoltWintersPolicy,
    KedaPolicy,
    KnativePolicy,
    MovingMaximumPolicy,
    SeasonalNaivePolicy,
)
from tests.api.samples import DESIGN, POOLS, SMALLEST, changed


def test_the_smallest_spec_gets_the_cores_own_defaults() -> None:
    """But for a start-up time, which is learned, and for a fallback that is not left at once."""
    learned = core.ServiceSpec(
        max_replicas=10, start_up_s=math.nan, fallback=core.Fallback(recovery_threshold=3)
    )
    assert repr(to_service_spec(parse_spec(SMALLEST))) == repr(learned)


def test_the_designs_spec_arrives_in_the_cores_units() -> None:
    service = to_service_spec(parse_spec(DESIGN))
    assert (service.min_replicas, service.max_replicas, service.sync_period_s) == (2, 60, 15.0)
    assert (service.slo_latency_ms, service.slo_percentile, service.preference) == (250.0, 95.0, 50.0)
    assert (service.capacity_rps, service.target_utilisation) == (25.0, 0.7)
    assert math.isnan(service.start_up_s)


@pytest.mark.parametrize(
    ("path", "value", "field", "expected"),
    [
        ("objective.slo.latency.percentile", "99.9", "slo_percentile", 99.9),
        ("objective.targetUtilization", 55, "target_utilisation", 0.55),
        ("objective.startUpSeconds", 0, "start_up_s", 0.0),
        ("objective.capacityPerReplica", "1500m", "capacity_rps", 1.5),
        ("policy.type", "HPA", "policy_type", "HPA"),
        ("policy", {"type": "Formula", "formula": {"name": "ErlangC"}}, "policy_type", "Formula"),
        ("policy", {"type": "Formula", "formula": {"name": "ErlangC"}}, "idle_after_s", 300.0),
        ("policy", {"type": "Formula", "formula": {"name": "Knative"}}, "idle_after_s", 90.0),
        (
            "policy",
            {"type": "Formula", "formula": {"name": "KEDA", "cooldownSeconds": 45}},
            "idle_after_s",
            45.0,
        ),
        (
            "policy",
            {"type": "Formula", "formula": {"name": "KEDA", "activationRequestsPerSecond": "500m"}},
            "activation_rps",
            0.5,
        ),
        ("fallback", {"behavior": "Static", "replicas": 7}, "fallback", core.Fallback(3, "Static", 7, 3)),
        ("fallback.recoveryThreshold", 5, "fallback", core.Fallback(3, "HPA", recovery_threshold=5)),
        ("limits", {"changesPerHour": 6, "maxStep": 4, "minStep": 2}, "limits", core.Limits(6, 4, 2)),
        ("limits", {}, "limits", core.Limits()),
        ("minReplicas", 0, "idle_after_s", 300.0),
    ],
    ids=lambda value: str(value)[:40],
)
def test_each_field_arrives(path: str, value: Any, field: str, expected: Any) -> None:
    assert getattr(to_service_spec(parse_spec(changed(DESIGN, path, value))), field) == pytest.approx(
        expected
    )


@pytest.mark.parametrize(
    ("formula", "policy"),
    [
        ({"name": "KEDA", "requestsPerReplica": "12.5"}, KedaPolicy(12.5)),
        (
            {"name": "KEDA", "activationRequestsPerSecond": "1500m", "cooldownSeconds": 60},
            KedaPolicy(None, 1.5, 60.0),
        ),
        (
            {
                "name": "Knative",
                "metric": "concurrency",
                "target": "7",
                "stableWindowSeconds": 120,
                "panicWindowPercentage": 20,
                "panicThresholdPercentage": 150,
                "maxScaleUpRate": "10",
                "maxScaleDownRate": "3",
                "scaleToZeroGraceSeconds": 5,
            },
            KnativePolicy("concurrency", 7.0, 120.0, 20.0, 150.0, 10.0, 3.0, 5.0),
        ),
        (
            {"name": "HoltWinters", "alpha": "1", "beta": "0", "gamma": "250m", "seasonSeconds": 3600},
            HoltWintersPolicy(1.0, 0.0, 0.25, 3600.0),
        ),
        (
            {"name": "SeasonalNaive", "seasonSeconds": 3600, "levelWindowSeconds": 300},
            SeasonalNaivePolicy(3600.0, 300.0),
        ),
        (
            {
                "name": "MovingMaximum",
                "windowSeconds": 7200,
                "averagingSeconds": 60,
                "percentile": "99.5",
                "halfLifeSeconds": 600,
            },
            MovingMaximumPolicy(7200.0, 60.0, 99.5, 600.0),
        ),
        (
            {"name": "ErlangC", "waitProbability": "0.001", "requestsAtOnce": 4, "loadWindowSeconds": 60},
            ErlangCPolicy(0.001, 4, 60.0),
        ),
        *[({"name": name}, policy()) for name, policy in FORMULAS.items()],
    ],
    ids=str,
)
def test_each_formula_arrives_with_its_parameters(formula: Any, policy: FormulaPolicy) -> None:
    assert to_formula(Formula.model_validate(formula)) == policy


def test_every_parameter_belongs_to_a_formula_and_reaches_the_core() -> None:
    listed = [parameter for parameters in PARAMETERS.values() for parameter in parameters]
    assert sorted(listed) == sorted(set(Formula.model_fields) - {"name"})
    for names, parameters in PARAMETERS.items():
        assert set(names) <= set(FORMULAS)
        assert len(parameters) == len(set(parameters))


def test_what_only_the_core_refuses_of_a_formula_is_said_with_the_field() -> None:
    formula = Formula.model_construct(**{**dict(Formula(name="KEDA")), "cooldown_seconds": 7200})
    policy = Policy.model_construct(type="Formula", formula=formula, given_artifact=None)
    unchecked = parse_spec(SMALLEST).model_copy(update={"policy": policy})
    with pytest.raises(InvalidSpec, match=r"spec\.policy\.formula\.cooldownSeconds: Invalid value: 7200"):
        to_service_spec(unchecked)


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ({}, (300.0, 0.0)),
        ({"cooldownSeconds": 30}, (30.0, 0.0)),
        ({"activationRequestsPerSecond": "1500m", "cooldownSeconds": 0}, (0.0, 1.5)),
    ],
    ids=str,
)
def test_scale_to_zero_goes_before_what_a_formula_says_of_it(
    rest: dict[str, Any], expected: tuple[float, float]
) -> None:
    keda = {"name": "KEDA", "cooldownSeconds": 45, "activationRequestsPerSecond": "7"}
    formula = {"policy": {"type": "Formula", "formula": keda}}
    for more in ({}, formula):
        service = to_service_spec(parse_spec({**SMALLEST, "minReplicas": 0, "scaleToZero": rest, **more}))
        assert (service.idle_after_s, service.activation_rps) == expected


def test_without_capacity_or_slo_the_core_sees_that_they_are_missing() -> None:
    service = to_service_spec(parse_spec(SMALLEST))
    assert math.isnan(service.capacity_rps)
    assert math.isnan(service.slo_latency_ms)


def test_behavior_given_in_part_keeps_the_rest_of_autoscaling_v2s_defaults() -> None:
    spec = changed(
        SMALLEST, "behavior", {"scaleDown": {"stabilizationWindowSeconds": 60, "tolerance": "50m"}}
    )
    behavior = to_service_spec(parse_spec(spec)).behavior
    assert behavior.scale_up == core.default_scale_up()
    assert behavior.scale_down == core.ScalingRules(
        60, "Max", (core.ScalingPolicy("Percent", 100, 15),), 0.05
    )


@pytest.mark.parametrize(
    ("own", "bounds"),
    [
        ({}, (2, 100)),
        ({"minReplicas": 5}, (5, 100)),
        ({"maxReplicas": 30}, (2, 30)),
        ({"minReplicas": 0, "maxReplicas": 200}, (2, 100)),
    ],
    ids=["the pools' sums", "a higher floor", "a lower ceiling", "wider than the pools"],
)
def test_bounds_of_pools_are_their_sums_narrowed_by_the_specs_own(
    own: dict[str, int], bounds: tuple[int, int]
) -> None:
    assert total_bounds(parse_spec({**POOLS, **own})) == bounds


def test_pools_arrive_with_their_costs_and_weights() -> None:
    pools = to_service_spec(parse_spec(POOLS)).pools
    assert pools == (
        core.Pool("on-demand", 2, 40, 1.0, 10, 100),
        core.Pool("spot", 0, 60, 0.3, 0, 80),
    )


def test_targets_and_labels() -> None:
    assert target_label(parse_spec(SMALLEST)) == "Deployment/web"
    assert target_label(parse_spec(POOLS)) == "on-demand+spot"
    assert [target.name for target in scale_targets(parse_spec(POOLS))] == ["web-od", "web-spot"]


def test_a_pools_service_is_its_targets_name_unless_it_says_otherwise() -> None:
    spec = parse_spec(changed(POOLS, "backends.0.service", None))
    assert [backend_service(pool) for pool in spec.backends or ()] == ["web-od", "web-spot"]
    renamed = parse_spec(changed(POOLS, "backends.0.service", "od"))
    assert [backend_service(pool) for pool in renamed.backends or ()] == ["od", "web-spot"]


def test_what_only_the_core_refuses_is_said_with_the_field() -> None:
    unchecked = RLScalerSpec.model_construct(**{**dict(parse_spec(SMALLEST)), "min_replicas": 11})
    with pytest.raises(
        InvalidSpec, match=r"spec.minReplicas: Invalid value: 11: must be in 0..maxReplicas \(10\)"
    ):
        to_service_spec(unchecked)


@pytest.mark.parametrize(
    ("text", "value"), [("25", 25.0), ("0.5", 0.5), ("500m", 0.5), ("0", 0.0), ("007", 7.0)], ids=str
)
def test_decimals_are_read(text: str, value: float) -> None:
    assert parse_decimal(text) == value


@pytest.mark.parametrize("text", ["", "-1", "1e3", "NaN", ".5", "5.", "1k", " 1", "1\n", "٣"], ids=repr)
def test_what_is_no_decimal_is_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="is not a decimal"):
        parse_decimal(text)


@pytest.mark.parametrize(
    ("value", "text"), [(25.0, "25"), (0.30000004, "0.3"), (1e-9, "0"), (1e20, "1" + "0" * 20)], ids=str
)
def test_decimals_are_written_without_exponent_or_trailing_zeros(value: float, text: str) -> None:
    assert format_decimal(value) == text
