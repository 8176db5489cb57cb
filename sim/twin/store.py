"""The twin's etcd: objects, one revision counter for the whole cluster, and a log that watches replay.

Objects are never changed in place: each write stores a new dict, so a reader may keep what it was given.
"""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sim.twin.errors import Json, expired

ResourceKey = tuple[str, str]  # group, plural: every version of a resource is one storage
ObjectKey = tuple[str | None, str]  # namespace (None when cluster-scoped), name


@dataclass(frozen=True)
class Change:
    """One write; `previous` lets a selector turn a modification into an arrival or a departure."""

    revision: int
    resource: ResourceKey
    type: str
    obj: Json
    previous: Json | None


class Watch:
    """A subscriber to one resource; closed by `Store.close_watches` or when its reader goes away."""

    def __init__(self, resource: ResourceKey) -> None:
        self.resource = resource
        self.queue: asyncio.Queue[Change | None] = asyncio.Queue()


def now_rfc3339() -> str:
    return datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """Objects by resource; `commit` and `remove` are the only writes."""

    def __init__(self, history: int = 20_000) -> None:
        self.revision = 1
        self.compacted = 0  # changes up to this revision are forgotten
        self._objects: dict[ResourceKey, dict[ObjectKey, Json]] = {}
        self._log: deque[Change] = deque()
        self._history = history
        self._watches: set[Watch] = set()
        self.listeners: list[Callable[[Change], None]] = []

    def get(self, resource: ResourceKey, namespace: str | None, name: str) -> Json | None:
        return self._objects.get(resource, {}).get((namespace, name))

    def list(self, resource: ResourceKey, namespace: str | None = None) -> list[Json]:
        items = self._objects.get(resource, {}).items()
        return [obj for (ns, _), obj in sorted(items, key=_by_name) if namespace in (None, ns)]

    def everything(self) -> Iterator[tuple[ResourceKey, ObjectKey, Json]]:
        for resource, objects in list(self._objects.items()):
            for key, obj in list(objects.items()):
                yield resource, key, obj

    def commit(self, resource: ResourceKey, obj: Json) -> Json:
        """Stores an object under a new resourceVersion and returns it as stored."""
        meta = obj["metadata"]
        key = (meta.get("namespace"), meta["name"])
        objects = self._objects.setdefault(resource, {})
        previous = objects.get(key)
        self.revision += 1
        stored = obj | {"metadata": meta | {"resourceVersion": str(self.revision)}}
        objects[key] = stored
        kind = "ADDED" if previous is None else "MODIFIED"
        self._publish(Change(self.revision, resource, kind, stored, previous))
        return stored

    def remove(self, resource: ResourceKey, namespace: str | None, name: str) -> Json | None:
        """Deletes at once; the last state, with the revision of its deletion, is what watchers get."""
        previous = self._objects.get(resource, {}).pop((namespace, name), None)
        if previous is None:
            return None
        self.revision += 1
        meta = previous["metadata"] | {"resourceVersion": str(self.revision)}
        last = previous | {"metadata": meta}
        self._publish(Change(self.revision, resource, "DELETED", last, previous))
        return last

    def _publish(self, change: Change) -> None:
        self._log.append(change)
        while len(self._log) > self._history:
            self.compacted = self._log.popleft().revision
        for watch in self._watches:
            if watch.resource == change.resource:
                watch.queue.put_nowait(change)
        for listener in self.listeners:
            listener(change)

    def compact(self) -> None:
        """Forgets all changes, as etcd does every five minutes: older watches get 410 Gone."""
        self.compacted = self.revision
        self._log.clear()

    def watch(self, resource: ResourceKey, since: int) -> Watch:
        """Subscribes to the changes after a revision, the ones already made included.

        Raises:
            ApiError: 410 when the changes since then are no longer known.
        """
        if since < self.compacted:
            raise expired(since, self.compacted)
        watch = Watch(resource)
        for change in self._log:
            if change.resource == resource and change.revision > since:
                watch.queue.put_nowait(change)
        self._watches.add(watch)
        return watch

    def unwatch(self, watch: Watch) -> None:
        self._watches.discard(watch)

    def close_watches(self) -> None:
        """Ends every watch, as a restart of the API server does."""
        for watch in self._watches:
            watch.queue.put_nowait(None)


def _by_name(item: tuple[ObjectKey, Json]) -> tuple[str, str]:
    (namespace, name), _ = item
    return namespace or "", name


def new_metadata(meta: Json, namespace: str | None) -> Json:
    """The metadata of an object at its creation: uid and creationTimestamp are the server's."""
    kept = {k: v for k, v in meta.items() if k not in ("resourceVersion", "managedFields", "selfLink")}
    kept |= {"uid": str(uuid.uuid4()), "creationTimestamp": now_rfc3339()}
    return kept | ({"namespace": namespace} if namespace is not None else {})


def clone(obj: Any) -> Any:
    return copy.deepcopy(obj)
