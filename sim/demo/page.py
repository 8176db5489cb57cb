"""A demo's page: one static file and a stream of snapshots (server-sent events), on loopback."""

from __future__ import annotations

import asyncio
import json
from importlib import resources
from typing import Protocol

import aiohttp.web

from sim.twin.errors import Json

_HEARTBEAT_S = 5.0


class Shown(Protocol):
    """A demo's state: its snapshot has `services`, each with `rows` from the `since`-th on."""

    def snapshot(self, since: int = 0) -> Json:
        """All that the page shows."""


class Page:
    """`async with Page(state, port) as page: page.url`; `publish` after each change.

    file: of the page, beside this one.
    """

    def __init__(self, state: Shown, port: int = 0, file: str = "page.html") -> None:
        self._state, self.port, self._file = state, port, file
        self._news = asyncio.Condition()
        self._ended = False
        self._runner: aiohttp.web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def __aenter__(self) -> Page:
        app = aiohttp.web.Application()
        app.router.add_get("/", self._index)
        app.router.add_get("/events", self._events)
        app.router.add_get("/snapshot.json", self._snapshot)
        self._runner = aiohttp.web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await aiohttp.web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._ended = True
        await self.publish()
        await asyncio.sleep(0)
        if self._runner is not None:
            await self._runner.cleanup()

    async def publish(self) -> None:
        """Wakes every reader."""
        async with self._news:
            self._news.notify_all()

    async def _index(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        text = resources.files("sim.demo").joinpath(self._file).read_text(encoding="utf-8")
        shot = json.dumps(self._state.snapshot()).replace("</", "<\\/")
        text = text.replace("/*snapshot*/ null", shot)  # complete from its first paint on
        return aiohttp.web.Response(text=text, content_type="text/html")

    async def _snapshot(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.json_response(self._state.snapshot())

    async def _events(self, request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        response = aiohttp.web.StreamResponse(headers=headers)
        await response.prepare(request)
        sent = 0
        while not self._ended:
            shot = self._state.snapshot(sent)
            sent += len(shot["services"][0]["rows"])
            data = json.dumps(shot, separators=(",", ":"))
            if not await _sent(response, f"data: {data}\n\n"):
                return response
            await self._wait()
        await _sent(response, "event: end\ndata: {}\n\n")
        return response

    async def _wait(self) -> None:
        async with self._news:
            try:
                await asyncio.wait_for(self._news.wait(), _HEARTBEAT_S)
            except TimeoutError:
                return


async def _sent(response: aiohttp.web.StreamResponse, text: str) -> bool:
    """Whether the reader is still there."""
    try:
        await response.write(text.encode())
    except ConnectionError:
        return False
    return True
