"""All RLScalers as the operator's page lists them: counted, filtered and sorted here, sent a page at a time.

A survey of ten thousand takes tens of milliseconds. It is made only when somebody asks, in slices between
which decisions have their turn, at most once a second for all who ask, and forgotten when nobody does.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from controller.api.constants import ConditionType
from controller.clock import rfc3339_micro, unix_seconds
from controller.decisions import DecisionRecord, policy_json, rounded
from controller.server.query import STATES, Wish

if TYPE_CHECKING:
    from controller.registry import Entry

Json = dict[str, Any]
Last = Callable[[str, str], DecisionRecord | None]

BREATH: Final = 200
"""RLScalers that are looked at before decisions have their turn."""
FRESH_S: Final = 1.0
FORGOTTEN_S: Final = 30.0
NAMESPACES_SHOWN: Final = 100
_BAD_WHEN_TRUE: Final = (ConditionType.FALLBACK, ConditionType.PAUSED, ConditionType.SCALING_LIMITED)
_TROUBLES: Final = ("notReady", "sloMissed", "fallback", "unfamiliar", "limited", "paused")
"""From the worst, for sorting."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One RLScaler of a survey."""

    entry: Entry
    states: frozenset[str]
    replicas: int
    path: str
    """namespace/name in small letters."""
    trouble: int
    """The larger, the worse: one binary digit for each of _TROUBLES."""


@dataclass(frozen=True)
class Survey:
    """All RLScalers by namespace and name, and how many are in which state."""

    seen: tuple[Seen, ...]
    counts: Mapping[str, int]
    namespaces: tuple[str, ...]


class Fleet:
    """Surveys of what `entries` gives."""

    def __init__(self, entries: Callable[[], Iterable[Entry]], last: Last) -> None:
        self._entries, self._last = entries, last
        self._survey: Survey | None = None
        self._made_s = -math.inf
        self._making = asyncio.Lock()
        self._forgetting: asyncio.TimerHandle | None = None

    async def survey(self) -> Survey:
        """The present one, no older than FRESH_S."""
        loop = asyncio.get_running_loop()
        async with self._making:
            if self._survey is None or loop.time() - self._made_s > FRESH_S:
                self._survey = await self._make()
                self._made_s = loop.time()
            found = self._survey
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = loop.call_later(FORGOTTEN_S, self._forget)
        return found

    async def page(self, wish: Wish) -> Json:
        """What `GET /v1/rlscalers` answers."""
        survey = await self.survey()
        found = [seen for seen in survey.seen if _wanted(seen, wish)]
        if wish.sort != "name":
            found.sort(key=_ORDERS[wish.sort])
        shown = found[wish.offset : wish.offset + wish.limit]
        return {
            "total": len(survey.seen),
            "counts": dict(survey.counts),
            "namespaces": list(survey.namespaces[:NAMESPACES_SHOWN]),
            "matched": len(found),
            "offset": wish.offset,
            "limit": wish.limit,
            "items": [summary(seen, self._last) for seen in shown],
        }

    async def _make(self) -> Survey:
        seen, counts = [], Counter(dict.fromkeys(STATES, 0))
        for number, entry in enumerate(self._entries(), start=1):
            record = self._last(entry.namespace, entry.name)
            found = states(entry, record)
            replicas = record.current_replicas if record else entry.status.get("currentReplicas", 0)
            seen.append(
                Seen(entry, found, replicas, f"{entry.namespace}/{entry.name}".lower(), _trouble(found))
            )
            counts.update(found)
            if number % BREATH == 0:
                await asyncio.sleep(0)
        seen.sort(key=attrgetter("path"))
        namespaces = sorted({one.entry.namespace for one in seen})
        return Survey(tuple(seen), counts, tuple(namespaces))

    def _forget(self) -> None:
        self._survey, self._forgetting = None, None


def states(entry: Entry, record: DecisionRecord | None) -> frozenset[str]:
    """Which of STATES hold."""
    found = set()
    if entry.mode == "Shadow":
        found.add("shadow")
    if entry.paused:
        return frozenset(found | {"paused"})
    found.add("ready" if _ready(entry) else "notReady")
    if record is not None:
        told = {
            "sloMissed": slo_state(entry, record) == "missed",
            "fallback": record.fallback is not None,
            "unfamiliar": record.unfamiliar,
            "limited": bool(record.clamps),
        }
        found |= {name for name, holds in told.items() if holds}
    return frozenset(found)


