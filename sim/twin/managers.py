"""metadata.managedFields, as far as it says who has set an object's replicas.

`Api` calls `note` for each write. A real API server keeps every field's managers; here are the replicas
alone, which is what tells an autoscaler's own write from somebody else's.
"""

from __future__ import annotations

from typing import Any

from sim.twin.errors import Json
from sim.twin.resources import ResourceType
from sim.twin.store import now_rfc3339


def manager_of(field_manager: str, user_agent: str) -> str:
    """The name under which a request's fields are noted, as the API server makes it up."""
    return (field_manager or user_agent.partition("/")[0])[:128]


def note(resource: ResourceType, new: Json, old: Json | None, manager: str, through_scale: bool) -> Json:
    """The object with its replicas' manager: whoever changes them, or agrees with whoever did."""
    kept = list((old or {}).get("metadata", {}).get("managedFields") or [])
    if resource.scale is not None and manager:
        path = resource.scale.spec_replicas
        now, before = _at(new, path), _at(old or {}, path)
        if now is not None and (old is None or now != before):
            kept = [_entry(resource, path, manager, through_scale)]
    if not kept:
        return new
    return new | {"metadata": new["metadata"] | {"managedFields": kept}}


def _entry(resource: ResourceType, path: str, manager: str, through_scale: bool) -> Json:
    owned: Json = {}
    for part in reversed(path.split(".")):
        owned = {f"f:{part}": owned}
    entry: Json = {
        "manager": manager,
        "operation": "Update",
        "apiVersion": resource.api_version,
        "time": now_rfc3339(),
        "fieldsType": "FieldsV1",
        "fieldsV1": owned,
    }
    return entry | ({"subresource": "scale"} if through_scale else {})


def _at(obj: Any, path: str) -> Any:
    for part in path.split("."):
        obj = obj.get(part) if isinstance(obj, dict) else None
    return obj
