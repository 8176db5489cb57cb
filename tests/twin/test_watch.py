"""Watches: from a revision, with selectors, bookmarks, time-outs, and 410 when history is gone."""

from __future__ import annotations

import itertools
import json

import httpx

from sim.twin.hosted import HostedCluster

from .conftest import CORE, config_map, ok, patch, refused

URL = f"{CORE}/configmaps"


def watch(http: httpx.Client, count: int = 0, **params: str) -> list[tuple[str, str]]:
    """(type, name) of the first so many events; of all until a time-out of a second if the count is 0."""
    ends = {} if count else {"timeoutSeconds": "1"}
    with http.stream("GET", URL, params={"watch": "true"} | ends | params) as response:
        assert response.status_code == 200, response.read()
        lines = itertools.islice(response.iter_lines(), count or None)
        events = [json.loads(line) for line in lines]
    return [(e["type"], e["object"]["metadata"].get("name", "")) for e in events]


def test_a_watch_replays_what_has_happened_since_its_version(http: httpx.Client) -> None:
    ok(http.post(URL, json=config_map("old")))
    version = ok(http.get(URL))["metadata"]["resourceVersion"]
    ok(http.post(URL, json=config_map("new")))
    ok(patch(http, f"{URL}/new", {"data": {"a": "2"}}))
    ok(http.delete(f"{URL}/old"))
    expected = [("ADDED", "new"), ("MODIFIED", "new"), ("DELETED", "old")]
    assert watch(http, 3, resourceVersion=version) == expected


def test_a_watch_without_a_version_begins_with_what_there_is(http: httpx.Client) -> None:
    ok(http.post(URL, json=config_map("a")))
    assert watch(http) == [("ADDED", "a")]


def test_objects_enter_and_leave_a_selector(http: httpx.Client) -> None:
    version = ok(http.get(URL))["metadata"]["resourceVersion"]
    ok(http.post(URL, json=config_map("a", labels={"tier": "x"})))
    ok(patch(http, f"{URL}/a", {"metadata": {"labels": {"tier": "y"}}}))
    ok(patch(http, f"{URL}/a", {"metadata": {"labels": {"tier": "x"}}}))
    expected = [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "a")]
    assert watch(http, 3, resourceVersion=version, labelSelector="tier=x") == expected


def test_a_version_that_is_forgotten_is_gone(cluster: HostedCluster, http: httpx.Client) -> None:
    version = ok(http.post(URL, json=config_map("a")))["metadata"]["resourceVersion"]
    ok(http.post(URL, json=config_map("b")))
    cluster.call(cluster.cluster.api.store.compact)
    response = http.get(URL, params={"watch": "true", "resourceVersion": version})
    event = json.loads(response.text)
    assert (response.status_code, event["type"]) == (200, "ERROR"), "as the API server's watch cache does"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
    assert event["object"]["message"].startswith("too old resource version")


def test_a_version_from_the_future_is_refused(http: httpx.Client) -> None:
    response = http.get(URL, params={"watch": "true", "resourceVersion": "99999"})
    assert "Too large resource version" in refused(response, 504, "Timeout")


def test_initial_events_end_with_a_bookmark(http: httpx.Client) -> None:
    ok(http.post(URL, json=config_map("a")))
    params = {"sendInitialEvents": "true", "allowWatchBookmarks": "true"}
    assert watch(http, 2, **params) == [("ADDED", "a"), ("BOOKMARK", "")]


def test_watches_end_when_the_server_drops_them(cluster: HostedCluster, http: httpx.Client) -> None:
    ok(http.post(URL, json=config_map("a")))
    with http.stream("GET", URL, params={"watch": "true"}) as response:
        lines = response.iter_lines()
        assert json.loads(next(lines))["object"]["metadata"]["name"] == "a"
        cluster.call(cluster.cluster.api.store.close_watches)
        assert list(lines) == []
