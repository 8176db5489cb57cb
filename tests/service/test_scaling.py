"""`/scale`: readings in, servers to add or remove out, by the operator's own engine and guard."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controller.core import Engine, HpaPolicy, Samples, ServiceSpec
from controller.policies import load_policy
from service.errors import Conflict, NotFound, ServiceError
from service.scaling import SHIPPED, Reading, Scaling, deciding_policy
from tests.service.conftest import TOKEN

SETTINGS = {"capacityPerServer": 20, "minServers": 2, "maxServers": 50, "sloMilliseconds": 250}
SPEC = ServiceSpec(min_replicas=2, max_replicas=50, slo_latency_ms=250, capacity_rps=20, start_up_s=math.nan)


def scale(http: Any, servers: int = 8, **more: Any) -> dict[str, Any]:
    answer = http.post("/scale", json={"service": "web", "servers": servers, "settings": SETTINGS} | more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def reading(k: int, rate: float, servers: int) -> dict[str, Any]:
    """A whole one, 15 s after the one before."""
    used = min(rate / 20 / servers, 1.0)
    told = {"requestsPerSecond": rate, "utilisation": used, "latencyMilliseconds": 40 if used < 0.9 else 900}
    return told | {
        "timeSeconds": 1e9 + 15 * k,
        "readyServers": servers,
        "errorRatio": 0,
        "inFlight": rate / 20,
    }


def test_the_shipped_policy_is_the_presets_discrete_ppo() -> None:
    policy = load_policy({"file": str(SHIPPED)})
    told = policy.metadata.provenance
    assert (policy.name, policy.action_schema) == ("discrete", "relative-change/v1")
    assert told["command"] == "python training/train.py --preset discrete --seed 0"
    assert not told["git_commit"].endswith("dirty")


def test_it_decides_as_the_operators_engine_does_when_its_answers_are_followed(client: Any) -> None:
    """The same loads through the engine that records its own scale events."""
    engine, servers = Engine(SPEC, deciding_policy(None)), 8
    loads = [100.0] * 6 + [130.0, 170.0, 240.0, 300.0] + [320.0] * 6 + [50.0] * 40
    engine.restore(0, 1e9, None, servers)
    wanted, told = [], []
    with client() as http:
        for k, rate in enumerate(loads):
            body = reading(k, rate, servers)
            told.append(scale(http, servers, **body))
            decision = engine.step(
                body["timeSeconds"],
                Samples(
                    request_rate=[rate],
                    latency_ms=[body["latencyMilliseconds"]],
                    error_ratio=[0.0],
                    utilisation=[body["utilisation"]],
                    ready=[servers],
                    current=[servers],
                    in_flight=[body["inFlight"]],
                ),
            )
            wanted.append(int(decision.desired_replicas[0]))
            servers = told[-1]["servers"]
    assert [answer["servers"] for answer in told] == wanted
    assert {answer["action"] for answer in told} == {"add", "remove", "keep"}
    assert any(clamp["name"] == "StabilizationWindow" for answer in told for clamp in answer["clamps"])


def test_an_answer_says_what_to_do_why_and_what_the_hpa_would_do(client: Any) -> None:
    with client() as http:
        answer = scale(http, policy="rule", requestsPerSecond=150, utilisation=0.9)
    assert (answer["action"], answer["servers"], answer["change"]) == ("add", 10, 2)
    assert answer["hpa"] == {"action": "add", "servers": 11}
    assert answer["policy"] == "threshold-40%-70%-+25%-10%-60s-300s"
    assert answer["reason"].startswith("8 -> 10: threshold-40%-70%-+25%-10%-60s-300s recommended 10")
    assert answer["reason"].endswith("the load would fill 7.5 servers")
    assert answer["timeSeconds"] == 1_800_000_000.0


def test_the_rules_numbers_are_the_requests(client: Any) -> None:
    rule = {"addAbove": 0.5, "removeBelow": 0.2, "addShare": 1, "cooldownUpSeconds": 60}
    with client() as http:
        first = scale(http, policy="rule", rule=rule, utilisation=0.6, timeSeconds=0)
        waiting = scale(http, 16, policy="rule", rule=rule, utilisation=0.6, timeSeconds=15)
        again = scale(http, 16, policy="rule", rule=rule, utilisation=0.6, timeSeconds=75)
        other = scale(http, 16, policy="rule", utilisation=0.6, timeSeconds=90)
    assert [one["recommended"] for one in (first, waiting, again, other)] == [16, 16, 32, 16]
    assert "+100%" in first["policy"]


def test_the_hpa_decides_where_it_is_asked_for(client: Any) -> None:
    with client() as http:
        answer = scale(http, policy="hpa", requestsPerSecond=240)
    assert (answer["policy"], answer["servers"], answer["hpa"]["servers"]) == ("hpa", 16, 18)
    assert answer["clamps"][0]["name"] == "ScalingPolicies", "100 % or 4 in 15 s, as autoscaling/v2 has it"


@pytest.mark.parametrize("policy", ["learned", "rule", "hpa"])
def test_nothing_goes_down_while_the_load_is_missing(client: Any, policy: str) -> None:
    with client() as http:
        for k in range(60):
            whole = reading(k, 100, 8)
            scale(http, 8, policy=policy, **whole)
        for k in range(60, 130):
            answer = scale(http, 8, policy=policy, timeSeconds=1e9 + 15 * k)
            assert answer["servers"] >= 8
            assert "metrics: NotRead" in answer["reason"]
            assert answer["decidedBy"] != "Policy" or k < 63
        empty = [scale(http, 8, policy=policy, **reading(k, 0, 8)) for k in range(130, 160)]
    assert empty[-1]["servers"] < 8, "zero was read: that is not missing"


def test_without_utilisation_or_latency_the_learned_policy_stays_above_the_formula(client: Any) -> None:
    with client() as http:
        for k in range(20):
            answer = scale(http, 8, requestsPerSecond=240, timeSeconds=15 * k)
        assert "unlike any in training" in answer["reason"]
        assert answer["servers"] >= min(answer["hpa"]["servers"], 16)
        whole = scale(http, 8, **reading(0, 100, 8))
    assert "unlike" not in whole["reason"]


def test_settings_stay_until_others_are_sent_and_bounds_hold(client: Any) -> None:
    with client() as http:
        scale(http, utilisation=0.5)
        again = http.post("/scale", json={"service": "web", "servers": 80, "utilisation": 0.9}).json()
        assert again["servers"] == 50
        (told,) = http.get("/scale").json()["services"]
        assert told["settings"] == SETTINGS | {
            "preference": 50, "startUpSeconds": None, "syncPeriodSeconds": 15, "targetUtilisation": 0.7,
        }  # fmt: skip
        assert (told["service"], told["servers"], told["wanted"]) == ("web", 80, 50)


def test_a_service_can_be_let_go_and_begins_anew(client: Any) -> None:
    with client() as http:
        scale(http, policy="hpa", timeSeconds=1000, utilisation=0.7)
        older = http.post("/scale", json={"service": "web", "servers": 1, "timeSeconds": 999})
        gone, again = http.delete("/scale/web"), http.delete("/scale/web")
        assert http.get("/scale").json()["services"] == []
        assert scale(http, timeSeconds=1, utilisation=0.5)["timeSeconds"] == 1
        text = http.get("/metrics").text
    assert older.status_code == 409
    assert "999 is before the last reading of 'web', 1000" in older.json()["detail"]
    assert (gone.status_code, gone.json()["service"]) == (200, "web")
    assert (again.status_code, again.json()) == (404, {"detail": "no reading of 'web' has come"})
    assert 'rlscaler_serve_scale_decisions_total{action="keep",policy="hpa"} 1.0' in text


def test_the_first_readings_take_nothing_away_for_the_stabilisation_window(client: Any) -> None:
    with client() as http:
        found = [scale(http, 8, policy="hpa", **reading(k, 20, 8))["servers"] for k in range(25)]
    assert (set(found[:20]), found[-1]) == ({8}, 2)


def test_services_are_bounded_and_do_not_mix() -> None:
    scaling = Scaling(deciding_policy(None), most=3)
    for k in range(3):
        scaling.decide(Reading(f"s{k}", 4, 0.0, request_rate=50.0 * k), SPEC, "hpa")
    with pytest.raises(Conflict, match="'s3' is not taken in, 3 services are"):
        scaling.decide(Reading("s3", 4, 0.0), SPEC, "hpa")
    found = [scaling.decide(Reading(f"s{k}", 4, 15.0, request_rate=50.0 * k), SPEC, "hpa") for k in range(3)]
    assert [decision.hpa_replicas for decision in found] == [2, 4, 8]
    scaling.forget("s1")
    assert scaling.decide(Reading("s3", 4, 0.0, request_rate=500.0), SPEC, "hpa").hpa_replicas == 36
    with pytest.raises(NotFound):
        scaling.forget("s1")
    assert [name for name, _ in scaling] == ["s0", "s2", "s3"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"servers": None}, "servers: nothing is not allowed, must be a whole number, 0 to 1000000"),
        ({"servers": 2.5}, "servers: 2.5 is not allowed, must be a whole number"),
        ({"servers": -1}, "servers: -1 is not allowed"),
        ({"service": "a b"}, "service: 'a b' is not allowed, must be a name of 1 to 200 letters"),
        ({"service": ""}, "service: ''"),
        ({"requestsPerSecond": -1}, "requestsPerSecond: -1 is not allowed, must be a number, 0 to 1"),
        ({"requestsPerSecond": "7"}, "requestsPerSecond: '7'"),
        ({"errorRatio": 1.5}, "errorRatio: 1.5 is not allowed, must be a number, 0 to 1"),
        ({"policy": "best"}, "policy: 'best' is not allowed, must be one of 'learned', 'rule' or 'hpa'"),
        ({"load": 3}, "load: 3 is not allowed, must be left out"),
        ({"settings": {"minServers": 9, "maxServers": 3}}, "settings.maxServers: 3 is not allowed, must be"),
        (
            {"settings": {"preference": 101}},
            "settings.preference: 101 is not allowed, must be a number, 0 to",
        ),
        ({"rule": {"addAbove": 0.3}}, "rule.removeBelow: 0.4 is not allowed, must be"),
        ({"settings": 3}, "settings: 3 is not allowed, must be an object"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_taken_in(
    client: Any, change: dict[str, Any], said: str
) -> None:
    with client() as http:
        answer = http.post("/scale", json={"service": "web", "servers": 8} | change)
        assert http.get("/scale").json()["services"] == []
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(said)


def test_a_file_that_is_no_policy_is_refused_by_its_flag(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    for name, said in (("no.onnx", "--scale-policy: "), ("none.onnx", "no such file")):
        with pytest.raises(ServiceError, match=said):
            deciding_policy(str(tmp_path / name))
    with pytest.raises(ServiceError, match="for pools, not for single services"):
        deciding_policy("pools")
    assert deciding_policy("default").name == "default"


def test_the_token_and_other_sites_rules_hold_here_too(client: Any) -> None:
    body = {"service": "web", "servers": 8}
    with client(host="elsewhere.test", token=TOKEN) as http:
        answers = [http.post("/scale", json=body), http.get("/scale"), http.delete("/scale/web")]
        assert [answer.status_code for answer in answers] == [401, 401, 401]
        assert http.post("/scale", json=body, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    with client() as http:
        refused = http.put("/scale", json=body)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, POST")
        across = {"Origin": "http://evil.test"}
        assert http.post("/scale", json=body, headers=across).status_code == 403
        assert http.delete("/scale/web", headers=across).status_code == 403


def test_a_thousand_services_are_decided_apart_from_each_other() -> None:
    scaling, rng = Scaling(deciding_policy(None)), np.random.default_rng(0)
    rates = rng.uniform(20.0, 400.0, 1000)
    for k, rate in enumerate(rates):
        scaling.decide(Reading(f"s{k}", 8, 0.0, request_rate=rate), SPEC, "hpa")
    told = dict(iter(scaling))
    engine = Engine([SPEC] * 1000, HpaPolicy())
    for row in range(1000):
        engine.restore(row, 0.0, None, 8)
    together = engine.step(0.0, Samples(request_rate=rates, current=8.0))
    assert [told[f"s{k}"].wanted for k in range(1000)] == together.desired_replicas.tolist()
