"""Runs the application with uvicorn inside an event loop that belongs to somebody else (kopf)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from controller.errors import SettingsError

logger = logging.getLogger(__name__)


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: SIGTERM is kopf's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """One listening socket, bound at once, so that a port in use is an error before anything has begun.

    Raises SettingsError when the address cannot be bound.
    """

    def __init__(self, app: FastAPI, address: str) -> None:
        self._app = app
        self._socket = _bind(address)
        self._server: _Uvicorn | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Serve; returns the port."""
        sock = self._socket
        config = uvicorn.Config(self._app, log_config=None, access_log=False, lifespan="off", ws="none")
        self._server = _Uvicorn(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[sock]), name="http server")
        port = int(sock.getsockname()[1])
        logger.info("serving HTTP on port %d", port, extra={"port": port})
        return port

    async def stop(self) -> None:
        if self._server is None or self._task is None:
            return
        streams = getattr(self._app.state, "streams", None)
        if streams is not None:
            streams.close()
            await asyncio.sleep(0)  # they end before their connections are closed
        self._server.should_exit = True
        self._server.force_exit = True
        await asyncio.wait([self._task], timeout=2.0)


def _bind(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # asyncio sets it only where the socket was made with the protocol's number; without it answers wait 40 ms
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        sock.bind((host, int(port)))
    except OSError as error:
        sock.close()
        raise SettingsError(
            "--http-address", address, f"an address that can be listened on ({error})"
        ) from error
    sock.listen(128)
    sock.setblocking(False)
    return sock
