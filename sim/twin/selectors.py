"""labelSelector and fieldSelector of list, watch and delete-collection requests.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/ and .../field-selectors/.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sim.twin.errors import ApiError, Json, bad_request

Matcher = Callable[[Json], bool]

_SET = re.compile(r"^(?P<key>[^\s!=,()]+)\s+(?P<op>in|notin)\s+\((?P<values>[^)]*)\)$")
_EQUALITY = re.compile(r"^(?P<key>[^\s!=,()]+)\s*(?P<op>!=|==?)\s*(?P<value>[^\s!=,()]*)$")
_EXISTS = re.compile(r"^(?P<not>!?)\s*(?P<key>[^\s!=,()]+)$")
_FIELDS = {
    "pods": ("status.phase", "spec.nodeName"),
    "events": (
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "reason",
        "type",
        "source",
        "reportingComponent",
    ),
    "namespaces": ("status.phase",),
    "secrets": ("type",),
    "nodes": ("spec.unschedulable",),
}


def parse_label_selector(text: str) -> Matcher:
    """A predicate over objects.

    Raises:
        ApiError: 400 for a selector that cannot be parsed.
    """
    rules = [_label_rule(part.strip()) for part in re.split(r",(?![^()]*\))", text) if part.strip()]
    return lambda obj: all(rule(obj.get("metadata", {}).get("labels") or {}) for rule in rules)


def _label_rule(text: str) -> Matcher:
    if match := _SET.match(text):
        key, wanted = match["key"], {v.strip() for v in match["values"].split(",")}
        if match["op"] == "in":
            return lambda labels: labels.get(key) in wanted
        return lambda labels: labels.get(key) not in wanted
    if match := _EQUALITY.match(text):
        key, value, negated = match["key"], match["value"], match["op"] == "!="
        return lambda labels: (labels.get(key) == value) != negated
    if match := _EXISTS.match(text):
        key, negated = match["key"], bool(match["not"])
        return lambda labels: (key in labels) != negated
    raise bad_request(f"unable to parse requirement: found {text!r}, expected: identifier")


def parse_field_selector(text: str, plural: str) -> Matcher:
    """A predicate over objects; only the fields that the real server indexes are allowed."""
    rules = [_field_rule(part.strip(), plural) for part in text.split(",") if part.strip()]
    return lambda obj: all(rule(obj) for rule in rules)


def _field_rule(text: str, plural: str) -> Matcher:
    match = re.match(r"^(?P<path>[^!=]+)(?P<op>!=|==?)(?P<value>.*)$", text)
    if match is None:
        raise bad_request(f"invalid selector: {text!r}; can't understand {text!r}")
    path, value, negated = match["path"], match["value"], match["op"] == "!="
    if path not in ("metadata.name", "metadata.namespace", *_FIELDS.get(plural, ())):
        raise ApiError(400, "BadRequest", f"field label not supported: {path}")
    return lambda obj: (_dig(obj, path) == value) != negated


def _dig(obj: Any, path: str) -> str:
    for part in path.split("."):
        obj = obj.get(part) if isinstance(obj, dict) else None
    return "" if obj is None else str(obj)


def match_labels(selector: Json | None, labels: Json | None) -> bool:
    """A LabelSelector object (matchLabels, matchExpressions) against an object's labels."""
    selector, labels = selector or {}, labels or {}
    if any(labels.get(k) != v for k, v in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_match_expression(e, labels) for e in selector.get("matchExpressions") or [])


def _match_expression(expression: Json, labels: Json) -> bool:
    key, values = expression["key"], expression.get("values") or []
    return {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }[expression["operator"]]


def selector_text(selector: Json | None) -> str:
    """The string form that a Scale's status carries: `app=web,tier in (a,b)`."""
    selector = selector or {}
    parts = [f"{k}={v}" for k, v in sorted((selector.get("matchLabels") or {}).items())]
    for expression in selector.get("matchExpressions") or []:
        values = ",".join(expression.get("values") or [])
        key = expression["key"]
        parts.append(
            {
                "In": f"{key} in ({values})",
                "NotIn": f"{key} notin ({values})",
                "Exists": key,
                "DoesNotExist": f"!{key}",
            }[expression["operator"]]
        )
    return ",".join(parts)
