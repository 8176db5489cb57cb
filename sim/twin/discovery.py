"""How clients find out what is served: /version, /api, /apis, and the OpenAPI v3 that kubectl asks for."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sim.twin.errors import Json, no_such_resource
from sim.twin.resources import REVIEWS, ResourceType

VERSION: Json = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.0+twin",
    "gitCommit": "0000000000000000000000000000000000000000",
    "gitTreeState": "clean",
    "buildDate": "2025-01-01T00:00:00Z",
    "goVersion": "go1.23.3",
    "compiler": "gc",
    "platform": "linux/amd64",
}
Served = dict[tuple[str, str, str], ResourceType]


def respond(path: str, served: Served) -> Json:
    """The answer to a GET outside of the resources themselves.

    Raises:
        ApiError: 404 for anything that isn't discovery.
    """
    parts = path.strip("/").split("/")
    match parts:
        case ["version"]:
            return VERSION
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            groups = sorted({g for g, _, _ in served if g} | {REVIEWS[0].group})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(g, served) for g in groups]}
        case ["apis", group]:
            return {"kind": "APIGroup", "apiVersion": "v1"} | _group(group, served)
        case ["api", version]:
            return _resource_list("", version, served)
        case ["apis", group, version]:
            return _resource_list(group, version, served)
        case ["openapi", "v3"]:
            return _openapi_index(served)
        case ["openapi", "v3", "api", version]:
            return _openapi("", version, served)
        case ["openapi", "v3", "apis", group, version]:
            return _openapi(group, version, served)
        case [""]:
            return {"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]}
    raise no_such_resource()


def _versions(group: str, served: Served) -> list[str]:
    return list(dict.fromkeys(v for g, v, _ in [*served, *(_review_keys())] if g == group))


def _review_keys() -> list[tuple[str, str, str]]:
    return [(r.group, r.version, r.plural) for r in REVIEWS]


def _group(group: str, served: Served) -> Json:
    versions = [{"groupVersion": f"{group}/{v}", "version": v} for v in _versions(group, served)]
    if not versions:
        raise no_such_resource()
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _of(group: str, version: str, served: Served) -> list[ResourceType]:
    found = [r for (g, v, _), r in served.items() if (g, v) == (group, version)]
    if not found and not any((g, v) == (group, version) for g, v, _ in _review_keys()):
        raise no_such_resource()
    return found


def _resource_list(group: str, version: str, served: Served) -> Json:
    entries = [e for r in _of(group, version, served) for e in _entries(r)]
    reviews = [r for r in REVIEWS if (r.group, r.version) == (group, version)]
    entries += [_entry(r, r.plural, r.kind, ("create",)) for r in reviews]
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": entries}


def _entries(resource: ResourceType) -> list[Json]:
    main = _entry(resource, resource.plural, resource.kind, resource.verbs)
    main |= {"shortNames": list(resource.short_names)} if resource.short_names else {}
    main |= {"categories": list(resource.categories)} if resource.categories else {}
    entries = [main]
    if resource.has_status:
        entries.append(
            _entry(resource, f"{resource.plural}/status", resource.kind, ("get", "patch", "update"))
        )
    if resource.scale:
        scale = _entry(resource, f"{resource.plural}/scale", "Scale", ("get", "patch", "update"))
        entries.append(scale | {"group": "autoscaling", "version": "v1"})
    return entries


def _entry(resource: ResourceType, name: str, kind: str, verbs: tuple[str, ...]) -> Json:
    singular = resource.singular_name if "/" not in name else ""
    entry: Json = {"name": name, "singularName": singular, "namespaced": resource.namespaced, "kind": kind}
    return entry | {"verbs": list(verbs)}


def _openapi_index(served: Served) -> Json:
    paths = {}
    for group, version in dict.fromkeys((g, v) for g, v, _ in served):
        path = f"apis/{group}/{version}" if group else f"api/{version}"
        digest = hashlib.sha256(json.dumps(_openapi(group, version, served)).encode()).hexdigest()
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest[:32]}"}
    return {"paths": paths}


def _openapi(group: str, version: str, served: Served) -> Json:
    schemas: Json = {}
    paths: Json = {}
    for resource in _of(group, version, served):
        gvk = {"group": group, "version": version, "kind": resource.kind}
        name = f"{'.'.join(reversed(group.split('.'))) or 'io.k8s.api.core'}.{version}.{resource.kind}"
        schemas[name] = _schema(resource) | {"x-kubernetes-group-version-kind": [gvk]}
        paths |= _paths(resource, gvk, {"$ref": f"#/components/schemas/{name}"})
    info = {"title": "Kubernetes", "version": VERSION["gitVersion"]}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _schema(resource: ResourceType) -> Json:
    if resource.schema is None:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    header = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    }
    schema = resource.schema.schema
    return schema | {"properties": header | (schema.get("properties") or {})}


def _paths(resource: ResourceType, gvk: Json, schema: Json) -> Json:
    root = f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
    root += "/namespaces/{namespace}" if resource.namespaced else ""
    query = [_query(n) for n in ("fieldValidation", "dryRun", "fieldManager", "force")]
    body = {"content": {"application/json": {"schema": schema}}}
    ok = {"200": {"description": "OK"} | body}

    def operation(action: str, **more: Any) -> Json:
        base = {"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk, "responses": ok}
        return base | {"parameters": query} | more

    return {
        f"{root}/{resource.plural}": {
            "get": operation("list"),
            "post": operation("post", requestBody=body),
        },
        f"{root}/{resource.plural}/{{name}}": {
            "get": operation("get"),
            "put": operation("put", requestBody=body),
            "patch": operation("patch", requestBody=body),
            "delete": operation("delete"),
        },
    }


def _query(name: str) -> Json:
    return {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
