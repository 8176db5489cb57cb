"""What the routes do with jobs, good and bad, under a clock that the test moves."""

from __future__ import annotations

from typing import Any

import pytest

from service.servers import Fleet, Server
from tests.service.conftest import TOKEN, fleet


def ask(http: Any, cpu: float = 2.0, memory: float = 4.0, **more: Any) -> dict[str, Any]:
    answer = http.post("/schedule", json={"cpu": cpu, "memory": memory} | more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_job_gets_a_server_a_reason_and_the_scores_of_all(client: Any) -> None:
    with client() as http:
        first = ask(http, estimateSeconds=30, name="build 7")
        second = ask(http, estimateSeconds=30)
    assert (first["action"], first["status"], first["server"]) == ("place", "running", "s1")
    assert second["server"] == "s2", "the first server is the fuller one now"
    assert second["reason"] == "s2 has the least taken (0% of cpu and 0% of memory) of 3 servers with room"
    assert [one["score"] for one in second["scores"]] == [0.25, 0.0, 0.0]
    assert all(one["fits"] for one in second["scores"])
    assert "lowest wins" in second["scoreMeaning"]


def test_a_job_ends_at_its_estimate_and_the_next_gets_its_place(client: Any, clock: Any) -> None:
    with client(fleet=fleet(1)) as http:
        first = ask(http, cpu=6, estimateSeconds=30)
        second = ask(http, cpu=6, estimateSeconds=10)
        assert (second["action"], second["status"], second["scores"]) == ("hold", "queued", [])
        assert "the most that is free on one are 2 and 28" in second["reason"]
        clock.now += 29
        assert http.get(f"/jobs/{second['id']}").json()["waitSeconds"] == 29
        clock.now += 2
        done, now = http.get(f"/jobs/{first['id']}").json(), http.get(f"/jobs/{second['id']}").json()
    assert (done["status"], done["endedBy"]) == ("finished", "estimate")
    assert (now["status"], now["server"], now["waitSeconds"]) == ("running", "s1", 30)


def test_with_ends_report_a_job_ends_only_when_told(client: Any, clock: Any) -> None:
    with client(ends="report") as http:
        job = ask(http, estimateSeconds=1)["id"]
        clock.now += 100_000
        assert http.get(f"/jobs/{job}").json()["status"] == "running"
        done = http.post(f"/jobs/{job}/finish").json()
        assert (done["status"], done["endedBy"]) == ("finished", "report")
        assert http.get("/status").json()["servers"][0]["cpu"] == {"used": 0.0, "total": 8.0}
        again = http.post(f"/jobs/{job}/finish")
    assert (again.status_code, again.json()) == (409, {"detail": f"job {job} is finished already"})


def test_finishing_a_waiting_job_withdraws_it(client: Any) -> None:
    with client(fleet=fleet(1)) as http:
        ask(http, cpu=8)
        waiting = ask(http, cpu=8)["id"]
        gone = http.post(f"/jobs/{waiting}/finish").json()
        assert (gone["status"], gone["endedBy"], gone["server"]) == ("withdrawn", "withdrawal", None)
        assert http.get("/status").json()["queue"] == {"length": 0, "jobs": []}
        assert http.get("/stats").json()["withdrawn"] == 1


def test_a_job_that_no_server_could_ever_take_is_rejected_with_the_reason(client: Any) -> None:
    with client() as http:
        job = ask(http, cpu=9)
    assert (job["action"], job["status"], job["server"]) == ("reject", "rejected", None)
    assert job["reason"] == "no server is large enough, even empty: it asks for cpu 9 and memory 4"


def test_a_full_queue_rejects(client: Any) -> None:
    with client(fleet=fleet(1), queue_limit=1) as http:
        actions = [ask(http, cpu=8)["action"] for _ in range(3)]
        assert http.get("/stats").json()["rejected"] == 1
    assert actions == ["place", "hold", "reject"]


@pytest.mark.parametrize(
    "strategy",
    [
        "learned", "round-robin", "random", "first-fit", "least-loaded", "best-fit",
        "shortest-expected-delay", "power-of-two", "keep-room",
    ],
)  # fmt: skip
def test_a_request_chooses_its_strategy(client: Any, strategy: str) -> None:
    with client() as http:
        job = ask(http, strategy=strategy)
        assert job["strategy"] == strategy
        rows = {row["strategy"]: row["came"] for row in http.get("/stats").json()["strategies"]}
    assert {name for name, came in rows.items() if came} == {strategy}


def test_a_batch_is_decided_in_its_order(client: Any) -> None:
    with client(fleet=fleet(2, cpu=4)) as http:
        body = {"jobs": [{"cpu": 4, "memory": 1, "name": f"j{k}"} for k in range(3)]}
        jobs = http.post("/schedule/batch", json=body).json()["jobs"]
    assert [(job["name"], job["action"], job["server"]) for job in jobs] == [
        ("j0", "place", "s1"),
        ("j1", "place", "s2"),
        ("j2", "hold", None),
    ]


def test_one_bad_job_of_a_batch_and_none_is_taken(client: Any) -> None:
    with client() as http:
        bad = http.post("/schedule/batch", json={"jobs": [{"cpu": 1, "memory": 1}, {"cpu": 1, "memory": -2}]})
        assert http.get("/stats").json()["came"] == 0
    assert bad.status_code == 422
    assert bad.json()["errors"] == [
        {"field": "jobs[1].memory", "value": -2, "allowed": "a number, 0 to 1000000000"}
    ]


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ('{"cpu": 0, "memory": 1}', "cpu", "cpu: 0 is not allowed, must be a number, 0.000001 to 1000000"),
        ('{"cpu": "2", "memory": 1}', "cpu", "cpu: '2' is not allowed"),
        ('{"cpu": true, "memory": 1}', "cpu", "cpu: True is not allowed"),
        ('{"cpu": NaN, "memory": 1}', "cpu", "cpu: 'nan' is not allowed"),
        ('{"cpu": 1e999, "memory": 1}', "cpu", "cpu: 'inf' is not allowed"),
        ('{"memory": 1}', "cpu", "cpu: nothing is not allowed, must be given: a number"),
        ('{"cpu": 1, "memory": 1, "gpu": 1}', "gpu", "must be left out: there is no such field"),
        ('{"cpu": 1, "memory": 1, "name": "a\\u0000"}', "name", "without control characters"),
        ('{"cpu": 1, "memory": 1, "name": "\\ud800"}', "name", "name: "),
        ('{"cpu": 1, "memory": 1, "strategy": "best"}', "strategy", "one of 'learned', 'round-robin'"),
        ('{"cpu": 1, "memory": 1, "estimateSeconds": 0}', "estimateSeconds", "0.001 to 100000000"),
        ("[]", "body", "body: must be a JSON object"),
        ("{", "body", "body: is no JSON"),
        ("", "body", "body: must be a JSON object"),
        ("[" * 5000, "body", "body: is no JSON"),
        ('{"cpu": ' + "9" * 5000 + ', "memory": 1}', "body", "body: is no JSON"),
    ],
)
def test_what_is_wrong_is_named_with_its_value_and_what_is_allowed(
    client: Any, body: str, field: str, said: str
) -> None:
    with client() as http:
        answer = http.post("/schedule", content=body, headers={"Content-Type": "application/json"})
        assert http.get("/stats").json()["came"] == 0
    assert answer.status_code == 422
    assert field in [one["field"] for one in answer.json()["errors"]]
    assert said in answer.json()["detail"]


