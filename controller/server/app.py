"""The FastAPI application; it sees the operator only through `Probe`, so it runs in tests without one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Query, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from controller import __version__

MAX_DECISIONS = 1000


class Probe(Protocol):
    """What the server asks of the operator."""

    def alive(self) -> str | None:
        """None while the control loop turns, else what is wrong."""
        ...

    def ready(self) -> str | None:
        """None once RLScalers are listed and the first tick is done, else what is awaited."""
        ...

    def decisions(self) -> Iterable[dict[str, Any]]:
        """Recent decisions, newest first."""
        ...

    def exposition(self) -> bytes:
        """Telemetry in the Prometheus text format."""
        ...


def create_app(probe: Probe) -> FastAPI:
    """Routes over one operator."""
    app = FastAPI(title="rl-scaler", version=__version__, docs_url="/docs", redoc_url=None)

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

    @app.get("/v1/decisions")
    async def decisions(
        namespace: str | None = None,
        name: str | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_DECISIONS)] = 100,
    ) -> Response:
        """Recent decisions, newest first, of all RLScalers or of some."""
        found = [
            item
            for item in probe.decisions()
            if namespace in (None, item["namespace"]) and name in (None, item["name"])
        ]
        return JSONResponse({"decisions": found[:limit]})

    return app


def _verdict(problem: str | None) -> Response:
    return PlainTextResponse(problem or "ok", status_code=503 if problem else 200)
