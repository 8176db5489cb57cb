"""What operators rely on when they write: versions, conflicts, generations, subresources, deletion."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sim.twin.hosted import HostedCluster

from .conftest import APPS, CORE, config_map, deployment, eventually, ok, patch, refused


def test_every_write_gets_a_higher_resource_version_across_all_resources(http: httpx.Client) -> None:
    seen = [
        ok(http.post(f"{CORE}/configmaps", json=config_map()))["metadata"]["resourceVersion"],
        ok(http.post(f"{CORE}/secrets", json=config_map() | {"kind": "Secret"}))["metadata"][
            "resourceVersion"
        ],
        ok(patch(http, f"{CORE}/configmaps/cm", {"data": {"a": "2"}}))["metadata"]["resourceVersion"],
    ]
    assert [int(v) for v in seen] == sorted({int(v) for v in seen})


def test_a_write_that_changes_nothing_keeps_the_resource_version(http: httpx.Client) -> None:
    created = ok(http.post(f"{CORE}/configmaps", json=config_map()))
    assert ok(patch(http, f"{CORE}/configmaps/cm", {"data": {"a": "1"}})) == created


@pytest.mark.parametrize("method", ["PUT", "PATCH", "SCALE"])
def test_a_stale_resource_version_is_a_conflict(http: httpx.Client, method: str) -> None:
    created = ok(http.post(f"{APPS}/deployments", json=deployment()))
    ok(patch(http, f"{APPS}/deployments/web", {"metadata": {"labels": {"x": "y"}}}))
    stale = {"metadata": {"resourceVersion": created["metadata"]["resourceVersion"]}, "spec": {"replicas": 5}}
    if method == "PUT":
        response = http.put(f"{APPS}/deployments/web", json=created)
    elif method == "PATCH":
        response = patch(http, f"{APPS}/deployments/web", stale)
    else:
        response = patch(http, f"{APPS}/deployments/web/scale", stale)
    assert "the object has been modified; please apply your changes" in refused(response, 409, "Conflict")


def test_a_fresh_resource_version_is_accepted(http: httpx.Client) -> None:
    created = ok(http.post(f"{APPS}/deployments", json=deployment()))
    eventually(lambda: ok(http.get(f"{APPS}/deployments/web")).get("status", {}).get("readyReplicas") == 2)
    fresh = ok(http.get(f"{APPS}/deployments/web/scale"))["metadata"]["resourceVersion"]
    assert fresh != created["metadata"]["resourceVersion"]
    body = {"metadata": {"resourceVersion": fresh}, "spec": {"replicas": 3}}
    assert ok(patch(http, f"{APPS}/deployments/web/scale", body))["spec"]["replicas"] == 3


def test_creating_twice_says_already_exists(http: httpx.Client) -> None:
    ok(http.post(f"{CORE}/configmaps", json=config_map()))
    message = refused(http.post(f"{CORE}/configmaps", json=config_map()), 409, "AlreadyExists")
    assert message == 'configmaps "cm" already exists'


def test_missing_objects_and_resources_are_named(http: httpx.Client) -> None:
    assert refused(http.get(f"{APPS}/deployments/no"), 404, "NotFound") == 'deployments.apps "no" not found'
    assert "could not find the requested resource" in refused(http.get("/apis/no.dev/v1/x"), 404, "NotFound")
    missing = http.post("/api/v1/namespaces/no/configmaps", json=config_map())
    assert refused(missing, 404, "NotFound") == 'namespaces "no" not found'


@pytest.mark.parametrize("name", ["Web", "a_b", "-x", ""])
def test_names_that_are_not_dns_names_are_refused(http: httpx.Client, name: str) -> None:
    assert "metadata.name" in refused(http.post(f"{CORE}/configmaps", json=config_map(name)), 422, "Invalid")


def test_generate_name_appends_a_suffix(http: httpx.Client) -> None:
    body = {"apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "web-"}, "reason": "x"}
    name = ok(http.post(f"{CORE}/events", json=body))["metadata"]["name"]
    assert name.startswith("web-")
    assert len(name) == len("web-") + 5


def test_generation_counts_changes_of_the_spec_only(http: httpx.Client) -> None:
    ok(http.post(f"{APPS}/deployments", json=deployment()))

    def generation(body: dict[str, Any], sub: str = "") -> int:
        return int(ok(patch(http, f"{APPS}/deployments/web{sub}", body))["metadata"]["generation"])

    assert generation({"metadata": {"labels": {"x": "y"}}}) == 1
    assert generation({"status": {"replicas": 9}}, "/status") == 1
    assert generation({"spec": {"replicas": 5}}) == 2


def test_status_and_the_rest_are_written_apart(http: httpx.Client) -> None:
    ok(http.post(f"{APPS}/deployments", json=deployment(replicas=0) | {"status": {"collisionCount": 7}}))
    before = eventually(lambda: ok(http.get(f"{APPS}/deployments/web")).get("status"))
    assert "collisionCount" not in before
    main = ok(patch(http, f"{APPS}/deployments/web", {"status": {"collisionCount": 1}}))
    assert "collisionCount" not in main.get("status", {})
    body = {"spec": {"replicas": 9}, "metadata": {"labels": {"x": "y"}}, "status": {"collisionCount": 2}}
    status = ok(patch(http, f"{APPS}/deployments/web/status", body))
    assert (status["spec"]["replicas"], status["metadata"].get("labels")) == (0, None)
    assert status["status"]["collisionCount"] == 2


def test_the_scale_subresource_shows_replicas_and_selector(http: httpx.Client) -> None:
    ok(http.post(f"{APPS}/deployments", json=deployment(replicas=3)))
    eventually(lambda: ok(http.get(f"{APPS}/deployments/web/scale"))["status"]["replicas"] == 3)
    scale = ok(http.get(f"{APPS}/deployments/web/scale"))
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert (scale["spec"], scale["status"]) == ({"replicas": 3}, {"replicas": 3, "selector": "app=web"})
    assert ok(http.put(f"{APPS}/deployments/web/scale", json=scale | {"spec": {"replicas": 4}}))["spec"] == {
        "replicas": 4
    }
    refused(patch(http, f"{APPS}/deployments/web/scale", {"spec": {"replicas": -1}}), 422, "Invalid")
    refused(http.get(f"{CORE}/configmaps/cm/scale"), 404, "NotFound")


def test_finalizers_hold_an_object_until_they_are_gone(http: httpx.Client) -> None:
    url = f"{CORE}/configmaps/cm"
    ok(http.post(f"{CORE}/configmaps", json=config_map(finalizers=["a.dev/x"])))
    held = ok(http.delete(url))
    assert held["metadata"]["deletionTimestamp"]
    message = refused(patch(http, url, {"metadata": {"finalizers": ["a.dev/x", "b.dev/y"]}}), 422, "Invalid")
    assert "no new finalizers can be added" in message
    ok(patch(http, url, {"metadata": {"finalizers": None}}))
    refused(http.get(url), 404, "NotFound")


@pytest.mark.parametrize(
    ("policy", "left"), [("Background", 0), ("Foreground", 0), ("Orphan", 2)], ids=lambda v: str(v)
)
def test_deletion_takes_what_is_owned_unless_orphaned(http: httpx.Client, policy: str, left: int) -> None:
    ok(http.post(f"{APPS}/deployments", json=deployment(replicas=2)))
    eventually(lambda: len(ok(http.get(f"{CORE}/pods"))["items"]) == 2)
    body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy}
    ok(http.request("DELETE", f"{APPS}/deployments/web", json=body))
    assert len(ok(http.get(f"{CORE}/pods"))["items"]) == left


def test_delete_preconditions_are_checked(http: httpx.Client) -> None:
    ok(http.post(f"{CORE}/configmaps", json=config_map()))
    body = {"preconditions": {"uid": "other"}}
    refused(http.request("DELETE", f"{CORE}/configmaps/cm", json=body), 409, "Conflict")


def test_deleting_a_namespace_empties_it(http: httpx.Client) -> None:
    ok(http.post("/api/v1/namespaces", json={"metadata": {"name": "team"}}))
    ok(http.post("/api/v1/namespaces/team/configmaps", json=config_map()))
    ok(http.delete("/api/v1/namespaces/team"))
    assert ok(http.get("/api/v1/configmaps"))["items"] == []


def test_collections_are_deleted_by_selector(http: httpx.Client) -> None:
    for name, tier in (("a", "x"), ("b", "y")):
        ok(http.post(f"{CORE}/configmaps", json=config_map(name, labels={"tier": tier})))
    ok(http.delete(f"{CORE}/configmaps", params={"labelSelector": "tier=x"}))
    assert [o["metadata"]["name"] for o in ok(http.get(f"{CORE}/configmaps"))["items"]] == ["b"]


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("tier=x", "a"),
        ("tier==x", "a"),
        ("tier!=x", "bc"),
        ("tier in (x, y)", "ab"),
        ("tier notin (x)", "bc"),
        ("tier", "ab"),
        ("!tier", "c"),
        ("tier in (x,y),tier!=y", "a"),
    ],
)
def test_label_selectors(http: httpx.Client, selector: str, found: str) -> None:
    for name, labels in (("a", {"tier": "x"}), ("b", {"tier": "y"}), ("c", {})):
        ok(http.post(f"{CORE}/configmaps", json=config_map(name, labels=labels)))
    items = ok(http.get(f"{CORE}/configmaps", params={"labelSelector": selector}))["items"]
    assert "".join(o["metadata"]["name"] for o in items) == found


def test_field_selectors_are_names_and_what_the_server_indexes(http: httpx.Client) -> None:
    ok(http.post(f"{CORE}/configmaps", json=config_map("a")))
    by_name = {"fieldSelector": "metadata.name=a"}
    assert len(ok(http.get(f"{CORE}/configmaps", params=by_name))["items"]) == 1
    other = http.get(f"{CORE}/configmaps", params={"fieldSelector": "data.a=1"})
    assert refused(other, 400, "BadRequest") == "field label not supported: data.a"


def test_dry_run_stores_nothing(http: httpx.Client) -> None:
    ok(http.post(f"{CORE}/configmaps", json=config_map(), params={"dryRun": "All"}))
    refused(http.get(f"{CORE}/configmaps/cm"), 404, "NotFound")


def test_events_are_one_storage_behind_two_groups(http: httpx.Client) -> None:
    about = {"kind": "RLScaler", "name": "web", "namespace": "default"}
    event = {
        "metadata": {"name": "e"},
        "note": "scaled",
        "regarding": about,
        "reason": "SuccessfulRescale",
        "reportingController": "rl-scaler",
    }
    ok(http.post("/apis/events.k8s.io/v1/namespaces/default/events", json=event))
    core = ok(http.get(f"{CORE}/events", params={"fieldSelector": "involvedObject.name=web"}))["items"]
    assert [(e["message"], e["involvedObject"]) for e in core] == [("scaled", about)]
    new = ok(http.get("/apis/events.k8s.io/v1/namespaces/default/events/e"))
    assert (new["note"], new["apiVersion"]) == ("scaled", "events.k8s.io/v1")


def test_workloads_that_would_never_work_are_refused(http: httpx.Client) -> None:
    other = deployment(selector={"matchLabels": {"app": "other"}})
    assert "does not match template" in refused(http.post(f"{APPS}/deployments", json=other), 422, "Invalid")
    refused(http.post(f"{APPS}/deployments", json=deployment(replicas=-1)), 422, "Invalid")


def test_bodies_up_to_three_mebibytes_are_taken(http: httpx.Client) -> None:
    big = config_map() | {"binaryData": {"policy.onnx": "A" * 2_000_000}}
    ok(http.post(f"{CORE}/configmaps", json=big))


def test_kmocks_scripted_reactions_still_win(cluster: HostedCluster, http: httpx.Client) -> None:
    cluster.call(lambda: cluster.cluster["get /version"] << {"gitVersion": "v0"})
    assert ok(http.get("/version")) == {"gitVersion": "v0"}
    assert ok(http.get("/api"))["versions"] == ["v1"]
