"""Decimals in strings, as Kubernetes' API conventions ask for (no floats): "25", "0.5", "500m".

The suffix m (thousandths) is read because the API server prints quantities so, e.g. a tolerance of 0.1
as 100m.
"""

from __future__ import annotations

import re
from typing import Final

DECIMAL_MAX_LENGTH: Final = 24
DECIMAL_PATTERN: Final = "^[0-9]+([.][0-9]+)?m?$"
PERCENTILE_PATTERN: Final = "^[0-9]{1,2}([.][0-9]{1,6})?$"
NON_ZERO_PATTERN: Final = "[1-9]"
SHARE_PATTERN: Final = "^(0([.][0-9]+)?|1([.]0+)?|[0-9]{1,3}m|1000m)$"
INNER_SHARE_PATTERN: Final = "^(0[.][0-9]+|[0-9]{1,3}m)$"
PLAIN_PATTERN: Final = "^[0-9]+([.][0-9]+)?$"


def is_decimal(text: str) -> bool:
    """Whether `text` is a decimal of zero or more."""
    return re.fullmatch(DECIMAL_PATTERN, text) is not None


def is_positive_decimal(text: str) -> bool:
    """Whether `text` is a decimal greater than zero."""
    return is_decimal(text) and re.search(NON_ZERO_PATTERN, text) is not None


def is_share(text: str) -> bool:
    """Whether `text` is a decimal from 0 to 1, both included."""
    return re.fullmatch(SHARE_PATTERN, text) is not None


def is_inner_share(text: str) -> bool:
    """Whether `text` is a decimal between 0 and 1, both excluded."""
    return (
        re.fullmatch(INNER_SHARE_PATTERN, text) is not None and re.search(NON_ZERO_PATTERN, text) is not None
    )


def is_above_one(text: str) -> bool:
    """Whether `text` is a decimal greater than 1, without the suffix m."""
    return re.fullmatch(PLAIN_PATTERN, text) is not None and float(text) > 1.0


def is_percentile(value: int | str) -> bool:
    """Whether an integer or a string lies strictly between 0 and 100."""
    if isinstance(value, int):
        return 0 < value < 100
    return (
        re.fullmatch(PERCENTILE_PATTERN, value) is not None and re.search(NON_ZERO_PATTERN, value) is not None
    )


def parse_decimal(text: str) -> float:
    """The number in `text`. Raises ValueError that quotes it when it is no decimal."""
    if not is_decimal(text):
        raise ValueError(f'{text!r} is not a decimal such as "25", "0.5" or "500m"')
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def format_decimal(value: float, digits: int = 3) -> str:
    """A decimal for a status field: at most `digits` decimals, no trailing zeros, no exponent."""
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:.0f}"
