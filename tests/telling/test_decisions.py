"""The decision record, where it is kept, and how it is asked for."""

from __future__ import annotations

import ast
import json
import time
import tracemalloc
from pathlib import Path

import httpx
import numpy as np
import pytest

from controller.api.types import DecisionStatus
from controller.core import Outcome, guard
from controller.core.observation import OBSERVATION_SCHEMA
from controller.decisions import CLAMPS, OUTCOMES, DecisionLog, Filter
from controller.metrics import SignalReading
from controller.server import create_app
from tests.telling.records import BY_RATE, LEARNED, TO_BOUND, Operator, record

ALL = Filter()


def names(log: DecisionLog, wanted: Filter = ALL) -> list[str]:
    return [found.name for found in log.find(wanted, wanted.limit)]


def test_a_record_is_plain_json_without_a_digit_too_many() -> None:
    shown = json.loads(json.dumps(record().as_json()))
    assert shown["observation"]["requestRate"] == 20.1235
    assert shown["readings"]["requestRate"]["outcome"] == "OK"
    assert shown["policy"] == {"type": "HPA", "name": "hpa"}
    assert "features" not in shown


def test_what_was_not_read_is_null_and_has_its_reason() -> None:
    readings = {"latency": SignalReading(float("nan"), Outcome.STALE, "the newest sample is 60 s old")}
    shown = record(readings=readings, observed={"latencyMilliseconds": float("nan")}).as_json()
    said = {"value": None, "outcome": "Stale", "message": "the newest sample is 60 s old"}
    assert shown["readings"]["latency"] == said
    assert shown["observation"] == {}


def test_features_are_there_when_asked_for() -> None:
    features = np.arange(OBSERVATION_SCHEMA.size, dtype=np.float32)
    shown = record(policy=LEARNED, features=features).as_json(features=True)
    assert list(shown["features"]) == list(OBSERVATION_SCHEMA.names)
    assert list(shown["features"].values()) == features.tolist()
    assert record().as_json(features=True)["features"] == {}


def test_the_status_is_the_same_value_in_the_types_of_the_api() -> None:
    made = record(clamps=(TO_BOUND,), outcome="ScaledUp", message="x" * 3000, fallback="InvalidAction")
    status = made.as_status()
    read = DecisionStatus.model_validate(status).model_dump(by_alias=True, exclude_none=True)
    assert read == status
    assert len(status["message"]) == 1024
    whole = made.as_json()
    for name in (
        "currentReplicas",
        "recommendedReplicas",
        "hpaReplicas",
        "desiredReplicas",
        "clamps",
        "mode",
    ):
        assert status[name] == whole[name]


