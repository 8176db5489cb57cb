"""Pages without script: of the job scheduler service, and the routes of both servers."""

from __future__ import annotations

from html import escape

from fastapi import Response
from fastapi.responses import HTMLResponse

from controller.server.pages import NOBODY

POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'"


def page_of(title: str, content: str, frame_ancestors: str = NOBODY) -> Response:
    """A page without script, in the style of the others (static/base.css).

    content: what goes into `main`, in sections of class card.
    """
    html = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        '<link rel="icon" href="static/icon.svg" type="image/svg+xml">\n'
        '<link rel="stylesheet" href="static/base.css">\n</head>\n<body>\n'
        '<a class="skip" href="#main">Skip to the content</a>\n'
        '<header class="top"><div><img src="static/icon.svg" alt="">'
        f"<h1>{escape(title)}</h1></div></header>\n"
        f'<main id="main" tabindex="-1">\n{content}\n</main>\n</body>\n</html>\n'
    )
    headers = {"Content-Security-Policy": f"{POLICY}; frame-ancestors {frame_ancestors}"}
    return HTMLResponse(html, headers=headers)
