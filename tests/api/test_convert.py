"""From an RLScaler to the decision core's view of it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from controller.api.convert import backend_service, scale_targets, target_label, to_service_spec, total_bounds
from controller.api.decimals import format_decimal, parse_decimal
from controller.api.types import RLScalerSpec
from controller.api.validation import InvalidSpec, parse_spec
from controller.core import spec as core
from tests.api.samples import DESIGN, POOLS, SMALLEST, changed


def test_the_smallest_spec_gets_the_cores_own_defaults() -> None:
    assert repr(to_service_spec(parse_spec(SMALLEST))) == repr(core.ServiceSpec(max_replicas=10))


def test_the_designs_spec_arrives_in_the_cores_units() -> None:
    service = to_service_spec(parse_spec(DESIGN))
    assert (service.min_replicas, service.max_replicas, service.sync_period_s) == (2, 60, 15.0)
    assert (service.slo_latency_ms, service.slo_percentile, service.preference) == (250.0, 95.0, 50.0)
    assert (service.capacity_rps, service.target_utilisation, service.start_up_s) == (25.0, 0.7, 60.0)


@pytest.mark.parametrize(
    ("path", "value", "field", "expected"),
    [
        ("objective.slo.latency.percentile", "99.9", "slo_percentile", 99.9),
        ("objective.targetUtilization", 55, "target_utilisation", 0.55),
        ("objective.startUpSeconds", 0, "start_up_s", 0.0),
        ("objective.capacityPerReplica", "1500m", "capacity_rps", 1.5),
        ("policy.type", "HPA", "policy_type", "HPA"),
        ("fallback", {"behavior": "Static", "replicas": 7}, "fallback", core.Fallback(3, "Static", 7)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_each_field_arrives(path: str, value: Any, field: str, expected: Any) -> None:
    assert getattr(to_service_spec(parse_spec(changed(DESIGN, path, value))), field) == pytest.approx(
        expected
    )


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