def test_the_guard_has_exactly_the_rules_that_can_be_asked_for() -> None:
    source = Path(guard.__file__ or "").parent
    found = []
    for path in sorted(source.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if called and node.func.attr == "apply" and node.args and isinstance(node.args[0], ast.Constant):
                found.append(node.args[0].value)
    assert sorted(set(found)) == sorted(CLAMPS)


def test_the_newest_come_first() -> None:
    log = DecisionLog()
    for name in ("a", "b", "c"):
        log.add(record(name))
    assert names(log) == ["c", "b", "a"]


def test_an_old_change_outlives_thousands_of_decisions_that_change_nothing() -> None:
    log = DecisionLog(remembered=50)
    log.add(record("quiet"))
    log.add(record("web", desired_replicas=8, outcome="ScaledUp", acted=True))
    log.add(record("web"))
    for number in range(500):
        log.add(record(f"web-{number % 10}"))
    assert names(log, Filter(name="web")) == ["web", "web"]
    assert [r.outcome for r in log.find(Filter(outcomes=["ScaledUp"]), 5)] == ["ScaledUp"]
    assert names(log, Filter(name="quiet")) == ["quiet"]
    assert log.last("shop", "quiet") is not None


def test_a_deleted_objects_decisions_go_with_time() -> None:
    log = DecisionLog(remembered=5)
    log.add(record("gone"))
    log.forget("shop", "gone")
    assert log.last("shop", "gone") is None
    assert names(log) == ["gone"]
    for number in range(6):
        log.add(record(f"web-{number}"))
    assert "gone" not in names(log)


def test_no_decision_is_found_twice() -> None:
    log = DecisionLog(remembered=20)
    for number in range(100):
        log.add(record(f"web-{number % 7}", desired_replicas=number % 3))
    found = log.find(ALL, 1000)
    assert len({id(one) for one in found}) == len(found) == len(log)
    times = [log.find(Filter(name=one.name), 1)[0] for one in found]
    assert len(times) == len(found)


def test_ten_thousand_objects_stay_within_bounds() -> None:
    """Each keeps its last decision; all of them together take the memory of a few decisions each at most."""
    log = DecisionLog()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(14_000):
        name = f"web-{number % 10_000}"
        log.add(record(name, features=np.zeros(OBSERVATION_SCHEMA.size, np.float32)))
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 10_000 <= len(log) <= 10_000 + 2 * log.remembered
    assert used / len(log) < 3000
    assert log.last("shop", "web-0") is not None


# The server


@pytest.fixture
def operator() -> Operator:
    made = Operator()
    now = time.time()
    for age_s, changes in (
        (4000, {"outcome": "ScaledUp", "clamps": (BY_RATE,)}),
        (300, {"outcome": "ScaledUp", "clamps": (BY_RATE, TO_BOUND)}),
        (200, {"outcome": "Held", "clamps": (TO_BOUND,)}),
        (10, {}),
    ):
        made.log.add(record(time_s=now - age_s, **changes))
    made.log.add(record("other", time_s=now))
    return made


async def get(operator: Operator, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=create_app(operator))
    async with httpx.AsyncClient(transport=transport, base_url="http://operator") as client:
        return await client.get(path)


@pytest.mark.parametrize(
    ("query", "outcomes"),
    [
        pytest.param("name=web", ["NoChange", "Held", "ScaledUp", "ScaledUp"], id="of one object"),
        pytest.param("namespace=shop&name=other", ["NoChange"], id="of another"),
        pytest.param("namespace=elsewhere", [], id="of a namespace without any"),
        pytest.param("outcome=ScaledUp", ["ScaledUp", "ScaledUp"], id="by outcome"),
        pytest.param("outcome=ScaledUp,Held", ["Held", "ScaledUp", "ScaledUp"], id="by outcomes"),
        pytest.param("clamp=Bounds", ["Held", "ScaledUp"], id="by clamp"),
        pytest.param("clamp=Bounds&outcome=Held", ["Held"], id="by both"),
        pytest.param("name=web&since=250s", ["NoChange", "Held"], id="since seconds"),
        pytest.param("name=web&since=1h", ["NoChange", "Held", "ScaledUp"], id="since an hour"),
        pytest.param("since=2020-01-01T00:00:00Z&limit=2", ["NoChange", "NoChange"], id="since a time"),
        pytest.param("since=2999-01-01T00:00:00%2B01:00", [], id="since a time to come"),
        pytest.param("limit=1", ["NoChange"], id="one"),
    ],
)
async def test_decisions_are_filtered(operator: Operator, query: str, outcomes: list[str]) -> None:
    answer = await get(operator, f"/v1/decisions?{query}")
    assert answer.status_code == 200
    assert [found["outcome"] for found in answer.json()["decisions"]] == outcomes


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=0", ["limit", "'0'", "1 to 1000"]),
        ("limit=1001", ["limit", "1001", "1 to 1000"]),
        ("limit=ten", ["limit", "ten"]),
        ("limit=²", ["limit"]),
        ("outcome=Scaled", ["outcome", "Scaled", *OUTCOMES]),
        ("clamp=bounds", ["clamp", "bounds", "Bounds"]),
        ("since=yesterday", ["since", "yesterday", "15m"]),
        ("since=2026-01-31T12:00:00", ["since"]),
        ("since=", ["since"]),
        ("nam=web", ["nam", "name"]),
        ("name=a&name=b", ["name", "once"]),
        ("features=yes", ["features", "true or false"]),
    ],
)
async def test_bad_queries_are_refused_in_clear_words(
    operator: Operator, query: str, words: list[str]
) -> None:
    answer = await get(operator, f"/v1/decisions?{query}")
    assert answer.status_code == 422
    for word in words:
        assert word in answer.json()["detail"]


async def test_features_come_when_asked_for(operator: Operator) -> None:
    plain, full = [await get(operator, f"/v1/decisions{query}") for query in ("", "?features=true")]
    assert all("features" not in found for found in plain.json()["decisions"])
    assert all("features" in found for found in full.json()["decisions"])


async def test_every_parameter_is_documented(operator: Operator) -> None:
    from controller.server.query import PARAMETERS

    paths = (await get(operator, "/openapi.json")).json()["paths"]
    assert {one["name"] for one in paths["/v1/decisions"]["get"]["parameters"]} == set(PARAMETERS)


async def test_an_unknown_object_is_not_explained(operator: Operator) -> None:
    answer = await get(operator, "/v1/explain/shop/nobody")
    assert answer.status_code == 404
    assert "nobody" in answer.json()["detail"]
    operator.explanations["shop", "web"] = {"decision": None}
    assert (await get(operator, "/v1/explain/shop/web")).json() == {"decision": None}
