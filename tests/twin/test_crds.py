"""CustomResourceDefinitions: served, pruned, defaulted and validated in the API server's words."""

from __future__ import annotations

import copy
from typing import Any

import httpx
import pytest

from .conftest import Json, ok, patch, refused

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.dev/v1/namespaces/default/widgets"
SPEC: Json = {
    "type": "object",
    "required": ["size"],
    "x-kubernetes-validations": [
        {"rule": "self.low <= self.size", "message": "low must be at most size"},
        {"rule": "!has(self.colour) || self.colour != 'grey'", "messageExpression": "'no ' + self.colour"},
        {"rule": "self.size >= oldSelf.size", "message": "size cannot shrink"},
    ],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 9},
        "low": {"type": "integer", "default": 0},
        "colour": {"type": "string", "enum": ["red", "grey"]},
        "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
        "tags": {
            "type": "array",
            "maxItems": 2,
            "items": {"type": "string"},
            "x-kubernetes-list-type": "set",
        },
        "parts": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["id"],
            "items": {
                "type": "object",
                "required": ["id"],
                "properties": {"id": {"type": "string"}, "weight": {"type": "integer", "default": 1}},
            },
        },
        "either": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


def crd(spec: Json = SPEC) -> Json:
    schema = {"type": "object", "properties": {"spec": spec, "status": SPEC["properties"]["free"]}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {
            "status": {},
            "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"},
        },
        "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
    }
    names = {"plural": "widgets", "kind": "Widget", "singular": "widget", "shortNames": ["wi"]}
    body = {"group": "example.dev", "scope": "Namespaced", "names": names, "versions": [version]}
    return {"metadata": {"name": "widgets.example.dev"}, "spec": body}


@pytest.fixture
def widgets(http: httpx.Client) -> httpx.Client:
    ok(http.post(CRDS, json=crd()))
    return http


def widget(**spec: Any) -> Json:
    return {
        "apiVersion": "example.dev/v1",
        "kind": "Widget",
        "metadata": {"name": "w"},
        "spec": {"size": 3} | spec,
    }


def test_a_crd_is_served_once_it_is_applied_and_gone_with_it(http: httpx.Client) -> None:
    refused(http.get(WIDGETS), 404, "NotFound")
    conditions = ok(http.post(CRDS, json=crd()))["status"]["conditions"]
    assert {c["type"]: c["status"] for c in conditions} == {"Established": "True", "NamesAccepted": "True"}
    listed = ok(http.get("/apis/example.dev/v1"))["resources"]
    assert [r["name"] for r in listed] == ["widgets", "widgets/status", "widgets/scale"]
    assert (listed[0]["shortNames"], listed[0]["singularName"]) == (["wi"], "widget")
    assert ok(http.get(WIDGETS))["kind"] == "WidgetList"
    ok(http.delete(f"{CRDS}/widgets.example.dev"))
    refused(http.get(WIDGETS), 404, "NotFound")


def test_defaults_are_filled_in_and_unknown_fields_pruned_with_a_warning(widgets: httpx.Client) -> None:
    response = widgets.post(WIDGETS, json=widget(shape="x", free={"any": 1}, parts=[{"id": "a", "no": 1}]))
    spec = ok(response)["spec"]
    assert spec == {"size": 3, "low": 0, "free": {"any": 1}, "parts": [{"id": "a", "weight": 1}]}
    assert response.headers["Warning"].count("unknown field") == 2
    assert 'unknown field \\"spec.parts[0].no\\"' in response.headers["Warning"]