def slo_state(entry: Entry, record: DecisionRecord | None) -> str:
    """none (there is no objective), unknown (no latency), met or missed."""
    if entry.service is None or not math.isfinite(entry.service.slo_latency_ms):
        return "none"
    latency = record.observed.get("latencyMilliseconds", math.nan) if record is not None else math.nan
    if not math.isfinite(latency):
        return "unknown"
    return "missed" if latency > entry.service.slo_latency_ms else "met"


def summary(seen: Seen, last: Last) -> Json:
    """One RLScaler as a row; null where nothing is known."""
    entry, spec, status = seen.entry, seen.entry.spec, seen.entry.status
    record = last(entry.namespace, entry.name)
    held = status.get("policy") or {}
    shown: Json = {
        "namespace": entry.namespace,
        "name": entry.name,
        "target": entry.label or status.get("target", ""),
        "mode": entry.mode,
        "states": [name for name in STATES if name in seen.states],
        "policy": policy_json(record.policy) if record is not None else None,
        "minReplicas": spec.min_replicas if spec is not None else None,
        "maxReplicas": spec.max_replicas if spec is not None else None,
        "slo": _slo(entry),
        "sloState": slo_state(entry, record),
        "conditions": not_well(status),
        "budget": status.get("budget"),
        "policyCanary": held.get("canary"),
        "canary": status.get("canary"),
        "backends": status.get("backends"),
        "lastScaleTime": status.get("lastScaleTime"),
    }
    return shown | _numbers(status, record)


def _numbers(status: Mapping[str, Any], record: DecisionRecord | None) -> Json:
    """Of the last decision, or what the status holds from an earlier operator."""
    if record is None:
        names = ("currentReplicas", "desiredReplicas", "recommendedReplicas")
        held = {name: status.get(name) for name in names}
        return held | dict.fromkeys(("hpaReplicas", "latencyMilliseconds", "load", "time", "outcome"))
    latency = record.observed.get("latencyMilliseconds", math.nan)
    return {
        "currentReplicas": record.current_replicas,
        "desiredReplicas": record.desired_replicas,
        "recommendedReplicas": record.recommended_replicas,
        "hpaReplicas": record.hpa_replicas,
        "latencyMilliseconds": rounded(latency) if math.isfinite(latency) else None,
        "load": rounded(record.load) if math.isfinite(record.load) else None,
        "time": rfc3339_micro(record.time_s),
        "outcome": record.outcome,
    }


def not_well(status: Mapping[str, Any]) -> list[Json]:
    """Conditions that say that something is not as it should be."""
    return [
        {key: condition.get(key, "") for key in ("type", "status", "reason", "message")}
        for condition in status.get("conditions") or []
        if (condition.get("status") == "True") == (condition.get("type") in _BAD_WHEN_TRUE)
        or condition.get("status") == "Unknown"
    ]


def _slo(entry: Entry) -> Json | None:
    objective = entry.spec.objective.slo if entry.spec is not None else None
    if objective is None:
        return None
    return {"percentile": objective.latency.percentile, "milliseconds": objective.latency.milliseconds}


def _ready(entry: Entry) -> bool:
    conditions = entry.status.get("conditions") or []
    return any(one.get("type") == ConditionType.READY and one.get("status") == "True" for one in conditions)


def _wanted(seen: Seen, wish: Wish) -> bool:
    return (
        wish.namespace in ("", seen.entry.namespace)
        and (not wish.states or not wish.states.isdisjoint(seen.states))
        and wish.search in seen.path
    )


def _trouble(states: frozenset[str]) -> int:
    return sum(1 << place for place, name in enumerate(reversed(_TROUBLES)) if name in states)


def _by_change(seen: Seen) -> float:
    return -(unix_seconds(str(seen.entry.status.get("lastScaleTime"))) or 0.0)


_ORDERS: Final[dict[str, Callable[[Seen], Any]]] = {
    "trouble": lambda seen: -seen.trouble,
    "replicas": lambda seen: -seen.replicas,
    "changed": _by_change,
}
