"""What the API server does with an object, apart from HTTP: admission, subresources, generation, deletion.

`emulator.TwinCluster` calls it for requests, the controllers in `workloads` and `gateway` for their own
writes. Every method is synchronous, so each write is atomic in the one event loop.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sim.twin import errors, events, managers
from sim.twin.errors import FieldError, Json
from sim.twin.resources import BUILTIN, ResourceType, from_crd
from sim.twin.selectors import match_labels, selector_text
from sim.twin.store import ResourceKey, Store, clone, new_metadata, now_rfc3339

_DNS_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # k8s.io/apimachinery/pkg/util/rand
_SERVERS_OWN = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
CRDS: ResourceKey = ("apiextensions.k8s.io", "customresourcedefinitions")
NAMESPACES: ResourceKey = ("", "namespaces")


@dataclass
class WriteOptions:
    """The query parameters of a write, and whose it is; `warnings` go back as Warning headers."""

    dry_run: bool = False
    field_validation: str = "Warn"
    manager: str = ""
    warnings: list[str] = field(default_factory=list)


class Api:
    """Objects with the rules of the API server."""

    def __init__(self, seed: int = 0) -> None:
        self.store = Store()
        self.served = {(r.group, r.version, r.plural): r for r in BUILTIN}
        self._random = random.Random(seed)
        for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
            self.create(self.resource(NAMESPACES), None, {"metadata": {"name": name}})

    def resource(self, key: ResourceKey) -> ResourceType:
        """Any served version of a resource.

        Raises:
            KeyError: it isn't served.
        """
        return next(r for r in self.served.values() if r.key == key)

    def suffix(self, length: int = 5) -> str:
        return "".join(self._random.choices(_ALPHABET, k=length))

    # Reading

    def require(self, resource: ResourceType, namespace: str | None, name: str) -> Json:
        obj = self.store.get(storage_key(resource), namespace, name)
        if obj is None:
            raise errors.not_found(resource.group, resource.plural, name)
        return obj

    def shown(self, resource: ResourceType, obj: Json) -> Json:
        """An object as a version of its resource presents it."""
        if resource.key == ("events.k8s.io", "events"):
            obj = events.from_core(obj)
        return resource.header() | {k: v for k, v in obj.items() if k not in ("apiVersion", "kind")}

    # Creating

    def create(
        self, resource: ResourceType, namespace: str | None, obj: Json, options: WriteOptions | None = None
    ) -> Json:
        options = options or WriteOptions()
        obj = self._named(resource, namespace, obj)
        name = obj["metadata"]["name"]
        if namespace is not None and self.store.get(NAMESPACES, None, namespace) is None:
            raise errors.not_found("", "namespaces", namespace)
        if self.store.get(storage_key(resource), namespace, name) is not None:
            raise errors.already_exists(resource.group, resource.plural, name)
        if resource.has_status:
            obj.pop("status", None)
        obj = self._admit(resource, obj, None, options)
        obj["metadata"] = new_metadata(obj["metadata"], namespace)
        if _has_generation(resource):
            obj["metadata"]["generation"] = 1
        obj = managers.note(resource, obj, None, options.manager, through_scale=False)
        return self._commit(resource, obj, options)

    def _named(self, resource: ResourceType, namespace: str | None, obj: Json) -> Json:
        obj = resource.header() | clone(obj)
        if obj["apiVersion"] != resource.api_version or obj["kind"] != resource.kind:
            given = f"{obj['apiVersion']}, Kind={obj['kind']}"
            wanted = f"{resource.api_version}, Kind={resource.kind}"
            raise errors.bad_request(
                f"the API version in the data ({given}) does not match the expected API version ({wanted})"
            )
        if resource.key == ("events.k8s.io", "events"):
            obj = events.to_core(obj)
        meta = obj.setdefault("metadata", {})
        if meta.get("namespace", namespace) != namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + self.suffix()
        _check_name(resource, meta.get("name"))
        return obj

    # Changing

    def update(
        self,
        resource: ResourceType,
        namespace: str | None,
        name: str,
        change: Callable[[Json], Json],
        subresource: str | None = None,
        options: WriteOptions | None = None,
    ) -> Json:
        """Applies a change to the object, or to its status, and stores what it may store of it."""
        options = options or WriteOptions()
        current = self.require(resource, namespace, name)
        changed = change(clone(self.shown(resource, current)))
        if resource.key == ("events.k8s.io", "events"):
            changed = events.to_core(changed)
        self._check_identity(resource, current, changed)
        if subresource == "status":
            new = current | {"status": changed.get("status", {})}
        else:
            new = self._main_update(resource, current, changed)
        new = self._admit(resource, clone(new), current, options)
        if _has_generation(resource) and _content(new, resource) != _content(current, resource):
            new["metadata"]["generation"] = current["metadata"].get("generation", 0) + 1
        new = managers.note(resource, new, current, options.manager, subresource == "scale")
        if new == current:
            return current
        return self._commit(resource, new, options)

    def _check_identity(self, resource: ResourceType, current: Json, changed: Json) -> None:
        meta, now = changed.get("metadata") or {}, current["metadata"]
        given = meta.get("resourceVersion")
        if given and given != now["resourceVersion"]:
            raise errors.conflict(resource.group, resource.plural, now["name"])
        if meta.get("name", now["name"]) != now["name"]:
            raise errors.bad_request(
                f"the name of the object ({meta['name']}) does not match the name on the URL ({now['name']})"
            )
        if meta.get("uid", now["uid"]) != now["uid"]:
            why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {now['uid']}"
            raise errors.conflict(resource.group, resource.plural, now["name"], why)

    def _main_update(self, resource: ResourceType, current: Json, changed: Json) -> Json:
        now = current["metadata"]
        meta = dict(changed.get("metadata") or {}) | {"name": now["name"]}
        meta |= {k: now[k] for k in (*_SERVERS_OWN, "namespace", "resourceVersion") if k in now}
        meta.pop("managedFields", None)
        if "deletionTimestamp" not in now:
            meta.pop("deletionTimestamp", None)
        self._check_finalizers(resource, now, meta)
        new = {k: v for k, v in changed.items() if k != "status"} | {"metadata": meta}
        if resource.has_status:
            return new | ({"status": current["status"]} if "status" in current else {})
        return new | ({"status": changed["status"]} if "status" in changed else {})

    def _check_finalizers(self, resource: ResourceType, now: Json, meta: Json) -> None:
        added = set(meta.get("finalizers") or []) - set(now.get("finalizers") or [])
        if added and now.get("deletionTimestamp"):
            text = "Forbidden: no new finalizers can be added if the object is being deleted, found new "
            names = ", ".join(f'"{a}"' for a in sorted(added))
            fault = FieldError(
                "metadata.finalizers", "FieldValueForbidden", f"{text}finalizers []string{{{names}}}"
            )
            raise errors.invalid(resource.group, resource.kind, now["name"], [fault])

    # Scale

    def scale_of(self, resource: ResourceType, obj: Json) -> Json:
        """The autoscaling/v1 Scale of an object."""
        paths = resource.scale
        if paths is None:
            raise errors.no_such_resource()
        meta = {k: obj["metadata"].get(k) for k in ("name", "namespace", "uid", "resourceVersion")}
        meta["creationTimestamp"] = obj["metadata"].get("creationTimestamp")
        status: Json = {"replicas": _dig(obj, paths.status_replicas) or 0}
        if paths.label_selector is None:
            status["selector"] = selector_text((obj.get("spec") or {}).get("selector"))
        elif paths.label_selector:
            status["selector"] = _dig(obj, paths.label_selector) or ""
        scale: Json = {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta}
        return scale | {"spec": {"replicas": _dig(obj, paths.spec_replicas) or 0}, "status": status}

    def update_scale(
        self,
        resource: ResourceType,
        namespace: str | None,
        name: str,
        change: Callable[[Json], Json],
        options: WriteOptions | None = None,
    ) -> Json:
        obj = self.require(resource, namespace, name)
        scale = change(self.scale_of(resource, obj))
        self._check_identity(resource, obj, scale)
        replicas = (scale.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or isinstance(replicas, bool):
            raise errors.bad_request(
                "json: cannot unmarshal value into Go struct field ScaleSpec.spec.replicas of type int32"
            )
        if replicas < 0:
            text = f"Invalid value: {replicas}: must be greater than or equal to 0"
            fault = FieldError("spec.replicas", "FieldValueInvalid", text)
            raise errors.invalid("autoscaling", "Scale", name, [fault])
        assert resource.scale is not None
        path = resource.scale.spec_replicas
        stored = self.update(
            resource, namespace, name, lambda o: _bury(o, path, replicas), "scale", options=options
        )
        return self.scale_of(resource, stored)

    # Deleting

    def delete(
        self, resource: ResourceType, namespace: str | None, name: str, options: Json | None = None
    ) -> Json:
        """Deletes, or marks as deleted while finalizers hold it; what it owns goes too unless orphaned."""
        options = options or {}
        obj = self.require(resource, namespace, name)
        self._check_preconditions(resource, obj, options.get("preconditions") or {})
        if options.get("dryRun"):
            return obj
        if not obj["metadata"].get("finalizers"):
            return self._remove(resource, obj, options.get("propagationPolicy", "Background"))
        if obj["metadata"].get("deletionTimestamp"):
            return obj
        marked = {"deletionTimestamp": now_rfc3339(), "deletionGracePeriodSeconds": 0}
        meta = obj["metadata"] | marked
        if _has_generation(resource):
            meta["generation"] = meta.get("generation", 0) + 1
        return self.store.commit(storage_key(resource), obj | {"metadata": meta})

    def _check_preconditions(self, resource: ResourceType, obj: Json, wanted: Json) -> None:
        for key, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            have = obj["metadata"][key]
            if wanted.get(key, have) != have:
                why = f"Precondition failed: {label} in precondition: {wanted[key]}, "
                why += f"{label} in object meta: {have}"
                raise errors.conflict(resource.group, resource.plural, obj["metadata"]["name"], why)

    def _remove(self, resource: ResourceType, obj: Json, propagation: str = "Background") -> Json:
        meta = obj["metadata"]
        last = self.store.remove(storage_key(resource), meta.get("namespace"), meta["name"]) or obj
        if resource.key == CRDS:
            self._unserve(obj)
        if resource.key == NAMESPACES:
            self._empty(meta["name"])
        self._release_dependents(meta["uid"], propagation)
        return last

    def _empty(self, namespace: str) -> None:
        for key, (where, name), _ in self.store.everything():
            if where == namespace and self.store.get(key, where, name) is not None:
                self.delete(self.resource(key), where, name)

    def _release_dependents(self, uid: str, propagation: str) -> None:
        for key, (namespace, name), obj in self.store.everything():
            owners = obj["metadata"].get("ownerReferences") or []
            kept = [o for o in owners if o.get("uid") != uid]
            if len(kept) == len(owners) or self.store.get(key, namespace, name) is None:
                continue
            if kept or propagation == "Orphan":
                self.store.commit(key, obj | {"metadata": obj["metadata"] | {"ownerReferences": kept}})
            else:
                self.delete(self.resource(key), namespace, name)

    # Admission

    def _admit(self, resource: ResourceType, obj: Json, old: Json | None, options: WriteOptions) -> Json:
        if resource.schema is not None:
            obj = self._admit_custom(resource, obj, old, options)
        faults = _builtin_faults(resource, obj, old)
        if faults:
            raise errors.invalid(resource.group, resource.kind, obj["metadata"]["name"], faults)
        if resource.key == CRDS:
            obj = _established(obj)
        if resource.key == NAMESPACES:
            obj.setdefault("status", {"phase": "Active"})
        if resource.scale is not None and not resource.custom:
            obj["spec"].setdefault("replicas", 1)
        return obj

    def _admit_custom(
        self, resource: ResourceType, obj: Json, old: Json | None, options: WriteOptions
    ) -> Json:
        assert resource.schema is not None
        obj, unknown = resource.schema.prune(obj)
        if unknown:
            self._report_unknown(resource, unknown, options)
        obj = resource.schema.default(obj)
        faults = resource.schema.validate(obj, old)
        if faults:
            raise errors.invalid(resource.group, resource.kind, obj["metadata"]["name"], faults)
        return obj

    def _report_unknown(self, resource: ResourceType, unknown: list[str], options: WriteOptions) -> None:
        texts = [f'unknown field "{path}"' for path in unknown]
        if options.field_validation == "Strict":
            raise errors.bad_request(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
                f"strict decoding error: {', '.join(texts)}"
            )
        if options.field_validation == "Warn":
            options.warnings.extend(texts)

    def _commit(self, resource: ResourceType, obj: Json, options: WriteOptions) -> Json:
        meta = obj["metadata"]
        if options.dry_run:
            return obj
        if resource.key == CRDS:
            self._serve(obj)
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            return self._remove(resource, obj)
        return self.store.commit(storage_key(resource), obj)

    def _serve(self, crd: Json) -> None:
        self._unserve(crd, keep_objects=True)
        for resource in from_crd(crd):
            self.served[(resource.group, resource.version, resource.plural)] = resource

    def _unserve(self, crd: Json, keep_objects: bool = False) -> None:
        key = (crd["spec"]["group"], crd["spec"]["names"]["plural"])
        gone = [k for k, r in self.served.items() if r.key == key]
        for served in gone:
            resource = self.served[served]
            if not keep_objects:
                for obj in self.store.list(key):
                    self.store.remove(key, obj["metadata"].get("namespace"), obj["metadata"]["name"])
            del self.served[(resource.group, resource.version, resource.plural)]


def storage_key(resource: ResourceType) -> ResourceKey:
    """Events are one storage behind two API groups."""
    return ("", "events") if resource.plural == "events" else resource.key


def _check_name(resource: ResourceType, name: Any) -> None:
    if not name:
        text = "Required value: name or generateName is required"
        fault = FieldError("metadata.name", "FieldValueRequired", text)
        raise errors.invalid(resource.group, resource.kind, "", [fault])
    if resource.group.startswith("rbac."):
        return
    if not _DNS_SUBDOMAIN.match(name) or len(name) > 253:
        text = (
            f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case '
            "alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character "
            "(e.g. 'example.com', regex used for validation is "
            "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        )
        fault = FieldError("metadata.name", "FieldValueInvalid", text)
        raise errors.invalid(resource.group, resource.kind, name, [fault])


def _has_generation(resource: ResourceType) -> bool:
    return resource.custom or (resource.has_status and resource.key not in (NAMESPACES, ("", "nodes")))


def _content(obj: Json, resource: ResourceType) -> Json:
    left_out = {"metadata", "apiVersion", "kind"} | ({"status"} if resource.has_status else set())
    return {k: v for k, v in obj.items() if k not in left_out}


def _builtin_faults(resource: ResourceType, obj: Json, old: Json | None) -> list[FieldError]:
    if resource.key == CRDS:
        return _crd_faults(obj)
    if resource.group == "apps" and resource.scale is not None:
        return _workload_faults(obj, old)
    return []


def _crd_faults(crd: Json) -> list[FieldError]:
    spec = crd.get("spec") or {}
    wanted = f"{(spec.get('names') or {}).get('plural')}.{spec.get('group')}"
    if crd["metadata"]["name"] != wanted:
        text = f'Invalid value: "{crd["metadata"]["name"]}": must be spec.names.plural+"."+spec.group'
        return [FieldError("metadata.name", "FieldValueInvalid", text)]
    if sum(bool(v.get("storage")) for v in spec.get("versions") or []) != 1:
        text = "Invalid value: must have exactly one version marked as storage version"
        return [FieldError("spec.versions", "FieldValueInvalid", text)]
    try:
        from_crd(crd)
    except ValueError as error:
        path, _, text = str(error).partition(": ")
        return [FieldError(path, "FieldValueInvalid", text)]
    return []


def _workload_faults(obj: Json, old: Json | None) -> list[FieldError]:
    spec = obj.get("spec") or {}
    selector, template = spec.get("selector"), spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels")
    if not selector:
        return [FieldError("spec.selector", "FieldValueRequired", "Required value")]
    if not match_labels(selector, labels):
        pairs = ", ".join(f'"{k}":"{v}"' for k, v in sorted((labels or {}).items()))
        text = f"Invalid value: map[string]string{{{pairs}}}: `selector` does not match template `labels`"
        return [FieldError("spec.template.metadata.labels", "FieldValueInvalid", text)]
    replicas = spec.get("replicas", 1)
    if not isinstance(replicas, int) or replicas < 0:
        text = f"Invalid value: {replicas}: must be greater than or equal to 0"
        return [FieldError("spec.replicas", "FieldValueInvalid", text)]
    if old is not None and old["spec"].get("selector") != selector:
        return [FieldError("spec.selector", "FieldValueInvalid", "Invalid value: field is immutable")]
    return []


def _established(crd: Json) -> Json:
    when = crd["metadata"].get("creationTimestamp") or now_rfc3339()
    stored = [v["name"] for v in crd["spec"]["versions"] if v.get("storage")]
    conditions = [
        _condition("NamesAccepted", "NoConflicts", "no conflicts found", when),
        _condition("Established", "InitialNamesAccepted", "the initial names have been accepted", when),
    ]
    names = {"singular": crd["spec"]["names"]["kind"].lower()} | crd["spec"]["names"]
    status = {"conditions": conditions, "acceptedNames": names, "storedVersions": stored}
    return crd | {"status": status}


def _condition(kind: str, reason: str, message: str, when: str) -> Json:
    return {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": when}


def _dig(obj: Any, path: str) -> Any:
    for part in path.split("."):
        obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def _bury(obj: Json, path: str, value: Any) -> Json:
    *front, last = path.split(".")
    node = obj
    for part in front:
        node = node.setdefault(part, {})
    node[last] = value
    return obj
