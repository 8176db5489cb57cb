"""One reading of a service's signals, and why a value is missing when it is.

Missing is never zero: a value that could not be read is NaN here, with its outcome beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]
BoolArray = npt.NDArray[np.bool_]


class Outcome(IntEnum):
    """What came of reading one signal."""

    OK = 0
    MISSING = 1
    EMPTY = 2
    NAN = 3
    SEVERAL = 4
    STALE = 5
    NEGATIVE = 6
    HTTP_ERROR = 7
    SLOW = 8
    BAD_QUERY = 9

    @property
    def reason(self) -> str:
        """The CamelCase word for conditions, logs and telemetry."""
        return _REASONS[self]


_REASONS = {
    Outcome.OK: "OK",
    Outcome.MISSING: "NotRead",
    Outcome.EMPTY: "NoData",
    Outcome.NAN: "NotANumber",
    Outcome.SEVERAL: "SeveralSeries",
    Outcome.STALE: "Stale",
    Outcome.NEGATIVE: "Negative",
    Outcome.HTTP_ERROR: "PrometheusUnreachable",
    Outcome.SLOW: "PrometheusSlow",
    Outcome.BAD_QUERY: "BadQuery",
}

ArrayLike = npt.ArrayLike
# no signal of a service reaches this; float32 histories stay exact enough below it
LARGEST = 1e15


def _column(values: ArrayLike | None, size: int) -> FloatArray:
    if values is None:
        return np.full(size, np.nan)
    array = np.asarray(values, dtype=np.float64)
    return np.broadcast_to(array, (size,)).copy() if array.ndim == 0 else array.astype(np.float64)


@dataclass(slots=True)
class Samples:
    """Signals of N services at one moment, float arrays `[N]`; NaN means missing.

    request_rate: requests/s. latency_ms: at the objective's percentile. error_ratio: 0..1.
    utilisation: share of what the ready replicas may use (1.0 = 100 %). ready, current: replicas.
    in_flight: requests. outcome: int8 `[N]`, an `Outcome` saying why the load is missing.
    """

    request_rate: FloatArray
    latency_ms: FloatArray
    error_ratio: FloatArray
    utilisation: FloatArray
    ready: FloatArray
    current: FloatArray
    in_flight: FloatArray
    outcome: IntArray

    def __init__(
        self,
        request_rate: ArrayLike | None = None,
        latency_ms: ArrayLike | None = None,
        error_ratio: ArrayLike | None = None,
        utilisation: ArrayLike | None = None,
        ready: ArrayLike | None = None,
        current: ArrayLike | None = None,
        in_flight: ArrayLike | None = None,
        outcome: ArrayLike | None = None,
    ) -> None:
        given = [request_rate, latency_ms, error_ratio, utilisation, ready, current, in_flight]
        size = max((np.size(value) for value in given if value is not None), default=0)
        self.request_rate = _column(request_rate, size)
        self.latency_ms = _column(latency_ms, size)
        self.error_ratio = _column(error_ratio, size)
        self.utilisation = _column(utilisation, size)
        self.ready = _column(ready, size)
        self.current = _column(current, size)
        self.in_flight = _column(in_flight, size)
        self.outcome = _outcomes(outcome, self.request_rate, self.utilisation)
        for name in (
            "request_rate",
            "latency_ms",
            "error_ratio",
            "utilisation",
            "ready",
            "current",
            "in_flight",
        ):
            shape = getattr(self, name).shape
            if shape != (size,):
                raise ValueError(f"{name}: shape {shape} is not allowed, must be ({size},)")

    def __len__(self) -> int:
        return int(self.request_rate.shape[0])


def _outcomes(outcome: ArrayLike | None, rate: FloatArray, utilisation: FloatArray) -> IntArray:
    usable = np.isfinite(rate) | np.isfinite(utilisation)
    if outcome is None:
        return np.where(usable, Outcome.OK, Outcome.MISSING).astype(np.int8)
    given = np.broadcast_to(np.asarray(outcome, dtype=np.int8), rate.shape).copy()
    given[~usable & (given == Outcome.OK)] = Outcome.MISSING
    return given


def reject_impossible(samples: Samples) -> Samples:
    """Turn values that cannot be (negative, or beyond LARGEST) into missing ones, with their own outcome."""
    clean = Samples.__new__(Samples)
    outcome = samples.outcome.copy()
    for name in ("request_rate", "latency_ms", "error_ratio", "utilisation", "ready", "current", "in_flight"):
        values = getattr(samples, name)
        bad = ~(values >= 0) | (values > LARGEST)
        setattr(clean, name, np.where(bad, np.nan, values))
        if name == "request_rate":
            outcome[values < 0] = Outcome.NEGATIVE
            outcome[values > LARGEST] = Outcome.NAN
    lost = np.isnan(clean.request_rate) & np.isnan(clean.utilisation)
    outcome[lost & (outcome == Outcome.OK)] = Outcome.MISSING
    clean.outcome = outcome
    return clean
