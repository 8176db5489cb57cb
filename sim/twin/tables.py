"""Server-side printing: the `Table` that kubectl asks for, so that `kubectl get` shows proper columns."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sim.twin import jsonpath
from sim.twin.errors import Json
from sim.twin.resources import ResourceType
from sim.twin.selectors import selector_text

Cell = Callable[[Json], Any]
Column = tuple[str, str, int, Cell]  # name, type, priority (> 0 is shown with -o wide), value


def wants_table(accept: str) -> bool:
    return "as=Table" in accept and "g=meta.k8s.io" in accept


def render(resource: ResourceType, objects: list[Json], include: str, revision: str) -> Json:
    """A Table of objects; `include` is the request's includeObject: Metadata, Object or None."""
    columns = _columns(resource)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": revision},
        "columnDefinitions": [_definition(c) for c in columns],
        "rows": [_row(resource, obj, columns, include) for obj in objects],
    }


def _definition(column: Column) -> Json:
    name, kind, priority, _ = column
    shown = "name" if name == "Name" else ""
    return {"name": name, "type": kind, "format": shown, "description": "", "priority": priority}


def _row(resource: ResourceType, obj: Json, columns: list[Column], include: str) -> Json:
    row: Json = {"cells": [value(obj) for _, _, _, value in columns]}
    if include == "Object":
        row["object"] = resource.header() | obj
    elif include != "None":
        header = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
        row["object"] = header | {"metadata": obj["metadata"]}
    return row


def _columns(resource: ResourceType) -> list[Column]:
    name: Column = ("Name", "string", 0, lambda o: o["metadata"]["name"])
    if resource.columns:
        return [name, *(_custom_column(c) for c in resource.columns)]
    own = _BUILTIN.get(resource.plural, [])
    age: Column = ("Age", "string", 0, lambda o: age_text(o["metadata"].get("creationTimestamp")))
    if resource.plural == "events":
        return own
    if resource.plural == "customresourcedefinitions":
        return [name, ("Created At", "date", 0, lambda o: o["metadata"]["creationTimestamp"])]
    front = [c for c in own if c[2] == 0]
    return [name, *front, age, *(c for c in own if c[2])]


def _custom_column(column: Json) -> Column:
    path, kind = column["jsonPath"], column["type"]
    return column["name"], kind, column.get("priority", 0), lambda obj: _custom_cell(path, kind, obj)


def _custom_cell(path: str, kind: str, obj: Json) -> Any:
    value = jsonpath.first(path, obj)
    if value is None:
        return None
    if kind == "date":
        return age_text(value)
    if kind == "string":
        return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return value


def age_text(timestamp: str | None) -> str:
    """`4m12s`: k8s.io/apimachinery/pkg/util/duration.HumanDuration."""
    if not timestamp:
        return "<unknown>"
    then = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
    return human_duration(max(0, int((datetime.now(tz=UTC) - then).total_seconds())))


def human_duration(seconds: int) -> str:
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    return f"{hours}h" if hours < 48 else f"{days}d"


def _at(path: str, default: Any = 0) -> Cell:
    def value(obj: Json) -> Any:
        found = jsonpath.first(path, obj)
        return default if found is None else found

    return value


def _ready_of(wanted: str) -> Cell:
    return lambda o: f"{_at('.status.readyReplicas')(o)}/{_at(wanted)(o)}"


def _pod_ready(obj: Json) -> str:
    statuses = jsonpath.evaluate(".status.containerStatuses[*]", obj)
    containers = jsonpath.evaluate(".spec.containers[*]", obj)
    return f"{sum(bool(s.get('ready')) for s in statuses)}/{len(containers)}"


def _pod_status(obj: Json) -> str:
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    waiting = jsonpath.first(".status.containerStatuses[0].state.waiting.reason", obj)
    return str(waiting or _at(".status.phase", "Unknown")(obj))


def _joined(path: str) -> Cell:
    return lambda o: ",".join(str(v) for v in jsonpath.evaluate(path, o)) or "<none>"


def _ports(obj: Json) -> str:
    ports = jsonpath.evaluate(".spec.ports[*]", obj)
    return ",".join(f"{p['port']}/{p.get('protocol', 'TCP')}" for p in ports) or "<none>"


