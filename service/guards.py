"""What stands before every route: the token, the names by which we may be asked, the size of bodies.

Pages and static files hold no data and need no token: a browser cannot send one when it opens an address.
They ask for their data with the token that they are given.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.settings import Settings, is_loopback

logger = logging.getLogger(__name__)

OPEN = ("/", "/healthz", "/readyz", "/demo", "/docs", "/openapi.json")
OPEN_FOLDER = "/static/"
Refusal = tuple[int, str, dict[str, str]]


class Guards:
    """ASGI middleware. counted: is called with the status of each refusal."""

    def __init__(self, app: ASGIApp, settings: Settings, counted: Callable[[int], None]) -> None:
        self._app, self._settings, self._counted = app, settings, counted
        self._token = f"Bearer {settings.token}".encode() if settings.token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refused(scope, headers) or self._too_large(headers)
        if refusal is not None:
            await self._refuse(scope, send, refusal)
            return
        limited = _Limited(receive, self._settings.most_body)

        async def watched(message: Message) -> None:
            # the application has answered something to a body that was cut off: this is the answer
            if limited.exceeded:
                if message["type"] == "http.response.start":
                    await self._refuse(scope, send, self._too_long())
                return
            await send(message)

        await self._app(scope, limited, watched)

    def _refused(self, scope: Scope, headers: Headers) -> Refusal | None:
        path = scope["path"]
        if self._token:
            if path in OPEN or path.startswith(OPEN_FOLDER):
                return None
            given = headers.get("authorization", "").encode("latin-1", "replace")
            if hmac.compare_digest(given, self._token):
                return None
            reason = "a token is needed: send Authorization: Bearer TOKEN"
            if given:
                reason = "the token in Authorization is not the right one"
            return 401, reason, {"WWW-Authenticate": 'Bearer realm="rl-scaler"'}
        host = _name(headers.get("host", ""))
        if not is_loopback(host) and host not in self._settings.allowed_hosts:
            # a page elsewhere whose name was made to point to this machine (DNS rebinding)
            allowed = ", ".join(("localhost", "127.0.0.1", *self._settings.allowed_hosts))
            return 403, f"Host: {host!r} is not allowed without a token, must be one of {allowed}", {}
        origin = headers.get("origin")
        if scope["method"] not in ("GET", "HEAD") and origin and _name(urlsplit(origin).netloc) != host:
            return (
                403,
                f"Origin: {origin!r} is not allowed without a token: other sites' pages may not write",
                {},
            )
        return None

    def _too_large(self, headers: Headers) -> Refusal | None:
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > self._settings.most_body:
            return self._too_long()
        return None

    def _too_long(self) -> Refusal:
        return 413, f"the body is longer than is allowed: {self._settings.most_body} bytes", {}

    async def _refuse(self, scope: Scope, send: Send, refusal: Refusal) -> None:
        status, reason, headers = refusal
        self._counted(status)
        client = (scope.get("client") or ("?",))[0]
        fields = {"status": status, "path": scope["path"][:200], "client": client}
        logger.warning("refused: %s", reason, extra=fields)
        body = json.dumps({"detail": reason}).encode()
        told = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        raw = [(name.lower().encode(), value.encode()) for name, value in told.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})


class _Limited:
    """`receive` that cuts off a body that grows too long."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._left, self.exceeded = receive, most, False

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                self.exceeded = True
                return {"type": "http.request", "body": b"", "more_body": False}
        return message


def _name(host: str) -> str:
    """The host of `host:port`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
