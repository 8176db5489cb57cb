"""Reads many services at once: each family of queries is asked once for all, and the answer is shared out.

`PrometheusSource.round` calls it. Whatever a grouped query cannot answer is asked by the service's own:
queries that somebody wrote, a group of one, and groups whose query was refused, was too large or too slow.
Such a group is asked in smaller and smaller parts for a while before it is tried whole again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.core.samples import Outcome
from controller.metrics.client import Client
from controller.metrics.groups import Family, Key, Plan, Share, Values
from controller.metrics.judge import Answer, failed, judge_value, make_readings
from controller.metrics.source import QuerySet, SignalReading

logger = logging.getLogger(__name__)

PARTS = (None, 200, 20)
"""Services in one query, from the whole group downwards; after the last each is asked for itself."""
RETRY_WHOLE_S = 600.0
SHARED_TIMES = 10.0
"""An answer about everybody is shared for this many times as long as it took, so that asking it costs
Prometheus at most a tenth of its time."""
OWN_TIMES = 100.0
"""And for this many times the processor's time that it took us, so that each family costs at most a
hundredth of a core."""
CONFIRM_S = 600.0
CONFIRM_EVERY_S = 1.0
MOST_KEYS = 100_000
MOST_CONFIRMED = 20
"""An absent load is confirmed by the service's own query every CONFIRM_S; this many of them in
CONFIRM_EVERY_S, so that a label that is missing everywhere does not become thousands of queries."""

NO_SERIES = failed(Outcome.EMPTY, "the query gave no series")

Ask = Callable[[Client, float], Any]
Do = Callable[[Ask, float], Awaitable[Any]]
AskOne = Callable[[str, float | None, float], Awaitable[Answer]]


@dataclass
class _State:
    """How a family is asked at the moment."""

    part: int = 0
    whole_again_s: float = 0.0
    slow: bool = False


@dataclass(frozen=True)
class _Found:
    """A part's answer: values by service, or why there are none. at_s: when (time.monotonic()). cpu_s: the
    processor's time that it took us."""

    values: Values
    failure: Answer | None = None
    evaluated_s: float = float("nan")
    at_s: float = 0.0
    cpu_s: float = 0.0


_Parts = Mapping[Family, Mapping[Key, _Found]]


