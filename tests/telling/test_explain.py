"""`rl-scaler explain`: what it says of decisions, from the operator and from an RLScaler alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from controller.actuation.target import Target
from controller.api.types import RLScalerSpec
from controller.api.validation import parse_spec
from controller.case import Case, facts_of
from controller.cli import main
from controller.clock import Clock, rfc3339, rfc3339_micro
from controller.core import Clamp, Engine, ForecastPolicy, HpaPolicy, Outcome, Policy, Samples
from controller.core.formulas import KedaPolicy
from controller.decisions import CLAMPS, OF_POOLS, DecisionLog, record_of
from controller.explain import Subject, as_text, explanation
from controller.explain.ends import Past, what_ends
from controller.explain.source import from_object, from_operator
from controller.kube import Resource
from controller.metrics import SignalReading
from controller.policybook import Chosen
from controller.registry import Entry, Registry
from controller.server import create_app
from controller.work import Work
from tests.integration.harness import Cluster, Namespace, free_port
from tests.operator.bodies import rlscaler
from tests.telling.monitoring import served
from tests.telling.records import BY_WINDOW, NOW, TO_BOUND, Operator, Straight, record

OBJECTIVE = {"capacityPerReplica": "10", "slo": {"latency": {"milliseconds": 250}}}
DEPLOYMENTS = Resource("apps/v1", "Deployment", "deployments", True, True)
LATENCY = SignalReading(300.0, Outcome.OK)


class Bench:
    """One RLScaler with an engine, decided for as a turn does it."""

    def __init__(self, decides: Policy, **spec: Any) -> None:
        self.clock, self.engine, self.log = Clock(), Engine(), DecisionLog()
        self.registry = Registry()
        body = rlscaler("web", **{"maxReplicas": 30, "objective": OBJECTIVE, **spec})
        self.entry: Entry = self.registry.apply(body).entry
        assert self.entry.service is not None, self.entry.trouble
        row = self.engine.add(self.entry.service, decides)
        self.entry.work = Work(1, row, Chosen(decides), None, None, 0.0)

    def decide(self, rate: float = 60.0, current: int = 4, turns: int = 3) -> dict[str, Any]:
        """The explanation of the last of a few turns under this rate (requests/s)."""
        case = self.case(rate, current, turns)
        assert case.decision is not None
        self.log.add(record_of(facts_of(case), case.decision, self.clock.to_unix(self.clock.now())))
        return from_operator(self.entry, self.log, self.engine, self.clock)

    def case(self, rate: float, current: int, turns: int = 1) -> Case:
        """The last of a few turns, decided and not yet concluded."""
        assert self.entry.work is not None
        row = self.entry.work.row
        for turn in reversed(range(turns)):
            at_s = self.clock.now() - 15.0 * turn
            arrays = {"request_rate": rate, "latency_ms": 300.0, "ready": current, "current": current}
            samples = Samples(**{name: np.array([float(value)]) for name, value in arrays.items()})
            decision = self.engine.step(at_s, samples, np.array([row]), record=False)[0]
        readings = {"requestRate": SignalReading(rate, Outcome.OK), "latency": LATENCY}
        case = Case(self.entry, 1, work=self.entry.work, decision=decision, readings=readings)
        case.targets = (Target(self.entry.targets[0], DEPLOYMENTS, current, current, "1"),)
        return case


def test_a_learned_policys_decision_is_told_with_what_it_hung_on() -> None:
    bench = Bench(Straight(0.0, latency_over_slo=1.0, latency_known=0.5))
    found = bench.decide()
    text = as_text(found)
    for words in (
        "shop/web (Deployment/web): 4 -> 8 replicas",
        "request rate: 60/s",
        "latency: 300 ms, where the objective is 250 ms",
        "straight-1 (a learned policy, sha256:abab",
        "the latency against the objective",
        "What the HPA would have done",
        "ScalingPolicies (ScaleUpLimit)",
        "spec.behavior.scaleUp allows 4 Pods in 15 s",
        "at 2 times the load the policy would ask for",
    ):
        assert words in text, text
    groups = {group["what"]: group["replicas"] for group in found["recommendation"]["groups"]}
    largest = found["recommendation"]["groups"][0]
    assert largest["what"] == "the latency against the objective"
    assert largest["replicas"] == found["recommendation"]["replicas"] - 6
    assert groups["the time of day"] == 0
    assert json.loads(json.dumps(found)) == found


def test_the_hpas_decision_is_told_by_its_formula() -> None:
    bench = Bench(HpaPolicy(), policy={"type": "HPA"})
    found = bench.decide()
    assert found["hpa"]["replicas"] == found["recommendation"]["replicas"]
    assert found["hpa"]["use"] == 1.5
    assert found["hpa"]["target"] == 0.7
    assert "groups" not in found["recommendation"]
    text = as_text(found)
    assert "150% of the capacity is in use and 70% is wanted" in text
    assert "it leaves replicas alone between 63% and 77%" in text


def test_a_formulas_decision_is_told_by_its_parameters() -> None:
    formula = {"name": "KEDA", "keda": {"requestsPerReplica": "20"}}
    bench = Bench(KedaPolicy(requests_per_replica=20.0), policy={"type": "Formula", "formula": formula})
    found = bench.decide()
    assert found["recommendation"]["parameters"]["requests_per_replica"] == 20.0
    assert "requests_per_replica 20" in as_text(found)


def test_a_forecast_is_asked_again_with_other_features() -> None:
    bench = Bench(ForecastPolicy(), policy={"type": "Forecast"})
    for rate in (20.0, 40.0, 80.0):
        found = bench.decide(rate, turns=12)
    loads = {item["factor"]: item["replicas"] for item in found["recommendation"]["loads"]}
    # half of it would be no reason for fewer: the peak of the last minutes counts
    assert loads[2.0] > found["recommendation"]["replicas"] == loads[0.5]


def test_an_explanation_asks_nothing_of_the_engine_that_it_remembers() -> None:
    bench = Bench(Straight(0.0, latency_over_slo=1.0))
    bench.decide()
    assert bench.entry.work is not None
    row = bench.entry.work.row
    before = json.dumps([bench.engine.stabilization_state(row), bench.engine.last_desired(row)])
    for _ in range(3):
        from_operator(bench.entry, bench.log, bench.engine, bench.clock)
    assert json.dumps([bench.engine.stabilization_state(row), bench.engine.last_desired(row)]) == before


def test_a_policy_that_has_changed_since_is_not_asked() -> None:
    bench = Bench(Straight(0.0))
    bench.decide()
    assert bench.entry.work is not None
    assert bench.entry.service is not None
    bench.engine.update(bench.entry.work.row, bench.entry.service, HpaPolicy())
    found = from_operator(bench.entry, bench.log, bench.engine, bench.clock)
    assert "has changed since" in found["recommendation"]["note"]
    assert "has changed since" in as_text(found)


def test_a_policy_that_fails_when_asked_again_does_not_fail_the_explanation() -> None:
    class Broken(Straight):
        def act(self, features):  # type: ignore[no-untyped-def]
            if len(features) > 1:
                raise RuntimeError("no memory")
            return super().act(features)

    found = Bench(Broken(0.0)).decide()
    assert "no memory" in found["recommendation"]["note"]


def test_before_the_first_decision_the_conditions_speak() -> None:
    bench = Bench(HpaPolicy())
    ready = {"type": "Ready", "status": "False", "reason": "TargetNotFound", "message": "no Deployment web"}
    bench.entry.status = {"conditions": [ready]}
    text = as_text(from_operator(bench.entry, bench.log, bench.engine, bench.clock))
    assert "nothing has been decided yet" in text
    assert "no Deployment web" in text


# What it says of single things


def spec(**changes: Any) -> RLScalerSpec:
    target = {"kind": "Deployment", "name": "web"}
    return parse_spec({"scaleTargetRef": target, "maxReplicas": 10, **changes})


def subject(**changes: Any) -> Subject:
    shown = record(**changes.pop("record", {})).as_json()
    base: dict[str, Any] = {
        "namespace": "shop",
        "name": "web",
        "source": "operator",
        "now_s": NOW + 30,
        "spec": spec(),
        "status": {},
        "decision": shown,
    }
    return Subject(**(base | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({}, ["stays at 4 replicas, 30 s ago", "nothing had to be done"], id="no change"),
        pytest.param(
            {"record": {"desired_replicas": 8, "outcome": "ScaledUp", "acted": True}},
            ["4 -> 8 replicas", "replicas were set to 8"],
            id="scaled",
        ),
        pytest.param(
            {"record": {"desired_replicas": 8, "mode": "Shadow"}, "spec": spec(mode="Shadow")},
            ["would go 4 -> 8", "mode Shadow only records", "spec.mode Active would carry"],
            id="shadow",
        ),
        pytest.param(
            {"record": {"desired_replicas": 8, "error": "409: somebody else"}},
            ["were not changed: 409: somebody else"],
            id="refused",
        ),
        pytest.param(
            {"paused_by_annotation": True}, ["without the annotation rlscaler.dev/paused"], id="paused"
        ),
        pytest.param(
            {
                "record": {
                    "fallback": "MetricsUnavailable",
                    "decided_by": "HPA",
                    "passed_over": (("Policy", "MetricsUnavailable"),),
                    "recovery_awaited": 2,
                    "metrics": Outcome.SLOW,
                }
            },
            [
                "the policy did not decide: MetricsUnavailable",
                "the HPA's formula asked for 4 replicas",
                "after 2 good readings in a row",
                "the load could not be read: PrometheusSlow",
            ],
            id="fallback",
        ),
        pytest.param(
            {"record": {"recommended_replicas": None, "hpa_replicas": None}},
            ["said nothing", "no use of ready replicas"],
            id="nothing said",
        ),
        pytest.param({"record": {"unfamiliar": True}}, ["unlike any in the policy's training"], id="strange"),
        pytest.param(
            {"record": {"readings": {"latency": SignalReading(float("nan"), Outcome.EMPTY, "no series")}}},
            ["latency: not known (NoData: no series)"],
            id="a reading that failed",
        ),
    ],
)
def test_the_text_tells(changes: dict[str, Any], words: list[str]) -> None:
    text = as_text(explanation(subject(**changes)))
    for word in words:
        assert word in text, text


@pytest.mark.parametrize(
    ("clamp", "settings", "words"),
    [
        (TO_BOUND, {}, "a larger spec.maxReplicas than 10"),
        (Clamp("Bounds", "TooFewReplicas", 1, 2, ""), {"minReplicas": 2}, "smaller spec.minReplicas than 2"),
        (Clamp("SLOFloor", "SLOInDanger", 2, 4, ""), {"objective": OBJECTIVE}, "objective of 250 ms"),
        (Clamp("MinStep", "BelowMinStep", 5, 4, ""), {"limits": {"minStep": 3}}, "minStep (3)"),
        (Clamp("MaxStep", "AboveMaxStep", 9, 6, ""), {"limits": {"maxStep": 2}}, "maxStep is 2"),
        (Clamp("FlapBudget", "x", 3, 4, ""), {"limits": {"changesPerHour": 6}}, "fewer than 6 changes"),
        (Clamp("Activation", "Idle", 1, 0, ""), {"minReplicas": 0}, "more than 0 requests/s"),
        (
            Clamp("OutsideChange", "x", 3, 4, ""),
            {"outsideChange": {"holdSeconds": 90}},
            "90 s after somebody",
        ),
        (
            Clamp("ScalingPolicies", "ScaleDownLimit", 1, 4, ""),
            {"behavior": {"scaleDown": {"selectPolicy": "Disabled"}}},
            "scaleDown.selectPolicy other than Disabled",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Clamp) else "",
)
def test_each_clamp_says_what_ends_it(clamp: Clamp, settings: dict[str, Any], words: str) -> None:
    shown = {"name": clamp.name, "reason": clamp.reason, "before": clamp.before, "after": clamp.after}
    assert words in what_ends(shown, spec(**settings), Past())


def test_every_rule_of_the_guard_has_an_end() -> None:
    for name in (*CLAMPS, *OF_POOLS):
        assert what_ends({"name": name, "reason": "x", "before": 1, "after": 2}, spec(), Past())


def test_a_stabilisation_window_ends_when_its_highest_recommendation_leaves_it() -> None:
    held = [(NOW - 200, 9), (NOW - 100, 7), (NOW, 3)]
    past = {"recommendations": [{"time": rfc3339_micro(at), "replicas": n} for at, n in held]}
    found = explanation(subject(record={"clamps": (BY_WINDOW,)}, stabilization=past))
    assert rfc3339(NOW - 100 + 300) in found["guard"][0]["ends"]
    assert any(line.startswith("StabilizationWindow: ") for line in found["wouldChange"])


def test_pools_budget_canary_and_others_are_told() -> None:
    status = {
        "backends": [{"name": "spot", "currentReplicas": 2, "desiredReplicas": 3, "weight": 40}],
        "budget": {"name": "team", "cap": 5, "message": "5 of 20 replicas"},
        "policy": {"canary": {"name": "next", "phase": "Shadow", "decisions": 7}},
        "outsideChange": {"replicas": 9, "until": "2026-01-31T12:00:00Z", "by": "kubectl-scale"},
    }
    text = as_text(explanation(subject(status=status)))
    for words in (
        "pool spot: 2 -> 3 replicas, 40 % of the traffic",
        "budget team: 5 of 20 replicas",
        "canary next (Shadow): 7 decisions in shadow",
        "kubectl-scale set 9 replicas, which are left alone until 2026-01-31T12:00:00Z",
    ):
        assert words in text, text


# From the RLScaler alone


def body(**status: Any) -> dict[str, Any]:
    found = rlscaler("web", policy={"type": "HPA"}, minReplicas=2)
    return {**found, "status": {"policy": {"type": "HPA", "name": "hpa"}, **status}}


def test_a_status_tells_the_same_but_for_what_only_the_operator_knows() -> None:
    made = record(clamps=(TO_BOUND,), desired_replicas=10, outcome="ScaledUp", acted=True)
    text = as_text(from_object(body(lastDecision=made.as_status()), NOW + 60, "the operator is away"))
    for words in ("4 -> 10 replicas, 60 s ago", "hpa (the HPA's formula)", "request rate: 20.1/s", "Bounds"):
        assert words in text, text
    assert "What is missing here\n  the operator is away" in text


def test_a_status_without_a_decision_says_so() -> None:
    text = as_text(from_object(body(), NOW, "the operator is away"))
    assert "nothing has been decided yet" in text
    assert "the operator is away" in text


def test_a_spec_that_cannot_be_read_is_no_hindrance() -> None:
    odd = body(lastDecision=record().as_status())
    odd["spec"]["mode"] = "Sleepy"
    assert "Sleepy" in as_text(from_object(odd, NOW, "away"))


# The command


@pytest.fixture
def server() -> Iterator[tuple[str, Operator]]:
    operator = Operator()
    bench = Bench(Straight(0.0, latency_over_slo=1.0))
    operator.explanations["shop", "web"] = bench.decide()
    with served(create_app(operator)) as port:
        yield f"http://127.0.0.1:{port}", operator


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["explain", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_command_prints_what_the_operator_says(
    server: tuple[str, Operator], capsys: pytest.CaptureFixture[str]
) -> None:
    url, operator = server
    code, out, _ = run(capsys, "web", "-n", "shop", "--server", url)
    assert code == 0
    assert out == as_text(operator.explanations["shop", "web"])
    code, out, _ = run(capsys, "web", "-n", "shop", "--server", url + "/", "-o", "json")
    assert json.loads(out) == operator.explanations["shop", "web"]


def test_without_operator_and_kubeconfig_both_reasons_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    code, out, err = run(capsys, "web", "-n", "shop", "--server", nobody, "--kubeconfig", "/nowhere")
    assert (code, out) == (2, "")
    assert nobody in err
    assert "--kubeconfig" in err


@pytest.mark.parametrize("words", [[], ["web", "-o", "yaml"]], ids=["no name", "an unknown format"])
def test_wrong_arguments_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["explain", *words])
    assert refused.value.code == 2


def test_without_an_operator_the_status_is_read_through_the_kubeconfig(
    cluster: Cluster, namespace: Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace.rlscaler("web")
    status = {"lastDecision": record(clamps=(TO_BOUND,)).as_status(), "currentReplicas": 4}
    path = namespace.path("/apis/rlscaler.dev/v1alpha1", "rlscalers", "web", "status")
    cluster.api.patch(path, {"status": status})
    nobody = f"http://127.0.0.1:{free_port()}"
    where = ["-n", namespace.name, "--server", nobody, "--kubeconfig", str(cluster.kubeconfig)]
    code, out, _ = run(capsys, "web", *where)
    assert code == 0
    assert f"{namespace.name}/web (Deployment/web): stays at 4 replicas" in out
    assert f"cannot be reached at {nobody}" in out
    code, out, err = run(capsys, "nobody", *where)
    assert (code, out) == (2, "")
    assert f"there is no RLScaler 'nobody' in namespace '{namespace.name}'" in err


def test_what_is_no_operator_is_told_apart(
    cluster: Cluster, namespace: Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    """A developer's own server on the same port must not be taken for one."""
    from fastapi import FastAPI

    namespace.rlscaler("web")
    with served(FastAPI()) as port:
        where = ["-n", namespace.name, "--kubeconfig", str(cluster.kubeconfig)]
        code, out, _ = run(capsys, "web", *where, "--server", f"http://127.0.0.1:{port}")
    assert code == 0
    assert "says 404" in out
