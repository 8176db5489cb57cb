"""What the targets look like now, from one watch of their kind instead of a request for each in every turn.

`Scaler.read` asks here first. A watch pays from some number of targets on; below it, where the ServiceAccount
may not list and watch, and while a watch is broken, targets are read one by one. Nothing is decided on what a
watch has missed: every write carries the resourceVersion that was read, and a refused one reads anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from controller.actuation.target import WELL_KNOWN, Target, TargetRef, read_target
from controller.errors import Gone, KubernetesError
from controller.kube import Json, Kube, Resource

logger = logging.getLogger(__name__)

SYNC_REAL_S = 10.0
RETRY_REAL_S = (0.2, 30.0)
REFUSED_REAL_S = 600.0

Name = tuple[str, str]


@dataclass
class _Watch:
    """One kind in one namespace (None: all): its targets by namespace and name while it is `live`."""

    resource: Resource
    namespace: str | None
    found: dict[Name, Target] = field(default_factory=dict)
    live: bool = False
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class TargetWatches:
    """Watches of the well-known kinds that enough RLScalers point at."""

    def __init__(self, kube: Kube, namespaces: Iterable[str] = (), least: int = 50) -> None:
        """namespaces: the only ones to look at, all if none. least: targets of a kind worth a watch."""
        self._kube = kube
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._least = least
        self._asked: dict[tuple[str, str], set[Name]] = {}
        self._watches: dict[tuple[str, str, str | None], _Watch] = {}

    def known(self, ref: TargetRef) -> Target | None:
        """A target as its watch shows it, or None where it must be read."""
        watch = self._watch_of(ref)
        return watch.found.get((ref.namespace, ref.name)) if watch is not None and watch.live else None

    async def begin(self, refs: Iterable[TargetRef]) -> None:
        """Begin the watches that pay for these targets, which are all about to be read. Waits for none."""
        self.keep(refs)
        for (api_version, kind), asked in self._asked.items():
            if (api_version, kind) in WELL_KNOWN and len(asked) >= self._least:
                with contextlib.suppress(KubernetesError):  # `expect` says so of each target
                    await self._begin_all(api_version, kind)

    async def expect(self, ref: TargetRef) -> None:
        """Someone is about to read this target: begin to watch when it pays, and wait a little for it."""
        kind = (ref.api_version, ref.kind)
        if kind not in WELL_KNOWN:
            return
        asked = self._asked.setdefault(kind, set())
        asked.add((ref.namespace, ref.name))
        if len(asked) < self._least:
            return
        watch = self._watch_of(ref)
        if watch is None:
            await self._begin_all(*kind)
            watch = self._watch_of(ref)
        if watch is not None and not watch.synced.is_set():
            try:
                await asyncio.wait_for(watch.synced.wait(), SYNC_REAL_S)
            except TimeoutError:
                return

    def written(self, target: Target) -> None:
        """What a write of ours made of a target, which the watch may show later."""
        watch = self._watch_of(target.ref)
        if watch is not None and watch.live:
            _take(watch, target)

    def keep(self, refs: Iterable[TargetRef]) -> None:
        """Count these targets alone; a watch that has begun goes on."""
        self._asked = {}
        for ref in refs:
            self._asked.setdefault((ref.api_version, ref.kind), set()).add((ref.namespace, ref.name))

    def close(self) -> None:
        """End the watches."""
        for watch in self._watches.values():
            if watch.task is not None:
                watch.task.cancel()

    def _watch_of(self, ref: TargetRef) -> _Watch | None:
        namespace = None if self._namespaces == (None,) else ref.namespace
        return self._watches.get((ref.api_version, ref.kind, namespace))

    async def _begin_all(self, api_version: str, kind: str) -> None:
        resource = await self._kube.resource(api_version, kind)
        for namespace in self._namespaces:
            self._begin(resource, namespace)

    def _begin(self, resource: Resource, namespace: str | None) -> None:
        key = (resource.group_version, resource.kind, namespace)
        if key not in self._watches:
            watch = self._watches[key] = _Watch(resource, namespace)
            watch.task = asyncio.create_task(self._run(watch), name=f"watch of {resource.plural}")

    async def _run(self, watch: _Watch) -> None:
        """List and watch until cancelled; nothing is known while neither works."""
        wait_s = RETRY_REAL_S[0]
        while True:
            try:
                version = await self._list(watch)
                wait_s = RETRY_REAL_S[0]
                await self._follow(watch, version)
            except Gone:
                watch.live = False
                await asyncio.sleep(wait_s)
            except KubernetesError as error:
                refused = error.status in (401, 403)
                if watch.live or wait_s == RETRY_REAL_S[0]:
                    logger.warning("%s are read one by one: %s", watch.resource.plural, error)
                watch.live = False
                watch.synced.set()  # nobody is to wait for what may never come
                wait_s = REFUSED_REAL_S if refused else min(2.0 * wait_s, RETRY_REAL_S[1])
                await asyncio.sleep(wait_s * random.uniform(0.8, 1.2))

    async def _list(self, watch: _Watch) -> str:
        found: dict[Name, Target] = {}
        version = ""
        async for page in self._kube.pages(watch.resource, watch.namespace):
            for body in page.get("items") or []:
                target = _target(watch.resource, body)
                found[target.ref.namespace, target.ref.name] = target
            version = str((page.get("metadata") or {}).get("resourceVersion") or "")
        watch.found, watch.live = found, True
        watch.synced.set()
        return version

    async def _follow(self, watch: _Watch, version: str) -> None:
        """Watch, again and again from where it ended; raises Gone when a new list is needed."""
        while True:
            async for event in self._kube.watch(watch.resource, watch.namespace, version):
                body = event["object"]
                version = str(body["metadata"].get("resourceVersion") or version)
                if event["type"] == "DELETED":
                    watch.found.pop((body["metadata"]["namespace"], body["metadata"]["name"]), None)
                elif event["type"] != "BOOKMARK":
                    _take(watch, _target(watch.resource, body))


def _target(resource: Resource, body: Json) -> Target:
    metadata = body["metadata"]
    ref = TargetRef(resource.group_version, resource.kind, metadata["name"], metadata["namespace"])
    return read_target(ref, resource, body, body)


def _take(watch: _Watch, target: Target) -> None:
    """Keep the newer of two; versions that can't be compared follow the order of arrival."""
    key = (target.ref.namespace, target.ref.name)
    old = watch.found.get(key)
    if old is not None and _is_older(target.resource_version, old.resource_version):
        return
    watch.found[key] = target


def _is_older(version: str, known: str) -> bool:
    return version.isdigit() and known.isdigit() and int(version) < int(known)