class GroupReader:
    """Groups' reading of one Prometheus. `do` runs a request on a worker, `ask_one` asks a single query."""

    def __init__(self, do: Do, ask_one: AskOne, timeout_s: float, shared_s: float) -> None:
        self._do, self._ask_one, self._timeout_s = do, ask_one, timeout_s
        self._shared_s = shared_s
        self._states: dict[Family, _State] = {}
        self._keys: dict[Key, Key] = {}
        self._shared: dict[str, tuple[float, asyncio.Future[_Found]]] = {}
        self._confirmed: dict[str, float] = {}
        self._blaming: asyncio.Task[None] | None = None

    def round(self, batch: Sequence[QuerySet], now: float | None) -> Round:
        """Begins to ask what the batch has in common; `Round.read` then gives each its own."""
        members = self._members(batch) if len(batch) > 1 else {}
        families = asyncio.ensure_future(self._families(members, batch, now)) if members else None
        return Round(self, families, now)

    async def ask(self, texts: Sequence[str], now: float | None, left_s: float) -> dict[str, Answer]:
        """Answers of services' own queries."""
        answers = await asyncio.gather(*(self._ask_one(text, now, left_s) for text in texts))
        return dict(zip(texts, answers, strict=True))

    def doubts(self, text: str) -> bool:
        """Whether an absent load is to be confirmed by the service's own query: now and then, and few."""
        now_s = time.monotonic()
        if self._confirmed.get(text, 0.0) > now_s:
            return False
        recent = sum(until > now_s + CONFIRM_S - CONFIRM_EVERY_S for until in self._confirmed.values())
        if recent >= MOST_CONFIRMED:
            return False
        self._confirmed = {known: until for known, until in self._confirmed.items() if until > now_s}
        self._confirmed[text] = now_s + CONFIRM_S
        return True

    def _members(self, batch: Iterable[QuerySet]) -> dict[Family, list[Key]]:
        """Which services each family is to be asked about."""
        found: dict[Family, dict[Key, None]] = {}
        if len(self._keys) > MOST_KEYS:
            self._keys = {}
        for queries in batch:
            for plan in queries.plans.values():
                for share in plan.shares:
                    keys = found.setdefault(share.family, {})
                    for key in share.keys:
                        keys[self._keys.setdefault(key, key)] = None
        return {family: list(keys) for family, keys in found.items()}

    @property
    def timeout_s(self) -> float:
        """For one reading."""
        return self._timeout_s

    def close(self) -> None:
        """Nothing more is asked."""
        if self._blaming is not None:
            self._blaming.cancel()

    # Families

    async def _families(
        self, keys: Mapping[Family, Sequence[Key]], batch: Sequence[QuerySet], now: float | None
    ) -> _Parts:
        got = await asyncio.gather(*(self._family(family, mine, now) for family, mine in keys.items()))
        slow = [family for family in keys if self._states[family].slow]
        if slow and (self._blaming is None or self._blaming.done()):
            self._blaming = asyncio.create_task(self._blame(slow, batch, now), name="slow groups")
        return dict(zip(keys, got, strict=True))

    async def _family(self, family: Family, keys: Sequence[Key], now: float | None) -> dict[Key, _Found]:
        """Found by service; without those that must be asked for themselves."""
        state = self._states.setdefault(family, _State())
        if time.monotonic() > state.whole_again_s:
            state.part = 0
        deadline = time.monotonic() + self._timeout_s
        state.slow = False
        found: dict[Key, _Found] = {}
        for size in PARTS[state.part :]:
            parts = _cut(keys, size)
            left_s = deadline - time.monotonic()
            got = await asyncio.gather(*(self._ask(family, part, now, left_s) for part in parts))
            keys = []
            for part, one in zip(parts, got, strict=True):
                if one.failure is not None and one.failure.outcome is Outcome.BAD_QUERY:
                    keys = [*keys, *part]
                    if size is None:
                        self._smaller(family, one.failure.message)
                    continue
                state.slow |= one.failure is not None and one.failure.outcome is Outcome.SLOW
                found.update(dict.fromkeys(part, one))
            if not keys:
                break
        return found

    def _smaller(self, family: Family, why: str) -> None:
        state = self._states[family]
        state.part = min(state.part + 1, len(PARTS) - 1)
        state.whole_again_s = time.monotonic() + RETRY_WHOLE_S
        logger.warning(
            "%s; for %g s it is asked in parts of %s services: %.200s",
            why,
            RETRY_WHOLE_S,
            PARTS[state.part],
            family.text,
        )

    async def _blame(self, slow: Iterable[Family], batch: Sequence[QuerySet], now: float | None) -> None:
        """A slow family is asked in parts from now on, if Prometheus answers a single service's query."""
        text = next((text for queries in batch for text in queries.values() if text in queries.plans), None)
        if text is None:
            return
        probe = await self._ask_one(text, now, self._timeout_s)
        if probe.outcome not in (Outcome.SLOW, Outcome.HTTP_ERROR):
            for family in slow:
                if self._states[family].part == 0:  # ever smaller parts would only be more work for it
                    self._smaller(family, "a query about many services was slow")

    async def _ask(self, family: Family, keys: Sequence[Key], now: float | None, left_s: float) -> _Found:
        """One query; the same one that is under way, or was answered just now, is not asked again."""
        text = family.query(keys)
        if now is not None:
            return await self._fetch(family, text, now, left_s)
        until_s, shared = self._shared.get(text, (0.0, None))
        if shared is not None and (not shared.done() or time.monotonic() < until_s):
            return await asyncio.shield(shared)
        begun_s = time.monotonic()
        shared = asyncio.ensure_future(self._fetch(family, text, None, left_s))
        self._shared[text] = (0.0, shared)
        found = await asyncio.shield(shared)
        done_s = time.monotonic()
        kept_s = max(SHARED_TIMES * (done_s - begun_s), OWN_TIMES * found.cpu_s)
        kept_s = 0.0 if found.failure is not None else min(kept_s, self._shared_s)
        self._shared[text] = (done_s + kept_s, shared)
        self._forget(done_s)
        return found

    def _forget(self, now_s: float) -> None:
        for text in [t for t, (until_s, one) in self._shared.items() if one.done() and until_s <= now_s]:
            del self._shared[text]

    async def _fetch(self, family: Family, text: str, now: float | None, left_s: float) -> _Found:
        fields = {"query": text} | ({} if now is None else {"time": repr(now)})

        def read(result: Any) -> tuple[dict[Key, float], float]:
            evaluated_s = float(result[0]["value"][0]) if result else time.time()
            return family.values(result, self._keys), evaluated_s

        def ask(client: Client, deadline: float) -> tuple[Any, float]:
            begun_s = time.thread_time()
            return client.post("/api/v1/query", fields, deadline, read), time.thread_time() - begun_s

        done = await self._do(ask, max(left_s, 0.0))
        got, cpu_s = (done, 0.0) if isinstance(done, Answer) else done
        if isinstance(got, Answer):
            return _Found({}, got)
        return _Found(got[0], None, got[1], time.monotonic(), cpu_s)


