"""Server-sent events: so many clients, each at its own pace, and an end when the server ends.

A stream is an iterator that is asked for the next event once the client has taken the one before: a slow
client gets fewer events, and nothing is kept for it. Nobody who makes what is told knows of streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson
from fastapi import Response
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

MOST_CLIENTS: Final = 32
ALIVE: Final = b": still here\n\n"
"""A comment, by which both sides learn that the other is there."""
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def event(name: str, value: Any) -> bytes:
    """One event with a value as JSON; NaN becomes null."""
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(value) + b"\n\n"


class Streams:
    """All streams of a server; `close` ends them and lets no more begin."""

    def __init__(self, most: int = MOST_CLIENTS) -> None:
        self.most = most
        self.clients = 0
        self.closing = asyncio.Event()

    def close(self) -> None:
        self.closing.set()

    def answer(self, events: AsyncIterator[bytes]) -> Response:
        """A response that sends these events until the client goes; 503 where there are too many."""
        return _Stream(self, events)


class _Stream(Response):
    def __init__(self, streams: Streams, events: AsyncIterator[bytes]) -> None:
        super().__init__()
        self._streams, self._events = streams, events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        streams = self._streams
        if streams.clients >= streams.most or streams.closing.is_set():
            detail = f"{streams.most} clients are followed already; try again later"
            await JSONResponse({"detail": detail}, 503, {"Retry-After": "10"})(scope, receive, send)
            return
        streams.clients += 1
        try:
            await self._until_the_end(receive, send)
        finally:
            streams.clients -= 1

    async def _until_the_end(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        telling = asyncio.create_task(self._tell(send))
        gone = asyncio.create_task(_gone(receive))
        closing = asyncio.create_task(self._streams.closing.wait())
        tasks = (telling, gone, closing)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        if not gone.done() or gone.cancelled():
            await send({"type": "http.response.body", "body": b""})
        if isinstance(ends[0], Exception):
            raise ends[0]

    async def _tell(self, send: Send) -> None:
        async for chunk in self._events:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
