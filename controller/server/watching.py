"""The operator's page and what it asks for besides decisions: RLScalers, timelines, decisions as they come.

Read-only. Whatever is told is made when somebody asks; `controller.turn` knows nothing of those who watch.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from controller import __version__
from controller.decisions import DecisionRecord, Filter, rounded
from controller.server import query
from controller.server.fleet import Fleet
from controller.server.pages import add_static, page
from controller.server.probe import Probe
from controller.server.streams import ALIVE, Streams, event

Json = dict[str, Any]
T = TypeVar("T")

TOLD_EVERY_S: Final = 1.0
ALIVE_EVERY_S: Final = 15.0
TOLD_AT_ONCE: Final = 50
"""Decisions in one event: what is older is counted, not sent."""
_LISTED: Final = {
    "namespace": "Only RLScalers in this namespace.",
    "search": "Only those with this in NAMESPACE/NAME, in any case of letters.",
    "state": "Any of " + ", ".join(query.STATES) + "; several with commas.",
    "sort": "One of " + ", ".join(query.SORTS) + "; name by default.",
    "limit": f"Most to return, 1 to {query.MOST_LISTED}; {query.DEFAULT_LISTED} by default.",
    "offset": "How many to leave out before them.",
}

FOLLOWED: Final = {
    "namespace": "Only decisions about RLScalers in this namespace.",
    "name": "Only decisions about RLScalers of this name.",
    "outcome": "ScaledUp, ScaledDown, NoChange or Held; several with commas.",
    "clamp": "Only decisions that this rule of the guard changed, such as Bounds; several with commas.",
}


def add_watching(app: FastAPI, probe: Probe) -> None:
    """The page and its routes. `app.state.streams` is to be closed before the server ends."""
    add_static(app)
    app.state.streams = streams = Streams()
    fleet = Fleet(probe.entries, probe.last)

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return page(request, "operator.html")

    @app.get("/v1/rlscalers", openapi_extra=documented(_LISTED))
    async def rlscalers(request: Request) -> Response:
        """RLScalers, a page at a time, and how many there are in each state."""
        try:
            wish = asked(request, query.parse_list)
        except query.QueryError as error:
            return refused(error)
        operator = {
            "version": __version__,
            "leads": probe.leads(),
            "trouble": probe.alive() or probe.ready(),
        }
        return _json({"operator": operator} | await fleet.page(wish))

    @app.get("/v1/timeline/{namespace}/{name}")
    async def timeline(namespace: str, name: str) -> Response:
        """Replicas, load and latency over the decisions that are remembered, oldest first, by column."""
        return _json(columns(probe.decisions(Filter(namespace, name, limit=query.MOST))))

    @app.get("/v1/events", openapi_extra=documented(FOLLOWED))
    async def events(request: Request) -> Response:
        """Decisions as they are made, as server-sent events; the first one has those of before."""

        def wanted(params: dict[str, str]) -> Filter:
            return query.parse(params, time.time(), query.FOLLOW_PARAMETERS)

        try:
            return streams.answer(follow(probe, asked(request, wanted)))
        except query.QueryError as error:
            return refused(error)


async def follow(probe: Probe, wanted: Filter) -> AsyncGenerator[bytes, None]:
    """Events `decisions`: {"decisions": newest first, "missed": how many more there were}."""
    wanted = replace(wanted, limit=TOLD_AT_ONCE)
    number = probe.news(None, wanted).number
    yield _told(probe.decisions(wanted), 0)
    quiet_s = 0.0
    while True:
        await asyncio.sleep(TOLD_EVERY_S)
        news = probe.news(number, wanted)
        number, quiet_s = news.number, quiet_s + TOLD_EVERY_S
        if news.records:
            quiet_s = 0.0
            yield _told(news.records, news.missed)
        elif quiet_s >= ALIVE_EVERY_S:
            quiet_s = 0.0
            yield ALIVE


def columns(records: Sequence[DecisionRecord]) -> Json:
    """Records, newest first, as columns, oldest first. Times in Unix seconds; null where nothing is known."""
    ordered = records[::-1]
    found: Json = {
        "timesS": [round(record.time_s, 3) for record in ordered],
        "outcomes": [record.outcome for record in ordered],
        "latencyMilliseconds": [_known(r.observed.get("latencyMilliseconds", math.nan)) for r in ordered],
        "load": [_known(record.load) for record in ordered],
    }
    replicas = {
        "current": "current_replicas",
        "desired": "desired_replicas",
        "recommended": "recommended_replicas",
        "hpa": "hpa_replicas",
    }
    return found | {name: [getattr(r, field) for r in ordered] for name, field in replicas.items()}


def asked(request: Request, parse: Callable[[dict[str, str]], T]) -> T:
    """What the query says. Raises QueryError, also for a parameter that is given twice."""
    query.require_once([name for name, _ in request.query_params.multi_items()])
    return parse(dict(request.query_params))


def refused(error: query.QueryError) -> Response:
    """The answer to a query that is not allowed."""
    return JSONResponse({"detail": str(error)}, status_code=422)


def documented(parameters: dict[str, str]) -> Json:
    """Query parameters, name and meaning, for the OpenAPI description."""
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": text,
                "schema": {"type": "string"},
            }
            for name, text in parameters.items()
        ]
    }


def _told(records: Sequence[DecisionRecord], missed: int) -> bytes:
    return event("decisions", {"decisions": [record.brief() for record in records], "missed": missed})


def _known(value: float) -> float | None:
    return rounded(value) if math.isfinite(value) else None


def _json(value: Json) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
