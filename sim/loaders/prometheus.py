"""The answer of Prometheus' `GET /api/v1/query_range`: a matrix of one or several series, in JSON.

    {"status": "success", "data": {"resultType": "matrix", "result": [
      {"metric": {"service": "web"}, "values": [[1700000000, "12.5"], [1700000015, "NaN"]]}]}}

Query a rate (`sum(rate(http_requests_total[1m]))`), not a counter. NaN, infinite and absent samples are
missing: they are gaps in the trace, never zero.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from sim.errors import TraceError
from sim.loaders.base import Head, Source, Wanted
from sim.traces import Trace

Series = dict[float, float]


class PrometheusRange:
    """One series of the answer, or the sum of several."""

    name = "prometheus"
    title = "Prometheus query_range, JSON"
    gives: Literal["rates", "jobs"] = "rates"
    options: Mapping[str, str] = {
        "label": "only series with these labels: name=value, several joined by commas",
        "combine": "what to do with several series: refuse (default) or sum",
    }

    def sniff(self, head: Head) -> bool:
        start = "".join(head.lines[:20]).lstrip()
        return start.startswith("{") and '"status"' in start[:4096] and '"collection_id"' not in start[:4096]

    def load(self, source: Source, wanted: Wanted) -> Trace:
        chosen = self._choose(source, self._result(source), wanted.text("label"))
        if len(chosen) > 1 and wanted.choice("combine", ("refuse", "sum")) == "refuse":
            raise TraceError(
                f"{source.path}: {len(chosen)} series are not allowed without combine=sum, or a label that "
                f"chooses one: {self._listed(chosen)}"
            )
        series = [self._samples(source, each) for each in chosen]
        step = self._step(series)
        total = series[0] if len(series) == 1 else self._sum(series, step)
        times = np.array(sorted(time for time, value in total.items() if not math.isnan(value)))
        if len(times) < 2:
            raise TraceError(
                f"{source.path}: {len(times)} samples with a value are not enough, at least 2 are needed"
            )
        rates = np.array([total[time] for time in times])
        # a regular distance even where most samples are missing: the missing ones are then gaps
        lost = round((times[-1] - times[0]) / step) + 1 - len(times)
        notes = (f"{lost} of {lost + len(times)} samples are missing",) if lost > 0 else ()
        return Trace(times - times[0], rates, source.name, origin_s=float(times[0]), notes=notes)

    def _result(self, source: Source) -> list[Any]:
        try:
            answer = json.loads(source.text())
        except ValueError as error:
            raise TraceError(f"{source.path}: is no JSON: {error}") from error
        if not isinstance(answer, dict) or answer.get("status") != "success":
            said = answer.get("error", answer.get("status")) if isinstance(answer, dict) else answer
            raise TraceError(f"{source.path}: status {said!r} is not allowed, must be 'success'")
        data = answer.get("data")
        kind = data.get("resultType") if isinstance(data, dict) else None
        if kind != "matrix":
            raise TraceError(
                f"{source.path}: resultType {kind!r} is not allowed, must be 'matrix': ask query_range"
            )
        result = data.get("result")  # type: ignore[union-attr]
        if not isinstance(result, list) or not result:
            raise TraceError(f"{source.path}: the answer has no series")
        return result

    def _choose(self, source: Source, result: list[Any], label: str) -> list[Any]:
        wanted = {}
        for pair in filter(None, (part.strip() for part in label.split(","))):
            name, equals, value = pair.partition("=")
            if not equals:
                raise TraceError(f"option label: {pair!r} is not allowed, must be name=value")
            wanted[name.strip()] = value.strip().strip('"')
        chosen = [s for s in result if all(s.get("metric", {}).get(n) == v for n, v in wanted.items())]
        if not chosen:
            raise TraceError(f"{source.path}: no series has {label}; there are {self._listed(result)}")
        return chosen

    def _listed(self, result: list[Any]) -> str:
        shown = [
            "{" + ",".join(f"{n}={v}" for n, v in sorted(series.get("metric", {}).items())) + "}"
            for series in result[:8]
        ]
        return ", ".join(shown) + (f" and {len(result) - 8} more" if len(result) > 8 else "")

    def _samples(self, source: Source, series: Any) -> Series:
        name = self._listed([series])
        values = series.get("values")
        if not isinstance(values, list):
            raise TraceError(f"{source.path}: series {name} has no values")
        samples: Series = {}
        last = -math.inf
        for number, pair in enumerate(values, start=1):
            try:
                time, value = float(pair[0]), float(pair[1])
            except (TypeError, ValueError, IndexError):
                raise self._bad(source, name, number, pair, 'a pair [time, "value"]') from None
            if not math.isfinite(time) or time <= last:
                raise self._bad(source, name, number, pair, "later than the sample before")
            if value < 0 and math.isfinite(value):
                raise self._bad(source, name, number, pair, "0 or more")
            last = time
            samples[time] = value if math.isfinite(value) else math.nan
        return samples

    def _bad(self, source: Source, series: str, number: int, pair: Any, allowed: str) -> TraceError:
        return TraceError(
            f"{source.path}: sample {number} of series {series}: {pair!r} is not allowed, must be {allowed}"
        )

    def _step(self, series: list[Series]) -> float:
        distances = [np.diff(np.fromiter(s, float, len(s))) for s in series if len(s) > 1]
        # the smallest common one, so that a lost sample cannot pass for a longer step
        return float(min((d.min() for d in distances), default=1.0))

    def _sum(self, series: list[Series], step: float) -> Series:
        """Added where each series that exists then has a value; else missing.

        A series exists from its first sample to its last: before and after, its pod was not there.
        """
        lives = [(min(s), max(s)) for s in series if s]
        total: Series = {}
        for time in sorted({time for s in series for time in s}):
            alive = [s for s, (a, b) in zip((s for s in series if s), lives, strict=True) if a <= time <= b]
            total[time] = sum(s.get(time, math.nan) for s in alive)
        return total
