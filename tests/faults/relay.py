"""A small HTTP server between the operator and what it talks to, which can be taken down and up again.

`ApiProxy` and `PrometheusProxy` are made of it. All of them live in one event loop in a thread of its own, so
that tests stay synchronous.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import aiohttp
import aiohttp.web

T = TypeVar("T")
HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "upgrade", "te", "trailer"}
)
_UNENCODED = {"accept-encoding"}


class LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns, waited for."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        return future.result(timeout=30)

    def close(self) -> None:
        """End whatever is still under way, and the thread."""
        self.run(_cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _cancel_all() -> None:
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


class Relay:
    """Serves on 127.0.0.1; `down` refuses connections and breaks those there are, `up` serves again."""

    def __init__(self, thread: LoopThread) -> None:
        self._thread = thread
        self._server = aiohttp.web.Server(self._answer, loop=thread.loop)  # type: ignore[arg-type]
        self._listener: asyncio.Server | None = None
        self.port = 0
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        """Listen, on the same port as before."""
        self._thread.run(self._listen())

    def down(self) -> None:
        """Refuse connections, and reset those that are open."""
        self._thread.run(self._deafen())

    def close(self) -> None:
        self._thread.run(self._end())

    async def _listen(self) -> None:
        if self._listener is None:
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(self._server, "127.0.0.1", self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    async def _deafen(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.break_connections()

    async def _end(self) -> None:
        await self._deafen()
        await self._server.shutdown(0.5)

    def break_connections(self) -> None:
        """Reset whatever is open; in the loop's thread."""
        for connection in list(self._server.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()

    async def _answer(self, request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        try:
            return await self.answer(request)
        except (ConnectionError, aiohttp.ClientError):
            abort(request)
            return aiohttp.web.Response(status=502, text="the other side is gone")

    async def answer(self, request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        raise NotImplementedError


def abort(request: aiohttp.web.BaseRequest) -> None:
    """Reset the connection that a request came on; whatever is answered then is never seen."""
    if request.transport is not None:
        request.transport.abort()


def forwarded(request: aiohttp.web.BaseRequest) -> dict[str, str]:
    """The request's headers as they go on: bodies are not compressed, as they may be rewritten."""
    dropped = HOP_BY_HOP | _UNENCODED
    return {name: value for name, value in request.headers.items() if name.lower() not in dropped}


def returned(headers: Any) -> dict[str, str]:
    """An answer's headers as they go back."""
    dropped = HOP_BY_HOP | {"content-encoding", "date", "server"}
    return {name: value for name, value in headers.items() if name.lower() not in dropped}


Hook = Callable[[], None]
Handler = Callable[[aiohttp.web.BaseRequest], Awaitable[aiohttp.web.StreamResponse]]
