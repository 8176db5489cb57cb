"""The table of values in charts/README.md, made from the `# --` comments in charts/values.yaml.

`python -m tests.charts.readme` writes it; a test holds the two together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "charts"
BEGIN, END = "<!-- values -->\n", "<!-- /values -->\n"


def documented(text: str) -> Iterator[tuple[str, str]]:
    """(dotted name, comment) of each value under a `# --` comment."""
    parents: list[tuple[int, str]] = []
    comment = ""
    for line in text.splitlines():
        found = re.match(r"( *)# -- (.*)", line)
        if found:
            comment = found.group(2)
            continue
        key = re.match(r"( *)([A-Za-z]+):", line)
        if key is None:
            continue
        indent = len(key.group(1))
        parents = [parent for parent in parents if parent[0] < indent] + [(indent, key.group(2))]
        if comment:
            yield ".".join(name for _, name in parents), comment
        comment = ""


def leaves(values: dict[str, Any], names: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, default) down to the values that are documented as a whole."""
    for name, value in values.items():
        path = prefix + name
        if isinstance(value, dict) and value and path not in names:
            yield from leaves(value, names, f"{path}.")
        else:
            yield path, value


def table() -> str:
    text = (CHART / "values.yaml").read_text()
    comments = dict(documented(text))
    rows = [
        f"| `{name}` | {comments.get(name, '')} | `{json.dumps(default)}` |"
        for name, default in leaves(yaml.safe_load(text), set(comments))
    ]
    return "\n".join(["| Value | Meaning | Default |", "|---|---|---|", *rows]) + "\n"


def with_table(readme: str) -> str:
    before, rest = readme.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    target = CHART / "README.md"
    target.write_text(with_table(target.read_text()))
