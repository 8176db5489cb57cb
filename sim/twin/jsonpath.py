"""The little of JSONPath that printer columns use: fields, `[*]`, `[0]` and `[?(@.type=="Ready")]`."""

from __future__ import annotations

import re
from typing import Any

_STEP = re.compile(
    r"""\.(?P<field>(?:[A-Za-z0-9_$/-]|\\\.)+)|\[['"](?P<quoted>[^'"]+)['"]\]|\[(?P<index>-?\d+|\*)\]"""
    r"""|\[\?\(@\.(?P<key>[\w.]+)\s*==\s*['"](?P<value>[^'"]*)['"]\)\]"""
)


def evaluate(path: str, obj: Any) -> list[Any]:
    """The values at a path; empty when there is none."""
    values = [obj]
    for step in _STEP.finditer(path if path.startswith((".", "[")) else "." + path):
        values = [found for value in values for found in _step(step, value)]
    return values


def first(path: str, obj: Any) -> Any:
    return next(iter(evaluate(path, obj)), None)


def _step(step: re.Match[str], value: Any) -> list[Any]:
    if step["key"] is not None:
        items = value if isinstance(value, list) else []
        return [v for v in items if first(step["key"], v) == step["value"]]
    if step["index"] is not None:
        if not isinstance(value, list):
            return []
        return value if step["index"] == "*" else value[int(step["index"]) :][:1]
    name = step["quoted"] or step["field"].replace("\\.", ".")
    return [value[name]] if isinstance(value, dict) and name in value else []