def test_unknown_jobs_paths_and_methods_are_told(client: Any) -> None:
    with client() as http:
        assert http.get("/jobs/7").json() == {"detail": "there is no job 7"}
        assert http.get("/jobs/0").status_code == 422
        assert http.get("/nothing").status_code == 404
        refused = http.delete("/status")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")


def test_a_body_beyond_the_limit_is_refused_declared_or_not(client: Any) -> None:
    long = b'{"cpu": 1, "memory": 1, "name": "' + b"a" * 5000 + b'"}'

    def parts() -> Any:
        yield from (long[k : k + 500] for k in range(0, len(long), 500))

    with client(most_body=2000) as http:
        for content in (long, parts()):
            answer = http.post("/schedule", content=content, headers={"Content-Type": "application/json"})
            assert answer.status_code == 413
            assert answer.json() == {"detail": "the body is longer than is allowed: 2000 bytes"}
        assert http.get("/stats").json()["came"] == 0


def test_figures_of_the_strategies_are_what_happened(client: Any, clock: Any) -> None:
    with client(fleet=fleet(1)) as http:
        ask(http, cpu=8, estimateSeconds=100)
        ask(http, cpu=8, estimateSeconds=50, strategy="first-fit")
        clock.now += 200
        stats = http.get("/stats").json()
    rows = {row["strategy"]: row for row in stats["strategies"]}
    first, second = rows["least-loaded"], rows["first-fit"]
    assert (first["meanSlowdown"], first["meanWaitSeconds"], first["utilisation"]) == (1.0, 0.0, 0.5)
    assert (second["meanSlowdown"], second["meanWaitSeconds"], second["utilisation"]) == (3.0, 100.0, 0.25)
    assert (stats["finished"], stats["meanSlowdown"], stats["utilisation"]) == (2, 2.0, 0.75)
    assert (stats["seconds"], stats["longestWaitSeconds"]) == (200.0, 100.0)


