"""The web pages inside the package: HTML, CSS and JavaScript as they are, with strict headers.

The operator serves `operator.html`, the job scheduler service `demo.html`, both with the same `base.css` and
`app.js`. Nothing is built and nothing comes from another host. Files are read when they are first asked for.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors "
)
NOBODY: Final = "'none'"
"""May show the pages in a frame, by default."""


class SecurityHeaders:
    """ASGI middleware: headers that every answer of a server with pages bears."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "no-referrer")
                headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
            await send(message)

        await self._app(scope, receive, with_headers)


def add_static(app: FastAPI) -> None:
    """`GET /static/NAME` for each file of the `static` folder, and SecurityHeaders on everything."""
    app.add_middleware(SecurityHeaders)

    @app.get("/static/{name}", include_in_schema=False)
    async def static(request: Request, name: str) -> Response:
        if name not in _names() or name.endswith(".html"):
            return JSONResponse({"detail": f"there is no file {name!r}"}, status_code=404)
        return _answer(request, name, {})


def page(request: Request, name: str, frame_ancestors: str = NOBODY) -> Response:
    """The answer with a page, such as "operator.html".

    frame_ancestors: who may show it in a frame, as in Content-Security-Policy; a notebook needs it.
    """
    headers = {"Content-Security-Policy": _POLICY + frame_ancestors}
    if frame_ancestors == NOBODY:
        headers["X-Frame-Options"] = "DENY"
    return _answer(request, name, headers)


def _answer(request: Request, name: str, headers: dict[str, str]) -> Response:
    file = _file(name)
    headers = headers | {"ETag": file.tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    tag: str


@functools.cache
def _names() -> frozenset[str]:
    folder = resources.files(__package__).joinpath("static")
    return frozenset(item.name for item in folder.iterdir() if item.name[item.name.rfind(".") :] in _TYPES)


@functools.cache
def _file(name: str) -> _File:
    content = resources.files(__package__).joinpath("static", name).read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    return _File(content, _TYPES[name[name.rfind(".") :]], tag)
