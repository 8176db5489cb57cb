"""Scale targets: reading replicas and readiness, and writing replicas through the scale subresource.

Targets of well-known kinds come from a watch where there is one (see `controller.actuation.targets`), else
from one request each: their fields are where the apps/v1 API says. Any other kind costs two requests, /scale
for the replicas (its path is the kind's own affair) and the object for its ready replicas.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from controller.actuation.target import WELL_KNOWN, Target, TargetRef, read_target
from controller.actuation.targets import TargetWatches
from controller.errors import Conflict, NotFound
from controller.kube import Kube

ATTEMPTS: Final = 3

__all__ = ["Scaler", "Target", "TargetRef"]


class Scaler:
    """Reads and writes scale targets. Raises the KubernetesError tree; NotFound names the target."""

    def __init__(self, kube: Kube, watches: TargetWatches | None = None) -> None:
        self._kube = kube
        self._watches = watches

    def known(self, ref: TargetRef) -> Target | None:
        """The target as a watch shows it, or None where it takes a request to know."""
        return self._watches.known(ref) if self._watches is not None else None

    async def read(self, ref: TargetRef) -> Target:
        """The target, from its watch or by a request."""
        found = self.known(ref)
        if found is None and self._watches is not None:
            await self._watches.expect(ref)
            found = self.known(ref)
        return found or await self.fetch(ref)

    async def fetch(self, ref: TargetRef) -> Target:
        """The target by a request, whatever a watch shows."""
        resource = await self._kube.scalable(ref.api_version, ref.kind)
        try:
            if (ref.api_version, ref.kind) in WELL_KNOWN:
                body = await self._kube.get(resource, ref.namespace, ref.name)
                return read_target(ref, resource, body, body)
            scale, body = await asyncio.gather(
                self._kube.get(resource, ref.namespace, ref.name, "scale"),
                self._kube.get(resource, ref.namespace, ref.name),
            )
            return read_target(ref, resource, scale, body)
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
                newest = await self.fetch(target.ref)
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
        written = replace(target, replicas=replicas, resource_version=version)
        if self._watches is not None:
            self._watches.written(written)
        return written