def test_strict_validation_refuses_unknown_fields(widgets: httpx.Client) -> None:
    response = widgets.post(WIDGETS, json=widget(shape="x"), params={"fieldValidation": "Strict"})
    assert refused(response, 400, "BadRequest") == (
        'Widget in version "v1" cannot be handled as a Widget: '
        'strict decoding error: unknown field "spec.shape"'
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"size": None},
            'spec.size: Invalid value: "null": spec.size in body must be of type integer: "null"',
        ),
        ({"size": 0}, "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"),
        ({"size": 10}, "spec.size: Invalid value: 10: spec.size in body should be less than or equal to 9"),
        (
            {"size": "3"},
            'spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"',
        ),
        ({"colour": "blue"}, 'spec.colour: Unsupported value: "blue": supported values: "red", "grey"'),
        ({"name": "UP"}, "spec.name: Invalid value: \"UP\": spec.name in body should match '^[a-z]+$'"),
        ({"name": "toolong"}, "spec.name: Too long: may not be more than 5 bytes"),
        ({"tags": ["a", "b", "c"]}, "spec.tags: Too many: 3: must have at most 2 items"),
        ({"tags": ["a", "a"]}, 'spec.tags[1]: Duplicate value: "a"'),
        ({"parts": [{"id": "a"}, {"id": "a"}]}, 'spec.parts[1]: Duplicate value: {"id":"a"}'),
        ({"parts": [{}]}, "spec.parts[0].id: Required value"),
        ({"either": [1]}, "spec.either in body must be of type integer,string"),
        ({"labels": {"a": 1}}, 'spec.labels.a in body must be of type string: "integer"'),
    ],
    ids=lambda v: str(v)[:30],
)
def test_each_fault_is_told_in_the_servers_words(widgets: httpx.Client, spec: Json, expected: str) -> None:
    message = refused(widgets.post(WIDGETS, json=widget(**spec)), 422, "Invalid")
    assert message.startswith('Widget.example.dev "w" is invalid: ')
    assert expected in message
    assert "some validation rules were not checked" in message


def test_required_fields_and_causes(widgets: httpx.Client) -> None:
    response = widgets.post(WIDGETS, json={"metadata": {"name": "w"}, "spec": {}})
    assert "spec.size: Required value" in refused(response, 422, "Invalid")
    details = response.json()["details"]
    assert (details["kind"], details["name"], details["group"]) == ("Widget", "w", "example.dev")
    cause = {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.size"}
    assert details["causes"][0] == cause


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"low": 4}, 'spec: Invalid value: "object": low must be at most size'),
        ({"colour": "grey"}, 'spec: Invalid value: "object": no grey'),
    ],
    ids=["message", "messageExpression"],
)
def test_cel_rules_refuse_with_their_message(widgets: httpx.Client, spec: Json, expected: str) -> None:
    message = refused(widgets.post(WIDGETS, json=widget(**spec)), 422, "Invalid")
    assert message == f'Widget.example.dev "w" is invalid: {expected}'


def test_transition_rules_compare_with_the_stored_object(widgets: httpx.Client) -> None:
    ok(widgets.post(WIDGETS, json=widget()))
    assert "size cannot shrink" in refused(
        patch(widgets, f"{WIDGETS}/w", {"spec": {"size": 2}}), 422, "Invalid"
    )
    ok(patch(widgets, f"{WIDGETS}/w", {"spec": {"size": 4}}))


def test_a_crd_may_have_status_and_scale_subresources(widgets: httpx.Client) -> None:
    ok(widgets.post(WIDGETS, json=widget() | {"status": {"size": 9}}))
    ok(patch(widgets, f"{WIDGETS}/w/status", {"status": {"size": 2}, "spec": {"size": 8}}))
    scale = ok(widgets.get(f"{WIDGETS}/w/scale"))
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (3, 2)
    ok(patch(widgets, f"{WIDGETS}/w/scale", {"spec": {"replicas": 5}}))
    stored = ok(widgets.get(f"{WIDGETS}/w"))
    assert (stored["spec"]["size"], stored["metadata"]["generation"]) == (5, 2)


def broken(**change: Any) -> Json:
    spec = copy.deepcopy(SPEC)
    spec["properties"] |= change.pop("properties", {})
    return crd(spec | change)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (broken(properties={"bad": {}}), "bad].type: Required value"),
        (broken(properties={"bad": {"type": "string", "$ref": "#/x"}}), "Forbidden"),
        (broken(properties={"bad": {"type": "string", "default": 3}}), "default: Invalid value: 3"),
        (broken(**{"x-kubernetes-validations": [{"rule": "self.size >"}]}), "compilation failed"),
        (broken(**{"x-kubernetes-validations": [{"rule": "self.sise > 1"}]}), "undefined field 'sise'"),
        (broken(oneOf=[{"type": "object"}]), "must be empty to be structural"),
        (crd() | {"metadata": {"name": "gadgets.example.dev"}}, "must be spec.names.plural"),
    ],
    ids=["no type", "ref", "bad default", "CEL syntax", "CEL field", "junctor", "name"],
)
def test_a_crd_that_the_server_would_refuse_is_refused(http: httpx.Client, body: Json, expected: str) -> None:
    assert expected in refused(http.post(CRDS, json=body), 422, "Invalid")
