"""One explanation as plain values: from a decision, the RLScaler's spec and status, and what was asked again.

The operator makes it from its records for `/v1/explain`, the command line from the RLScaler itself where no
operator can be reached; `controller.explain.words` turns either into text. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from controller.api.convert import target_label, to_service_spec
from controller.api.types import RLScalerSpec
from controller.clock import rfc3339, unix_seconds
from controller.core.observation import COLUMN, OBSERVATION_SCHEMA
from controller.decisions import rounded
from controller.explain.ends import Past, what_ends
from controller.explain.sensitivity import Sensitivity

Json = dict[str, Any]

FEATURES_SHOWN = 8


@dataclass(frozen=True)
class Subject:
    """What there is to explain by. `decision`: a record's JSON, or status.lastDecision, or None.

    missing: what this source cannot tell, in sentences. note: why `mattered` is None where it could be there.
    """

    namespace: str
    name: str
    source: str
    now_s: float
    spec: RLScalerSpec | None
    status: Mapping[str, Any]
    decision: Mapping[str, Any] | None
    paused_by_annotation: bool = False
    stabilization: Mapping[str, Any] = field(default_factory=dict)
    mattered: Sensitivity | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    scale: float = 1.0
    missing: tuple[str, ...] = ()

    @property
    def mode(self) -> str:
        return self.spec.mode if self.spec is not None else "Active"


def explanation(subject: Subject) -> Json:
    """Everything that `-o json` shows, and that the text is made of."""
    conditions = [
        {key: c.get(key, "") for key in ("type", "status", "reason", "message")}
        for c in subject.status.get("conditions") or []
    ]
    found: Json = {
        "namespace": subject.namespace,
        "name": subject.name,
        "source": subject.source,
        "now": rfc3339(subject.now_s),
        "target": target_label(subject.spec) if subject.spec else subject.status.get("target", ""),
        "mode": subject.mode,
        "pausedByAnnotation": subject.paused_by_annotation,
        "conditions": conditions,
        "missing": list(subject.missing),
        "decision": None,
    }
    if subject.decision is None:
        return found
    decision = subject.decision
    found["decision"] = dict(decision)
    found["ageSeconds"] = _age(decision, subject.now_s)
    found["policy"] = decision.get("policy") or _policy_of(subject.status)
    found["objective"] = _objective(subject.spec)
    found["recommendation"] = _recommendation(subject, decision)
    found["hpa"] = _hpa(decision, subject.spec)
    found["guard"] = _guard(subject, decision)
    found["besides"] = _besides(subject.status)
    found["wouldChange"] = _would_change(subject, decision, found["guard"])
    return found


def _age(decision: Mapping[str, Any], now_s: float) -> float | None:
    time_s = unix_seconds(str(decision.get("time", "")))
    return None if time_s is None else rounded(max(0.0, now_s - time_s))


def _policy_of(status: Mapping[str, Any]) -> Json:
    held = status.get("policy") or {}
    return {key: held[key] for key in ("type", "name", "digest", "schema") if key in held}


def _objective(spec: RLScalerSpec | None) -> Json:
    if spec is None:
        return {}
    objective = spec.objective
    found: Json = {"targetUtilization": objective.target_utilization, "preference": objective.preference}
    if objective.slo is not None:
        latency = objective.slo.latency
        found["latency"] = {"percentile": latency.percentile, "milliseconds": latency.milliseconds}
    return found


def _recommendation(subject: Subject, decision: Mapping[str, Any]) -> Json:
    found: Json = {
        "replicas": decision.get("recommendedReplicas"),
        "fallback": decision.get("fallback"),
        "parameters": dict(subject.parameters),
        "note": subject.note,
    }
    told = subject.mattered
    if told is not None:
        found["groups"] = [{"what": name, "replicas": due} for name, due in told.groups]
        found["loads"] = [{"factor": factor, "replicas": said} for factor, said in told.loads]
        found["features"] = [
            {key: rounded(value) if isinstance(value, float) else value for key, value in asdict(e).items()}
            | {"description": OBSERVATION_SCHEMA.features[COLUMN[e.name]].description}
            | {"unit": OBSERVATION_SCHEMA.features[COLUMN[e.name]].unit}
            for e in told.features[:FEATURES_SHOWN]
        ]
    return found


def number(decision: Mapping[str, Any], name: str) -> float:
    """A number of the decision's observation (decimals in strings in a status); NaN without."""
    value = (decision.get("observation") or {}).get(name)
    return math.nan if value is None else float(value)


