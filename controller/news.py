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
    old, new = _condition(before, ConditionType.READY), _condition(after, ConditionType.READY)
    if new.get("reason") == Reason.INVALID_SPEC and _differs(old, new):
        found.append(News("Warning", EventReason.INVALID_SPEC, new["message"]))
    return found


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


def _differs(old: Status, new: Status) -> bool:
    return (old.get("status"), old.get("reason")) != (new.get("status"), new.get("reason"))


def _condition(status: Status, kind: str) -> Status:
    return next((c for c in status.get("conditions") or [] if c["type"] == kind), {})
