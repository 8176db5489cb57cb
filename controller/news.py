"""What is worth a Kubernetes Event: a pure comparison of two statuses, and of what was done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from controller.actuation.apply import Routed, Scaled
from controller.api.constants import ConditionType, EventReason, Reason
from controller.core import Decision
from controller.status import Status


@dataclass(frozen=True)
class News:
    """One Event to be."""

    kind: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class _Rule:
    """What a condition's change to True, and to False, is called; "" is not news."""

    on_true: str
    on_false: str
    bad: Literal["True", "False", ""]


_RULES = {
    ConditionType.METRICS_AVAILABLE: _Rule(
        EventReason.METRICS_RECOVERED, EventReason.METRICS_UNAVAILABLE, "False"
    ),
    ConditionType.POLICY_READY: _Rule(EventReason.POLICY_LOADED, EventReason.POLICY_UNAVAILABLE, "False"),
    ConditionType.FALLBACK: _Rule(EventReason.FALLBACK_STARTED, EventReason.FALLBACK_ENDED, "True"),
    ConditionType.PAUSED: _Rule(EventReason.PAUSED, EventReason.RESUMED, ""),
}

_TARGET_NEWS = {
    Reason.CONFLICTING_AUTOSCALER: EventReason.CONFLICTING_AUTOSCALER,
    Reason.TARGET_NOT_FOUND: EventReason.TARGET_NOT_FOUND,
    Reason.KIND_NOT_FOUND: EventReason.TARGET_NOT_FOUND,
    Reason.NOT_SCALABLE: EventReason.TARGET_NOT_FOUND,
}


def news(
    before: Status, after: Status, decision: Decision | None, scaled: Scaled | None, routed: Routed | None
) -> list[News]:
    """Events for one turn, in the order of importance."""
    found = [*_of_scaling(decision, scaled), *_of_routes(before, after, routed)]
    found += _of_trouble(before, after)
    found += _of_budget(before.get("budget") or {}, after.get("budget") or {})
    found += _of_policy(before, after)
    found += _of_rollout(before.get("canary") or {}, after.get("canary") or {})
    for kind, rule in _RULES.items():
        found += _of_rule(rule, _condition(before, kind), _condition(after, kind))
    return found


def _of_scaling(decision: Decision | None, scaled: Scaled | None) -> list[News]:
    if decision is None or scaled is None or not scaled.changed:
        return []
    return [News("Normal", EventReason.SUCCESSFUL_RESCALE, decision.message)]


def _of_routes(before: Status, after: Status, routed: Routed | None) -> list[News]:
    found = []
    if routed is not None and routed.changes:
        found.append(News("Normal", EventReason.WEIGHTS_CHANGED, "; ".join(routed.changes)))
    old, new = _condition(before, ConditionType.ROUTES_SYNCED), _condition(after, ConditionType.ROUTES_SYNCED)
    if new.get("status") == "False" and _differs(old, new):
        found.append(News("Warning", EventReason.FAILED_ROUTE_UPDATE, new["message"]))
    return found


def _of_trouble(before: Status, after: Status) -> list[News]:
    old, new = _condition(before, ConditionType.ABLE_TO_SCALE), _condition(after, ConditionType.ABLE_TO_SCALE)
    found = []
    if new.get("status") == "False" and _differs(old, new):
        reason = _TARGET_NEWS.get(new["reason"], EventReason.FAILED_RESCALE)
        found.append(News("Warning", reason, new["message"]))
    if new.get("reason") == Reason.OUTSIDE_CHANGE and _held(before) != _held(after):
        found.append(News("Warning", EventReason.OUTSIDE_CHANGE, new["message"]))
    old, new = _condition(before, ConditionType.READY), _condition(after, ConditionType.READY)
    if new.get("reason") == Reason.INVALID_SPEC and _differs(old, new):
        found.append(News("Warning", EventReason.INVALID_SPEC, new["message"]))
    return found


