"""What a running operator tells: one decision in status, log, Event and at /v1; alerts that mean it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.cli import main
from controller.explain import as_text
from tests.integration.harness import (
    OBJECTIVE,
    Namespace,
    OperatorProcess,
    Traffic,
    eventually,
    http_get,
    service_under_load,
)
from tests.telling.monitoring import Prometheus, queries, rules, watching

Json = dict[str, Any]

SLO = {"slo": {"latency": {"milliseconds": 250}}}


@pytest.fixture(scope="module")
def services(prometheus_of_it: Prometheus, shared_namespace: Namespace, traffic: Traffic) -> Namespace:
    """`fine` is where it should be, `small` has to grow into its bound, `lost` has no metrics."""
    ns = shared_namespace
    service_under_load(ns, traffic, "fine", rate=20.0, replicas=4, objective={**OBJECTIVE, **SLO})
    service_under_load(ns, traffic, "small", rate=80.0, replicas=2, maxReplicas=6)
    ns.deployment("lost", replicas=3)
    ns.rlscaler("lost", objective=OBJECTIVE, metrics={"service": "nobody"})
    ns.wait_condition("fine", "Ready", "True")
    ns.wait_replicas("small", 6)
    ns.wait_condition("lost", "Fallback", "True")
    return ns


@pytest.fixture(scope="module")
def prometheus_of_it(
    operator: OperatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Scrapes the operator itself, some seconds after its start; alerts need not wait."""
    waits = ("downFor", "lagFor", "failingFor", "notReadyFor", "fallbackFor", "limitedFor", "unfamiliarFor")
    spec = rules(**dict.fromkeys(waits, "1s"), lagSeconds=9)
    with watching(tmp_path_factory.mktemp("alerts"), operator.port, spec) as found:
        yield found


