"""What may be asked of /v1/decisions, and clear words for what may not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from controller.clock import unix_seconds
from controller.decisions import CLAMPS, OUTCOMES, Filter

MOST: Final = 1000
DEFAULT_LIMIT: Final = 100
PARAMETERS: Final = ("namespace", "name", "outcome", "clamp", "since", "limit", "features")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)")
_ZONED = re.compile(r"T.*(Z|[+ -]\d\d:?\d\d)$")
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
_SWITCH = {"true": True, "false": False}


class QueryError(ValueError):
    """A query parameter has a value that is not allowed; says which, and what is."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name}: {value!r} is not allowed, must be {allowed}")


def parse(params: Mapping[str, str], now_unix_s: float) -> Filter:
    """A Filter from query parameters. Raises QueryError.

    outcome and clamp take several values, separated by commas; since takes a time or an age.
    """
    for name, value in params.items():
        if name not in PARAMETERS:
            raise QueryError("parameter", name, "one of " + ", ".join(PARAMETERS))
        if value == "":
            raise QueryError(name, value, "left out, or have a value")
    return Filter(
        namespace=params.get("namespace", ""),
        name=params.get("name", ""),
        outcomes=_words("outcome", params.get("outcome"), OUTCOMES),
        clamps=_words("clamp", params.get("clamp"), CLAMPS),
        since_s=_since(params.get("since"), now_unix_s),
        limit=_limit(params.get("limit")),
    )


def require_once(names: Sequence[str]) -> None:
    """Raises QueryError for a parameter that is given twice."""
    for name in names:
        if names.count(name) > 1:
            raise QueryError(name, "two values", "given once; outcome and clamp take several with commas")


def wants_features(params: Mapping[str, str]) -> bool:
    """Whether the records are to hold their features. Raises QueryError."""
    value = params.get("features", "false")
    if value not in _SWITCH:
        raise QueryError("features", value, "true or false")
    return _SWITCH[value]


def _words(name: str, value: str | None, allowed: tuple[str, ...]) -> frozenset[str]:
    words = [word.strip() for word in value.split(",")] if value is not None else []
    for word in words:
        if word not in allowed:
            raise QueryError(name, word, "one of " + ", ".join(allowed))
    return frozenset(words)


def _limit(value: str | None) -> int:
    if value is None:
        return DEFAULT_LIMIT
    if not (value.isascii() and value.isdigit()) or len(value) > 9 or not 1 <= int(value) <= MOST:
        raise QueryError("limit", value, f"a whole number from 1 to {MOST}")
    return int(value)


def _since(value: str | None, now_unix_s: float) -> float:
    if value is None:
        return float("-inf")
    age = _DURATION.fullmatch(value)
    if age is not None:
        return now_unix_s - float(age[1]) * _UNIT_S[age[2]]
    # a + in a query that was not encoded arrives as a space; a time without a zone is nobody's
    zoned = value.replace(" ", "+") if _ZONED.search(value) else ""
    found = unix_seconds(zoned)
    if found is None:
        raise QueryError("since", value, "an age (90s, 15m, 2h) or a time (2026-01-31T12:00:00Z)")
    return found
