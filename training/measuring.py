"""How good is the policy now? Asked now and then, at the same steps in every run, for little of its time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

MOST_SHARE = 0.025
"""Of a run's time on the processor that may go into measuring."""
TIMES = 40
"""Measurements in a run, if there is time for so many."""
FIRST_GUESS_S = 1.0


class Measuring:
    """Decides when to measure; `columns` gives the measured columns of a row, NaN in between."""

    def __init__(
        self,
        names: Sequence[str],
        timesteps: int,
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        """names: the columns. timesteps: of the whole run. clock: the processor's: waiting does not count."""
        self._names, self._every = tuple(names), max(1, timesteps // TIMES)
        self._clock = clock
        # before the first row there may be a minute of compiling, which is no training
        self._first_row: float | None = None
        self._spent, self._dearest, self._warm = 0.0, FIRST_GUESS_S, False

    def columns(
        self, before: int, steps: int, measure: Callable[[], Mapping[str, float]]
    ) -> dict[str, float]:
        """The columns of the row at `steps`, the last row being at `before`."""
        if self._first_row is None:
            self._first_row = self._clock()
        unknown = dict.fromkeys(self._names, math.nan)
        if not self._names or steps // self._every == before // self._every or not self._affordable():
            return unknown
        if not self._warm:
            # the first one may compile, once a machine; what it takes says nothing of the others
            measure()
            self._warm = True
        began = self._clock()
        found = measure()
        took = self._clock() - began
        self._spent += took
        self._dearest = took
        return {name: float(found.get(name, math.nan)) for name in self._names}

    def _affordable(self) -> bool:
        return self._spent + self._dearest <= MOST_SHARE * (self._clock() - (self._first_row or 0.0))
