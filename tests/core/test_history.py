"""Histories are indexed in seconds: what was written at a time is found at that time."""

from __future__ import annotations

import numpy as np
import pytest

from controller.core.history import History

ROW = np.array([0])


def written(step_s: float, samples: list[tuple[float, float]], covers_s: float) -> History:
    history = History(1, step_s, 40)
    for time, value in samples:
        history.write(ROW, np.array([time]), np.array([value]), np.array([covers_s]))
    return history


def last(history: History, now: float, bins: int) -> list[float]:
    return [None if np.isnan(v) else float(v) for v in history.window(ROW, np.array([now]), bins)[0]]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("samples", "covers_s", "now", "expected"),
    [
        pytest.param([(0, 1), (15, 2), (30, 3)], 15, 30, [1, 2, 3], id="one sample a bin"),
        pytest.param(
            [(15, 2), (20, 4), (25, 6)], 5, 25, [None, None, 4], id="several in one bin are averaged"
        ),
        pytest.param([(0, 1), (60, 5)], 60, 60, [5, 5, 5], id="a slow period covers the bins before it"),
        pytest.param([(0, 1), (60, 5)], 15, 60, [None, None, 5], id="a gap is a gap"),
        pytest.param([(0, 1), (15, np.nan), (30, 3)], 15, 30, [1, None, 3], id="missing stays missing"),
        pytest.param([(0, 1), (15, 2)], 15, 45, [2, None, None], id="time goes on without samples"),
        pytest.param([(0, 1), (15 * 100, 2)], 15, 1500, [None, None, 2], id="a gap longer than the ring"),
    ],
)
def test_window(samples: list, covers_s: float, now: float, expected: list) -> None:
    assert last(written(15.0, samples, covers_s), now, 3) == expected


def test_backfill_equals_writing_one_by_one() -> None:
    rng = np.random.default_rng(0)
    times = np.arange(0, 900, 15.0)
    values = np.where(rng.random((len(times), 1)) < 0.2, np.nan, rng.random((len(times), 1)))
    once = History(1, 15.0, 40)
    once.backfill(ROW, times, values, 15.0)
    slowly = written(15.0, [(t, v[0]) for t, v in zip(times, values, strict=True)], 15.0)
    assert last(once, 885.0, 40) == last(slowly, 885.0, 40)


def test_rows_at_different_times_read_their_own_bins() -> None:
    history = History(2, 15.0, 8)
    rows = np.array([0, 1])
    for tick in range(6):
        now = np.array([15.0 * tick, 15.0 * tick + 300.0])
        history.write(rows, now, np.array([tick, 10.0 + tick]), np.array([15.0, 15.0]))
    window = history.window(rows, np.array([75.0, 375.0]), 3)
    assert window.tolist() == [[3, 4, 5], [13, 14, 15]]
