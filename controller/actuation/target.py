"""A scale target as the API server shows it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from controller.kube import Json, Resource

WELL_KNOWN: Final = frozenset(
    {("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "ReplicaSet")}
)


TargetKey = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class TargetRef:
    """What an RLScaler points at; always in its own namespace."""

    api_version: str
    kind: str
    name: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def key(self) -> TargetKey:
        """Identity whatever the version: two API versions of one group are one target."""
        return (self.api_version.rpartition("/")[0], self.kind, self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Target:
    """A scale target as last read. `replicas`: spec.replicas of its scale; `ready`: None where unknown.

    `uid` tells it from one of the same name that was deleted.
    """

    ref: TargetRef
    resource: Resource
    replicas: int
    ready: int | None
    resource_version: str
    uid: str = ""


def read_target(ref: TargetRef, resource: Resource, scale: Json, body: Json) -> Target:
    """From its Scale and itself; a well-known kind is its own Scale."""
    replicas = (scale.get("spec") or {}).get("replicas")
    replicas = 1 if replicas is None else int(replicas)
    metadata = scale["metadata"]
    version, uid = str(metadata["resourceVersion"]), str(metadata.get("uid", ""))
    return Target(ref, resource, replicas, _ready(ref, scale, body), version, uid)


def _ready(ref: TargetRef, scale: Json, body: Json) -> int | None:
    """Ready replicas; apps/v1 leaves the field out at zero, elsewhere its absence says nothing."""
    ready: Any = (body.get("status") or {}).get("readyReplicas")
    if ready is None and (ref.api_version, ref.kind) in WELL_KNOWN:
        return 0
    if ready is None:
        ready = (scale.get("status") or {}).get("replicas")
    return None if ready is None else int(ready)
