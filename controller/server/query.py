"""What may be asked of /v1, and clear words for what may not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controller.clock import unix_seconds
from controller.decisions import CLAMPS, OF_POOLS, OUTCOMES, Filter

MOST: Final = 1000
DEFAULT_LIMIT: Final = 100
PARAMETERS: Final = ("namespace", "name", "outcome", "clamp", "since", "limit", "features")
STATES: Final = ("ready", "notReady", "sloMissed", "fallback", "unfamiliar", "limited", "shadow", "paused")
"""What an RLScaler may be, several at once."""
SORTS: Final = ("name", "trouble", "replicas", "changed")
LIST_PARAMETERS: Final = ("namespace", "search", "state", "sort", "limit", "offset")
FOLLOW_PARAMETERS: Final = ("namespace", "name", "outcome", "clamp")
MOST_LISTED: Final = 500
DEFAULT_LISTED: Final = 50
MOST_OFFSET: Final = 999_999_999
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)")
_ZONED = re.compile(r"T.*(Z|[+ -]\d\d:?\d\d)$")
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
_SWITCH = {"true": True, "false": False}


class QueryError(ValueError):
    """A query parameter has a value that is not allowed; says which, and what is."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name}: {value!r} is not allowed, must be {allowed}")


@dataclass(frozen=True)
class Wish:
    """Which RLScalers are asked for; empty means all. states: any of them. search: in small letters."""

    namespace: str = ""
    search: str = ""
    states: frozenset[str] = frozenset()
    sort: str = "name"
    limit: int = DEFAULT_LISTED
    offset: int = 0


def parse_list(params: Mapping[str, str]) -> Wish:
    """A Wish from query parameters. Raises QueryError."""
    require_known(params, LIST_PARAMETERS)
    sort = params.get("sort", "name")
    if sort not in SORTS:
        raise QueryError("sort", sort, "one of " + ", ".join(SORTS))
    return Wish(
        namespace=params.get("namespace", ""),
        search=params.get("search", "").lower(),
        states=_words("state", params.get("state"), STATES),
        sort=sort,
        limit=_whole("limit", params.get("limit"), DEFAULT_LISTED, 1, MOST_LISTED),
        offset=_whole("offset", params.get("offset"), 0, 0, MOST_OFFSET),
    )


def require_known(params: Mapping[str, str], allowed: Sequence[str]) -> None:
    """Raises QueryError for a parameter that is not allowed, or is empty."""
    for name, value in params.items():
        if name not in allowed:
            raise QueryError("parameter", name, "one of " + ", ".join(allowed))
        if value == "":
            raise QueryError(name, value, "left out, or have a value")


def parse(params: Mapping[str, str], now_unix_s: float, allowed: Sequence[str] = PARAMETERS) -> Filter:
    """A Filter from query parameters. Raises QueryError.

    outcome and clamp take several values, separated by commas; since takes a time or an age.
    """
    require_known(params, allowed)
    return Filter(
        namespace=params.get("namespace", ""),
        name=params.get("name", ""),
        outcomes=_words("outcome", params.get("outcome"), OUTCOMES),
        clamps=_words("clamp", params.get("clamp"), (*CLAMPS, *OF_POOLS)),
        since_s=_since(params.get("since"), now_unix_s),
        limit=_whole("limit", params.get("limit"), DEFAULT_LIMIT, 1, MOST),
    )


def require_once(names: Sequence[str]) -> None:
    """Raises QueryError for a parameter that is given twice."""
    for name in names:
        if names.count(name) > 1:
            raise QueryError(name, "two values", "given once; outcome and clamp take several with commas")


def switch(params: Mapping[str, str], name: str) -> bool:
    """A parameter that is true or false, and false by default. Raises QueryError."""
    value = params.get(name, "false")
    if value not in _SWITCH:
        raise QueryError(name, value, "true or false")
    return _SWITCH[value]


def _words(name: str, value: str | None, allowed: tuple[str, ...]) -> frozenset[str]:
    words = [word.strip() for word in value.split(",")] if value is not None else []
    for word in words:
        if word not in allowed:
            raise QueryError(name, word, "one of " + ", ".join(allowed))
    return frozenset(words)


def _whole(name: str, value: str | None, default: int, low: int, high: int) -> int:
    if value is None:
        return default
    if not (value.isascii() and value.isdigit()) or len(value) > 9 or not low <= int(value) <= high:
        raise QueryError(name, value, f"a whole number from {low} to {high}")
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
