"""Scale targets: reading replicas and readiness, and writing replicas through the scale subresource.

The loop reads every target each tick, so the well-known kinds cost one request: their fields are where the
apps/v1 API says. Any other kind costs two, /scale for the replicas (its path is the kind's own affair) and
the object for its ready replicas.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any, Final

from controller.errors import Conflict, NotFound
from controller.kube import Json, Kube, Resource

ATTEMPTS: Final = 3
WELL_KNOWN: Final = frozenset(
    {("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "ReplicaSet")}
)


@dataclass(frozen=True)
class TargetRef:
    """What an RLScaler points at; always in its own namespace."""

    api_version: str
    kind: str
    name: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Identity whatever the version: two API versions of one group are one target."""
        return (self.api_version.rpartition("/")[0], self.kind, self.namespace, self.name)


@dataclass(frozen=True)
class Target:
    """A scale target as last read. `replicas`: spec.replicas of its scale; `ready`: None where unknown."""

    ref: TargetRef
    resource: Resource
    replicas: int
    ready: int | None
    resource_version: str


class Scaler:
    """Reads and writes scale targets. Raises the KubernetesError tree; NotFound names the target."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def read(self, ref: TargetRef) -> Target:
        resource = await self._kube.scalable(ref.api_version, ref.kind)
        try:
            if (ref.api_version, ref.kind) in WELL_KNOWN:
                body = await self._kube.get(resource, ref.namespace, ref.name)
                return _target(ref, resource, body, body)
            scale, body = await asyncio.gather(
                self._kube.get(resource, ref.namespace, ref.name, "scale"),
                self._kube.get(resource, ref.namespace, ref.name),
            )
            return _target(ref, resource, scale, body)
        except NotFound as error:
            raise NotFound(f"{ref} not found", 404) from error

    async def write(self, target: Target, replicas: int) -> Target:
        """Set the replicas of a target that nobody has scaled since it was read. Raises Conflict otherwise.

        A 409 is read again: if only other fields have moved (pods became ready, say), the write is tried
        again under the new resourceVersion; if the replicas have, it is somebody else's decision and stands.
        """
        newest = target
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._patch(newest, replicas)
            except Conflict:
                newest = await self.read(target.ref)
            if newest.replicas != target.replicas:
                raise Conflict(
                    f"{target.ref} was scaled from {target.replicas} to {newest.replicas} by somebody else",
                    409,
                )
        return await self._patch(newest, replicas)

    async def _patch(self, target: Target, replicas: int) -> Target:
        ref = target.ref
        body = {"metadata": {"resourceVersion": target.resource_version}, "spec": {"replicas": replicas}}
        scale = await self._kube.merge_patch(target.resource, ref.namespace, ref.name, body, "scale")
        version = str(scale.get("metadata", {}).get("resourceVersion", ""))
        return replace(target, replicas=replicas, resource_version=version)


def _target(ref: TargetRef, resource: Resource, scale: Json, body: Json) -> Target:
    replicas = (scale.get("spec") or {}).get("replicas")
    version = str(scale["metadata"]["resourceVersion"])
    return Target(ref, resource, 1 if replicas is None else int(replicas), _ready(ref, scale, body), version)


def _ready(ref: TargetRef, scale: Json, body: Json) -> int | None:
    """Ready replicas; apps/v1 leaves the field out at zero, elsewhere its absence says nothing."""
    ready: Any = (body.get("status") or {}).get("readyReplicas")
    if ready is None and (ref.api_version, ref.kind) in WELL_KNOWN:
        return 0
    if ready is None:
        ready = (scale.get("status") or {}).get("replicas")
    return None if ready is None else int(ready)
