"""A restarted operator decides at once because history is read back from Prometheus, at two resolutions.

`read_history` gives what `Engine.backfill` takes: the last hour finely and a day before it coarsely, in
control seconds. The operator calls it when it first sees an RLScaler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controller.core.observation import COARSE_SLOTS, COARSE_STEP_S, FINE_SLOTS, FINE_STEP_S
from controller.core.samples import FloatArray, Outcome
from controller.metrics.source import MetricsSource, QuerySet, RangeReading

SAMPLES_FIELDS = {
    "requestRate": "request_rate",
    "latency": "latency_ms",
    "cpuUtilization": "utilisation",
    "inFlight": "in_flight",
    "errorRatio": "error_ratio",
}
"""Signal -> the field of `controller.core.Samples` that it fills."""


@dataclass(frozen=True, slots=True)
class History:
    """times_s: control seconds `[T]`, ascending; arrays: by field of Samples, `[T]`, NaN for gaps.

    outcomes and messages are by signal, of whichever resolution fared worse.
    """

    times_s: FloatArray
    arrays: dict[str, FloatArray]
    outcomes: dict[str, Outcome]
    messages: dict[str, str]


async def read_history(
    source: MetricsSource,
    queries: Mapping[str, str],
    end_s: float,
    time_scale: float = 1.0,
    fine: tuple[float, int] = (FINE_STEP_S, FINE_SLOTS),
    coarse: tuple[float, int] = (COARSE_STEP_S, COARSE_SLOTS),
) -> History:
    """History up to `end_s` (control seconds); `fine` and `coarse` are (step in control seconds, points)."""
    rules = queries if isinstance(queries, QuerySet) else QuerySet(queries)
    return (await read_histories(source, [rules], end_s, time_scale, fine, coarse))[0]


async def read_histories(
    source: MetricsSource,
    batch: Sequence[QuerySet],
    end_s: float,
    time_scale: float = 1.0,
    fine: tuple[float, int] = (FINE_STEP_S, FINE_SLOTS),
    coarse: tuple[float, int] = (COARSE_STEP_S, COARSE_SLOTS),
) -> list[History]:
    """`read_history` of several services on one grid of times."""
    middle_s = end_s - fine[0] * (fine[1] - 1)
    start_s = end_s - coarse[0] * (coarse[1] - 1)
    last_coarse_s = start_s + coarse[0] * ((middle_s - start_s) // coarse[0])
    spans = [(start_s, min(last_coarse_s, middle_s - fine[0]), coarse[0]), (middle_s, end_s, fine[0])]
    readings = await asyncio.gather(
        *(
            source.read_range_many(batch, start / time_scale, end / time_scale, step / time_scale)
            for start, end, step in spans
            if end >= start
        )
    )
    return [_joined(list(parts), time_scale) for parts in zip(*readings, strict=True)]


def _joined(readings: list[RangeReading], time_scale: float) -> History:
    signals = list(readings[0].values)
    joined = {name: np.concatenate([reading.values[name] for reading in readings]) for name in signals}
    failure = {signal: _failed_first(readings, signal) for signal in signals}
    return History(
        np.concatenate([reading.times_s for reading in readings]) * time_scale,
        {SAMPLES_FIELDS.get(name, name): values for name, values in joined.items()},
        {signal: failure[signal].outcomes[signal] for signal in signals},
        {signal: failure[signal].messages[signal] for signal in signals},
    )


def _failed_first(readings: list[RangeReading], signal: str) -> RangeReading:
    absent = (Outcome.OK, Outcome.EMPTY, Outcome.NAN)
    failures = [reading for reading in readings if reading.outcomes[signal] not in absent]
    return (failures + list(readings)[::-1])[0]