class Round:
    """A ReadingRound of one Prometheus: what the batch has in common is under way, or answered."""

    def __init__(
        self, reader: GroupReader, families: asyncio.Future[_Parts] | None, now: float | None
    ) -> None:
        self._reader, self._families, self._now = reader, families, now
        self._deadline = time.monotonic() + reader.timeout_s

    async def settle(self) -> None:
        """Returns once every family was answered, or could not be."""
        if self._families is not None:
            await asyncio.shield(self._families)

    def known(self, queries: QuerySet) -> dict[str, SignalReading] | None:
        """One service's signals once settled, or None where queries of its own must be asked."""
        if self._families is None or not self._families.done():
            return None
        answers, missing = self._shared(queries, queries.plans, self._families.result())
        return make_readings(queries, answers) if queries.shared and not missing else None

    async def read(self, queries: QuerySet) -> dict[str, SignalReading]:
        """One service's signals; what the group can't tell is asked by its own queries."""
        return make_readings(queries, await self._answers(queries))

    async def _answers(self, queries: QuerySet) -> dict[str, Answer]:
        if self._families is None:
            return await self._own(queries.texts)
        planned = {text: plan for text in queries.texts if (plan := queries.plans.get(text)) is not None}
        unplanned = [text for text in queries.texts if text not in planned]
        begun = asyncio.ensure_future(self._own(unplanned)) if unplanned else None
        try:
            parts = await asyncio.shield(self._families)
            answers, missing = self._shared(queries, planned, parts)
            answers |= await self._own(missing) if missing else {}
            return answers | (await begun if begun is not None else {})
        finally:
            if begun is not None:
                begun.cancel()

    async def _own(self, texts: Sequence[str]) -> dict[str, Answer]:
        left_s = max(0.0, self._deadline - time.monotonic())
        return await self._reader.ask(texts, self._now, left_s)

    def _shared(
        self, queries: QuerySet, planned: Mapping[str, Plan], parts: _Parts
    ) -> tuple[dict[str, Answer], list[str]]:
        """Answers from the group, and the texts that it has none for."""
        answers: dict[str, Answer] = {}
        missing: list[str] = []
        load = queries.load
        for text, plan in planned.items():
            answer = plan_answer(plan, parts)
            absent = answer is not None and answer.outcome is Outcome.EMPTY and text == load
            if answer is None or (absent and self._reader.doubts(text)):
                missing.append(text)
            else:
                answers[text] = answer
        return answers, missing


def plan_answer(plan: Plan, found: _Parts) -> Answer | None:
    """A plan's answer from its families', or None where one of them was not asked about the service."""
    if len(plan.shares) == 1 and len(plan.shares[0].keys) == 1:
        return _only_answer(plan, plan.shares[0], found)
    values: dict[Family, Values] = {}
    part = None
    for share in plan.shares:
        of_family = found.get(share.family, {})
        for key in share.keys:
            part = of_family.get(key)
            if part is None:
                return None
            if part.failure is not None:
                return part.failure
        assert part is not None
        values[share.family] = part.values if len(share.keys) == 1 else _gathered(share.keys, of_family)
    assert part is not None
    value = plan.value(values.__getitem__)
    if value is None:
        return NO_SERIES
    if plan.how == "youngest":
        value += time.monotonic() - part.at_s
    return judge_value(value, part.evaluated_s)


def _only_answer(plan: Plan, share: Share, found: _Parts) -> Answer | None:
    """The same for the most common plan, of one family and one key."""
    key = share.keys[0]
    part = found.get(share.family, {}).get(key)
    if part is None:
        return None
    value = part.values.get(key)
    if value is None:
        return part.failure or NO_SERIES
    if plan.how == "youngest":
        value += time.monotonic() - part.at_s
    return judge_value(value, part.evaluated_s)


def _gathered(keys: Sequence[Key], of_family: Mapping[Key, _Found]) -> Values:
    """A service's values where its keys may have been asked for in different parts."""
    parts = {key: of_family[key].values for key in keys}
    return {key: part[key] for key, part in parts.items() if key in part}


def _cut(keys: Sequence[Key], size: int | None) -> list[Sequence[Key]]:
    if size is None:
        return [keys]
    ordered = sorted(keys)
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]
