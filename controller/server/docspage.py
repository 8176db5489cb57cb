"""`/docs`: the routes as a page made from our own OpenAPI description. No script, no other host."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import FastAPI, Response

from controller.server.pages import NOBODY
from controller.server.plainpage import page_of

METHODS = ("get", "post", "put", "patch", "delete")
Schema = Mapping[str, Any]


def add_docs(app: FastAPI, frame_ancestors: str = NOBODY) -> None:
    """`/docs`; frame_ancestors as for `pages.page`."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return page_of(f"{app.title}: routes", docs_html(app.openapi()), frame_ancestors)


def docs_html(document: Schema) -> str:
    """The page's content."""
    operations = [
        (path, method, item[method])
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    ]
    contents = "\n".join(
        f'<li><a href="#{_anchor(path, method)}"><code>{method.upper()} {escape(path)}</code></a></li>'
        for path, method, _ in operations
    )
    sections = "\n".join(_operation(document, *one) for one in operations)
    return (
        '<nav class="card" aria-label="Routes">'
        '<p><a href="./">Start</a> · <a href="openapi.json">/openapi.json</a></p>'
        f"<ul>\n{contents}\n</ul></nav>\n{sections}"
    )


def _operation(document: Schema, path: str, method: str, operation: Schema) -> str:
    parts = [
        f'<section class="card" id="{_anchor(path, method)}">',
        f"<h2><code>{method.upper()} {escape(path)}</code></h2>",
        f"<p>{escape(operation.get('description', ''))}</p>",
    ]
    rows = [
        (f"{one['name']} (in the {one['in']})", _told(one), one.get("required", False))
        for one in operation.get("parameters", [])
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body is not None:
        rows += list(_fields(document, body))
    if rows:
        parts.append(_table(document, "Request", "Needed", rows))
    parts.append("<h3>Answers</h3>\n<ul>")
    for status, answer in operation["responses"].items():
        parts.append(f"<li><strong>{escape(status)}</strong> {escape(answer.get('description', ''))}</li>")
    parts.append("</ul>")
    success = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
    fields = list(_fields(document, success.get("schema", {})))
    if fields:
        parts.append(_table(document, "Fields of the answer", "Always", fields))
    return "\n".join([*parts, "</section>"])


def _told(parameter: Schema) -> Schema:
    """Its schema, with the description that may stand beside it."""
    return {"description": parameter.get("description", ""), **parameter["schema"]}


def _table(document: Schema, title: str, column: str, rows: list[tuple[str, Schema, bool]]) -> str:
    cells = "\n".join(
        f"<tr><th scope='row'><code class='nowrap'>{escape(name)}</code></th>"
        f"<td>{escape(_kind(document, schema))}</td>"
        f"<td>{'yes' if needed else 'no'}</td><td>{escape(_meaning(schema))}</td></tr>"
        for name, schema, needed in rows
    )
    heads = "".join(f"<th scope='col'>{head}</th>" for head in ("Field", "Type", column, "Meaning"))
    return (
        f"<h3>{title}</h3>\n<div class='wide'><table>\n<caption class='sr'>{title}</caption>\n"
        f"<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{cells}\n</tbody>\n</table></div>"
    )


def _fields(document: Schema, schema: Schema) -> Iterator[tuple[str, Schema, bool]]:
    """(name, schema, always there) of an object's fields."""
    found = _resolved(document, schema)
    for name, field in found.get("properties", {}).items():
        yield name, field, name in found.get("required", [])


def _resolved(document: Schema, schema: Schema) -> Schema:
    if "$ref" in schema:
        resolved: Schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return resolved
    return schema


def _meaning(schema: Schema) -> str:
    """A field's description; of one that may be null, that of what it is else."""
    inside = (one.get("description", "") for one in schema.get("anyOf", []))
    return str(schema.get("description") or next(inside, ""))


def _kind(document: Schema, schema: Schema) -> str:
    """A type in words."""
    if "anyOf" in schema:
        return " or ".join(_kind(document, one) for one in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(json.dumps(value) for value in schema["enum"])
    found = _resolved(document, schema)
    if found.get("type") == "array":
        inside = _resolved(document, found["items"])
        names = ", ".join(inside.get("properties", {}))
        return f"list of {'{' + names + '}' if names else _kind(document, inside)}{_bounds(found)}"
    if "properties" in found:
        return "{" + ", ".join(found["properties"]) + "}"
    return str(found.get("type", "any")) + _bounds(found)


def _bounds(schema: Schema) -> str:
    names = {
        "minimum": "from", "maximum": "to", "minItems": "from", "maxItems": "to", "maxLength": "length to",
    }  # fmt: skip
    told = [f"{word} {_number(schema[key])}" for key, word in names.items() if key in schema]
    return f" ({' '.join(told)})" if told else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:f}".rstrip("0")


def _anchor(path: str, method: str) -> str:
    return f"{method}-" + "".join(sign if sign.isalnum() else "-" for sign in path).strip("-")
