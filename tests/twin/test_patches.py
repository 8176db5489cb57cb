"""The four patch types, over HTTP where the server's rules matter and as functions where they don't."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sim.twin.errors import ApiError
from sim.twin.patches import json_patch, merge_patch, strategic_merge_patch

from .conftest import APPS, CORE, config_map, deployment, ok, patch, refused


@pytest.mark.parametrize(
    ("target", "change", "result"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": None}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": 1}, [1], [1]),
        ({}, {"a": {"b": {"c": None}}}, {"a": {"b": {}}}),
    ],
)
def test_merge_patch_follows_rfc_7386(target: Any, change: Any, result: Any) -> None:
    assert merge_patch(target, change) == result


@pytest.mark.parametrize(
    ("operations", "result"),
    [
        ([{"op": "add", "path": "/b", "value": 2}], {"a": [1, 2], "b": 2}),
        ([{"op": "add", "path": "/a/0", "value": 0}], {"a": [0, 1, 2]}),
        ([{"op": "add", "path": "/a/-", "value": 3}], {"a": [1, 2, 3]}),
        ([{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ([{"op": "replace", "path": "/a", "value": 0}], {"a": 0}),
        ([{"op": "copy", "from": "/a/1", "path": "/b"}], {"a": [1, 2], "b": 2}),
        ([{"op": "move", "from": "/a/1", "path": "/b"}], {"a": [1], "b": 2}),
        ([{"op": "test", "path": "/a/0", "value": 1}], {"a": [1, 2]}),
        ([{"op": "add", "path": "/x~1y", "value": 1}], {"a": [1, 2], "x/y": 1}),
    ],
    ids=lambda v: v[0]["op"] + v[0]["path"] if isinstance(v, list) else "",
)
def test_json_patch_follows_rfc_6902(operations: Any, result: Any) -> None:
    assert json_patch({"a": [1, 2]}, operations) == result


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/a/0", "value": 9},
        {"op": "remove", "path": "/no"},
        {"op": "replace", "path": "/no", "value": 1},
        {"op": "add", "path": "/no/deeper", "value": 1},
        {"op": "add", "path": "/a/9", "value": 1},
        {"op": "shout", "path": "/a"},
    ],
    ids=lambda o: f"{o['op']}{o['path']}",
)
def test_a_json_patch_that_does_not_fit_is_unprocessable(operation: Any) -> None:
    with pytest.raises(ApiError) as caught:
        json_patch({"a": [1, 2]}, [operation])
    assert caught.value.code == 422


def test_strategic_merge_merges_known_lists_by_key() -> None:
    target = {"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}
    change = {"containers": [{"name": "a", "image": "2"}, {"$patch": "delete", "name": "b"}]}
    assert strategic_merge_patch(target, change) == {"containers": [{"name": "a", "image": "2"}]}


def test_json_patch_with_a_test_guards_a_weight_over_http(http: httpx.Client) -> None:
    routes = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes"
    rule = {"backendRefs": [{"name": "web", "port": 80}], "filters": [{"type": "URLRewrite"}]}
    ok(http.post(routes, json={"metadata": {"name": "web"}, "spec": {"rules": [rule]}}))
    path = "/spec/rules/0/backendRefs/0"
    good = [
        {"op": "test", "path": f"{path}/name", "value": "web"},
        {"op": "replace", "path": f"{path}/weight", "value": 7},
    ]
    stored = ok(patch(http, f"{routes}/web", good, "json"))
    assert stored["spec"]["rules"][0]["backendRefs"][0]["weight"] == 7
    assert stored["spec"]["rules"][0]["filters"] == rule["filters"]
    bad = [good[0] | {"value": "other"}, good[1]]
    refused(patch(http, f"{routes}/web", bad, "json"), 422, "Invalid")


def test_custom_resources_refuse_strategic_merge(http: httpx.Client) -> None:
    routes = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes"
    ok(http.post(routes, json={"metadata": {"name": "web"}, "spec": {}}))
    response = patch(http, f"{routes}/web", {"spec": {}}, "strategic-merge")
    assert "accepted media types include" in refused(response, 415, "UnsupportedMediaType")


def test_server_side_apply_creates_and_then_merges(http: httpx.Client) -> None:
    url, headers = f"{APPS}/deployments/web", {"Content-Type": "application/apply-patch+yaml"}
    created = http.patch(url, json=deployment(), headers=headers, params={"fieldManager": "me"})
    assert created.status_code == 201
    change = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 7}}
    assert (
        ok(http.patch(url, json=change, headers=headers, params={"fieldManager": "me"}))["spec"]["replicas"]
        == 7
    )
    refused(http.patch(url, json=change, headers=headers), 400, "BadRequest")


def test_put_replaces_and_needs_a_version_for_custom_resources(http: httpx.Client) -> None:
    ok(http.post(f"{CORE}/configmaps", json=config_map()))
    ok(http.put(f"{CORE}/configmaps/cm", json={"metadata": {"name": "cm"}, "data": {"b": "2"}}))
    assert ok(http.get(f"{CORE}/configmaps/cm"))["data"] == {"b": "2"}
    routes = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes"
    ok(http.post(routes, json={"metadata": {"name": "web"}, "spec": {}}))
    message = refused(http.put(f"{routes}/web", json={"metadata": {"name": "web"}}), 422, "Invalid")
    assert "metadata.resourceVersion" in message
