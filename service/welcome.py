"""`/`: where everything is. HTML for browsers, JSON for everybody else."""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import FastAPI, Request, Response

from controller import __version__
from controller.server.plainpage import page_of
from service.engine import Engine
from service.routes import json_answer

LINKS = {
    "demo": ("/demo", "all strategies side by side on the same stream of jobs, live"),
    "docs": ("/docs", "every route, with its fields"),
    "openapi": ("/openapi.json", "the same for machines"),
    "status": ("/status", "servers and queue now"),
    "stats": ("/stats", "slowdown, waits and utilisation by strategy"),
    "scale": ("/scale", "services whose servers are added and removed by their readings"),
    "metrics": ("/metrics", "figures for Prometheus"),
}


def add_welcome(app: FastAPI, engine: Engine) -> None:
    """`/`."""

    @app.get("/", tags=["welcome"], response_model=dict[str, Any])
    async def welcome(request: Request) -> Response:
        """What this is, and links."""
        base = str(request.base_url).rstrip("/")
        if "text/html" in request.headers.get("accept", ""):
            return page_of("rl-scaler serve", _html(engine, base), engine.settings.frame_ancestors)
        return json_answer(_json(engine, base))


def _json(engine: Engine, base: str) -> dict[str, Any]:
    return {
        "name": "rl-scaler serve",
        "version": __version__,
        "servers": len(engine.settings.fleet),
        "strategy": engine.settings.strategy,
        "strategies": list(engine.known),
        "links": {name: path for name, (path, _) in LINKS.items()},
        "try": _command(base),
    }


def _command(base: str) -> str:
    return (
        f"curl -s {base}/schedule -H 'Content-Type: application/json' "
        '-d \'{"cpu": 2, "memory": 4, "estimateSeconds": 30}\''
    )


def _html(engine: Engine, base: str) -> str:
    items = "\n".join(
        f'<tr><th scope="row"><a href="{path[1:]}">{escape(path)}</a></th><td>{escape(text)}</td></tr>'
        for path, text in LINKS.values()
    )
    settings = engine.settings
    told = f"{len(settings.fleet)} servers; {settings.strategy} decides, unless a request says otherwise."
    command = _command(base)
    return (
        '<section class="card"><h2>Send a job, get a server and the reason</h2>\n'
        f"<p>{escape(told)}</p>\n"
        f"<p><code>{escape(command)}</code></p></section>\n"
        '<nav class="card" aria-label="Pages"><table><caption class="sr">Pages</caption><tbody>\n'
        f"{items}\n</tbody></table></nav>"
    )