def metric(operator: OperatorProcess, series: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    _, text = http_get(f"{operator.url}/metrics")
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    found = [s.value for s in samples if s.name == series and labels.items() <= s.labels.items()]
    assert found, series
    return sum(found)


def wait_for(check: Callable[[], bool]) -> None:
    eventually(lambda: check() or None, timeout_s=60.0)


def test_status_log_event_and_server_tell_one_decision(
    operator: OperatorProcess, services: Namespace
) -> None:
    scaled = next(d for d in operator.decisions(services.name, "small") if d["acted"])
    assert scaled["policy"] == {"type": "HPA", "name": "hpa"}
    assert scaled["readings"]["requestRate"]["outcome"] == "OK"
    lines = [json.loads(line) for line in operator.log.read_text().splitlines() if line.startswith("{")]
    logged = [line for line in lines if line.get("decision", {}).get("time") == scaled["time"]]
    (line,) = [line for line in logged if line["name"] == "small"]
    assert line["level"] == "info"
    assert (line["namespace"], line["uid"]) == (services.name, services.get("small")["metadata"]["uid"])
    assert {key: value for key, value in line["decision"].items() if key != "features"} == scaled
    eventually(lambda: [e for e in services.events("SuccessfulRescale") if e["message"] == scaled["message"]])


def test_the_last_decision_in_the_status_is_one_of_the_records(
    operator: OperatorProcess, services: Namespace
) -> None:
    def found() -> bool:
        last = services.status("lost")["lastDecision"]
        same = [d for d in operator.decisions(services.name, "lost") if d["message"] == last["message"]]
        assert same
        for name in (
            "currentReplicas",
            "desiredReplicas",
            "outcome",
            "fallback",
            "clamps",
            "mode",
            "metrics",
        ):
            assert last.get(name) == same[0][name], name
        return True

    wait_for(found)


def test_every_log_line_about_an_rlscaler_says_which(operator: OperatorProcess, services: Namespace) -> None:
    lines = [json.loads(line) for line in operator.log.read_text().splitlines() if line.startswith("{")]
    about = [line for line in lines if f"{services.name}/" in line["message"]]
    assert len(about) > 3
    for line in about:
        assert line["namespace"] == services.name, line
        assert line["message"].startswith(f"{services.name}/{line['name']}: "), line
        assert line["uid"], line


def test_steady_turns_are_counted_and_write_nothing(operator: OperatorProcess, services: Namespace) -> None:
    """Most of these turns are steady: each is a decision, and not each is a write."""

    def counts() -> tuple[float, ...]:
        _, text = http_get(f"{operator.url}/metrics")
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        names = ("reconciliations", "decisions", "status_writes")
        return tuple(sum(s.value for s in samples if s.name == f"rlscaler_{name}_total") for name in names)

    labels = {"namespace": services.name, "name": "fine"}
    growing = ("rlscaler_last_decision_timestamp_seconds", "rlscaler_replica_seconds_total")
    first = counts()
    before = [metric(operator, series, **labels) for series in growing]
    wait_for(lambda: counts()[0] >= first[0] + 18)
    turns, decisions, writes = (now - then for now, then in zip(counts(), first, strict=True))
    # a scrape may come between the decisions of a batch and the end of its turns
    assert abs(turns - decisions) <= 3
    assert writes < turns
    wait_for(lambda: all(metric(operator, s, **labels) > b for s, b in zip(growing, before, strict=True)))


def test_series_say_what_the_status_says(operator: OperatorProcess, services: Namespace) -> None:
    def value(name: str, series: str) -> float:
        return metric(operator, f"rlscaler_{series}", namespace=services.name, name=name)

    def agree() -> bool:
        status = services.status("small")
        assert value("small", "current_replicas") == status["currentReplicas"] == 6
        # a status is not written for a recommendation that wavers; the series moves with each turn
        assert min(value("small", "recommended_replicas"), status["recommendedReplicas"]) > 6
        assert value("small", "clamped") >= 1
        assert value("lost", "fallback") == 1
        assert (value("fine", "ready"), value("lost", "ready")) == (1, 0)
        assert value("fine", "slo_in_danger") == 0
        assert 0 < value("fine", "slo_latency_ratio") < 1
        assert value("fine", "cost") == value("fine", "ready_replicas") == 4
        assert metric(operator, "rlscaler_leader") == 1
        return True

    wait_for(agree)


def test_a_paused_object_keeps_its_replicas_in_sight_and_nothing_else(
    operator: OperatorProcess, shared_namespace: Namespace, services: Namespace
) -> None:
    def names() -> set[str]:
        _, text = http_get(f"{operator.url}/metrics")
        return {line.split("{")[0] for line in text.splitlines() if 'name="fine"' in line}

    services.annotate("fine", "rlscaler.dev/paused", "true")
    try:
        wait_for(lambda: "rlscaler_desired_replicas" not in names())
        assert {"rlscaler_current_replicas", "rlscaler_paused"} <= names()
    finally:
        services.annotate("fine", "rlscaler.dev/paused", None)
    wait_for(lambda: "rlscaler_desired_replicas" in names())


def test_explain_tells_what_the_operator_knows(
    operator: OperatorProcess, services: Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["explain", "small", "-n", services.name, "--server", operator.url]

    def bounded() -> Json | None:
        assert main([*words, "-o", "json"]) == 0
        told: Json = json.loads(capsys.readouterr().out)
        return told if told["guard"] else None

    found = eventually(bounded, timeout_s=60.0)
    assert found["source"] == "operator"
    assert found["guard"][-1]["ends"] == "a larger spec.maxReplicas than 6"
    assert "Bounds (TooManyReplicas)" in as_text(found)
    assert main(words) == 0
    assert "What the guard changed" in capsys.readouterr().out
    assert main(["explain", "lost", "-n", services.name, "--server", operator.url]) == 0
    assert "the policy did not decide: MetricsUnavailable" in capsys.readouterr().out
    assert http_get(f"{operator.url}/v1/explain/{services.name}/nobody")[0] == 404


NEEDS_MORE = ("Canary", "Budget", "Errors of the Kubernetes API", "Outside of the training")


def test_the_dashboard_shows_a_running_operator(services: Namespace, prometheus_of_it: Prometheus) -> None:
    """Every query but those about what these services have not got."""

    def empty() -> list[str]:
        asked = [(title, query) for title, query in queries() if not title.startswith(NEEDS_MORE)]
        return [title for title, query in asked if not prometheus_of_it.query(query)]

    wait_for(lambda: empty() == [])


def test_alerts_fire_for_what_is_wrong_and_for_nothing_else(
    services: Namespace, prometheus_of_it: Prometheus
) -> None:
    expected = {
        ("RLScalerFallback", "lost"),
        ("RLScalerNotReady", "lost"),
        ("RLScalerAtMaxReplicas", "small"),
    }
    wait_for(lambda: prometheus_of_it.firing() == expected)
    states = {rule["name"]: rule["health"] for rule in prometheus_of_it.rules()}
    assert set(states.values()) == {"ok"}
