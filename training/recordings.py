"""Episodes cut from recordings: `train.py --trace FILE...`, instead of generated traffic or mixed with it.

A recording tells only the shape of traffic: how high it is, on what service, with what noise, is drawn as for
generated traffic. `RecordedShapes` stands in for the bank of shapes of `sim.envs.episodes`, `Recordings` is
what `training.analytic` draws from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sim.envs.episodes import SHAPES, Traffic
from sim.errors import TraceError
from sim.traces import Trace, load_trace
from training.errors import ConfigError

FloatArray = npt.NDArray[np.floating]
MOST_MISSING = 0.5
"""A piece of which the recording lacks more than this share is not used; other gaps are interpolated."""
TRIES = 32


class Recordings:
    """Recorded traffic as shapes; `share`: of the episodes, that are cut from it."""

    def __init__(self, traces: Sequence[Trace], share: float = 1.0) -> None:
        self.traces, self.share = list(traces), share
        if not self.traces:
            raise ConfigError("traces: at least one recording is needed")
        for trace in self.traces:
            if not float(trace.rate_rps.max()) > 0:
                raise ConfigError(f"traces: {trace.name} has no requests at all")
        # a week tells more than an hour: recordings are drawn by the root of their lengths
        weights = np.sqrt([trace.duration_s for trace in self.traces])
        self._weights = weights / weights.sum()

    @classmethod
    def load(cls, files: Sequence[str], share: float) -> Recordings | None:
        """The recordings in these files, in any format of `sim.loaders`; None: no files.

        Raises ConfigError for a file that cannot be read.
        """
        if not files:
            return None
        try:
            return cls([load_trace(file) for file in files], share)
        except TraceError as error:
            raise ConfigError(f"traces: {error}") from error

    def sample(self, rng: np.random.Generator, duration_s: float, dt_s: float) -> FloatArray:
        """A random piece, `[ceil(duration_s / dt_s) + 1]` rates with a peak of 1, one every `dt_s`.

        A recording shorter than that is repeated. Pieces without a request are drawn again.
        """
        ahead = np.arange(math.ceil(duration_s / dt_s) + 1) * dt_s
        for _ in range(TRIES):
            trace = self.traces[rng.choice(len(self.traces), p=self._weights)]
            rates = _piece(trace, rng.uniform(0.0, 1.0), ahead)
            peak = float(rates.max())
            if peak > 0:
                return rates / peak
        return np.full(len(ahead), 0.5)


class RecordedShapes(Traffic):
    """A bank of shapes for `sim.envs`, `share` of them cut from recordings, the others generated."""

    def __init__(self, recordings: Recordings, generated: Traffic, seed: int) -> None:
        self._recordings, self._generated, self._seed = recordings, generated, seed
        super().__init__(generated.mix, generated.period_s, generated.bins)

    def prepare(self, wanted: npt.NDArray[np.integer]) -> None:
        """Make the shapes that are not there yet."""
        for index in np.unique(wanted[~self._there[wanted]]):
            self.shapes[index] = self._shape(int(index))
            self._there[index] = True

    def _shape(self, index: int) -> FloatArray:
        if index >= round(self._recordings.share * SHAPES):
            self._generated.prepare(np.array([index]))
            return np.asarray(self._generated.shapes[index])
        rng = np.random.default_rng([self._seed, index, 3])
        return self._recordings.sample(rng, (self.bins - 1) * self.period_s, self.period_s)[: self.bins]


def _piece(trace: Trace, place: float, ahead: FloatArray) -> FloatArray:
    """Rates at `ahead` seconds from a place (0..1) in the recording; zeros where too much is missing."""
    length_s, start_s = trace.duration_s, float(trace.times_s[0])
    room_s = length_s - float(ahead[-1])
    if room_s >= 0:
        times = start_s + place * room_s + ahead
        inside = (trace.times_s >= times[0]) & (trace.times_s <= times[-1])
        if inside.sum() * trace.bin_s < (1.0 - MOST_MISSING) * float(ahead[-1]):
            return np.zeros(len(ahead))
    else:
        times = start_s + np.mod(place * length_s + ahead, length_s)
    return np.asarray(np.interp(times, trace.times_s, trace.rate_rps))
