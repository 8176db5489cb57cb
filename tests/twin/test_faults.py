"""Trouble on demand, and the log of requests by which tests see what a client did."""

from __future__ import annotations

import time

import httpx

from sim.twin.hosted import HostedCluster

from .conftest import APPS, deployment, ok, patch, refused


def test_injected_429_carries_retry_after_and_then_passes(cluster: HostedCluster, http: httpx.Client) -> None:
    ok(http.post(f"{APPS}/deployments", json=deployment()))
    fault = cluster.inject(code=429, method="PATCH", path="/scale$", times=2, retry_after_s=1)
    for _ in range(2):
        response = patch(http, f"{APPS}/deployments/web/scale", {"spec": {"replicas": 3}})
        refused(response, 429, "TooManyRequests")
        assert response.headers["Retry-After"] == "1"
    ok(patch(http, f"{APPS}/deployments/web/scale", {"spec": {"replicas": 3}}))
    assert fault.hits == 2


def test_an_action_can_make_another_writer_win_the_race(cluster: HostedCluster, http: httpx.Client) -> None:
    ok(http.post(f"{APPS}/deployments", json=deployment()))
    version = ok(http.get(f"{APPS}/deployments/web/scale"))["metadata"]["resourceVersion"]
    api = cluster.cluster.api

    def rival() -> None:
        resource = api.resource(("apps", "deployments"))
        api.update(resource, "default", "web", lambda o: o | {"spec": o["spec"] | {"paused": True}})

    cluster.inject(method="PATCH", path="/scale$", action=rival)
    body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": 9}}
    refused(patch(http, f"{APPS}/deployments/web/scale", body), 409, "Conflict")


def test_delays_hold_a_request_back(cluster: HostedCluster, http: httpx.Client) -> None:
    cluster.inject(path="^/version$", delay_s=0.2)
    begun = time.monotonic()
    ok(http.get("/version"))
    assert time.monotonic() - begun >= 0.2


def test_the_log_shows_requests_and_what_came_of_them(cluster: HostedCluster, http: httpx.Client) -> None:
    http.get(f"{APPS}/deployments/no", headers={"User-Agent": "me"})
    entry = cluster.call(lambda: cluster.cluster.log[-1])
    assert (entry.method, entry.path, entry.code, entry.user_agent) == (
        "GET",
        f"{APPS}/deployments/no",
        404,
        "me",
    )
