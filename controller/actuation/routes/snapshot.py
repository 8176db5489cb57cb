"""The weights that a route had before an RLScaler first changed them, kept in an annotation of the route.

So they survive the operator, and whoever looks at the route sees them. The annotation holds one entry for
each RLScaler that weighs the route, by name: its rules, their services, and the weights (null: the field was
absent).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from controller.actuation.routes.base import (
    Group,
    Plan,
    RouteMismatch,
    RouteProvider,
    WeightChange,
    unchanged_since,
)
from controller.kube import Json

ANNOTATION = "rlscaler.dev/original-weights"
_PATH = "/metadata/annotations/" + ANNOTATION.replace("/", "~1")

Snapshot = Mapping[str, Mapping[str, int | None]]
"""Weights by rule and service."""


def snapshots(route: Json) -> dict[str, Snapshot]:
    """By RLScaler; what cannot be read is left out."""
    text = (route["metadata"].get("annotations") or {}).get(ANNOTATION)
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {owner: each for owner, each in found.items() if _is_snapshot(each)}


def remembering(
    route: Json, owner: str, groups: Sequence[Group], services: Sequence[str]
) -> tuple[Json, ...]:
    """The operations that add to the owner's entry whatever it does not hold yet."""
    known = snapshots(route)
    before = known.get(owner, {})
    after: dict[str, dict[str, int | None]] = {rule: dict(weights) for rule, weights in before.items()}
    for group in groups:
        held = after.setdefault(group.rule, {})
        for slot in group.slots:
            if slot.service in services and slot.service is not None:
                held.setdefault(slot.service, slot.weight)
    if after == before:
        return ()
    return _written(route, {**known, owner: after})


def restoring(provider: RouteProvider, route: Json, owner: str) -> Plan:
    """What puts the owner's weights back and forgets its entry; nothing where it has none."""
    known = snapshots(route)
    if owner not in known:
        return Plan()
    operations: list[Json] = []
    changes: list[WeightChange] = []
    try:
        groups = provider.groups(route, None)
    except RouteMismatch:
        groups = []
    for group in groups:
        _put_back(group, known[owner].get(group.rule, {}), operations, changes)
    left = {name: each for name, each in known.items() if name != owner}
    return Plan((unchanged_since(route), *operations, *_written(route, left)), tuple(changes))


def _put_back(
    group: Group, weights: Mapping[str, int | None], operations: list[Json], changes: list[WeightChange]
) -> None:
    for slot in group.slots:
        if slot.service is None or slot.service not in weights:
            continue
        before = weights[slot.service]
        if before == slot.weight:
            continue
        path, value = slot.test
        operations.append({"op": "test", "path": path, "value": value})
        if before is None:
            operations.append({"op": "remove", "path": slot.pointer})
        else:
            put = str(before) if slot.as_text else before
            operations.append({"op": "add", "path": slot.pointer, "value": put})
        changes.append(WeightChange(group.rule, slot.service, slot.weight, before))


def _written(route: Json, content: Mapping[str, Snapshot]) -> tuple[Json, ...]:
    annotations = route["metadata"].get("annotations")
    if not content:
        return ({"op": "remove", "path": _PATH},) if annotations and ANNOTATION in annotations else ()
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    if not annotations:
        return ({"op": "add", "path": "/metadata/annotations", "value": {ANNOTATION: text}},)
    return ({"op": "add", "path": _PATH, "value": text},)


def _is_snapshot(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(weights, dict)
        and all(weight is None or isinstance(weight, int) for weight in weights.values())
        for weights in value.values()
    )
