"""The FastAPI application; it sees the operator only through `Probe`, so it runs in tests without one."""

from __future__ import annotations

import time

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST

from controller import __version__
from controller.explain import headline, sections
from controller.server import query
from controller.server.docspage import add_docs
from controller.server.probe import Probe
from controller.server.watching import FOLLOWED, add_watching, asked, documented, refused

_PARAMETERS = FOLLOWED | {
    "since": "An age such as 90s, 15m or 2h, or an RFC 3339 time.",
    "limit": f"Most decisions to return, 1 to {query.MOST}; {query.DEFAULT_LIMIT} by default.",
    "features": "true: with the features that a learned policy saw.",
}
_EXPLAINED = {"words": "true: with a headline and sections of sentences, as the command line prints them."}


def create_app(probe: Probe) -> FastAPI:
    """Routes over one operator."""
    app = FastAPI(title="rl-scaler", version=__version__, docs_url=None, redoc_url=None)
    add_docs(app)
    _health(app, probe)
    _telling(app, probe)
    add_watching(app, probe)
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
        # made in threads: tens of thousands of series take their time, and decisions must not wait for it
        return StreamingResponse(probe.exposition(), media_type=CONTENT_TYPE_LATEST)


def _telling(app: FastAPI, probe: Probe) -> None:
    @app.get("/v1/decisions", openapi_extra=documented(_PARAMETERS))
    async def decisions(request: Request) -> Response:
        """Recent decisions, newest first, of all RLScalers or of some."""
        try:
            wanted = asked(request, lambda params: query.parse(params, time.time()))
            features = asked(request, lambda params: query.switch(params, "features"))
        except query.QueryError as error:
            return refused(error)
        found = probe.decisions(wanted)
        return JSONResponse({"decisions": [record.as_json(features) for record in found]})

    @app.get("/v1/explain/{namespace}/{name}", openapi_extra=documented(_EXPLAINED))
    async def explain(request: Request, namespace: str, name: str) -> Response:
        """The last decision about an RLScaler: what was seen, asked, changed and done, and why."""
        try:
            words = asked(request, _wants_words)
        except query.QueryError as error:
            return refused(error)
        found = probe.explain(namespace, name)
        if found is None:
            message = f"there is no RLScaler {name!r} in namespace {namespace!r} that this operator serves"
            return JSONResponse({"detail": message}, status_code=404)
        if words:
            told = [{"title": title, "lines": lines} for title, lines in sections(found)]
            found = found | {"headline": headline(found), "sections": told}
        return JSONResponse(found)


def _wants_words(params: dict[str, str]) -> bool:
    query.require_known(params, ("words",))
    return query.switch(params, "words")


def _verdict(problem: str | None) -> Response:
    return PlainTextResponse(problem or "ok", status_code=503 if problem else 200)
