"""The process: binds, compiles, serves, and ends when it is told to."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import time
from types import FrameType

import uvicorn

from controller import logs
from controller.server.streams import Streams
from service.app import create_app
from service.engine import Engine
from service.errors import ServiceError
from service.scaling import deciding_policy
from service.settings import Settings
from service.warm import warm_up

logger = logging.getLogger(__name__)

GRACE_S = 10
"""For requests that are being answered when the process is to end."""


class _Uvicorn(uvicorn.Server):
    """Ends event streams as soon as the signal comes; they would go on for ever."""

    def __init__(self, config: uvicorn.Config, streams: Streams) -> None:
        super().__init__(config)
        self._streams = streams

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        logger.info("ending: signal %d", sig, extra={"signal": sig})
        self._streams.close()
        super().handle_exit(sig, frame)


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Raises ServiceError where it cannot begin."""
    logs.configure(settings.log_level, settings.log_format)
    logging.getLogger("numba").setLevel(logging.WARNING)
    sock = _bound(settings.host, settings.port)
    try:
        started = time.perf_counter()
        scaler = deciding_policy(settings.scale_policy)
        engine = Engine(settings)
        warm_up(engine.known)
        took = time.perf_counter() - started
        logger.debug("ready to begin after %.1f s; %s decides at /scale", took, scaler.name)
    except BaseException:
        sock.close()
        raise
    streams = Streams(settings.most_streams)
    config = uvicorn.Config(
        create_app(engine, streams),
        log_config=None,
        access_log=False,
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    address = _address(settings.host, int(sock.getsockname()[1]))
    print(f"rl-scaler serve: {address}  (demo: {address}/demo, state: {settings.state})", file=sys.stderr)
    logger.info(
        "serving %d servers at %s",
        len(settings.fleet),
        address,
        extra={"address": address, "strategy": settings.strategy, "state": settings.state},
    )
    server = _Uvicorn(config, streams)
    # uvicorn raises what it was ended by once more when all is done; then it is no news
    for ends in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ends, lambda number, frame: None)
    server.run(sockets=[sock])
    return 0 if server.started else 1


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host.strip("[]"), port), family=family, backlog=512)
    except OSError as error:
        raise ServiceError(
            f"--host, --port: {_address(host, port)} cannot be listened on: {error}"
        ) from error
    # what is accepted inherits it; asyncio sets it only for sockets that were made by protocol number, and
    # an answer in two parts would wait 40 ms for the client's delayed acknowledgement
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _address(host: str, port: int) -> str:
    plain = host.strip("[]")
    return f"http://[{plain}]:{port}" if ":" in plain else f"http://{plain}:{port}"
