"""What happened to targets and RLScalers, in the order in which the API server recorded it.

`Watcher` follows Deployments and RLScalers of one namespace past the faulty proxy; `History` is what it has
seen, and what `tests.faults.invariants` judges. Times are Unix seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.faults.apiproxy import Upstream
from tests.faults.relay import LoopThread
from tests.integration.harness import APPS, RLSCALERS, Api, Json, eventually


@dataclass(frozen=True)
class Replicas:
    """A Deployment's spec.replicas from `at` on; -1 where it was deleted."""

    at: float
    name: str
    uid: str
    version: str
    replicas: int


@dataclass(frozen=True)
class Spec:
    """An RLScaler's spec from `at` on; None where it was deleted."""

    at: float
    name: str
    uid: str
    generation: int
    spec: Json | None
    paused: bool = False


@dataclass
class History:
    """Everything seen so far; lists are in order."""

    replicas: dict[str, list[Replicas]] = field(default_factory=dict)
    specs: dict[str, list[Spec]] = field(default_factory=dict)
    statuses: dict[str, Json] = field(default_factory=dict)
    hpas: dict[str, list[tuple[float, bool]]] = field(default_factory=dict)
    """By target: from when on an HorizontalPodAutoscaler was (or was not) there."""

    def of(self, name: str) -> list[Replicas]:
        return list(self.replicas.get(name, ()))

    def shown(self, name: str, last: int = 40) -> str:
        """The last writes to a target, one a line."""
        return "\n".join(
            f"    {r.at:.3f} {r.name} rv {r.version} replicas {r.replicas}" for r in self.of(name)[-last:]
        )


class Watcher:
    """Fills in a History until closed."""

    def __init__(self, thread: LoopThread, api: Api, namespace: str) -> None:
        self.history = History()
        self._thread, self._namespace = thread, namespace
        self._upstream = Upstream(api)
        self._lock = threading.Lock()
        self._listed = 0
        self._tasks = [
            self._begin(f"{APPS}/namespaces/{namespace}/deployments", self._deployment),
            self._begin(f"{RLSCALERS}/namespaces/{namespace}/rlscalers", self._rlscaler),
        ]
        eventually(lambda: self._listed == len(self._tasks))

    def _begin(self, path: str, take: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(self._run(path, take), self._thread.loop)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._thread.run(self._upstream.close())

    async def _run(self, path: str, take: Any) -> None:
        version = await self._list(path, take)
        self._listed += 1
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                version = await self._watch(path, version, take)

    async def _list(self, path: str, take: Any) -> str:
        async with self._upstream.session().get(
            self._upstream.url(path), headers=self._upstream.headers()
        ) as response:
            page = await response.json()
        for item in page["items"]:
            take("ADDED", item)
        return str(page["metadata"]["resourceVersion"])

    async def _watch(self, path: str, version: str, take: Any) -> str:
        query = f"?watch=true&allowWatchBookmarks=true&resourceVersion={version}"
        async with self._upstream.session().get(
            self._upstream.url(path + query), headers=self._upstream.headers()
        ) as response:
            async for line in response.content:
                event = json.loads(line)
                assert event["type"] != "ERROR", event
                version = str(event["object"]["metadata"]["resourceVersion"])
                if event["type"] != "BOOKMARK":
                    take(event["type"], event["object"])
        return version

    def _deployment(self, kind: str, body: Json) -> None:
        meta = body["metadata"]
        replicas = -1 if kind == "DELETED" else int(body["spec"]["replicas"])
        known = self.history.replicas.setdefault(meta["name"], [])
        if known and (known[-1].replicas, known[-1].uid) == (replicas, meta["uid"]):
            return
        version = str(meta["resourceVersion"])
        known.append(Replicas(time.time(), meta["name"], meta["uid"], version, replicas))

    def _rlscaler(self, kind: str, body: Json) -> None:
        meta = body["metadata"]
        known = self.history.specs.setdefault(meta["name"], [])
        gone = kind == "DELETED"
        paused = (meta.get("annotations") or {}).get("rlscaler.dev/paused") == "true"
        self.history.statuses[meta["name"]] = dict(body.get("status") or {})
        last = known[-1] if known else None
        generation = -1 if gone else int(meta["generation"])
        if last is not None and (last.uid, last.generation, last.paused) == (meta["uid"], generation, paused):
            return
        spec = None if gone else body["spec"]
        known.append(Spec(time.time(), meta["name"], meta["uid"], generation, spec, paused))


def between(times: Iterable[tuple[float, float]], start: float, end: float) -> float:
    """Seconds of [start, end] that lie in any of the intervals, which may overlap."""
    covered, reached = 0.0, start
    for begin, finish in sorted(times):
        low, high = max(begin, reached), min(finish, end)
        if high > low:
            covered += high - low
            reached = high
    return covered