def _hpa(decision: Mapping[str, Any], spec: RLScalerSpec | None) -> Json:
    """What the HPA's formula gives and from what: ready x use / target, rounded up, with its tolerance."""
    found: Json = {"replicas": decision.get("hpaReplicas")}
    ready, use = number(decision, "readyReplicas"), number(decision, "cpuUtilization")
    found["by"] = "cpuUtilization"
    if math.isnan(use) and ready > 0:
        use, found["by"] = number(decision, "loadReplicas") / ready, "load over ready replicas"
    if spec is None or math.isnan(use):
        return found
    service = to_service_spec(spec)
    up, down = service.behavior.scale_up.tolerance, service.behavior.scale_down.tolerance
    target = service.target_utilisation
    return found | {
        "use": rounded(use),
        "target": rounded(target),
        "upAbove": rounded(target * (1.0 + up)),
        "downBelow": rounded(target * (1.0 - down)),
    }


def _guard(subject: Subject, decision: Mapping[str, Any]) -> list[Json]:
    past = Past(
        subject.stabilization, unix_seconds(str(decision.get("time", ""))) or subject.now_s, subject.scale
    )
    spec = subject.spec
    return [
        dict(clamp) | {"ends": what_ends(clamp, spec, past) if spec is not None else ""}
        for clamp in decision.get("clamps") or []
    ]


def _pool(pool: Mapping[str, Any]) -> str:
    moved = f"{pool.get('currentReplicas', '?')} -> {pool.get('desiredReplicas', '?')} replicas"
    weight = f", {pool['weight']} % of the traffic" if "weight" in pool else ""
    return f"pool {pool['name']}: {moved}{weight}"


def _besides(status: Mapping[str, Any]) -> list[str]:
    """What else its status tells that bears on replicas: pools, budget, canary, somebody else's change."""
    found = [_pool(pool) for pool in status.get("backends") or []]
    budget, outside = status.get("budget"), status.get("outsideChange")
    canary = (status.get("policy") or {}).get("canary")
    if budget:
        found.append(f"budget {budget.get('name')}: {budget.get('message') or budget.get('cap')}")
    if canary:
        words = canary.get("message") or f"{canary.get('decisions', 0)} decisions in shadow"
        found.append(f"canary {canary.get('name')} ({canary.get('phase')}): {words}")
    rollout = status.get("canary")
    if rollout:
        words = f"{rollout.get('phase')}, weight {rollout.get('weight')}"
        found.append(f"canary in pool {rollout.get('pool')} ({words}): {rollout.get('message')}")
    if outside:
        who = outside.get("by") or "somebody else"
        found.append(
            f"{who} set {outside.get('replicas')} replicas, which are left alone until {outside['until']}"
        )
    return found


def _would_change(subject: Subject, decision: Mapping[str, Any], guard: list[Json]) -> list[str]:
    found = [f"{stage['name']}: {stage['ends']}" for stage in guard if stage["ends"]]
    if subject.paused_by_annotation:
        found.insert(0, "without the annotation rlscaler.dev/paused it would decide again")
    elif subject.mode == "Paused":
        found.insert(0, "spec.mode Active would let it decide again")
    elif subject.mode == "Shadow":
        found.insert(0, "spec.mode Active would carry decisions out")
    if decision.get("fallback"):
        usual = subject.spec.fallback.recovery_threshold if subject.spec else 3
        after = decision.get("goodReadingsAwaited") or usual
        found.append(f"after {after} good readings in a row the policy decides again (now: spec.fallback)")
    found += _other_loads(subject, decision)
    return found


def _other_loads(subject: Subject, decision: Mapping[str, Any]) -> list[str]:
    if subject.mattered is None or decision.get("fallback"):
        return []
    base = subject.mattered.replicas
    other = [(factor, said) for factor, said in subject.mattered.loads if said != base]
    if not other:
        low, high = subject.mattered.loads[0][0], subject.mattered.loads[-1][0]
        return [f"no load from {low:g} to {high:g} times this one: the policy would ask for {base:g} at all"]
    return [f"at {factor:g} times the load the policy would ask for {said:g}" for factor, said in other]
