"""The FastAPI application; it sees the operator only through `Probe`, so it runs in tests without one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from controller import __version__
from controller.decisions import DecisionRecord, Filter
from controller.server import query

_PARAMETERS = {
    "namespace": "Only decisions about RLScalers in this namespace.",
    "name": "Only decisions about RLScalers of this name.",
    "outcome": "ScaledUp, ScaledDown, NoChange or Held; several with commas.",
    "clamp": "Only decisions that this rule of the guard changed, such as Bounds; several with commas.",
    "since": "An age such as 90s, 15m or 2h, or an RFC 3339 time.",
    "limit": f"Most decisions to return, 1 to {query.MOST}; {query.DEFAULT_LIMIT} by default.",
    "features": "true: with the features that a learned policy saw.",
}
_OPENAPI = {
    "parameters": [
        {"name": name, "in": "query", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in _PARAMETERS.items()
    ]
}


class Probe(Protocol):
    """What the server asks of the operator."""

    def alive(self) -> str | None:
        """None while the control loop turns, else what is wrong."""
        ...

    def ready(self) -> str | None:
        """None once RLScalers are listed and the first tick is done, else what is awaited."""
        ...

    def decisions(self, wanted: Filter) -> Sequence[DecisionRecord]:
        """Recent decisions that are wanted, newest first, at most `wanted.limit`."""
        ...

    def explain(self, namespace: str, name: str) -> dict[str, Any] | None:
        """The last decision about an RLScaler, explained; None where there is no such RLScaler."""
        ...

    def exposition(self) -> bytes:
        """Telemetry in the Prometheus text format."""
        ...


def create_app(probe: Probe) -> FastAPI:
    """Routes over one operator."""
    app = FastAPI(title="rl-scaler", version=__version__, docs_url="/docs", redoc_url=None)
    _health(app, probe)
    _telling(app, probe)
    return app


def _health(app: FastAPI, probe: Probe) -> None:
    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> Response:
        """200 while the control loop turns."""
        return _verdict(probe.alive())

    @app.get("/readyz", response_class=PlainTextResponse)
    async def readyz() -> Response:
        """200 once RLScalers are listed and the first tick is done."""
        return _verdict(probe.ready())

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """The operator's telemetry."""
        # in a thread: tens of thousands of series take their time, and decisions must not wait for it
        text = await asyncio.to_thread(probe.exposition)
        return Response(text, media_type=CONTENT_TYPE_LATEST)


def _telling(app: FastAPI, probe: Probe) -> None:
    @app.get("/v1/decisions", openapi_extra=_OPENAPI)
    async def decisions(request: Request) -> Response:
        """Recent decisions, newest first, of all RLScalers or of some."""
        given, params = request.query_params.multi_items(), dict(request.query_params)
        try:
            query.require_once([name for name, _ in given])
            wanted, features = query.parse(params, time.time()), query.wants_features(params)
        except query.QueryError as error:
            return JSONResponse({"detail": str(error)}, status_code=422)
        found = probe.decisions(wanted)
        return JSONResponse({"decisions": [record.as_json(features) for record in found]})

    @app.get("/v1/explain/{namespace}/{name}")
    async def explain(namespace: str, name: str) -> Response:
        """The last decision about an RLScaler: what was seen, asked, changed and done, and why."""
        found = probe.explain(namespace, name)
        if found is None:
            message = f"there is no RLScaler {name!r} in namespace {namespace!r} that this operator serves"
            return JSONResponse({"detail": message}, status_code=404)
        return JSONResponse(found)


def _verdict(problem: str | None) -> Response:
    return PlainTextResponse(problem or "ok", status_code=503 if problem else 200)
