"""The controllers of Deployments, StatefulSets and ReplicaSets, and a kubelet whose pods take time to start.

Pods come up `start_up_s` control seconds after they were created; a scale-down removes those that aren't
ready first and then the newest, as the ReplicaSet controller does. A workload may set its own start-up time
with the annotation `twin.rlscaler.dev/start-up-seconds` on its pod template.
"""

from __future__ import annotations

import asyncio
import hashlib
import json

from sim.twin.api import Api, storage_key
from sim.twin.errors import ApiError, Json
from sim.twin.selectors import match_labels
from sim.twin.store import Change, ResourceKey, now_rfc3339

START_UP_ANNOTATION = "twin.rlscaler.dev/start-up-seconds"
NODE = "twin-node"
PODS: ResourceKey = ("", "pods")
DEPLOYMENTS: ResourceKey = ("apps", "deployments")
STATEFULSETS: ResourceKey = ("apps", "statefulsets")
REPLICASETS: ResourceKey = ("apps", "replicasets")
_WATCHED = (DEPLOYMENTS, STATEFULSETS, REPLICASETS)
Ref = tuple[ResourceKey, str, str]


class WorkloadController:
    """Reconciles what changed, once a turn of the event loop."""

    def __init__(self, api: Api, time_scale: float, start_up_s: float) -> None:
        self._api, self._store = api, api.store
        self._time_scale, self._start_up_s = time_scale, start_up_s
        self._dirty: dict[Ref, None] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._due: asyncio.Handle | None = None
        self._addresses = 0
        self._birth: dict[str, int] = {}  # pod's uid -> the revision that created it
        self._store.listeners.append(self._observe)

    def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        if self._due is not None:
            self._due.cancel()

    def _observe(self, change: Change) -> None:
        meta = change.obj["metadata"]
        if change.resource in _WATCHED and change.type != "DELETED":
            self._mark((change.resource, meta["namespace"], meta["name"]))
        for owner in meta.get("ownerReferences") or []:
            plural = f"{owner['kind'].lower()}s"
            if change.resource in (PODS, REPLICASETS) and ("apps", plural) in _WATCHED:
                self._mark((("apps", plural), meta["namespace"], owner["name"]))
        if change.resource == PODS and change.type == "DELETED":
            self._forget(meta["uid"])

    def _mark(self, ref: Ref) -> None:
        self._dirty[ref] = None
        if self._due is None:
            self._due = asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._due = None
        dirty, self._dirty = self._dirty, {}
        for resource, namespace, name in dirty:
            obj = self._store.get(resource, namespace, name)
            if obj is None or obj["metadata"].get("deletionTimestamp"):
                continue
            if resource == DEPLOYMENTS:
                self._reconcile_deployment(obj)
            else:
                self._reconcile_pods(resource, obj)

    # Deployments own one ReplicaSet for each pod template

    def _reconcile_deployment(self, deployment: Json) -> None:
        meta, spec = deployment["metadata"], deployment["spec"]
        owned = self._owned(REPLICASETS, deployment)
        digest = _template_hash(spec["template"])
        current = next((r for r in owned if r["metadata"]["labels"]["pod-template-hash"] == digest), None)
        wanted = spec.get("replicas", 1)
        if current is None:
            self._create_replica_set(deployment, digest, wanted)
        elif current["spec"]["replicas"] != wanted:
            self._scale(current, wanted)
        else:
            for old in owned:
                available = (current.get("status") or {}).get("readyReplicas", 0)
                if old is not current and old["spec"]["replicas"] and available >= wanted:
                    self._scale(old, 0)
        self._write_status(DEPLOYMENTS, meta, self._deployment_status(deployment, owned, digest))

    def _create_replica_set(self, deployment: Json, digest: str, replicas: int) -> None:
        meta, spec = deployment["metadata"], deployment["spec"]
        labels = (spec["template"].get("metadata") or {}).get("labels", {}) | {"pod-template-hash": digest}
        template = spec["template"] | {
            "metadata": (spec["template"].get("metadata") or {}) | {"labels": labels}
        }
        selector = {
            **spec["selector"],
            "matchLabels": (spec["selector"].get("matchLabels") or {}) | {"pod-template-hash": digest},
        }
        body = {
            "metadata": {
                "name": f"{meta['name']}-{digest}",
                "labels": labels,
                "ownerReferences": [_owner(DEPLOYMENTS, deployment)],
            },
            "spec": {"replicas": replicas, "selector": selector, "template": template},
        }
        self._api.create(self._api.resource(REPLICASETS), meta["namespace"], body)

    def _scale(self, replica_set: Json, replicas: int) -> None:
        meta = replica_set["metadata"]

        def change(obj: Json) -> Json:
            return obj | {"spec": obj["spec"] | {"replicas": replicas}}

        self._api.update(self._api.resource(REPLICASETS), meta["namespace"], meta["name"], change)

    def _deployment_status(self, deployment: Json, owned: list[Json], digest: str) -> Json:
        pods = [p for r in owned for p in self._owned(PODS, r)]
        ready = sum(map(is_ready, pods))
        wanted = deployment["spec"].get("replicas", 1)
        updated = [p for p in pods if p["metadata"]["labels"].get("pod-template-hash") == digest]
        status = _counts(deployment, len(pods), ready) | {
            "updatedReplicas": len(updated),
            "unavailableReplicas": max(0, wanted - ready),
        }
        available = ready >= wanted - max(1, wanted // 4)
        words = (
            ("MinimumReplicasAvailable", "Deployment has minimum availability.")
            if available
            else ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        )
        before = _conditions(deployment)
        condition = {"type": "Available", "status": str(available), "reason": words[0], "message": words[1]}
        status["conditions"] = [_timed(condition, before)]
        return status

    # ReplicaSets and StatefulSets own pods

    def _reconcile_pods(self, resource: ResourceKey, obj: Json) -> None:
        pods = self._owned(PODS, obj)
        wanted = obj["spec"].get("replicas", 1)
        if resource == STATEFULSETS:
            self._match_ordinals(obj, pods, wanted)
        else:
            self._match_count(obj, pods, wanted)
        pods = self._owned(PODS, obj)
        status = _counts(obj, len(pods), sum(map(is_ready, pods)))
        self._write_status(resource, obj["metadata"], status)

    def _match_count(self, obj: Json, pods: list[Json], wanted: int) -> None:
        for _ in range(wanted - len(pods)):
            self._create_pod(REPLICASETS, obj, f"{obj['metadata']['name']}-{self._api.suffix()}")
        surplus = sorted(pods, key=self._removal_order)[: max(0, len(pods) - wanted)]
        for pod in surplus:
            self._delete_pod(pod)

    def _removal_order(self, pod: Json) -> tuple[bool, int]:
        return is_ready(pod), -self._birth.get(pod["metadata"]["uid"], 0)

    def _match_ordinals(self, obj: Json, pods: list[Json], wanted: int) -> None:
        name = obj["metadata"]["name"]
        have = {p["metadata"]["name"]: p for p in pods}
        for ordinal in range(wanted):
            if f"{name}-{ordinal}" not in have:
                self._create_pod(STATEFULSETS, obj, f"{name}-{ordinal}")
        for pod_name, pod in have.items():
            if int(pod_name.rsplit("-", 1)[1]) >= wanted:
                self._delete_pod(pod)

    def _create_pod(self, resource: ResourceKey, owner: Json, name: str) -> None:
        template = owner["spec"]["template"]
        meta = dict(template.get("metadata") or {})
        meta |= {"name": name, "ownerReferences": [_owner(resource, owner)]}
        spec = (template.get("spec") or {}) | {"nodeName": NODE}
        namespace = owner["metadata"]["namespace"]
        pods = self._api.resource(PODS)
        pod = self._api.create(pods, namespace, {"metadata": meta, "spec": spec})
        self._set_pod_status(pod, ready=False)
        delay = float((meta.get("annotations") or {}).get(START_UP_ANNOTATION, self._start_up_s))
        loop = asyncio.get_running_loop()
        uid = pod["metadata"]["uid"]
        self._birth[uid] = self._store.revision
        timer = loop.call_later(delay / self._time_scale, self._started, uid, namespace, name)
        self._timers[uid] = timer

    def _started(self, uid: str, namespace: str, name: str) -> None:
        self._timers.pop(uid, None)
        pod = self._store.get(PODS, namespace, name)
        if pod is not None and pod["metadata"]["uid"] == uid:
            self._set_pod_status(pod, ready=True)

    def _forget(self, uid: str) -> None:
        self._birth.pop(uid, None)
        timer = self._timers.pop(uid, None)
        if timer is not None:
            timer.cancel()

    def _delete_pod(self, pod: Json) -> None:
        meta = pod["metadata"]
        self._api.delete(self._api.resource(PODS), meta["namespace"], meta["name"])

    def _set_pod_status(self, pod: Json, *, ready: bool) -> None:
        self._addresses += ready
        address = f"10.{self._addresses >> 16 & 255}.{self._addresses >> 8 & 255}.{self._addresses & 255}"
        self._write_status(PODS, pod["metadata"], _pod_status(pod, ready, address))

    def _owned(self, resource: ResourceKey, owner: Json) -> list[Json]:
        uid, namespace = owner["metadata"]["uid"], owner["metadata"]["namespace"]
        selector = owner["spec"].get("selector")
        return [
            obj
            for obj in self._store.list(resource, namespace)
            if any(o["uid"] == uid for o in obj["metadata"].get("ownerReferences") or [])
            and match_labels(selector, obj["metadata"].get("labels"))
        ]

    def _write_status(self, resource: ResourceKey, meta: Json, status: Json) -> None:
        kind = self._api.resource(resource)
        try:
            self._api.update(
                kind, meta["namespace"], meta["name"], lambda o: _with_status(o, status), "status"
            )
        except ApiError as error:
            if error.code != 404:
                raise


def _with_status(obj: Json, status: Json) -> Json:
    obj["metadata"].pop("resourceVersion", None)
    return obj | {"status": status}


def _template_hash(template: Json) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def _owner(resource: ResourceKey, obj: Json) -> Json:
    kind = {DEPLOYMENTS: "Deployment", STATEFULSETS: "StatefulSet", REPLICASETS: "ReplicaSet"}[resource]
    meta = obj["metadata"]
    header = {"apiVersion": "apps/v1", "kind": kind, "name": meta["name"], "uid": meta["uid"]}
    return header | {"controller": True, "blockOwnerDeletion": True}


def is_ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _counts(obj: Json, replicas: int, ready: int) -> Json:
    return {
        "observedGeneration": obj["metadata"].get("generation", 1),
        "replicas": replicas,
        "readyReplicas": ready,
        "availableReplicas": ready,
    }


def _conditions(obj: Json) -> list[Json]:
    return list((obj.get("status") or {}).get("conditions") or [])


def _timed(condition: Json, before: list[Json]) -> Json:
    """A condition with the time of its last change of status."""
    old = next((c for c in before if c["type"] == condition["type"]), None)
    if old is not None and old["status"] == condition["status"]:
        return condition | {"lastTransitionTime": old["lastTransitionTime"]}
    return condition | {"lastTransitionTime": now_rfc3339()}


def _pod_status(pod: Json, ready: bool, address: str) -> Json:
    state: Json = {"running": {"startedAt": now_rfc3339()}}
    if not ready:
        state = {"waiting": {"reason": "ContainerCreating"}}
    names = [c.get("name", "main") for c in (pod["spec"].get("containers") or [])]
    flags: Json = {"ready": ready, "started": ready, "restartCount": 0, "state": state}
    before = _conditions(pod)
    conditions = [
        _timed({"type": kind, "status": str(value)}, before)
        for kind, value in (("PodScheduled", True), ("ContainersReady", ready), ("Ready", ready))
    ]
    status: Json = {"phase": "Running" if ready else "Pending", "conditions": conditions}
    status["containerStatuses"] = [{"name": n} | flags for n in names]
    status["startTime"] = (pod.get("status") or {}).get("startTime") or now_rfc3339()
    return status | ({"podIP": address, "podIPs": [{"ip": address}]} if ready else {})


def pods_of(api: Api, namespace: str, workload: str) -> list[Json]:
    """The pods of a workload by the name of its Deployment, StatefulSet or ReplicaSet, oldest first."""
    for resource in (DEPLOYMENTS, STATEFULSETS, REPLICASETS):
        obj = api.store.get(resource, namespace, workload)
        if obj is not None:
            selector = obj["spec"].get("selector")
            pods = api.store.list(storage_key(api.resource(PODS)), namespace)
            return [p for p in pods if match_labels(selector, p["metadata"].get("labels"))]
    return []