def _of_policy(before: Status, after: Status) -> list[News]:
    """News of another digest in charge, of a version that could not be taken up, and of the canary."""
    old, new = before.get("policy") or {}, after.get("policy") or {}
    found = _of_canary(old.get("canary") or {}, new)
    if not found and old.get("digest") and new.get("digest") and old["digest"] != new["digest"]:
        message = f"{new['name']}, {new['digest']}, decides instead of {old['digest']}"
        found.append(News("Normal", EventReason.POLICY_LOADED, message))
    was, now = _condition(before, ConditionType.POLICY_READY), _condition(after, ConditionType.POLICY_READY)
    if now.get("reason") == Reason.RELOAD_FAILED and _differs(was, now):
        found.append(News("Warning", EventReason.POLICY_RELOAD_FAILED, now["message"]))
    return found


_PHASES: dict[str, tuple[Literal["Normal", "Warning"], EventReason]] = {
    "Shadow": ("Normal", EventReason.CANARY_STARTED),
    "Promoted": ("Normal", EventReason.CANARY_PROMOTED),
    "RolledBack": ("Warning", EventReason.CANARY_ROLLED_BACK),
    "Unavailable": ("Warning", EventReason.CANARY_UNAVAILABLE),
}


def _of_canary(old: Status, policy: Status) -> list[News]:
    """News of each phase of each canary, once; none where the spec now names it as its policy."""
    new = policy.get("canary") or {}
    if not new:
        if not old or old.get("digest") == policy.get("digest"):
            return []
        return [News("Normal", EventReason.CANARY_ENDED, f"{old.get('name', 'it')} is no canary any more")]
    if (old.get("phase"), old.get("digest")) == (new["phase"], new.get("digest")):
        return []
    kind, reason = _PHASES[new["phase"]]
    named = ", ".join(filter(None, (new.get("name"), new.get("digest"))))
    return [News(kind, reason, ": ".join(filter(None, (named, new.get("message")))))]


_ROLLOUT_PHASES: dict[str, tuple[Literal["Normal", "Warning"], EventReason]] = {
    "Progressing": ("Normal", EventReason.CANARY_PROGRESSING),
    "Paused": ("Normal", EventReason.CANARY_PAUSED),
    "Succeeded": ("Normal", EventReason.CANARY_SUCCEEDED),
    "Failed": ("Warning", EventReason.CANARY_FAILED),
}


def _of_rollout(old: Status, new: Status) -> list[News]:
    """News of each phase and each step of the canary of spec.canary."""
    if not new:
        return []
    message = f"{new.get('pool')}: {new.get('message')}"
    if (old.get("phase"), old.get("revision")) != (new["phase"], new.get("revision")):
        return [News(*_ROLLOUT_PHASES[new["phase"]], message)]
    if old.get("weight") != new.get("weight"):
        return [News("Normal", EventReason.CANARY_STEPPED, message)]
    return []


def _of_budget(old: Status, new: Status) -> list[News]:
    """News when a budget begins to refuse replicas, and when it no longer does."""
    if ("cap" in old) == ("cap" in new):
        return []
    if "cap" in new:
        return [News("Warning", EventReason.BUDGET_EXHAUSTED, new["message"])]
    return [News("Normal", EventReason.BUDGET_RELIEVED, "no budget refuses it replicas any more")]


def _of_rule(rule: _Rule, old: Status, new: Status) -> list[News]:
    """News when a condition's status flips; a first "all is well" is not news."""
    status = new.get("status")
    if status not in ("True", "False") or status == old.get("status"):
        return []
    unheard = not old or old.get("status") == "Unknown"
    usual = "False" if rule.bad in ("True", "") else "True"
    if unheard and status == usual:
        return []
    reason = rule.on_true if status == "True" else rule.on_false
    return [News("Warning" if status == rule.bad else "Normal", reason, new["message"])]


def _held(status: Status) -> Status | None:
    return status.get("outsideChange")


def _differs(old: Status, new: Status) -> bool:
    return (old.get("status"), old.get("reason")) != (new.get("status"), new.get("reason"))


def _condition(status: Status, kind: str) -> Status:
    return next((c for c in status.get("conditions") or [] if c["type"] == kind), {})
