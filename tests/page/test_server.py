"""What the pages ask of the operator's server: lists, timelines, streams, files and their headers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from controller.core import Outcome
from controller.decisions import DecisionLog
from controller.metrics import SignalReading
from controller.server import create_app, watching
from controller.server.query import LIST_PARAMETERS, STATES
from tests.operator.bodies import rlscaler
from tests.telling.records import LEARNED, NOW, TO_BOUND, Operator, record
from tests.telling.test_decisions import get

STATIC = Path(watching.__file__).with_name("static")
READY = {"type": "Ready", "status": "True", "reason": "Scaling", "message": "fine"}
LOST = {"type": "Ready", "status": "False", "reason": "NoData", "message": "the query gave no series"}
SLO = {"slo": {"latency": {"percentile": 95, "milliseconds": 250}}}


def add(operator: Operator, name: str, condition: Any = READY, status: Any = None, **spec: Any) -> None:
    body = rlscaler(name, **{"objective": SLO, **spec})
    body["status"] = {"conditions": [condition], "currentReplicas": 3, **(status or {})}
    operator.registry.apply(body)


@pytest.fixture
def operator() -> Operator:
    """`web` is late, `api` fine, `shadow` unfamiliar, `lost` undecided, `off` paused."""
    made = Operator()
    slow = {"latencyMilliseconds": 400.0, "loadReplicas": 2.0}
    for name in ("web", "api", "lost"):
        add(made, name, LOST if name == "lost" else READY)
    add(made, "shadow", mode="Shadow", status={"lastScaleTime": "2026-01-01T00:00:00Z"})
    add(made, "off", mode="Paused", status={"lastScaleTime": "2026-02-01T00:00:00Z"})
    made.log.add(record("web", 30, current_replicas=9, observed=slow, clamps=(TO_BOUND,)))
    made.log.add(record("api", 20, observed={"latencyMilliseconds": 100.0}))
    made.log.add(record("shadow", 10, mode="Shadow", policy=LEARNED, unfamiliar=True))
    made.log.add(record("off", 5))
    return made


async def listed(operator: Operator, query: str = "") -> Any:
    answer = await get(operator, f"/v1/rlscalers?{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("query", "names"),
    [
        pytest.param("", ["api", "lost", "off", "shadow", "web"], id="all, by name"),
        pytest.param("search=A", ["api", "shadow"], id="by a part of the name, in any case"),
        pytest.param("search=SHOP/w", ["web"], id="by namespace and name"),
        pytest.param("namespace=elsewhere", [], id="of a namespace without any"),
        pytest.param("state=sloMissed", ["web"], id="over the objective"),
        pytest.param("state=notReady,paused", ["lost", "off"], id="in any of two states"),
        pytest.param("state=shadow", ["shadow"], id="that only record"),
        pytest.param("state=limited", ["web"], id="that the guard changed"),
        pytest.param("state=unfamiliar", ["shadow"], id="outside of the training"),
        pytest.param("sort=trouble", ["lost", "web", "shadow", "off", "api"], id="troubled first"),
        pytest.param("sort=replicas&limit=1", ["web"], id="the largest"),
        pytest.param("sort=changed&limit=2", ["off", "shadow"], id="changed last"),
        pytest.param("limit=2&offset=1", ["lost", "off"], id="the second page"),
        pytest.param("offset=99", [], id="beyond the last page"),
    ],
)
async def test_rlscalers_are_listed(operator: Operator, query: str, names: list[str]) -> None:
    assert [item["name"] for item in (await listed(operator, query))["items"]] == names


async def test_a_list_counts_all_whatever_is_filtered(operator: Operator) -> None:
    found = await listed(operator, "state=paused&limit=1")
    assert (found["total"], found["matched"], found["namespaces"]) == (5, 1, ["shop"])
    counts = {
        "ready": 3,
        "notReady": 1,
        "sloMissed": 1,
        "limited": 1,
        "paused": 1,
        "shadow": 1,
        "unfamiliar": 1,
    }
    assert found["counts"] == dict.fromkeys(STATES, 0) | counts
    assert found["operator"] == {"version": "0.1.0", "leads": True, "trouble": None}


async def test_a_row_says_what_the_last_decision_and_the_status_say(operator: Operator) -> None:
    rows = {item["name"]: item for item in (await listed(operator))["items"]}
    web, lost = rows["web"], rows["lost"]
    assert (web["currentReplicas"], web["hpaReplicas"], web["latencyMilliseconds"]) == (9, 5, 400.0)
    assert (web["sloState"], web["slo"]) == ("missed", {"percentile": 95, "milliseconds": 250})
    assert (lost["currentReplicas"], lost["desiredReplicas"], lost["time"]) == (3, None, None)
    assert lost["conditions"] == [LOST]
    assert lost["sloState"] == "unknown"
    assert rows["off"]["states"] == ["paused"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=0", ["limit", "'0'", "1 to 500"]),
        ("limit=501", ["limit", "501"]),
        ("offset=-1", ["offset", "-1"]),
        ("sort=size", ["sort", "size", "trouble"]),
        ("state=bad", ["state", "bad", *STATES]),
        ("search=", ["search"]),
        ("serach=a", ["serach", *LIST_PARAMETERS]),
        ("search=a&search=b", ["search", "once"]),
    ],
)
async def test_bad_lists_are_refused_in_clear_words(operator: Operator, query: str, words: list[str]) -> None:
    answer = await get(operator, f"/v1/rlscalers?{query}")
    assert answer.status_code == 422
    for word in words:
        assert word in answer.json()["detail"]


async def test_ten_thousand_are_counted_in_slices_and_never_sent_at_once() -> None:
    operator = Operator()
    for number in range(10_000):
        add(operator, f"web-{number:05}")
    beats, over = 0, asyncio.Event()

    async def decisions_go_on() -> None:
        nonlocal beats
        while not over.is_set():
            await asyncio.sleep(0)
            beats += 1

    beating = asyncio.create_task(decisions_go_on())
    found = await listed(operator, "limit=500")
    over.set()
    await beating
    assert (found["total"], found["counts"]["ready"], len(found["items"])) == (10_000, 10_000, 500)
    assert beats > 40, "others must have had their turn while it was made"


async def test_many_who_look_share_one_survey(operator: Operator) -> None:
    made = 0
    entries = operator.entries

    def counted() -> Any:
        nonlocal made
        made += 1
        return entries()

    operator.entries = counted  # type: ignore[method-assign]
    transport = httpx.ASGITransport(app=create_app(operator))
    async with httpx.AsyncClient(transport=transport, base_url="http://operator") as client:
        await asyncio.gather(*(client.get("/v1/rlscalers") for _ in range(20)))
    assert made == 1


async def test_nothing_is_kept_or_made_while_nobody_looks(operator: Operator) -> None:
    def untouched() -> Any:
        raise AssertionError("somebody was asked")

    operator.entries = untouched  # type: ignore[method-assign]
    app = create_app(operator)
    assert app.state.streams.clients == 0
    operator.log.add(record("web"))


async def test_a_timeline_has_the_oldest_first_and_null_for_what_is_not_known(operator: Operator) -> None:
    operator.log.add(record("web", 0, hpa_replicas=None, load=float("nan"), recommended_replicas=7))
    found = (await get(operator, "/v1/timeline/shop/web")).json()
    assert found["timesS"] == [NOW - 30, NOW]
    assert (found["current"], found["hpa"], found["recommended"]) == ([9, 4], [5, None], [4, 7])
    assert (found["load"], found["latencyMilliseconds"]) == ([2.0, None], [400.0, None])
    assert (await get(operator, "/v1/timeline/shop/nobody")).json()["timesS"] == []


async def test_an_explanation_comes_in_words_when_asked_for() -> None:
    from controller.core import HpaPolicy
    from tests.telling.test_explain import Bench

    operator = Operator()
    operator.explanations["shop", "web"] = Bench(HpaPolicy(), policy={"type": "HPA"}).decide()
    found = (await get(operator, "/v1/explain/shop/web?words=true")).json()
    assert found["headline"].startswith("shop/web (Deployment/web): 4 -> ")
    titles = [section["title"] for section in found["sections"]]
    assert titles[:2] == ["What was seen", "What the policy asked for"]
    assert all(section["lines"] for section in found["sections"])
    assert "sections" not in (await get(operator, "/v1/explain/shop/web")).json()
    assert (await get(operator, "/v1/explain/shop/web?word=true")).status_code == 422


def test_news_are_what_came_after_a_number_and_what_is_too_much_is_counted() -> None:
    log = DecisionLog()
    for number in range(5):
        log.add(record(f"web-{number}"))
    news = log.after(2, lambda one: one.name != "web-3", 10)
    assert ([one.name for one in news.records], news.missed, news.number) == (["web-4", "web-2"], 0, 5)
    news = log.after(0, lambda one: True, 2)
    assert ([one.name for one in news.records], news.missed) == (["web-4", "web-3"], 3)
    assert log.after(5, lambda one: True, 2).records == ()


async def test_pages_and_files_bear_strict_headers(operator: Operator) -> None:
    page = await get(operator, "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-frame-options"] == "DENY"
    for path in ("/", "/static/app.js", "/v1/rlscalers", "/metrics", "/healthz", "/v1/explain/a/b"):
        headers = (await get(operator, path)).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer", path


async def test_a_file_that_has_not_changed_is_not_sent_again(operator: Operator) -> None:
    transport = httpx.ASGITransport(app=create_app(operator))
    async with httpx.AsyncClient(transport=transport, base_url="http://operator") as client:
        first = await client.get("/static/base.css")
        tag = {"If-None-Match": first.headers["etag"]}
        again = await client.get("/static/base.css", headers=tag)
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")


@pytest.mark.parametrize(
    "name", ["nothing.js", "operator.html", "..%2Fapp.py", "%2e%2e/app.py", "__init__.py"]
)
async def test_nothing_but_its_files_comes_from_the_static_folder(operator: Operator, name: str) -> None:
    assert (await get(operator, f"/static/{name}")).status_code == 404


def test_pages_need_nothing_from_elsewhere_and_write_no_html() -> None:
    for path in STATIC.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, path.name
        assert "https://" not in text, path.name
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "onclick="):
            assert word not in text.replace("nothing here or elsewhere sets innerHTML", ""), (path.name, word)
        assert "style=" not in text, path.name


def test_brief_records_say_no_more_than_whole_ones() -> None:
    made = record(clamps=(TO_BOUND,), readings={"latency": SignalReading(1.0, Outcome.OK)})
    whole, brief = made.as_json(), made.brief()
    assert set(brief) <= set(whole)
    assert brief.pop("clamps") == ["Bounds"]
    assert {key: whole[key] for key in brief} == brief
    assert replace(made, error="no").brief()["error"] == "no"


async def test_the_docs_list_every_route_without_another_host(operator: Operator) -> None:
    paths, page = (await get(operator, "/openapi.json")).json()["paths"], await get(operator, "/docs")
    assert {"/healthz", "/metrics", "/v1/decisions", "/v1/explain/{namespace}/{name}"} <= paths.keys()
    for path, item in paths.items():
        for method in item:
            assert f"{method.upper()} {path}" in page.text
    assert "An age such as 90s, 15m or 2h, or an RFC 3339 time." in page.text
    assert "://" not in page.text
    assert "script" not in page.headers["content-security-policy"]
