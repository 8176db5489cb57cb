"""Label selectors, as the API server reads them in a list: which RLScalers an operator serves. Pure.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Matches = Callable[[Mapping[str, str]], bool]

_PART = re.compile(r"\s*((?:[^,(]|\([^)]*\))+?)\s*(?:,|$)")
_KEY = r"(?P<key>[A-Za-z0-9][A-Za-z0-9./_-]*)"
_SET = re.compile(rf"{_KEY}\s+(?P<word>in|notin)\s+\((?P<values>[^()]*)\)")
_EQUAL = re.compile(rf"{_KEY}\s*(?P<word>==|=|!=)\s*(?P<value>[A-Za-z0-9._-]*)")
_EXISTS = re.compile(rf"(?P<word>!?)\s*{_KEY}")


def parse_selector(text: str) -> Matches:
    """A predicate over labels; everything matches an empty selector. Raises ValueError."""
    parts: list[str] = []
    end = 0
    while end < len(text.strip()):
        match = _PART.match(text, end)
        if match is None:
            raise ValueError(f"unreadable from {text[end:]!r} on")
        parts.append(match[1])
        end = match.end()
    tests = [_test(part) for part in parts]
    return lambda labels: all(test(labels) for test in tests)


def _test(part: str) -> Matches:
    if match := _SET.fullmatch(part):
        key, values = match["key"], {value.strip() for value in match["values"].split(",")}
        if match["word"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if match := _EQUAL.fullmatch(part):
        key, value = match["key"], match["value"]
        if match["word"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match := _EXISTS.fullmatch(part):
        key, wanted = match["key"], not match["word"]
        return lambda labels: (key in labels) is wanted
    raise ValueError(f"unreadable: {part!r}")
