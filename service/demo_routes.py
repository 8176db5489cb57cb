"""`/demo` and what its page asks: a snapshot, the same as events, and the controls."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response

from controller.server.pages import page
from controller.server.streams import ALIVE, Streams, event
from service import models
from service.demo import Demo

EVERY_S = 0.2
"""Five events a second at most."""
ALIVE_EVERY = 50
"""Events that say nothing new until the other side is told that we are still here."""
BUSY: dict[int | str, dict[str, Any]] = {
    503: {"model": models.ErrorOut, "description": "Too many streams are open."}
}


class Feed:
    """Moves the demonstration on while somebody looks, once for all who do."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self._at = time.monotonic()
        self._snapshot = orjson.dumps(demo.snapshot())

    def current(self) -> bytes:
        """The state as JSON, not older than EVERY_S."""
        passed = time.monotonic() - self._at
        if passed >= EVERY_S * 0.95:
            self._at += passed
            self.demo.step(passed)
            self._snapshot = orjson.dumps(self.demo.snapshot())
        return self._snapshot

    def changed(self) -> bytes:
        """The state after a control."""
        self._snapshot = orjson.dumps(self.demo.snapshot())
        return self._snapshot

    async def events(self) -> AsyncIterator[bytes]:
        """Named `state`; only what differs from the one before."""
        sent, still = b"", 0
        while True:
            state = self.current()
            still = 0 if state != sent else still + 1
            if not still:
                sent = state
                yield event("state", orjson.Fragment(state))
            elif still % ALIVE_EVERY == 0:
                yield ALIVE
            await asyncio.sleep(EVERY_S)


def add_demo(app: FastAPI, demo: Demo, streams: Streams, frame_ancestors: str) -> None:
    """The page and its data."""
    feed = Feed(demo)
    _, _, control_model = models.requests(demo.known)

    @app.get("/demo", include_in_schema=False)
    async def demo_page(request: Request) -> Response:
        return page(request, "demo.html", frame_ancestors)

    @app.get("/v1/demo/state", tags=["demo"], response_model=dict[str, Any])
    async def state() -> Response:
        """The demonstration now: servers, queue, decisions, all strategies compared, and their history."""
        return Response(feed.current(), media_type="application/json")

    @app.get(
        "/v1/demo/events",
        tags=["demo"],
        response_class=Response,
        responses=BUSY | {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def events() -> Response:
        """The same as server-sent events named `state`, five a second at most."""
        return streams.answer(feed.events())

    @app.post("/v1/demo/control", tags=["demo"], response_model=dict[str, Any])
    async def control(changes: control_model) -> Response:  # type: ignore[valid-type]
        """Pause, speed, strategy, rate of jobs, or all anew; the state after it."""
        feed.current()
        demo.control(changes.model_dump(exclude_none=True))  # type: ignore[attr-defined]
        return Response(feed.changed(), media_type="application/json")
