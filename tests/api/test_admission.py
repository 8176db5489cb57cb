"""What the API server takes and refuses, by the generated CRD; and that the Python types agree with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api.validation import InvalidSpec, admit, parse_spec, unknown_fields
from tests.api.apiserver import CustomResource, Refused, rules
from tests.api.samples import DESIGN, POOLS, SMALLEST, WEB, changed, manifest

Json = dict[str, Any]


def formula(name: str | None, **parameters: Any) -> Json:
    """The smallest spec with a formula; without a name, with parameters alone."""
    named = {} if name is None else {"name": name}
    return changed(SMALLEST, "policy", {"type": "Formula", "formula": {**named, **parameters}})


def schedules(**fields: Any) -> Json:
    """The smallest spec with office hours, changed so."""
    office = {"start": "0 8 * * MON-FRI", "end": "0 18 * * MON-FRI", "minReplicas": 3}
    return changed(SMALLEST, "schedules", [{**office, **fields}])


def to_zero(**fields: Any) -> Json:
    return {**SMALLEST, "minReplicas": 0, "scaleToZero": fields}


ACCEPTED: dict[str, Json] = {
    "the smallest": SMALLEST,
    "the design's, with a target": DESIGN,
    "the design's, with pools and a route": POOLS,
    "any kind with a scale subresource": changed(
        SMALLEST, "scaleTargetRef", {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web"}
    ),
    "down to zero": changed(SMALLEST, "minReplicas", 0),
    "min equal to max": changed(SMALLEST, "minReplicas", 10),
    "percentile as an integer": changed(
        SMALLEST, "objective.slo.latency", {"milliseconds": 1, "percentile": 99}
    ),
    "percentile as a string": changed(
        SMALLEST, "objective.slo.latency", {"milliseconds": 1, "percentile": "99.9"}
    ),
    "percentile just above zero": changed(
        SMALLEST, "objective.slo.latency", {"milliseconds": 1, "percentile": "0.01"}
    ),
    "preference at its least": changed(SMALLEST, "objective.preference", 0),
    "preference at its most": changed(SMALLEST, "objective.preference", 100),
    "capacity in thousandths": changed(SMALLEST, "objective.capacityPerReplica", "500m"),
    "custom with a request rate": changed(
        SMALLEST, "metrics", {"preset": "custom", "queries": {"requestRate": "sum(rate(x[{{window}}]))"}}
    ),
    "custom with CPU only": changed(
        SMALLEST, "metrics", {"preset": "custom", "queries": {"cpuUtilization": "x"}}
    ),
    "one query of a preset overridden": changed(SMALLEST, "metrics.queries", {"latency": "x"}),
    "one signal of a preset turned off": changed(SMALLEST, "metrics.queries", {"errorRatio": ""}),
    "a Prometheus of its own with bearer token and TLS": changed(
        SMALLEST,
        "metrics.prometheus",
        {
            "address": "https://prometheus.example:9090/prefix",
            "timeoutSeconds": 2,
            "auth": {"secretRef": {"name": "prometheus"}},
            "tls": {"secretRef": {"name": "prometheus-tls"}, "insecureSkipVerify": False},
        },
    ),
    "a Prometheus with a password": changed(
        SMALLEST,
        "metrics.prometheus.auth",
        {"type": "Basic", "secretRef": {"name": "p"}, "keys": {"username": "u"}},
    ),
    "artifact at a url": changed(
        SMALLEST, "policy.artifact", {"url": "https://example.com/p.onnx", "sha256": "0" * 64}
    ),
    "a canary": changed(SMALLEST, "policy.canary", {"artifact": {"builtin": "ppo"}}),
    "a canary beside a formula": changed(
        SMALLEST,
        "policy",
        {
            "type": "HPA",
            "canary": {
                "artifact": {"configMap": {"name": "next"}},
                "promotion": "Automatic",
                "gate": {"minDurationSeconds": 0, "maxCostRatio": "1.2", "maxShortfall": "0"},
                "rollback": {"windowSeconds": 120},
            },
        },
    ),
    "artifact in a ConfigMap": changed(SMALLEST, "policy.artifact", {"configMap": {"name": "policy"}}),
    "artifact in a file with its digest": changed(
        SMALLEST, "policy.artifact", {"file": "web.onnx", "sha256": "ab" * 32}
    ),
    "the HPA's formula": changed(SMALLEST, "policy.type", "HPA"),
    "the forecast": changed(SMALLEST, "policy.type", "Forecast"),
    "each formula by its name": formula("SeasonalNaive"),
    "KEDA with all that it takes": formula(
        "KEDA", requestsPerReplica="12.5", activationRequestsPerSecond="0", cooldownSeconds=0
    ),
    "Knative with all that it takes": formula(
        "Knative",
        metric="concurrency",
        target="500m",
        stableWindowSeconds=1800,
        panicWindowPercentage=100,
        panicThresholdPercentage=110,
        maxScaleUpRate="10",
        maxScaleDownRate="1.5",
        scaleToZeroGraceSeconds=0,
    ),
    "Holt-Winters with all that it takes": formula(
        "HoltWinters", alpha="0", beta="1.0", gamma="250m", seasonSeconds=3600
    ),
    "the naive forecast with all that it takes": formula(
        "SeasonalNaive", seasonSeconds=86400, levelWindowSeconds=60
    ),
    "the moving maximum with all that it takes": formula(
        "MovingMaximum", windowSeconds=86400, averagingSeconds=60, percentile="99.5", halfLifeSeconds=43200
    ),
    "Erlang C with all that it takes": formula(
        "ErlangC", waitProbability="0.000000001", requestsAtOnce=8, loadWindowSeconds=15
    ),
    "Shadow": changed(SMALLEST, "mode", "Shadow"),
    "the cost of a replica": changed(SMALLEST, "costPerReplica", "2.5"),
    "Paused": changed(SMALLEST, "mode", "Paused"),
    "Hold": changed(SMALLEST, "fallback.behavior", "Hold"),
    "Static with replicas": changed(SMALLEST, "fallback", {"behavior": "Static", "replicas": 4}),
    "behavior as in autoscaling/v2": changed(
        SMALLEST,
        "behavior",
        {
            "scaleDown": {
                "stabilizationWindowSeconds": 3600,
                "selectPolicy": "Min",
                "policies": [{"type": "Pods", "value": 1, "periodSeconds": 1800}],
                "tolerance": "50m",
            },
            "scaleUp": {"selectPolicy": "Disabled"},
        },
    ),
    "pools within a total": {**POOLS, "minReplicas": 3, "maxReplicas": 50},
    "a pool that is kept empty": changed(POOLS, "backends.1.maxReplicas", 0),
    "pools without routes": changed(POOLS, "routes", None),
    "office hours, and a night over midnight": changed(
        schedules(name="office-hours", timezone="Europe/Paris"),
        "schedules.1",
        {"start": "*/30 22-23 1,15 * FRI#2", "end": "0  6 L JAN-MAR,DEC 7", "minReplicas": 10},
    ),
    "no schedules": changed(SMALLEST, "schedules", []),
    "limits": changed(SMALLEST, "limits", {"changesPerHour": 6, "maxStep": 4, "minStep": 4}),
    "scale to zero": to_zero(),
    "scale to zero with all that it takes": to_zero(activationRequestsPerSecond="500m", cooldownSeconds=0),
    "scale to zero of pools": {
        **changed(POOLS, "backends.0.minReplicas", 0),
        "minReplicas": 0,
        "scaleToZero": {"cooldownSeconds": 86400},
    },
    "others' changes overridden": changed(SMALLEST, "outsideChange.holdSeconds", 0),
    "the least priority": changed(SMALLEST, "priority", -1_000_000),
    "a start-up time of its own": changed(SMALLEST, "objective.startUpSeconds", 0),
    "a fallback that is left at once": changed(SMALLEST, "fallback.recoveryThreshold", 1),
    "an unknown field, which is pruned": {**SMALLEST, "replicas": 3},
    "null where there is a default": {**SMALLEST, "mode": None, "syncPeriodSeconds": None},
}

REFUSED: dict[str, tuple[Json, str]] = {
    "min over max": (
        changed(SMALLEST, "minReplicas", 11),
        "spec.minReplicas must be less than or equal to spec.maxReplicas",
    ),
    "max of zero": (changed(SMALLEST, "maxReplicas", 0), "maxReplicas"),
    "no target at all": (
        {"maxReplicas": 3},
        "exactly one of spec.scaleTargetRef and spec.backends must be set",
    ),
    "a target and pools": (
        {**SMALLEST, **POOLS},
        "exactly one of spec.scaleTargetRef and spec.backends must be set",
    ),
    "a target without max": ({"scaleTargetRef": WEB}, "spec.scaleTargetRef needs spec.maxReplicas"),
    "a target without a name": (changed(SMALLEST, "scaleTargetRef", {"kind": "Deployment"}), "name"),
    "a target's name that cannot be": (
        changed(SMALLEST, "scaleTargetRef.name", "Web_1"),
        "scaleTargetRef.name",
    ),
    "negative min": (changed(SMALLEST, "minReplicas", -1), "minReplicas"),
    "max as a string": (changed(SMALLEST, "maxReplicas", "10"), "maxReplicas"),
    "unknown mode": (changed(SMALLEST, "mode", "Off"), "mode"),
    "a cost of a replica beside those of the pools": (
        changed(POOLS, "costPerReplica", "2"),
        "spec.costPerReplica is for spec.scaleTargetRef; spec.backends have their own costPerReplica",
    ),
    "replicas for nothing": (
        changed(SMALLEST, "costPerReplica", "0"),
        "must be a decimal greater than 0 in quotes",
    ),
    "percentile 0": (
        changed(SMALLEST, "objective.slo.latency", {"milliseconds": 1, "percentile": 0}),
        "percentile must be greater than 0 and less than 100",
    ),
    "percentile 100": (
        changed(SMALLEST, "objective.slo.latency", {"milliseconds": 1, "percentile": 100}),
        "percentile must be greater than 0 and less than 100",
    ),
    "percentile zero in a string": (
        changed(SMALLEST, "objective.slo.latency", {"milliseconds": 1, "percentile": "0.0"}),
        "percentile must be greater than 0 and less than 100",
    ),
    "percentile 100 in a string": (
        changed(SMALLEST, "objective.slo.latency", {"milliseconds": 1, "percentile": "100"}),
        "percentile",
    ),
    "percentile in words": (
        changed(SMALLEST, "objective.slo.latency", {"milliseconds": 1, "percentile": "p95"}),
        "percentile",
    ),
    "percentile as a float": (
        changed(SMALLEST, "objective.slo.latency", {"milliseconds": 1, "percentile": 99.9}),
        "percentile",
    ),
    "a latency objective without its limit": (
        changed(SMALLEST, "objective.slo", {"latency": {}}),
        "milliseconds",
    ),
    "preference over 100": (changed(SMALLEST, "objective.preference", 101), "preference"),
    "preference below 0": (changed(SMALLEST, "objective.preference", -1), "preference"),
    "capacity zero": (
        changed(SMALLEST, "objective.capacityPerReplica", "0.0"),
        "must be a decimal greater than 0 in quotes",
    ),
    "capacity negative": (
        changed(SMALLEST, "objective.capacityPerReplica", "-3"),
        "must be a decimal greater than 0 in quotes",
    ),
    "capacity as a number": (changed(SMALLEST, "objective.capacityPerReplica", 25), "capacityPerReplica"),
    "capacity with a trailing newline": (
        changed(SMALLEST, "objective.capacityPerReplica", "25\n"),
        "must be a decimal greater than 0 in quotes",
    ),
    "custom without load": (
        changed(SMALLEST, "metrics", {"preset": "custom", "queries": {"latency": "x"}}),
        "preset custom needs queries.requestRate or queries.cpuUtilization",
    ),
    "custom with an empty request rate": (
        changed(SMALLEST, "metrics", {"preset": "custom", "queries": {"requestRate": ""}}),
        "preset custom needs queries.requestRate or queries.cpuUtilization",
    ),
    "unknown preset": (changed(SMALLEST, "metrics.preset", "datadog"), "preset"),
    "a preset of a later release": (
        changed(SMALLEST, "metrics.preset", "linkerd"),
        "use envoy, istio, ingress-nginx or custom",
    ),
    "an address without a scheme": (
        changed(SMALLEST, "metrics.prometheus.address", "prometheus:9090"),
        "address",
    ),
    "authentication without a Secret": (changed(SMALLEST, "metrics.prometheus.auth", {}), "secretRef"),
    "two sources of an artifact": (
        changed(SMALLEST, "policy.artifact", {"builtin": "default", "file": "x.onnx"}),
        "exactly one of builtin, configMap, file and url must be set",
    ),
    "no source of an artifact": (
        changed(SMALLEST, "policy.artifact", {}),
        "exactly one of builtin, configMap, file and url must be set",
    ),
    "a url without its digest": (
        changed(SMALLEST, "policy.artifact", {"url": "https://example.com/p.onnx"}),
        "url needs sha256",
    ),
    "a canary without an artifact": (changed(SMALLEST, "policy.canary", {}), "artifact"),
    "a canary from two sources": (
        changed(SMALLEST, "policy.canary.artifact", {"builtin": "ppo", "file": "a.onnx"}),
        "exactly one of builtin, configMap, file and url must be set",
    ),
    "a canary's url without its digest": (
        changed(SMALLEST, "policy.canary.artifact", {"url": "https://example.com/p.onnx"}),
        "url needs sha256",
    ),
    "a gate that no policy could pass": (
        changed(SMALLEST, "policy.canary", {"artifact": {"builtin": "ppo"}, "gate": {"maxCostRatio": "0"}}),
        "must be a decimal greater than 0",
    ),
    "a rollback above the whole": (
        changed(
            SMALLEST,
            "policy.canary",
            {"artifact": {"builtin": "ppo"}, "rollback": {"violationRatio": "1.5"}},
        ),
        "must be a decimal from 0 to 1",
    ),
    "a digest that is none": (
        changed(SMALLEST, "policy.artifact", {"file": "p.onnx", "sha256": "sha256:00"}),
        "sha256",
    ),
    "unknown policy type": (changed(SMALLEST, "policy.type", "Magic"), "type"),
    "type Formula without a formula": (
        changed(SMALLEST, "policy.type", "Formula"),
        "policy type Formula needs formula, such as {name: KEDA}",
    ),
    "a formula under another type": (
        changed(SMALLEST, "policy", {"type": "HPA", "formula": {"name": "KEDA"}}),
        "formula is for policy type Formula only",
    ),
    "a formula without a name": (formula(None, alpha="0.5"), "name"),
    "an unknown formula": (formula("Magic"), "name"),
    "KEDA's parameter with another formula": (
        formula("ErlangC", cooldownSeconds=60),
        "requestsPerReplica, activationRequestsPerSecond and cooldownSeconds are parameters of KEDA only",
    ),
    "Knative's parameter with another formula": (
        formula("KEDA", target="3"),
        "maxScaleUpRate, maxScaleDownRate and scaleToZeroGraceSeconds are parameters of Knative only",
    ),
    "Holt-Winters' parameter with another formula": (
        formula("SeasonalNaive", alpha="0.5"),
        "alpha, beta and gamma are parameters of HoltWinters only",
    ),
    "a season with a formula that has none": (
        formula("MovingMaximum", seasonSeconds=3600),
        "seasonSeconds is a parameter of HoltWinters and SeasonalNaive only",
    ),
    "the naive forecast's parameter with another formula": (
        formula("HoltWinters", levelWindowSeconds=600),
        "levelWindowSeconds is a parameter of SeasonalNaive only",
    ),
    "the moving maximum's parameter with another formula": (
        formula("Knative", percentile=95),
        "percentile and halfLifeSeconds are parameters of MovingMaximum only",
    ),
    "Erlang C's parameter with another formula": (
        formula("MovingMaximum", requestsAtOnce=2),
        "waitProbability, requestsAtOnce and loadWindowSeconds are parameters of ErlangC only",
    ),
    "concurrency without a target": (
        formula("Knative", metric="concurrency"),
        "metric concurrency needs target",
    ),
    "an average of a minute and a half": (
        formula("MovingMaximum", averagingSeconds=90),
        "averagingSeconds must be a multiple of 60",
    ),
    "a window below its averages": (
        formula("MovingMaximum", windowSeconds=240),
        "windowSeconds (3600 by default) must be at least averagingSeconds (300 by default)",
    ),
    "a percentile of a hundred": (
        formula("MovingMaximum", percentile=100),
        'percentile must be greater than 0 and less than 100, such as 98 or "99.5"',
    ),
    "a smoothing above 1": (formula("HoltWinters", alpha="1.01"), "must be a decimal from 0 to 1 in quotes"),
    "a probability of 1": (
        formula("ErlangC", waitProbability="1.0"),
        "must be a decimal greater than 0 and less than 1 in quotes",
    ),
    "a scale-down rate of 1": (
        formula("Knative", maxScaleDownRate="1.0"),
        "must be a decimal greater than 1 in quotes",
    ),
    "a week's season": (formula("SeasonalNaive", seasonSeconds=604800), "seasonSeconds"),
    "requests per replica as a number": (formula("KEDA", requestsPerReplica=20), "requestsPerReplica"),
    "no requests per replica": (
        formula("KEDA", requestsPerReplica="0"),
        "must be a decimal greater than 0 in quotes",
    ),
    "Static without replicas": (
        changed(SMALLEST, "fallback.behavior", "Static"),
        "behavior Static needs replicas",
    ),
    "a threshold of zero": (changed(SMALLEST, "fallback.failureThreshold", 0), "failureThreshold"),
    "a window over an hour": (
        changed(SMALLEST, "behavior.scaleDown.stabilizationWindowSeconds", 3601),
        "stabilizationWindowSeconds",
    ),
    "a period over half an hour": (
        changed(SMALLEST, "behavior.scaleUp.policies", [{"type": "Pods", "value": 1, "periodSeconds": 1801}]),
        "periodSeconds",
    ),
    "a rate of zero": (
        changed(SMALLEST, "behavior.scaleUp.policies", [{"type": "Pods", "value": 0, "periodSeconds": 15}]),
        "value",
    ),
    "no rate rules": (changed(SMALLEST, "behavior.scaleUp.policies", []), "policies"),
    "a negative tolerance": (
        changed(SMALLEST, "behavior.scaleUp.tolerance", "-0.1"),
        "must be a decimal of 0 or more in quotes",
    ),
    "a sync period of zero": (changed(SMALLEST, "syncPeriodSeconds", 0), "syncPeriodSeconds"),
    "a schedule that ends when it starts": (
        schedules(end="0 8 * * MON-FRI"),
        "start and end must differ",
    ),
    "a schedule of four fields": (schedules(start="0 8 * *"), "start"),
    "a schedule with seconds": (schedules(start="0 0 8 * * *"), "start"),
    "a schedule in words": (schedules(end="every evening at six o'clock"), "end"),
    "a zone in words": (schedules(timezone="Central European Time"), "timezone"),
    "a schedule without replicas": (
        changed(SMALLEST, "schedules", [{"start": "0 8 * * *", "end": "0 9 * * *"}]),
        "minReplicas",
    ),
    "a schedule above max": (
        schedules(minReplicas=11),
        "minReplicas of each of spec.schedules must be less than or equal to spec.maxReplicas",
    ),
    "no change an hour": (changed(SMALLEST, "limits.changesPerHour", 0), "changesPerHour"),
    "a least step above the largest": (
        changed(SMALLEST, "limits", {"minStep": 5, "maxStep": 4}),
        "minStep must be less than or equal to maxStep",
    ),
    "a largest step of zero": (changed(SMALLEST, "limits.maxStep", 0), "maxStep"),
    "scale to zero with a minimum": (
        changed(SMALLEST, "scaleToZero", {}),
        "spec.scaleToZero needs spec.minReplicas 0, and minReplicas 0 of each of spec.backends",
    ),
    "scale to zero with a pool that has a minimum": (
        {**POOLS, "minReplicas": 0, "scaleToZero": {}},
        "spec.scaleToZero needs spec.minReplicas 0",
    ),
    "a negative activation": (
        to_zero(activationRequestsPerSecond="-1"),
        "must be a decimal of 0 or more in quotes",
    ),
    "an activation as a number": (to_zero(activationRequestsPerSecond=1), "activationRequestsPerSecond"),
    "a cooldown of two days": (to_zero(cooldownSeconds=172800), "cooldownSeconds"),
    "a hold below zero": (changed(SMALLEST, "outsideChange.holdSeconds", -1), "holdSeconds"),
    "a priority beyond all": (changed(SMALLEST, "priority", 1_000_001), "priority"),
    "a recovery threshold of zero": (
        changed(SMALLEST, "fallback.recoveryThreshold", 0),
        "recoveryThreshold",
    ),
    "a start-up of two hours": (changed(SMALLEST, "objective.startUpSeconds", 7200), "startUpSeconds"),
    "routes without pools": (
        changed(SMALLEST, "routes", [{"kind": "HTTPRoute", "name": "web"}]),
        "spec.routes needs spec.backends",
    ),
    "an unknown kind of route": (changed(POOLS, "routes.0.kind", "Route"), "kind"),
    "a canary that is no pool": (
        {**POOLS, "canary": {"pool": "web"}},
        "spec.canary.pool must be the name of one of at least two spec.backends",
    ),
    "a canary without pools": (
        {**SMALLEST, "canary": {"pool": "spot"}},
        "spec.canary.pool must be the name of one of at least two spec.backends",
    ),
    "a canary without routes": (
        {**changed(POOLS, "routes", None), "canary": {"pool": "spot"}},
        "spec.canary needs spec.routes, whose weights it steps",
    ),
    "a canary that may not go back": (
        {**POOLS, "canary": {"pool": "on-demand"}},
        "the pool of spec.canary must have minWeight 0, and at least its maxWeight as maxWeight",
    ),
    "a canary above its pool": (
        {**POOLS, "canary": {"pool": "spot", "maxWeight": 81}},
        "the pool of spec.canary must have minWeight 0, and at least its maxWeight as maxWeight",
    ),
    "a canary that leaves too little": (
        {**changed(POOLS, "backends.0.minWeight", 30), "canary": {"pool": "spot", "maxWeight": 80}},
        "spec.canary.maxWeight and the sum of spec.backends[*].minWeight must be at most 100",
    ),
    "a canary without steps": (
        {**POOLS, "canary": {"pool": "spot", "stepWeight": 0}},
        "canary.stepWeight",
    ),
    "routing without routes": (
        {**changed(POOLS, "routes", None), "routing": {}},
        "spec.routing needs spec.routes, whose weights it decides",
    ),
    "weights by an artifact that a formula has not": (
        {**POOLS, "policy": {"type": "HPA"}, "routing": {"policy": "Policy"}},
        "spec.routing.policy Policy needs spec.policy.type RL, with an artifact for pools",
    ),
    "an unknown way to weigh": (changed(POOLS, "routing", {"policy": "Random"}), "routing.policy"),
    "a reclaim rate below 0": (changed(POOLS, "backends.0.reclaimsPerHour", "-1"), "reclaimsPerHour"),
    "a pool's start-up time below 0": (changed(POOLS, "backends.0.startUpSeconds", -1), "startUpSeconds"),
    "no pools": ({"backends": []}, "backends"),
    "pool min over max": (
        changed(POOLS, "backends.0.minReplicas", 41),
        "minReplicas must be less than or equal to maxReplicas",
    ),
    "pool weights crossed": (
        changed(changed(POOLS, "backends.0.minWeight", 60), "backends.0.maxWeight", 50),
        "minWeight must be less than or equal to maxWeight",
    ),
    "pool weights that cannot come up to 100": (
        changed(changed(POOLS, "backends.0.maxWeight", 10), "backends.1.maxWeight", 20),
        "the sum of spec.backends[*].maxWeight must be at least 100",
    ),
    "pool weights that need more than 100": (
        changed(changed(POOLS, "backends.0.minWeight", 60), "backends.1.minWeight", 60),
        "the sum of spec.backends[*].minWeight must be at most 100",
    ),
    "pools of one name": (changed(POOLS, "backends.1.name", "on-demand"), "backends"),
    "pools of one target": (
        changed(POOLS, "backends.1.scaleTargetRef.name", "web-od"),
        "spec.backends must not name the same scaleTargetRef twice",
    ),
    "pools that need more than the total": (
        {**POOLS, "maxReplicas": 1},
        "the sum of spec.backends[*].minReplicas must be at most spec.maxReplicas",
    ),
    "pools that cannot come up to the total": (
        {**POOLS, "minReplicas": 101},
        "the sum of spec.backends[*].maxReplicas must be at least 1 and at least spec.minReplicas",
    ),
    "pools that are all kept empty": (
        {"minReplicas": 0, "backends": [{"name": "a", "scaleTargetRef": WEB, "maxReplicas": 0}]},
        "the sum of spec.backends[*].maxReplicas must be at least 1",
    ),
    "a pool's cost as a number": (changed(POOLS, "backends.0.costPerReplica", 1.0), "costPerReplica"),
    "nine pools": (
        {
            "backends": [
                {"name": f"p{i}", "scaleTargetRef": {"kind": "Deployment", "name": f"p{i}"}, "maxReplicas": 1}
                for i in range(9)
            ]
        },
        "backends",
    ),
}


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED)
def test_the_api_server_takes_it(resource: CustomResource, spec: Json) -> None:
    resource.apply(manifest(spec))


@pytest.mark.parametrize(("spec", "message"), REFUSED.values(), ids=REFUSED)
def test_the_api_server_refuses_it_and_names_the_field(
    resource: CustomResource, spec: Json, message: str
) -> None:
    with pytest.raises(Refused) as refused:
        resource.apply(manifest(spec))
    assert message in str(refused.value)


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED)
def test_the_types_take_it_and_fill_in_the_same_defaults(resource: CustomResource, spec: Json) -> None:
    assert admit(manifest(spec)) == resource.apply(manifest(spec))


@pytest.mark.parametrize(("spec", "message"), REFUSED.values(), ids=REFUSED)
def test_the_types_refuse_it_and_name_the_field(spec: Json, message: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        admit(manifest(spec))
    assert message in str(refused.value)
    assert refused.value.reason == "InvalidSpec"


def test_every_rule_of_the_crd_refuses_something_above(resource: CustomResource) -> None:
    said = "\n".join(map(_refusal(resource), (spec for spec, _ in REFUSED.values())))
    silent = [rule["message"] for _, _, rule in rules(resource.schema) if rule["message"] not in said]
    assert silent == []


def _refusal(resource: CustomResource) -> Callable[[Json], str]:
    def refusal(spec: Json) -> str:
        with pytest.raises(Refused) as refused:
            resource.apply(manifest(spec))
        return str(refused.value)

    return refusal


REPLICAS = st.integers(0, 12)
BACKEND = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "b", "c"]),
        "scaleTargetRef": st.fixed_dictionaries(
            {"kind": st.just("Deployment"), "name": st.sampled_from("xyz")}
        ),
        "maxReplicas": REPLICAS,
    },
    optional={"minReplicas": REPLICAS, "minWeight": st.integers(0, 60), "maxWeight": st.integers(20, 100)},
)
DECIMALS = st.from_regex(r"\A-?[0-9]{0,3}\.?[0-9]{0,2}m?\n?\Z") | st.sampled_from(
    ["0", "0.0m", "1e3", "NaN", "٣"]
)
FORMULA_FIELD = {
    "formula": st.fixed_dictionaries(
        {
            "name": st.sampled_from(
                ["KEDA", "Knative", "HoltWinters", "SeasonalNaive", "MovingMaximum", "ErlangC"]
            )
        },
        optional={
            "requestsPerReplica": DECIMALS,
            "activationRequestsPerSecond": DECIMALS,
            "metric": st.sampled_from(["rps", "concurrency"]),
            "target": DECIMALS,
            "maxScaleUpRate": DECIMALS,
            "alpha": DECIMALS,
            "seasonSeconds": st.sampled_from([60, 3600, 86400]),
            "windowSeconds": st.integers(50, 400),
            "averagingSeconds": st.integers(1, 6).map(lambda minutes: 60 * minutes) | st.just(90),
            "percentile": st.integers(-1, 101) | DECIMALS,
            "waitProbability": DECIMALS,
        },
    )
}
SPEC = st.fixed_dictionaries(
    {},
    optional={
        "scaleTargetRef": st.just(WEB),
        "backends": st.lists(BACKEND, max_size=3),
        "routes": st.lists(st.just({"kind": "HTTPRoute", "name": "web"}), max_size=1),
        "canary": st.fixed_dictionaries(
            {"pool": st.sampled_from(["a", "b", "c"])},
            optional={"maxWeight": st.integers(0, 101), "stepWeight": st.integers(0, 101)},
        ),
        "minReplicas": REPLICAS,
        "maxReplicas": REPLICAS,
        "objective": st.fixed_dictionaries(
            {},
            optional={
                "capacityPerReplica": DECIMALS,
                "slo": st.fixed_dictionaries(
                    {
                        "latency": st.fixed_dictionaries(
                            {"milliseconds": st.integers(0, 3), "percentile": st.integers(-1, 101) | DECIMALS}
                        )
                    }
                ),
            },
        ),
        "policy": st.fixed_dictionaries(
            {"type": st.sampled_from(["Formula", "HPA"])}, optional=FORMULA_FIELD
        ),
        "scaleToZero": st.just({}),
        "limits": st.fixed_dictionaries(
            {}, optional={"minStep": st.integers(0, 3), "maxStep": st.integers(0, 3)}
        ),
        "schedules": st.lists(
            st.fixed_dictionaries(
                {
                    "start": st.sampled_from(["0 8 * * *", "0 9 * * MON"]),
                    "end": st.sampled_from(["0 9 * * MON", "0 9 * *", "0  8 * * *"]),
                    "minReplicas": REPLICAS,
                }
            ),
            max_size=2,
        ),
        "fallback": st.fixed_dictionaries(
            {}, optional={"behavior": st.sampled_from(["HPA", "Hold", "Static"]), "replicas": REPLICAS}
        ),
    },
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(spec=SPEC)
def test_types_and_crd_agree_on_random_objects(resource: CustomResource, spec: Json) -> None:
    try:
        stored = resource.apply(manifest(spec))
    except Refused:
        with pytest.raises(InvalidSpec):
            admit(manifest(spec))
    else:
        assert admit(manifest(spec)) == stored


def test_another_artifact_can_be_merged_into_a_stored_object(resource: CustomResource) -> None:
    """`kubectl apply` sends a merge patch, which leaves what the API server filled in where it is silent."""
    stored = resource.apply(manifest(SMALLEST))
    stored["spec"]["policy"] |= {"artifact": {"configMap": {"name": "policy"}}}
    resource.apply(stored)


def test_without_an_artifact_the_builtin_policy_is_meant() -> None:
    assert parse_spec(SMALLEST).policy.artifact.builtin == "default"


def test_unknown_fields_are_named_for_strict_callers() -> None:
    spec = {**SMALLEST, "minReplica": 2, "metrics": {"queries": {"rps": "x"}}}
    assert unknown_fields(manifest(spec)) == ["spec.metrics.queries.rps", "spec.minReplica"]
    assert unknown_fields(manifest(DESIGN)) == []


def test_a_manifest_without_a_spec_is_refused(resource: CustomResource) -> None:
    bare = {"apiVersion": "rlscaler.dev/v1alpha1", "kind": "RLScaler", "metadata": {"name": "web"}}
    with pytest.raises(InvalidSpec, match="spec: Required value"):
        admit(bare)
    with pytest.raises(Refused, match="'spec' is a required property"):
        resource.apply(bare)
