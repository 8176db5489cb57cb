"""The FastAPI application of `rl-scaler serve`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from controller import __version__
from controller.server.docspage import add_docs
from controller.server.pages import add_static
from controller.server.streams import Streams
from service import invalid, models
from service.demo import Demo
from service.demo_routes import add_demo
from service.engine import Engine
from service.errors import Conflict, FieldError, NotFound, StateError
from service.guards import OPEN, Guards
from service.routes import add_scheduling, add_telling, json_error
from service.scale_routes import add_scaling
from service.scaling import Scaling, deciding_policy
from service.telemetry import Measured, Telemetry
from service.welcome import add_welcome


def create_app(engine: Engine, streams: Streams | None = None) -> FastAPI:
    """All routes over one engine, which begins and ends with the application.

    Raises ServiceError where the policy of `/scale` cannot be loaded.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        yield
        await engine.stop()

    settings, telemetry = engine.settings, Telemetry(engine)
    refusals: dict[int | str, dict[str, Any]] = {
        422: {"model": models.InvalidOut, "description": "A field is not right."}
    }
    if settings.token:
        refusals[401] = {"model": models.ErrorOut, "description": "No token, or not the right one."}
    app = FastAPI(
        title="rl-scaler serve",
        version=__version__,
        description=(__doc__ or "").strip(),
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=refusals,
    )
    add_welcome(app, engine)
    add_scheduling(app, engine, telemetry)
    add_telling(app, engine, telemetry)
    add_scaling(app, Scaling(deciding_policy(settings.scale_policy)), engine.now_s, telemetry)
    demo = Demo(engine.known, settings.strategy, settings.seed)
    add_demo(app, demo, streams or Streams(settings.most_streams), settings.frame_ancestors)
    add_docs(app, settings.frame_ancestors)
    _errors(app)
    app.add_middleware(Measured, telemetry=telemetry)
    add_static(app)
    if settings.token:
        _say_who_needs_the_token(app)
    app.add_middleware(Guards, settings=settings, counted=telemetry.refused)
    return app


def _say_who_needs_the_token(app: FastAPI) -> None:
    """In `/openapi.json`: what `Guards` asks of each route."""
    document = app.openapi()
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, item in document["paths"].items():
        for operation in item.values():
            operation["security"] = [] if path in OPEN else [{"token": []}]


def _errors(app: FastAPI) -> None:
    """What our exceptions become."""

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, error: RequestValidationError) -> Response:
        return invalid.validation_answer(error)

    @app.exception_handler(FieldError)
    async def field(request: Request, error: FieldError) -> Response:
        return invalid.field_answer(error)

    @app.exception_handler(NotFound)
    async def unknown(request: Request, error: NotFound) -> Response:
        return json_error(404, str(error))

    @app.exception_handler(Conflict)
    async def conflict(request: Request, error: Conflict) -> Response:
        return json_error(409, str(error))

    @app.exception_handler(StateError)
    async def unsaved(request: Request, error: StateError) -> Response:
        return json_error(503, str(error))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:
            return invalid.body_answer("is no JSON that can be read")
        answer = json_error(error.status_code, f"{error.detail}: {request.method} {request.url.path[:200]}")
        answer.headers.update(error.headers or {})
        if error.status_code == 405:
            answer.headers["Allow"] = _methods(app, request)
        return answer


def _methods(app: FastAPI, request: Request) -> str:
    """All that a path answers to; Starlette tells those of its first route only."""
    routes = [route for route in app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in routes for method in getattr(route, "methods", None) or ()}))
