"""Any table of stamps and values: with or without a header, any usual delimiter, any usual stamp."""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Mapping
from itertools import chain
from typing import Literal

import numpy as np

from sim.errors import TraceError
from sim.loaders.base import Head, Source, Wanted, iso_seconds
from sim.traces import Trace

DELIMITERS = ",;\t "
MISSING = {"", "nan", "na", "n/a", "null", "none", "-", "+inf", "inf", "-inf"}
UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""A number above the first is a Unix time in that many parts of a second: nano-, micro-, milliseconds."""


class Table:
    """Stamp and value in two columns of a table.

    The stamp is a number of seconds, a Unix time in seconds, milli-, micro- or nanoseconds (told by its
    size), or ISO 8601; a cell without a value (empty, NaN, null) is missing: a gap, never zero.
    """

    name = "table"
    title = "timestamp,value in any table"
    gives: Literal["rates", "jobs"] = "rates"
    options: Mapping[str, str] = {
        "time": "name or number (from 1) of the stamps' column; default the first",
        "column": "name or number of the values' column; 'sum': all others added; default the second",
        "values": "rate (default: values are rates) or count (counts in a bin, divided by its length)",
    }

    def sniff(self, head: Head) -> bool:
        delimiter = self._delimiter(head.first)
        rows = [row for row in csv.reader(head.lines[:20], delimiter=delimiter) if row]
        stamped = [row for row in rows if len(row) >= 2 and self._stamp(row[0]) is not None]
        valued = [
            row for row in stamped if row[1].strip().lower() in MISSING or self._stamp(row[1]) is not None
        ]
        return len(valued) >= max(1, len(rows) - 1)

    def load(self, source: Source, wanted: Wanted) -> Trace:
        rows = source.rows(self._delimiter(source.head().first))
        first = next(rows, [])
        names = [name.strip().lower() for name in first] if self._stamp(first[0]) is None else []
        time_at = self._place(source, names, len(first), wanted, "time", 0)
        summed = wanted.options.get("column") == "sum"
        value_at = (
            -1 if summed else self._place(source, names, len(first), wanted, "column", int(time_at == 0))
        )
        times: list[float] = []
        values: list[float] = []
        missing = 0
        for row in rows if names else chain([first], rows):
            if names and source.line == 1:  # the next part's header
                continue
            least = max(time_at, value_at) + 1
            if len(row) < least:
                raise source.error(f"{','.join(row)[:80]!r} has {len(row)} columns, must have {least}")
            time = self._stamp(row[time_at])
            if time is None:
                raise source.refuse("time", row[time_at], "a number or an ISO 8601 stamp")
            if times and time <= times[-1]:
                raise source.refuse("time", row[time_at], "later than the one before")
            cells = [cell for at, cell in enumerate(row) if at != time_at] if summed else [row[value_at]]
            value = sum(self._value(source, cell) for cell in cells)
            if math.isnan(value):
                missing += 1
                continue
            times.append(time)
            values.append(value)
        unit = "requests/s" if summed or not names else names[value_at]
        return self._trace(source, wanted, times, values, missing, unit)

    def _trace(
        self, source: Source, wanted: Wanted, times: list[float], values: list[float], missing: int, unit: str
    ) -> Trace:
        if len(times) < 2:
            raise TraceError(f"{source.path}: {len(times)} rows are not enough, at least 2 are needed")
        seconds, rates = np.array(times), np.array(values)
        origin = float(seconds[0]) if seconds[0] > 1e8 else None
        if origin is not None:
            seconds = seconds - origin
        if wanted.choice("values", ("rate", "count")) == "count":
            rates = rates / float(np.median(np.diff(seconds)))
            unit = "requests/s"
        plain = unit.lower() in {"value", "values", "rate", "rps", "requests_per_s", "requests_per_second"}
        notes = (f"{missing} rows have no value",) if missing else ()
        return Trace(seconds, rates, source.name, "requests/s" if plain else unit, origin, notes)

    def _place(
        self, source: Source, names: list[str], count: int, wanted: Wanted, option: str, default: int
    ) -> int:
        """The column's index that the option names."""
        asked = wanted.options.get(option)
        if asked is None and default < count:
            return default
        text = str(asked).strip().lower()
        if text in names:
            return names.index(text)
        if text.isdigit() and 1 <= int(text) <= count:
            return int(text) - 1
        near = difflib.get_close_matches(text, names, 3, 0.5)
        known = ", ".join(names[:20]) or f"1..{count}"
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise TraceError(
            f"{source.path}: option {option} {asked!r} is not allowed, must be one of {known}{hint}"
        )

    def _delimiter(self, line: str) -> str:
        return next((mark for mark in DELIMITERS[:3] if mark in line), " " if " " in line.strip() else ",")

    def _value(self, source: Source, text: str) -> float:
        return math.nan if text.strip().lower() in MISSING else source.number("value", text, least=0.0)

    def _stamp(self, text: str) -> float | None:
        try:
            value = float(text)
        except ValueError:
            try:
                return iso_seconds(text)
            except ValueError:
                return None
        if not math.isfinite(value):
            return None
        return next((value / parts for above, parts in UNITS if abs(value) >= above), value)
