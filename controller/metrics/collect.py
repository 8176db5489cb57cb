"""From readings of N services to the `Samples` that the engine steps on; the loop calls it once a tick."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy.typing as npt

from controller.core.samples import Outcome, Samples
from controller.metrics.history import SAMPLES_FIELDS
from controller.metrics.source import SignalReading


def to_samples(
    readings: Sequence[Mapping[str, SignalReading]],
    ready: npt.ArrayLike | None = None,
    current: npt.ArrayLike | None = None,
) -> Samples:
    """Samples of N services; `ready` and `current` are replicas `[N]`. The outcome is `load_reading`'s."""
    arrays = {
        name: [_value(reading, signal) for reading in readings] for signal, name in SAMPLES_FIELDS.items()
    }
    outcome = [int(load_reading(reading).outcome) for reading in readings]
    return Samples(**arrays, ready=ready, current=current, outcome=outcome)


def load_reading(readings: Mapping[str, SignalReading]) -> SignalReading:
    """The reading that the load is known from, or that says why it is not.

    The request rate if it could be read, else the utilisation if that could, else the request rate's failure.
    """
    asked = [readings[signal] for signal in ("requestRate", "cpuUtilization") if signal in readings]
    usable = [reading for reading in asked if reading.outcome is Outcome.OK]
    nothing = SignalReading(math.nan, Outcome.MISSING, "no query for requestRate or cpuUtilization")
    return (usable + asked + [nothing])[0]


def _value(readings: Mapping[str, SignalReading], signal: str) -> float:
    return readings[signal].value if signal in readings else math.nan
