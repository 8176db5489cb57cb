"""Measuring many cases on a noisy machine: short slices of each in turn, so that noise hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.cases import YARDSTICK, Case


@dataclass(frozen=True)
class Row:
    """A case's result: units a second (median of the rounds), spread (half the distance between the
    quartiles, over the median), and the median over rounds of its rate over the yardstick's in the same
    round."""

    what: str
    unit: str
    rate: float
    spread: float
    ratio: float
    bar: float | None
    note: str

    @property
    def verdict(self) -> str:
        """Whether the bar was reached; nothing without a bar."""
        return "" if self.bar is None else ("yes" if self.rate >= self.bar else "no")


def measure(
    cases: Sequence[Case], rounds: int, slice_s: float, tick: Callable[[str], None] = lambda what: None
) -> list[Row]:
    """Run every case in each of `rounds` for about `slice_s` seconds of the processor's time.

    tick: called before each slice with the case's name. The first case named YARDSTICK is the unit of ratios.
    """
    repeats = []
    for case in cases:
        tick(case.what)
        repeats.append(_repeats(case, slice_s))
    rates = np.empty((rounds, len(cases)))
    for turn in range(rounds):
        for column, (case, times) in enumerate(zip(cases, repeats, strict=True)):
            tick(case.what)
            rates[turn, column] = _rate(case, times)
    unit = rates[:, [case.what for case in cases].index(YARDSTICK)]
    return [_row(case, rates[:, column], unit) for column, case in enumerate(cases)]


def _repeats(case: Case, slice_s: float) -> int:
    """Calls that take about a slice, found by doubling; this also compiles and warms up."""
    case.run()
    times = 1
    while True:
        begun = time.process_time()
        for _ in range(times):
            case.run()
        spent = time.process_time() - begun
        if spent >= 0.25 * slice_s:
            return max(1, round(times * slice_s / spent))
        times *= 2


def _rate(case: Case, times: int) -> float:
    begun, units = time.process_time(), 0.0
    for _ in range(times):
        units += case.run()
    return units / max(time.process_time() - begun, 1e-9)


def _row(case: Case, rates: np.ndarray, unit: np.ndarray) -> Row:
    low, middle, high = np.quantile(rates, [0.25, 0.5, 0.75])
    ratio = float(np.median(rates / unit))
    return Row(
        case.what, case.unit, float(middle), float((high - low) / 2 / middle), ratio, case.bar, case.note
    )