def test_a_slower_server_makes_slowdown(client: Any, clock: Any) -> None:
    with client(fleet=Fleet((Server("slow", 8, 32, 0.5),))) as http:
        ask(http, estimateSeconds=100)
        clock.now += 199
        assert http.get("/status").json()["jobs"]["running"] == 1
        clock.now += 1.01
        assert http.get("/stats").json()["meanSlowdown"] == 2.0


def test_the_welcome_is_html_for_browsers_and_json_for_others(client: Any) -> None:
    with client() as http:
        told = http.get("/").json()
        page = http.get("/", headers={"Accept": "text/html,*/*"})
        for path in told["links"].values():
            assert http.get(path).status_code == 200, path
            assert f'href="{path[1:]}"' in page.text
        assert http.get("/static/base.css").status_code == 200
    assert page.headers["content-type"].startswith("text/html")


def test_the_docs_list_every_route_without_another_host(client: Any) -> None:
    with client() as http:
        paths, page = http.get("/openapi.json").json()["paths"], http.get("/docs")
    assert {"/schedule", "/schedule/batch", "/jobs/{id}/finish", "/v1/demo/control"} <= paths.keys()
    for path, item in paths.items():
        for method in item:
            assert f"{method.upper()} {path}" in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "script" not in page.headers["content-security-policy"]
    assert page.headers["content-security-policy"].startswith("default-src 'none'")


def test_metrics_count_requests_and_decisions(client: Any) -> None:
    with client() as http:
        ask(http, cpu=4)
        text = http.get("/metrics").text
    assert 'rlscaler_serve_decisions_total{action="place",strategy="least-loaded"} 1.0' in text
    assert 'rlscaler_serve_requests_total{route="/schedule",status="200"} 1.0' in text
    assert 'rlscaler_serve_server_taken_share{resource="cpu",server="s1"} 0.5' in text


OPEN = ["/", "/demo", "/docs", "/openapi.json", "/healthz", "/readyz", "/static/base.css"]
CLOSED = ["/status", "/stats", "/metrics", "/jobs/1", "/v1/demo/state", "/v1/demo/events", "/nothing"]


@pytest.mark.parametrize("path", CLOSED)
def test_with_a_token_data_is_told_to_its_bearer_only(client: Any, path: str) -> None:
    with client(host="elsewhere.test", token=TOKEN, fleet=fleet(), most_streams=1) as http:
        without = http.get(path)
        wrong = http.get(path, headers={"Authorization": f"Bearer {TOKEN}x"})
        assert (without.status_code, wrong.status_code) == (401, 401)
        assert without.headers["www-authenticate"].startswith("Bearer")
        assert without.json() == {"detail": "a token is needed: send Authorization: Bearer TOKEN"}
        assert wrong.json() == {"detail": "the token in Authorization is not the right one"}
        assert TOKEN not in wrong.text
        if path != "/v1/demo/events":
            right = http.get(path, headers={"Authorization": f"Bearer {TOKEN}"})
            assert right.status_code == (404 if path in ("/jobs/1", "/nothing") else 200)


@pytest.mark.parametrize("path", OPEN)
def test_pages_and_health_need_no_token(client: Any, path: str) -> None:
    with client(host="elsewhere.test", token=TOKEN) as http:
        assert http.get(path).status_code == 200


def test_the_description_says_which_routes_need_the_token(client: Any) -> None:
    with client(host="elsewhere.test", token=TOKEN) as http:
        document = http.get("/openapi.json").json()
        assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
        for path, item in document["paths"].items():
            for method, operation in item.items():
                refused = http.request(method, path.replace("{id}", "1")).status_code == 401
                assert refused == (operation["security"] != []), path
    with client() as http:
        assert "security" not in http.get("/openapi.json").json()["paths"]["/status"]["get"]


def test_nothing_is_written_without_the_token(client: Any) -> None:
    with client(host="elsewhere.test", token=TOKEN) as http:
        for path in ("/schedule", "/schedule/batch", "/jobs/1/finish", "/v1/demo/control"):
            assert http.post(path, json={"cpu": 1, "memory": 1}).status_code == 401
        found = http.get("/stats", headers={"Authorization": f"Bearer {TOKEN}"})
    assert found.json()["came"] == 0


def test_without_a_token_other_names_and_other_sites_are_refused(client: Any) -> None:
    with client() as http:
        rebound = http.get("/status", headers={"Host": "evil.test"})
        across = http.post("/jobs/1/finish", headers={"Origin": "http://evil.test"})
        own = http.post("/jobs/1/finish", headers={"Origin": "http://localhost"})
    assert rebound.status_code == 403
    assert "Host: 'evil.test' is not allowed without a token" in rebound.json()["detail"]
    assert (across.status_code, own.status_code) == (403, 404)


def test_a_name_can_be_allowed(client: Any) -> None:
    with client(host="proxy.test", allowed_hosts=("proxy.test",)) as http:
        assert http.get("/status").status_code == 200
