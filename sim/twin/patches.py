"""The four ways to change an object: merge patch, JSON patch, strategic merge and server-side apply.

Pure functions over plain JSON; `emulator` picks one by the request's content type.
"""

from __future__ import annotations

import copy
from typing import Any

from sim.twin.errors import Json, bad_request, unprocessable_patch

# Lists that a strategic merge (and server-side apply) merges by key, rather than replaces.
# Source: patchStrategy/patchMergeKey tags of k8s.io/api core/v1, apps/v1 and meta/v1.
MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "conditions": "type",
    "ownerReferences": "uid",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "secrets": "name",
}


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def strategic_merge_patch(target: Any, patch: Any, field: str = "") -> Any:
    """Merge patch whose known lists merge by their key; the `$patch` directives are honoured."""
    if isinstance(patch, list):
        return _merge_list(target, patch, field)
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {k: copy.deepcopy(v) for k, v in patch.items() if k != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$"):
            _delete_primitives(result, key, value)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = strategic_merge_patch(result.get(key), value, key)
    return result


def _delete_primitives(result: Json, directive: str, values: Any) -> None:
    prefix, _, field = directive.partition("/")
    if prefix == "$deleteFromPrimitiveList" and isinstance(result.get(field), list):
        result[field] = [v for v in result[field] if v not in values]


def _merge_list(target: Any, patch: list[Any], field: str) -> list[Any]:
    items = [p for p in patch if isinstance(p, dict)]
    replace = any(p.get("$patch") == "replace" for p in items)
    key = MERGE_KEYS.get(field)
    if key == "containerPort" and items and "containerPort" not in items[0]:
        key = "port"  # Service ports share the field's name with containers'
    if replace or key is None or not isinstance(target, list) or any(key not in p for p in items):
        return [copy.deepcopy(p) for p in patch if p != {"$patch": "replace"}]
    merged = {entry.get(key): entry for entry in target}
    for item in items:
        if item.get("$patch") == "delete":
            merged.pop(item[key], None)
        else:
            merged[item[key]] = strategic_merge_patch(merged.get(item[key]), item)
    return list(merged.values())


def apply_configuration(target: Json | None, applied: Json) -> Json:
    """Server-side apply without field ownership: creates, or merges what is applied into what is there."""
    if target is None:
        return copy.deepcopy(applied)
    result = strategic_merge_patch(target, applied)
    assert isinstance(result, dict)
    return result


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902.

    Raises:
        ApiError: 400 for a malformed patch, 422 for one that doesn't fit (a failed `test` included).
    """
    if not isinstance(operations, list):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    result = copy.deepcopy(target)
    for operation in operations:
        result = _apply_operation(result, operation)
    return result


def _apply_operation(document: Any, operation: Json) -> Any:
    op, path = operation.get("op"), operation.get("path", "")
    if op in ("add", "replace", "test"):
        value = copy.deepcopy(operation.get("value"))
    elif op in ("move", "copy"):
        value = copy.deepcopy(_lookup(document, operation.get("from", "")))
    elif op != "remove":
        raise unprocessable_patch(f"Unexpected kind: {op}")
    if op == "test":
        _test(document, path, value)
        return document
    if op == "move":
        document = _remove(document, operation["from"])
    if op == "remove":
        return _remove(document, path)
    return _put(document, path, value, replace=op == "replace")


def _tokens(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise unprocessable_patch(f"invalid path {path!r}")
    return [t.replace("~1", "/").replace("~0", "~") for t in path.split("/")[1:]]


def _child(node: Any, token: str, path: str) -> Any:
    try:
        return node[int(token)] if isinstance(node, list) else node[token]
    except (KeyError, IndexError, ValueError, TypeError):
        raise unprocessable_patch(f"{path}: missing path") from None


def _lookup(document: Any, path: str) -> Any:
    for token in _tokens(path):
        document = _child(document, token, path)
    return document


def _test(document: Any, path: str, value: Any) -> None:
    try:
        actual = _lookup(document, path)
    except Exception:
        if value is None:
            return
        raise
    if actual != value:
        raise unprocessable_patch(f"testing value {path} failed")


def _parent(document: Any, path: str) -> tuple[Any, str]:
    *front, last = _tokens(path)
    for token in front:
        document = _child(document, token, path)
    return document, last


def _remove(document: Any, path: str) -> Any:
    parent, last = _parent(document, path)
    _child(parent, last, path)
    del parent[int(last) if isinstance(parent, list) else last]
    return document


def _put(document: Any, path: str, value: Any, *, replace: bool) -> Any:
    if not path:
        return value
    parent, last = _parent(document, path)
    if replace:
        _child(parent, last, path)
    if isinstance(parent, dict):
        parent[last] = value
    elif not isinstance(parent, list):
        raise unprocessable_patch(f"{path}: missing path")
    elif replace:
        parent[int(last)] = value
    else:
        _insert(parent, last, value, path)
    return document


def _insert(items: list[Any], token: str, value: Any, path: str) -> None:
    index = len(items) if token == "-" else int(token) if token.isdigit() else -1
    if not 0 <= index <= len(items):
        raise unprocessable_patch(f"{path}: invalid index")
    items.insert(index, value)
