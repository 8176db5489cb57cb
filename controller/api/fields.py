"""Field types that several objects of the API share, each with its bounds.

Everything is bounded (lengths, items), because the API server prices CEL rules by the largest value
that the schema lets in and refuses a CRD whose rules could cost too much.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field, StrictInt, StrictStr, StringConstraints, WithJsonSchema

from controller.api.decimals import (
    DECIMAL_MAX_LENGTH,
    DECIMAL_PATTERN,
    INNER_SHARE_PATTERN,
    NON_ZERO_PATTERN,
    PERCENTILE_PATTERN,
    PLAIN_PATTERN,
    SHARE_PATTERN,
    is_above_one,
    is_decimal,
    is_inner_share,
    is_positive_decimal,
    is_share,
)
from controller.api.model import Rule

REPLICAS_LIMIT: Final = 1_000_000
QUERY_LIMIT: Final = 4096
MESSAGE_LIMIT: Final = 32768

DNS_SUBDOMAIN: Final = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
DNS_LABEL: Final = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
CRON_PATTERN: Final = "^[0-9A-Za-z*/,#-]+( +[0-9A-Za-z*/,#-]+){4}$"
"""Five fields; what they may hold in detail is checked by `controller.schedules`."""
ZONE_PATTERN: Final = "^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"


def text(limit: int, pattern: str | None = None, least: int = 1) -> Any:
    """Constraints of a string of `least` to `limit` characters."""
    return StringConstraints(strict=True, min_length=least or None, max_length=limit, pattern=pattern)


def whole(low: int, high: int) -> Any:
    """Constraints of an integer in `low`..`high`."""
    return Field(strict=True, ge=low, le=high)


ObjectName = Annotated[str, text(253, DNS_SUBDOMAIN)]
LabelName = Annotated[str, text(63, DNS_LABEL)]
SecretKey = Annotated[str, text(253, "^[-._a-zA-Z0-9]+$")]
ShortText = Annotated[str, text(253, least=0)]
Message = Annotated[str, text(MESSAGE_LIMIT, least=0)]
Query = Annotated[str, text(QUERY_LIMIT, least=0)]
Time = Annotated[str, Field(strict=True, json_schema_extra={"format": "date-time"})]

Replicas = Annotated[int, whole(0, REPLICAS_LIMIT)]
Weight = Annotated[int, whole(0, 100)]
Count = Annotated[int, Field(strict=True)]
Seconds = Annotated[int, whole(0, 3600)]

Percentile = Annotated[
    StrictInt | StrictStr,
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": PERCENTILE_PATTERN,
        }
    ),
]

PositiveDecimal = Annotated[
    str,
    text(DECIMAL_MAX_LENGTH),
    Rule(
        cel=f"self.matches('{DECIMAL_PATTERN}') && self.matches('{NON_ZERO_PATTERN}')",
        message='must be a decimal greater than 0 in quotes, such as "25", "0.5" or "500m"',
        holds=is_positive_decimal,
    ),
]

Decimal = Annotated[
    str,
    text(DECIMAL_MAX_LENGTH),
    Rule(
        cel=f"self.matches('{DECIMAL_PATTERN}')",
        message='must be a decimal of 0 or more in quotes, such as "0.1", "3" or "100m"',
        holds=is_decimal,
    ),
]

Share = Annotated[
    str,
    text(DECIMAL_MAX_LENGTH),
    Rule(
        cel=f"self.matches('{SHARE_PATTERN}')",
        message='must be a decimal from 0 to 1 in quotes, such as "0.5" or "500m"',
        holds=is_share,
    ),
]

InnerShare = Annotated[
    str,
    text(DECIMAL_MAX_LENGTH),
    Rule(
        cel=f"self.matches('{INNER_SHARE_PATTERN}') && self.matches('{NON_ZERO_PATTERN}')",
        message='must be a decimal greater than 0 and less than 1 in quotes, such as "0.01"',
        holds=is_inner_share,
    ),
]

AboveOne = Annotated[
    str,
    text(DECIMAL_MAX_LENGTH),
    Rule(
        cel=f"self.matches('{PLAIN_PATTERN}') && double(self) > 1.0",
        message='must be a decimal greater than 1 in quotes, such as "1.5" or "2"',
        holds=is_above_one,
    ),
]
