"""What a user reads when a field is wrong, where no API server is there to say it."""

from __future__ import annotations

from typing import Any

import pytest

from controller.api.validation import FieldProblem, InvalidSpec, parse_spec
from tests.api.samples import SMALLEST, changed


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("maxReplicas", "4", 'spec.maxReplicas: Invalid value: "4": must be a valid integer'),
        ("scaleTargetRef", {"kind": "Deployment"}, "spec.scaleTargetRef.name: Required value"),
        (
            "objective.preference",
            120,
            "spec.objective.preference: Invalid value: 120: must be less than or equal to 100",
        ),
        (
            "objective.slo.latency",
            {"milliseconds": 5, "percentile": 95.5},
            "spec.objective.slo.latency.percentile: Invalid value: 95.5: must be an integer or a string",
        ),
        (
            "metrics.preset",
            "datadog",
            "spec.metrics.preset: Invalid value: \"datadog\": must be 'envoy', 'istio', 'ingress-nginx', "
            "'traefik', 'linkerd', 'opentelemetry-http' or 'custom'",
        ),
        (
            "minReplicas",
            11,
            'spec: Invalid value: "object": spec.minReplicas must be less than or equal to spec.maxReplicas',
        ),
        (
            "behavior.scaleUp.policies",
            [{"type": "Pods", "value": 0, "periodSeconds": 1}],
            "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than or equal to 1",
        ),
    ],
    ids=["type", "missing", "range", "union", "enum", "rule", "in a list"],
)
def test_the_message_names_the_field_the_value_and_what_is_allowed(
    path: str, value: Any, message: str
) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse_spec(changed(SMALLEST, path, value))
    assert str(refused.value) == message


def test_every_wrong_field_is_named_at_once() -> None:
    spec = {"scaleTargetRef": {"kind": "Deployment"}, "maxReplicas": 0, "mode": "Off"}
    with pytest.raises(InvalidSpec) as refused:
        parse_spec(spec)
    assert [problem.path for problem in refused.value.problems] == [
        "spec.scaleTargetRef.name",
        "spec.maxReplicas",
        "spec.mode",
    ]


def test_an_object_in_the_wrong_place_is_not_printed_whole() -> None:
    assert str(FieldProblem("spec.mode", {"a": 1}, "must be a string")) == (
        'spec.mode: Invalid value: "object": must be a string'
    )
