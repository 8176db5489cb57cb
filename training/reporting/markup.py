"""The page's parts as HTML: tables, figures, sections; everything that comes from outside is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from training.reporting.style import STYLESHEET


@dataclass(frozen=True)
class Section:
    """A part of the page. anchor: its id; body: HTML."""

    anchor: str
    title: str
    body: str


def text(value: object) -> str:
    """Escaped."""
    return html.escape(str(value))


def paragraph(value: str, kind: str = "") -> str:
    """`<p>` with escaped text."""
    return f"<p{_class(kind)}>{text(value)}</p>"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    caption: str,
    numbers_from: int = 1,
    strong: Iterable[int] = (),
) -> str:
    """A table with a caption, header cells, and numbers to the right from that column on."""
    emphasised = set(strong)
    cells = [
        f'<th scope="col"{_class("number" if i >= numbers_from else "")}>{text(c)}</th>'
        for i, c in enumerate(head)
    ]
    body = []
    for index, row in enumerate(rows):
        first = f'<th scope="row">{text(row[0])}</th>'
        others = [
            f"<td{_class('number' if i >= numbers_from else '')}>{text(cell)}</td>"
            for i, cell in enumerate(row[1:], start=1)
        ]
        body.append(f"<tr{_class('strong' if index in emphasised else '')}>{first}{''.join(others)}</tr>")
    shown = f"<caption>{text(caption)}</caption><thead><tr>{''.join(cells)}</tr></thead>"
    return f'<div class="scroll"><table>{shown}<tbody>{"".join(body)}</tbody></table></div>'


def facts(pairs: Iterable[tuple[str, str]], kind: str = "facts") -> str:
    """A list of terms with their values."""
    items = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="{kind}">{items}</dl>'


def figure(svg: str, caption: str = "") -> str:
    """A chart with what it shows below it."""
    shown = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f'<figure><div class="scroll">{svg}</div>{shown}</figure>'


def code(value: str) -> str:
    """A block of text as it is."""
    return f'<pre tabindex="0"><code>{text(value)}</code></pre>'


def folded(summary: str, body: str) -> str:
    """Something that is there when it is asked for; works without JavaScript."""
    return f"<details><summary>{text(summary)}</summary>{body}</details>"


def page(title: str, subtitle: str, figures: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The whole document. figures: (number, what it is) under the title."""
    links = "".join(f'<li><a href="#{one.anchor}">{text(one.title)}</a></li>' for one in sections)
    parts = "\n".join(
        f'<section id="{one.anchor}" aria-labelledby="{one.anchor}-title">\n'
        f'<h2 id="{one.anchor}-title">{text(one.title)}</h2>\n{one.body}\n</section>'
        for one in sections
    )
    numbers = "".join(f"<div><dt>{text(what)}</dt><dd>{text(number)}</dd></div>" for number, what in figures)
    shown = f'<dl class="key">{numbers}</dl>' if figures else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>{STYLESHEET}</style>\n</head>\n<body>\n"
        f"<header><p>rl-scaler</p><h1>{text(title)}</h1>{paragraph(subtitle, 'subtitle')}{shown}</header>\n"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main>\n{parts}\n</main>\n</body>\n</html>\n'
    )


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
