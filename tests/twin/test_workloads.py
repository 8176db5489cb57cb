"""Workloads get pods that take time to start; routes get a status from their gateway."""

from __future__ import annotations

import time

import httpx

from .conftest import APPS, CORE, Json, deployment, eventually, ok, patch

ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes"


def pods(http: httpx.Client) -> list[Json]:
    return list(ok(http.get(f"{CORE}/pods"))["items"])


def ready(pod: Json) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])


def test_pods_become_ready_after_the_start_up_time(http: httpx.Client) -> None:
    begun = time.monotonic()
    ok(http.post(f"{APPS}/deployments", json=deployment(replicas=3)))
    starting = eventually(lambda: [p for p in pods(http) if not ready(p)])
    assert {p["status"]["phase"] for p in starting} == {"Pending"}
    eventually(lambda: len([p for p in pods(http) if ready(p)]) == 3)
    assert time.monotonic() - begun >= 60 / 600
    status = eventually(
        lambda: (s := ok(http.get(f"{APPS}/deployments/web"))["status"]).get("readyReplicas") == 3 and s
    )
    assert (status["replicas"], status["availableReplicas"], status["updatedReplicas"]) == (3, 3, 3)
    assert status["observedGeneration"] == 1


def test_pods_carry_labels_owner_and_a_name_that_presets_match(http: httpx.Client) -> None:
    ok(http.post(f"{APPS}/deployments", json=deployment(replicas=1)))
    pod = eventually(lambda: pods(http))[0]
    replica_set = ok(http.get(f"{APPS}/replicasets"))["items"][0]
    assert pod["metadata"]["labels"]["app"] == "web"
    assert pod["metadata"]["ownerReferences"][0]["name"] == replica_set["metadata"]["name"]
    assert pod["metadata"]["name"].startswith(replica_set["metadata"]["name"] + "-")
    assert replica_set["metadata"]["name"].startswith("web-")


def test_scaling_down_removes_pods_that_are_not_ready_first(http: httpx.Client) -> None:
    ok(http.post(f"{APPS}/deployments", json=deployment(replicas=2)))
    eventually(lambda: len([p for p in pods(http) if ready(p)]) == 2)
    old = {p["metadata"]["name"] for p in pods(http)}
    ok(patch(http, f"{APPS}/deployments/web/scale", {"spec": {"replicas": 5}}))
    eventually(lambda: len(pods(http)) == 5)
    ok(patch(http, f"{APPS}/deployments/web/scale", {"spec": {"replicas": 2}}))
    eventually(lambda: len(pods(http)) == 2)
    assert {p["metadata"]["name"] for p in pods(http)} == old


def test_scaling_down_removes_the_newest_of_the_ready(http: httpx.Client) -> None:
    ok(http.post(f"{APPS}/deployments", json=deployment(replicas=1)))
    eventually(lambda: [p for p in pods(http) if ready(p)])
    oldest = pods(http)[0]["metadata"]["name"]
    ok(patch(http, f"{APPS}/deployments/web/scale", {"spec": {"replicas": 4}}))
    eventually(lambda: len([p for p in pods(http) if ready(p)]) == 4)
    ok(patch(http, f"{APPS}/deployments/web/scale", {"spec": {"replicas": 1}}))
    eventually(lambda: len(pods(http)) == 1)
    assert pods(http)[0]["metadata"]["name"] == oldest


def test_a_deleted_pod_is_replaced(http: httpx.Client) -> None:
    ok(http.post(f"{APPS}/deployments", json=deployment(replicas=1)))
    first = eventually(lambda: pods(http))[0]["metadata"]["name"]
    ok(http.delete(f"{CORE}/pods/{first}"))
    assert eventually(lambda: pods(http))[0]["metadata"]["name"] != first


def test_a_new_template_replaces_the_pods(http: httpx.Client) -> None:
    ok(http.post(f"{APPS}/deployments", json=deployment(replicas=2)))
    eventually(lambda: len([p for p in pods(http) if ready(p)]) == 2)
    image = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "example.com/app:2"}]}}}}
    ok(patch(http, f"{APPS}/deployments/web", image, "strategic-merge"))
    eventually(lambda: {p["spec"]["containers"][0]["image"] for p in pods(http)} == {"example.com/app:2"})


def test_a_workload_may_have_its_own_start_up_time(http: httpx.Client) -> None:
    body = deployment(replicas=1)
    body["spec"]["template"]["metadata"]["annotations"] = {"twin.rlscaler.dev/start-up-seconds": "6000"}
    ok(http.post(f"{APPS}/deployments", json=body))
    eventually(lambda: pods(http))
    time.sleep(0.3)
    assert not ready(pods(http)[0])


def test_statefulsets_number_their_pods(http: httpx.Client) -> None:
    ok(http.post(f"{APPS}/statefulsets", json=deployment(replicas=3) | {"kind": "StatefulSet"}))
    eventually(lambda: [p["metadata"]["name"] for p in pods(http)] == ["web-0", "web-1", "web-2"])
    ok(patch(http, f"{APPS}/statefulsets/web/scale", {"spec": {"replicas": 1}}))
    eventually(lambda: [p["metadata"]["name"] for p in pods(http)] == ["web-0"])


def test_routes_say_whether_their_backends_exist(http: httpx.Client) -> None:
    spec = {"parentRefs": [{"name": "gw"}], "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]}
    created = ok(http.post(ROUTES, json={"metadata": {"name": "web"}, "spec": spec}))
    assert created["spec"]["rules"][0]["backendRefs"][0]["weight"] == 1

    def conditions() -> dict[str, str]:
        parents = ok(http.get(f"{ROUTES}/web")).get("status", {}).get("parents", [])
        return {c["type"]: c["reason"] for p in parents for c in p["conditions"]}

    eventually(lambda: conditions() == {"Accepted": "Accepted", "ResolvedRefs": "BackendNotFound"})
    ok(http.post(f"{CORE}/services", json={"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}))
    eventually(lambda: conditions() == {"Accepted": "Accepted", "ResolvedRefs": "ResolvedRefs"})
    bad = {"spec": {"rules": [{"backendRefs": [{"name": "web", "weight": -1}]}]}}
    assert patch(http, f"{ROUTES}/web", bad).status_code == 422
