"""What an RLScaler's status says: pure functions from the facts of one turn to a status, and to a patch
of it.

The loop calls `build` each turn and sends `difference(written, built)` when it is not empty. A steady
service must cost no writes, so whatever moves without meaning (times, the last digits of what was read,
counts inside messages) is carried over from the status that is already there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from controller.api.constants import ConditionType, Reason
from controller.budgets.share import Share, share_status
from controller.clock import rfc3339, rfc3339_micro, unix_seconds
from controller.core import Decision
from controller.decisions import MESSAGE_LIMIT, record_of
from controller.metrics import SignalReading
from controller.outside import Hold
from controller.trouble import Trouble

if TYPE_CHECKING:
    from controller.case import PoolPlan

Status = dict[str, Any]

TRUE: Final = "True"
FALSE: Final = "False"
UNKNOWN: Final = "Unknown"


@dataclass(frozen=True)
class PolicyFacts:
    """The policy in charge, as status.policy shows it."""

    type: str
    name: str
    digest: str = ""
    schema: str = ""


@dataclass(frozen=True)
class PoolFacts:
    """One backend: replicas before and after, and its weight where routes are set."""

    name: str
    current_replicas: int
    desired_replicas: int
    weight: int | None = None


@dataclass(frozen=True)
class Facts:
    """All that one turn found out and did; None where it did not get that far."""

    generation: int
    mode: str
    namespace: str = ""
    name: str = ""
    uid: str = ""
    target: str = ""
    paused_by_annotation: bool = False
    spec_trouble: Trouble | None = None
    target_trouble: Trouble | None = None
    metrics_trouble: Trouble | None = None
    metrics_note: str = ""
    policy_trouble: Trouble | None = None
    policy_note: Trouble | None = None
    """What its users should know of a policy that decides."""
    canary: Mapping[str, Any] | None = None
    """status.policy.canary; the same from turn to turn until it is to be written."""
    rollout: Mapping[str, Any] | None = None
    """status.canary; the same from turn to turn until it is to be written."""
    route_trouble: Trouble | None = None
    has_routes: bool = False
    policy: PolicyFacts | None = None
    decision: Decision | None = None
    budget: Share | None = None
    observed: Mapping[str, float] = field(default_factory=dict)
    readings: Mapping[str, SignalReading] = field(default_factory=dict)
    current_replicas: int | None = None
    desired_replicas: int | None = None
    scaled: bool = False
    weights_message: str = ""
    pools: tuple[PoolFacts, ...] = ()
    plan: PoolPlan | None = None
    """What a policy that decides for pools asked of each; it wavers from turn to turn."""
    outside: Hold | None = None
    start_up_seconds: int | None = None

    @property
    def paused(self) -> bool:
        return self.mode == "Paused" or self.paused_by_annotation


@dataclass(frozen=True)
class Condition:
    """One condition before it is dated."""

    type: str
    status: str
    reason: str
    message: str


def build(facts: Facts, previous: Status, now_unix_s: float) -> Status:
    """The status after this turn. `previous` is what the API server holds; nothing in it is changed."""
    status = {key: previous[key] for key in _KEPT if key in previous}
    status["observedGeneration"] = facts.generation
    if facts.target:
        status["target"] = facts.target
    status["conditions"] = dated(conditions(facts), previous, facts.generation, now_unix_s)
    if facts.policy is not None:
        status["policy"] = _present(vars(facts.policy))
        if facts.canary:
            status["policy"]["canary"] = dict(facts.canary)
    if facts.current_replicas is not None:
        status["currentReplicas"] = facts.current_replicas
    if facts.budget is not None:
        status["budget"] = share_status(facts.budget, previous.get("budget"))
    if facts.pools:
        status["backends"] = [_pool(pool) for pool in facts.pools]
    if facts.rollout:
        status["canary"] = dict(facts.rollout)
    if facts.scaled:
        status["lastScaleTime"] = rfc3339(now_unix_s)
    if facts.outside is not None:
        status["outsideChange"] = facts.outside.as_status()
    if facts.start_up_seconds is not None:
        status["startUpSeconds"] = facts.start_up_seconds
    if facts.decision is not None:
        _decided(status, facts, facts.decision, previous, now_unix_s)
    return status


_KEPT = (
    "target",
    "currentReplicas",
    "desiredReplicas",
    "recommendedReplicas",
    "lastScaleTime",
    "policy",
    "backends",
    "lastDecision",
    "stabilization",
)


def _decided(status: Status, facts: Facts, decision: Decision, previous: Status, now_unix_s: float) -> None:
    made = record_of(facts, decision, now_unix_s).as_status()
    if same_decision(made, previous.get("lastDecision")) and not facts.scaled and _settled(status, previous):
        return
    status["lastDecision"] = made
    status["desiredReplicas"] = facts.desired_replicas
    if decision.recommended_replicas is None:
        status.pop("recommendedReplicas", None)
    else:
        status["recommendedReplicas"] = decision.recommended_replicas


def stabilization_status(state: Mapping[str, Any], to_unix: Callable[[float], float]) -> Status:
    """Engine.stabilization_state as the API holds it: control seconds become dates."""

    def dated(pairs: Iterable[tuple[float, int]], name: str) -> list[Status]:
        return [{"time": rfc3339_micro(to_unix(time_s)), name: int(value)} for time_s, value in pairs]

    return {
        "recommendations": dated(state["recommendations"], "replicas"),
        "scaleEvents": dated(state["scaleEvents"], "change"),
    }


def stabilization_state(status: Status, to_control: Callable[[float], float]) -> dict[str, Any]:
    """What Engine.restore takes, from the status of an earlier operator; unreadable entries are left out."""
    held = status.get("stabilization") or {}

    def pairs(entries: Iterable[Status], name: str) -> list[tuple[float, int]]:
        read = [(unix_seconds(entry.get("time", "")), entry.get(name)) for entry in entries]
        return [
            (to_control(time_s), int(value))
            for time_s, value in read
            if time_s is not None and value is not None
        ]

    state: dict[str, Any] = {
        "recommendations": pairs(held.get("recommendations") or [], "replicas"),
        "scaleEvents": pairs(held.get("scaleEvents") or [], "change"),
    }
    return state


def _settled(status: Status, previous: Status) -> bool:
    """Whether nothing else is to be written; when something is, the decision may as well be fresh."""
    return all(status.get(key) == previous.get(key) for key in {*status, *previous})


def conditions(facts: Facts) -> list[Condition]:
    """Every condition of the turn, undated, in the order in which they are shown."""
    parts = [
        _able_to_scale(facts),
        _scaling_active(facts),
        _scaling_limited(facts),
        _metrics_available(facts),
        _policy_ready(facts),
        *([_routes_synced(facts)] if facts.has_routes else []),
        _canary_succeeded(facts.rollout),
        _fallback(facts),
        _paused(facts),
    ]
    known = [part for part in parts if part is not None]
    return [_ready(facts, known), *known]


def _ready(facts: Facts, parts: list[Condition]) -> Condition:
    kind = ConditionType.READY
    if facts.spec_trouble is not None:
        return Condition(kind, FALSE, facts.spec_trouble.reason, facts.spec_trouble.message)
    by_type = {part.type: part for part in parts}
    paused = by_type[ConditionType.PAUSED]
    if paused.status == TRUE:
        return Condition(kind, FALSE, paused.reason, paused.message)
    for needed in _NEEDED:
        part = by_type.get(needed)
        if part is not None and part.status == FALSE:
            return Condition(kind, FALSE, part.reason, part.message)
    fallback = by_type.get(ConditionType.FALLBACK)
    if fallback is not None and fallback.status == TRUE:
        return Condition(kind, FALSE, Reason.IN_FALLBACK, fallback.message)
    if facts.decision is None:
        return Condition(kind, UNKNOWN, Reason.STARTING, "no decision has been made yet")
    if facts.mode == "Shadow":
        return Condition(kind, TRUE, Reason.SHADOWING, "decisions are made and recorded, not carried out")
    return Condition(kind, TRUE, Reason.SCALING, "decisions are made and carried out")


_NEEDED = (
    ConditionType.ABLE_TO_SCALE,
    ConditionType.METRICS_AVAILABLE,
    ConditionType.POLICY_READY,
    ConditionType.ROUTES_SYNCED,
)


def _able_to_scale(facts: Facts) -> Condition | None:
    kind = ConditionType.ABLE_TO_SCALE
    if facts.target_trouble is not None:
        return _troubled(kind, facts.target_trouble)
    if facts.current_replicas is None:
        return None
    if facts.outside is not None:
        return Condition(kind, TRUE, Reason.OUTSIDE_CHANGE, facts.outside.words)
    if facts.mode == "Shadow":
        return Condition(kind, TRUE, Reason.SHADOW_MODE, "the target can be read; Shadow never writes to it")
    return Condition(kind, TRUE, Reason.READY_FOR_NEW_SCALE, "the target can be read and scaled")


def _scaling_active(facts: Facts) -> Condition | None:
    kind = ConditionType.SCALING_ACTIVE
    if facts.paused:
        return Condition(kind, FALSE, _paused(facts).reason, "nothing is decided while paused")
    if facts.spec_trouble is not None:
        return _troubled(kind, facts.spec_trouble)
    if facts.decision is None:
        message = facts.target_trouble.message if facts.target_trouble else "no decision has been made yet"
        return Condition(kind, FALSE, Reason.NO_DECISION, message)
    if facts.decision.current_replicas == 0 and facts.decision.outcome == "Held":
        return Condition(kind, FALSE, Reason.SCALING_DISABLED, facts.decision.message)
    if facts.decision.recommended_replicas is None:
        return Condition(kind, FALSE, Reason.NO_DECISION, facts.decision.message)
    return Condition(
        kind, TRUE, Reason.DECIDED, "replicas were recommended from metrics or from the fallback"
    )


def _scaling_limited(facts: Facts) -> Condition | None:
    if facts.decision is None:
        return None
    kind = ConditionType.SCALING_LIMITED
    if not facts.decision.clamps:
        return Condition(kind, FALSE, Reason.DESIRED_WITHIN_RANGE, "the guard let the recommendation pass")
    last = facts.decision.clamps[-1]
    message = "; ".join(f"{clamp.name}: {clamp.message}" for clamp in facts.decision.clamps)
    return Condition(kind, TRUE, last.reason, message)


def _metrics_available(facts: Facts) -> Condition | None:
    kind = ConditionType.METRICS_AVAILABLE
    if facts.metrics_trouble is not None:
        return _troubled(kind, facts.metrics_trouble)
    if facts.decision is None:
        return None
    if facts.metrics_note:
        return Condition(kind, TRUE, Reason.SIGNALS_MISSING, facts.metrics_note)
    return Condition(kind, TRUE, Reason.METRICS_READ, "every signal was read")


def _policy_ready(facts: Facts) -> Condition | None:
    kind = ConditionType.POLICY_READY
    if facts.policy_trouble is not None:
        return _troubled(kind, facts.policy_trouble)
    if facts.policy is None:
        return None
    loaded = ", ".join(filter(None, (facts.policy.name, facts.policy.digest)))
    if facts.policy_note is not None:
        note = facts.policy_note
        return Condition(kind, TRUE, note.reason, f"{loaded} goes on deciding; {note.message}")
    if not facts.policy.digest:
        return Condition(
            kind, TRUE, Reason.FORMULA, f"{facts.policy.name} is a formula; there is nothing to load"
        )
    if facts.decision is not None and facts.decision.unfamiliar:
        limits = "what is observed lies outside of its training: nothing is scaled down"
        return Condition(kind, TRUE, Reason.OUT_OF_DISTRIBUTION, f"{loaded}; {limits}")
    return Condition(kind, TRUE, Reason.POLICY_LOADED, loaded)


def _routes_synced(facts: Facts) -> Condition | None:
    kind = ConditionType.ROUTES_SYNCED
    if facts.route_trouble is not None:
        return _troubled(kind, facts.route_trouble)
    if not facts.weights_message:
        return None
    return Condition(kind, TRUE, Reason.WEIGHTS_APPLIED, facts.weights_message)


def _canary_succeeded(canary: Mapping[str, Any] | None) -> Condition | None:
    if not canary:
        return None
    phase = str(canary["phase"])
    status = {"Succeeded": TRUE, "Failed": FALSE}.get(phase, UNKNOWN)
    return Condition(ConditionType.CANARY_SUCCEEDED, status, phase, str(canary.get("message", "")))


def _fallback(facts: Facts) -> Condition | None:
    kind = ConditionType.FALLBACK
    if facts.decision is None:
        return None
    if facts.decision.fallback is None:
        return Condition(kind, FALSE, Reason.POLICY_IN_CHARGE, f"{facts.decision.policy} decides")
    cause = {
        Reason.METRICS_UNAVAILABLE: facts.metrics_trouble,
        Reason.POLICY_UNAVAILABLE: facts.policy_trouble,
    }.get(Reason(facts.decision.fallback))
    why = cause.message if cause is not None else _FALLBACK_WORDS.get(facts.decision.fallback, "")
    return Condition(kind, TRUE, facts.decision.fallback, f"spec.fallback decides: {why}")


_FALLBACK_WORDS = {
    "MetricsUnavailable": "metrics have been missing for failureThreshold readings in a row",
    "PolicyUnavailable": "the policy cannot be loaded",
    "InvalidAction": "the policy gave no finite action",
    "CapacityUnknown": "requests/s that a replica can serve are not known yet; "
    "set objective.capacityPerReplica or let some traffic pass",
    "Recovering": "it goes on until fallback.recoveryThreshold good readings in a row",
}


def _paused(facts: Facts) -> Condition:
    kind = ConditionType.PAUSED
    if facts.mode == "Paused":
        return Condition(kind, TRUE, Reason.PAUSED_BY_MODE, "spec.mode is Paused")
    if facts.paused_by_annotation:
        return Condition(kind, TRUE, Reason.PAUSED_BY_ANNOTATION, "the pause annotation is set")
    return Condition(kind, FALSE, Reason.NOT_PAUSED, "neither spec.mode nor the annotation pauses it")


def _troubled(kind: ConditionType, trouble: Trouble) -> Condition:
    return Condition(kind, UNKNOWN if trouble.unknown else FALSE, trouble.reason, trouble.message)


# Steadiness


def dated(
    found: Iterable[Condition], previous: Status, generation: int, now_unix_s: float, exact: bool = False
) -> list[Status]:
    """Conditions as the API holds them; `exact`: a message that differs only in its digits is a new one."""
    before = {old["type"]: old for old in previous.get("conditions") or []}
    return [
        _date(condition, before.get(condition.type), generation, now_unix_s, exact) for condition in found
    ]


def _date(new: Condition, old: Status | None, generation: int, now_unix_s: float, exact: bool) -> Status:
    """With lastTransitionTime; `old` itself where it says the same in other digits."""
    if old is not None and _says_the_same(new, old, generation, exact):
        return old
    moved = old is None or old.get("status") != new.status
    return {
        "type": str(new.type),
        "status": new.status,
        "reason": str(new.reason),
        "message": new.message[:MESSAGE_LIMIT],
        "lastTransitionTime": rfc3339(now_unix_s) if moved or old is None else old["lastTransitionTime"],
        "observedGeneration": generation,
    }


def _says_the_same(new: Condition, old: Status, generation: int, exact: bool) -> bool:
    said, says = old.get("message", ""), new.message[:MESSAGE_LIMIT]
    exact = exact or (new.type, new.reason) in _EXACT
    return (
        old.get("status") == new.status
        and old.get("reason") == new.reason
        and old.get("observedGeneration") == generation
        and (said == says if exact else _shape(said) == _shape(says))
    )


_EXACT: Final = {(ConditionType.ABLE_TO_SCALE, Reason.OUTSIDE_CHANGE)}
"""Conditions whose numbers stand still: others in them are something new."""
_DIGITS = re.compile(r"\d+(\.\d+)?")


def _shape(message: str) -> str:
    return _DIGITS.sub("#", message)


def same_decision(new: Status, old: Status | None) -> bool:
    """Whether a decision repeats the last one; what the HPA would do and what was read may differ."""
    if old is None:
        return False
    return all(new.get(key) == old.get(key) for key in _DECISIVE) and _rules(new) == _rules(old)


_DECISIVE = ("currentReplicas", "recommendedReplicas", "desiredReplicas", "outcome", "fallback")


def _rules(decision: Status) -> list[tuple[Any, ...]]:
    return [(clamp["name"], clamp["reason"], clamp["after"]) for clamp in decision.get("clamps") or []]


def fingerprint(facts: Facts) -> Hashable:
    """Equal for two turns only if the later one gives the status that the earlier one left, untouched.

    Far cheaper than `build`, for the many turns in which nothing happens.
    """
    decision = facts.decision
    decided: Hashable = None
    if decision is not None:
        held = decision.recommended_replicas is None or decision.current_replicas == 0
        decided = (
            decision.current_replicas,
            decision.recommended_replicas,
            decision.desired_replicas,
            decision.outcome,
            decision.fallback,
            decision.policy,
            decision.unfamiliar,
            tuple([(clamp.name, clamp.reason, clamp.after) for clamp in decision.clamps]),
            _shape(decision.message) if held else "",
        )
    return (
        facts.generation,
        facts.mode,
        facts.target,
        facts.paused_by_annotation,
        _trouble_shape(facts.spec_trouble),
        _trouble_shape(facts.target_trouble),
        _trouble_shape(facts.metrics_trouble),
        _shape(facts.metrics_note) if facts.metrics_note else "",
        _trouble_shape(facts.policy_trouble),
        _trouble_shape(facts.policy_note),
        tuple(facts.canary.items()) if facts.canary else None,
        tuple(facts.rollout.items()) if facts.rollout else None,
        _trouble_shape(facts.route_trouble),
        facts.has_routes,
        facts.policy,
        facts.budget and facts.budget.shape,
        decided,
        facts.current_replicas,
        facts.desired_replicas,
        facts.scaled,
        facts.weights_message,
        facts.pools,
        facts.outside,
        facts.start_up_seconds,
    )


def _trouble_shape(trouble: Trouble | None) -> Hashable:
    return None if trouble is None else (trouble.reason, trouble.unknown, _shape(trouble.message))


def is_minor(written: Status, built: Status) -> bool:
    """Whether only what was thought differs: the recommendation and its clamps, while nothing was done.

    A reading that wavers round a threshold changes these in every turn.
    """
    thought = ("lastDecision", "recommendedReplicas", "stabilization", "conditions")
    keys = {*written, *built}.difference(thought)
    if "lastDecision" not in written or any(written.get(key) != built.get(key) for key in keys):
        return False
    old, new = (_statuses(status) for status in (written, built))
    last, now = written["lastDecision"], built["lastDecision"]
    same = all(last.get(key) == now.get(key) for key in ("desiredReplicas", "currentReplicas", "fallback"))
    return old == new and same


def _statuses(status: Status) -> dict[str, tuple[str, int]]:
    return {
        condition["type"]: (condition["status"], condition["observedGeneration"])
        for condition in status.get("conditions") or []
        if condition["type"] != ConditionType.SCALING_LIMITED
    }


def difference(written: Status, built: Status) -> Status | None:
    """The merge patch from one status to the other, or None where they are the same."""
    patch: Status = {key: None for key in written if key not in built}
    for key, new in built.items():
        old = written.get(key)
        if old != new:
            patch[key] = difference(old, new) if isinstance(old, dict) and isinstance(new, dict) else new
    return patch or None


def _pool(pool: PoolFacts) -> Status:
    return _present(
        {
            "name": pool.name,
            "currentReplicas": pool.current_replicas,
            "desiredReplicas": pool.desired_replicas,
            "weight": pool.weight,
        }
    )


def _present(values: Mapping[str, Any]) -> Status:
    return {key: value for key, value in values.items() if value is not None and value != ""}
