"""Range queries about many services at once, which is how thousands of histories are read back after a start.

`PrometheusSource.read_range_many` calls it. The parts are small enough that an answer with a day of points
stays far below the limit of its size; whatever a grouped query cannot answer is asked for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from controller.core.samples import FloatArray, Outcome
from controller.metrics.client import Client
from controller.metrics.grouped import Do
from controller.metrics.groups import Family, Key, Plan
from controller.metrics.judge import Answer, failed, judge_points
from controller.metrics.source import QuerySet

Series = tuple[FloatArray, Answer]
Part = Mapping[Key, Series] | Answer


async def read_plans(
    do: Do, batch: Sequence[QuerySet], times_s: FloatArray, step_s: float, timeout_s: float
) -> dict[str, Series]:
    """Values `[T]` by query text, of the queries that can be grouped and were answered so."""
    plans = {
        text: plan
        for queries in batch
        for text in queries.texts
        if (plan := queries.plans.get(text)) is not None and plan.how != "ratio"
    }
    keys: dict[Family, dict[Key, None]] = {}
    for plan in plans.values():
        for share in plan.shares:
            keys.setdefault(share.family, {}).update(dict.fromkeys(share.keys[:1]))
    asked = [_ask(do, family, list(mine), times_s, step_s, timeout_s) for family, mine in keys.items()]
    parts = dict(zip(keys, await asyncio.gather(*asked), strict=True))
    found = {text: _of_plan(plan, parts, times_s) for text, plan in plans.items()}
    return {text: series for text, series in found.items() if series is not None}


async def _ask(
    do: Do, family: Family, keys: Sequence[Key], times_s: FloatArray, step_s: float, timeout_s: float
) -> Part:
    fields = {
        "query": family.query(keys),
        "start": repr(float(times_s[0])),
        "end": repr(float(times_s[-1])),
        "step": repr(step_s),
    }

    def read(result: Any) -> dict[Key, Series]:
        return family.series(result, lambda series: judge_points(series, times_s, step_s))

    def ask(client: Client, deadline: float) -> Any:
        return client.post("/api/v1/query_range", fields, deadline, read)

    part: Part = await do(ask, timeout_s)
    return part


def _of_plan(plan: Plan, parts: Mapping[Family, Part], times_s: FloatArray) -> Series | None:
    """A plan at each point, or None where its own query is to be asked."""
    found: list[Series] = []
    for share in plan.shares:
        part = parts[share.family]
        if isinstance(part, Answer):
            return None if part.outcome is Outcome.BAD_QUERY else (np.full(times_s.shape, np.nan), part)
        series = part.get(share.keys[0])
        found += [series] if series is not None else []
    if not found:
        return np.full(times_s.shape, np.nan), failed(Outcome.EMPTY, "the query gave no series in the range")
    values, answer = found[0]
    for others, other in found[1:]:
        youngest = plan.how == "youngest"
        values = np.fmin(values, others) if youngest else np.where(np.isnan(values), others, values)
        answer = answer if answer.outcome is Outcome.OK else other
    return values, answer