def _hpa_reference(obj: Json) -> str:
    target = obj["spec"]["scaleTargetRef"]
    return f"{target['kind']}/{target['name']}"


def _node_status(obj: Json) -> str:
    ready = jsonpath.first('.status.conditions[?(@.type=="Ready")].status', obj)
    return "Ready" if ready == "True" else "NotReady"


def _event_object(obj: Json) -> str:
    who = obj.get("involvedObject") or obj.get("regarding") or {}
    return f"{str(who.get('kind', '')).lower()}/{who.get('name', '')}"


def _last_seen(obj: Json) -> str:
    series = jsonpath.first(".series.lastObservedTime", obj)
    when = series or obj.get("lastTimestamp") or obj.get("eventTime") or obj.get("deprecatedLastTimestamp")
    return age_text(when or obj["metadata"].get("creationTimestamp"))


def _selector(obj: Json) -> str:
    return selector_text((obj.get("spec") or {}).get("selector")) or "<none>"


def _template_columns() -> list[Column]:
    front = ".spec.template.spec.containers[*]"
    return [
        ("Containers", "string", 1, _joined(front + ".name")),
        ("Images", "string", 1, _joined(front + ".image")),
        ("Selector", "string", 1, _selector),
    ]


_DATA: list[Column] = [("Data", "string", 0, lambda o: len(o.get("data") or o.get("binaryData") or {}))]
_BUILTIN: dict[str, list[Column]] = {
    "deployments": [
        ("Ready", "string", 0, _ready_of(".spec.replicas")),
        ("Up-to-date", "string", 0, _at(".status.updatedReplicas")),
        ("Available", "string", 0, _at(".status.availableReplicas")),
        *_template_columns(),
    ],
    "replicasets": [
        ("Desired", "integer", 0, _at(".spec.replicas")),
        ("Current", "integer", 0, _at(".status.replicas")),
        ("Ready", "integer", 0, _at(".status.readyReplicas")),
        *_template_columns(),
    ],
    "statefulsets": [("Ready", "string", 0, _ready_of(".spec.replicas")), *_template_columns()[:2]],
    "pods": [
        ("Ready", "string", 0, _pod_ready),
        ("Status", "string", 0, _pod_status),
        ("Restarts", "string", 0, lambda o: "0"),
        ("IP", "string", 1, _at(".status.podIP", "<none>")),
        ("Node", "string", 1, _at(".spec.nodeName", "<none>")),
    ],
    "services": [
        ("Type", "string", 0, _at(".spec.type", "ClusterIP")),
        ("Cluster-IP", "string", 0, _at(".spec.clusterIP", "<none>")),
        ("External-IP", "string", 0, lambda o: "<none>"),
        ("Port(s)", "string", 0, _ports),
    ],
    "namespaces": [("Status", "string", 0, _at(".status.phase", "Active"))],
    "nodes": [
        ("Status", "string", 0, _node_status),
        ("Roles", "string", 0, lambda o: "<none>"),
        ("Version", "string", 0, _at(".status.nodeInfo.kubeletVersion", "")),
    ],
    "configmaps": _DATA,
    "secrets": [("Type", "string", 0, _at(".type", "Opaque")), *_DATA],
    "events": [
        ("Last Seen", "string", 0, _last_seen),
        ("Type", "string", 0, _at(".type", "")),
        ("Reason", "string", 0, _at(".reason", "")),
        ("Object", "string", 0, _event_object),
        ("Message", "string", 0, lambda o: str(o.get("message") or o.get("note") or "").strip()),
        ("Name", "string", 1, lambda o: o["metadata"]["name"]),
    ],
    "horizontalpodautoscalers": [
        ("Reference", "string", 0, _hpa_reference),
        ("MinPods", "string", 0, _at(".spec.minReplicas", 1)),
        ("MaxPods", "integer", 0, _at(".spec.maxReplicas")),
        ("Replicas", "integer", 0, _at(".status.currentReplicas")),
    ],
    "leases": [("Holder", "string", 0, _at(".spec.holderIdentity", ""))],
}
