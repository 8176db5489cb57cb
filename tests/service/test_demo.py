"""The demonstration: the page's snapshot, its controls, and strategies on the same jobs."""

from __future__ import annotations

from typing import Any

import pytest

from service.demo import Demo
from service.strategies import Strategy

KEYS = {
    "clockS", "paused", "speed", "jobRate", "strategy", "strategies", "servers", "queue", "decisions",
    "comparison", "history",
}  # fmt: skip


@pytest.fixture
def demo(known: dict[str, Strategy]) -> Demo:
    return Demo(known, "keep-room", seed=3)


def run(demo: Demo, steps: int) -> dict[str, Any]:
    for _ in range(steps):
        demo.step(0.25, budget_s=1e9)
    return demo.snapshot()


def test_all_strategies_get_the_same_jobs_at_the_same_time(demo: Demo) -> None:
    demo.control({"speed": 200})
    run(demo, 20)
    came = {name: cluster.totals[name].came for name, cluster in demo.clusters.items()}
    assert len(set(came.values())) == 1
    assert came["learned"] > 150
    finished = [
        {job.id: (job.cpu, job.submitted_s) for job in cluster.active()} for cluster in demo.clusters.values()
    ]
    shared = set(finished[0]) & set(finished[1])
    assert shared
    assert all(finished[0][k] == finished[1][k] for k in shared)


def test_the_snapshot_has_what_the_page_needs(demo: Demo) -> None:
    demo.control({"speed": 500})
    state = run(demo, 40)
    assert state.keys() == KEYS
    assert state["clockS"] == pytest.approx(40 * 0.25 * 500)
    for server in state["servers"]:
        assert 0 <= server["cpu"]["used"] <= server["cpu"]["total"]
        assert 0 <= server["memory"]["used"] <= server["memory"]["total"]
    assert len(state["decisions"]) == 20
    times = [one["atS"] for one in state["decisions"]]
    assert times == sorted(times, reverse=True)
    assert {one["action"] for one in state["decisions"]} <= {"place", "hold", "reject"}
    assert all(one["reason"] for one in state["decisions"])
    assert len(state["comparison"]) == len(demo.known) == 9
    points = len(state["history"]["timesS"])
    assert points > 10
    for series in state["history"]["series"].values():
        assert {len(values) for values in series.values()} == {points}


def test_the_strategies_differ_on_the_same_jobs(demo: Demo) -> None:
    """Or nothing is compared. Which one is best depends on the jobs."""
    demo.control({"speed": 1000})
    state = run(demo, 16)
    slowdowns = {row["strategy"]: row["meanSlowdown"] for row in state["comparison"]}
    assert len(set(slowdowns.values())) == 9
    assert min(slowdowns.values()) > 1
    by_hand = demo.clusters["best-fit"].totals["best-fit"].mean_slowdown
    assert by_hand is not None
    assert slowdowns["best-fit"] == pytest.approx(by_hand, rel=0.5)


def test_the_same_seed_shows_the_same(known: dict[str, Strategy]) -> None:
    one, other = (run(Demo(known, "learned", seed=5), 30) for _ in range(2))
    assert one == other


def test_history_keeps_the_last_240_points(demo: Demo) -> None:
    demo.control({"jobRate": 0.001})
    state = run(demo, 600)
    assert len(state["history"]["timesS"]) == 240
    assert state["history"]["timesS"][-1] >= state["clockS"] - 20


def test_a_paused_clock_stands(demo: Demo) -> None:
    run(demo, 4)
    demo.control({"paused": True})
    before = demo.snapshot()
    assert run(demo, 4) == before
    demo.control({"paused": False})
    assert run(demo, 4)["clockS"] > before["clockS"]


def test_speed_and_rate_are_kept(demo: Demo) -> None:
    demo.control({"speed": 10})
    assert run(demo, 4)["clockS"] == pytest.approx(10)
    demo.control({"speed": 100, "jobRate": 2.0})
    before = demo.clusters["learned"].totals["learned"].came
    run(demo, 20)
    assert 700 < demo.clusters["learned"].totals["learned"].came - before < 1300


def test_too_much_for_the_machine_slows_the_clock_and_not_the_answers(demo: Demo) -> None:
    demo.control({"speed": 1000, "jobRate": 100.0})
    for steps in range(1, 4):
        demo.step(0.2, budget_s=0.0)
        assert demo.clusters["learned"].totals["learned"].came == steps, "one job, not 20,000"
    assert demo.clock_s < 1, "600 s were asked for"


def test_nobody_watching_is_nothing_to_catch_up(demo: Demo) -> None:
    demo.step(3600.0, budget_s=1e9)
    assert demo.clock_s == pytest.approx(20)


def test_reset_begins_anew_with_the_same_jobs(demo: Demo) -> None:
    first = run(demo, 20)
    demo.control({"reset": True})
    assert demo.snapshot()["clockS"] == 0
    assert run(demo, 20) == first


def test_controls_work_over_http_and_refuse_what_is_not_allowed(client: Any) -> None:
    with client() as http:
        state = http.post(
            "/v1/demo/control",
            json={"paused": True, "speed": 0.5, "strategy": "random", "jobRate": 3, "reset": True},
        ).json()
        assert (state["paused"], state["speed"], state["strategy"], state["jobRate"]) == (
            True,
            0.5,
            "random",
            3.0,
        )
        for body, field, allowed in (
            ({"speed": 1001}, "speed", "a number, 0.1 to 1000"),
            ({"speed": "fast"}, "speed", "a number, 0.1 to 1000"),
            ({"jobRate": 0}, "jobRate", "a number, 0.001 to 100 jobs a second"),
            ({"paused": 1}, "paused", "true or false"),
            ({"volume": 1}, "volume", "left out: there is no such field"),
        ):
            refused = http.post("/v1/demo/control", json={"strategy": "learned"} | body)
            assert refused.status_code == 422
            assert refused.json()["errors"] == [
                {"field": field, "value": next(iter(body.values())), "allowed": allowed}
            ]
        assert http.get("/v1/demo/state").json()["strategy"] == "random", "nothing of a refused one is done"


def test_the_page_is_served_with_strict_headers(client: Any) -> None:
    with client() as http:
        page = http.get("/demo")
        framed = http.get("/static/base.css")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert framed.headers["x-content-type-options"] == "nosniff"
