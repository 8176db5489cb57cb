"""Access logs of web servers in the common and the combined log format (Apache httpd's and nginx's defaults).

host ident user [10/Oct/2000:13:55:36 -0700] "GET /page HTTP/1.0" 200 2326 "referer" "agent"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Literal

from sim.errors import TraceError
from sim.loaders.base import Bins, Head, Source, Wanted, from_epoch
from sim.traces import Trace

LINE = re.compile(
    r"^(?P<host>\S+) \S+ .*?\[(?P<stamp>\d{2}/[A-Za-z]{3}/\d{4}:\d{2}:\d{2}:\d{2} [+-]\d{4})\] "
    r'"(?P<request>.*?)" (?P<status>\d{3}|-) (?P<bytes>\d+|-)(?: |$)'
)
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
BAD_SHARE = 0.01
"""Lines of another form that are left out, as a share of all: logs hold a few that were cut or attacked."""


class AccessLog:
    """One line a request, in any order, in any time zone; lines of another form are left out up to 1 %."""

    name = "access-log"
    title = "access log, common or combined"
    gives: Literal["rates", "jobs"] = "rates"
    options: Mapping[str, str] = {
        "match": "only requests that this regular expression finds in the request line (GET /api)",
        "status": "only requests whose status begins with this (5, 404)",
    }

    def sniff(self, head: Head) -> bool:
        lines = head.lines[:50]
        return bool(lines) and sum(LINE.match(line) is not None for line in lines) >= 0.5 * len(lines)

    def load(self, source: Source, wanted: Wanted) -> Trace:
        status, match = wanted.text("status"), self._pattern(wanted.text("match"))
        bins = Bins(wanted.bin_s, str(source.path))
        stamps: dict[str, float] = {}
        lines = bad = 0
        first_bad: TraceError | None = None
        for line in source.lines():
            lines += 1
            found = LINE.match(line)
            time_s = None if found is None else self._seconds(found["stamp"], stamps)
            if found is None or time_s is None:
                bad += 1
                allowed = 'like host - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200 2326'
                first_bad = first_bad or source.refuse("line", line[:80], allowed)
                continue
            if found["status"].startswith(status) and (match is None or match.search(found["request"])):
                bins.add(time_s)
        if first_bad is not None and bad > BAD_SHARE * lines:
            raise TraceError(
                f"{first_bad}; {bad} of {lines} lines are so, at most {BAD_SHARE:.0%} are left out"
            )
        notes = [f"{bad} of {lines} lines were left out, the first: {first_bad}"] if first_bad else []
        return from_epoch(source.name, bins, notes)

    def _pattern(self, text: str) -> re.Pattern[str] | None:
        try:
            return re.compile(text) if text else None
        except re.error as error:
            raise TraceError(f"option match: {text!r} is no regular expression: {error}") from error

    def _seconds(self, stamp: str, known: dict[str, float]) -> float | None:
        """Unix time of a stamp; the last ones are remembered, since lines come in seconds' heaps."""
        found = known.get(stamp)
        if found is not None:
            return found
        try:
            month = MONTHS.index(stamp[3:6].lower()) + 1
            zone = timedelta(hours=int(stamp[22:24]), minutes=int(stamp[24:26]))
            offset = timezone(zone if stamp[21] == "+" else -zone)
            clock = [int(stamp[place : place + 2]) for place in (12, 15, 18)]
            # a leap second is written as the second before it
            moment = datetime(
                int(stamp[7:11]),
                month,
                int(stamp[:2]),
                clock[0],
                clock[1],
                min(clock[2], 59),
                tzinfo=offset,
            )
        except ValueError:
            return None
        if len(known) > 10_000:
            known.clear()
        return known.setdefault(stamp, moment.timestamp())
