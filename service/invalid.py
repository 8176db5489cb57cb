"""422s that name the field, its value and what is allowed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Response
from fastapi.exceptions import RequestValidationError

from service.demo import JOB_RATES, SPEEDS
from service.errors import FieldError
from service.models import MOST_BATCH, MOST_ID, MOST_NAME
from service.scalemodels import ALLOWED as ALLOWED_OF_SCALE

ALLOWED = {
    "cpu": "a number, 0.000001 to 1000000",
    "memory": "a number, 0 to 1000000000",
    "estimateSeconds": "a number, 0.001 to 100000000, or left out",
    "name": f"a text of {MOST_NAME} characters at most, without control characters, or left out",
    "jobs": f"a list of 1 to {MOST_BATCH} jobs",
    "id": f"a whole number, 1 to {MOST_ID}",
    "paused": "true or false",
    "reset": "true or false",
    "speed": f"a number, {SPEEDS[0]:g} to {SPEEDS[1]:g}",
    "jobRate": f"a number, {JOB_RATES[0]:g} to {JOB_RATES[1]:g} jobs a second",
    **ALLOWED_OF_SCALE,
}
LONGEST_VALUE = 100
MOST_TOLD = 20


def validation_answer(error: RequestValidationError) -> Response:
    """The answer to a request that pydantic has refused."""
    return answer([_told(one) for one in error.errors()[:MOST_TOLD]])


def field_answer(error: FieldError) -> Response:
    """The same for a value that is refused later."""
    return answer([(error.field, shown(error.value), error.allowed)])


def body_answer(reason: str) -> Response:
    """The same for a body that cannot be read at all."""
    return answer([("body", None, reason)])


def answer(found: Sequence[tuple[str, Any, str]]) -> Response:
    """As `models.InvalidOut`."""
    sentences = [
        f"{field}: {allowed}"
        if value is None and field == "body"
        else f"{field}: {_word(value)} is not allowed, must be {allowed}"
        for field, value, allowed in found
    ]
    errors = [{"field": field, "value": value, "allowed": allowed} for field, value, allowed in found]
    content = {"detail": "; ".join(sentences), "errors": errors}
    return Response(json.dumps(content), status_code=422, media_type="application/json")


def _told(error: Mapping[str, Any]) -> tuple[str, Any, str]:
    place = [part for part in error["loc"] if part not in ("body", "path", "query")]
    kind, context = error["type"], error.get("ctx", {})
    if kind == "json_invalid":
        return "body", None, f"is no JSON: {context.get('error', 'it cannot be read')}"
    field = _path(place)
    if not field:
        return "body", None, "must be a JSON object, sent as Content-Type: application/json"
    last = next((part for part in reversed(place) if isinstance(part, str)), "")
    allowed = ALLOWED.get(last)
    if kind == "missing":
        return field, None, f"given: {allowed}" if allowed else "given"
    if kind == "extra_forbidden":
        return field, shown(error["input"]), "left out: there is no such field"
    if kind == "literal_error":
        return field, shown(error["input"]), f"one of {context['expected']}"
    if isinstance(place[-1], int):
        return field, shown(error["input"]), "an object with cpu and memory"
    return field, shown(error["input"]), allowed or str(error["msg"])


def _path(place: Sequence[str | int]) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return _plain(text.lstrip("."))


def shown(value: Any) -> Any:
    """A value that can stand in an answer: short, and JSON."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        safe = math.isfinite(value) and abs(value) <= 2**53
        return value if safe else _plain(str(value)) if isinstance(value, float) else "a huge number"
    if isinstance(value, str):
        return _plain(value)
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else "something"


def _plain(text: str) -> str:
    short = text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
    return short.encode("utf-8", "backslashreplace").decode("utf-8")


def _word(value: Any) -> str:
    return "nothing" if value is None else repr(value)
