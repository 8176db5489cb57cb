"""Ring-buffered history of one signal for N services, indexed in seconds, at one resolution.

Bins lie on an absolute grid of `step_s` seconds, so that services with sync periods of 5 to 60 s
share one layout. A bin holds the mean of the samples that fell into it; a bin that no sample could
cover is NaN. Called by the engine only.
"""

from __future__ import annotations

import numpy as np

from controller.core.samples import FloatArray, IntArray


class History:
    """Float32 array `[N, slots]`; the newest bin of a row is `last_bin[row]` on the absolute grid."""

    def __init__(self, services: int, step_s: float, slots: int) -> None:
        self.step_s = step_s
        self.slots = slots
        self.values = np.full((services, slots), np.nan, dtype=np.float32)
        self.last_bin = np.full(services, -1, dtype=np.int64)
        self._count = np.zeros(services, dtype=np.int32)

    def grow(self, services: int) -> None:
        """Make room for `services` rows; the new ones are empty."""
        extra = services - len(self.last_bin)
        self.values = np.concatenate([self.values, np.full((extra, self.slots), np.nan, dtype=np.float32)])
        self.last_bin = np.concatenate([self.last_bin, np.full(extra, -1, dtype=np.int64)])
        self._count = np.concatenate([self._count, np.zeros(extra, dtype=np.int32)])

    def reset(self, rows: IntArray) -> None:
        """Forget everything of these rows."""
        self.values[rows] = np.nan
        self.last_bin[rows] = -1
        self._count[rows] = 0

    def write(self, rows: IntArray, now_s: FloatArray, values: FloatArray, covers_s: FloatArray) -> None:
        """Add one sample a row; it stands for the `covers_s` seconds before `now_s`. NaN is missing."""
        bins = np.floor_divide(now_s, self.step_s).astype(np.int64)
        gap = bins - self.last_bin[rows]
        fresh = gap > 0
        self._fill_gap(rows, bins, gap, values, covers_s)
        slot = bins % self.slots
        old = self.values[rows, slot]
        count = np.where(fresh, 0, self._count[rows])
        seen = ~np.isnan(values)
        mean = np.where(count > 0, old + (values - old) / (count + 1), values)
        same = np.where(seen, mean, old)
        self.values[rows, slot] = np.where(fresh, values, same)
        self._count[rows] = count + seen
        self.last_bin[rows] = np.maximum(bins, self.last_bin[rows])

    def _fill_gap(
        self, rows: IntArray, bins: IntArray, gap: IntArray, values: FloatArray, covers_s: FloatArray
    ) -> None:
        known = self.last_bin[rows] >= 0
        widest = int(np.max(np.where(known, gap, 1), initial=1))
        for back in range(1, min(widest, self.slots)):
            skipped = known & (gap > back)
            covered = back * self.step_s < covers_s
            slot = (bins - back) % self.slots
            self.values[rows[skipped], slot[skipped]] = np.where(covered, values, np.nan)[skipped]

    def backfill(self, rows: IntArray, times_s: FloatArray, values: FloatArray, covers_s: float) -> None:
        """Replace the rows' history by samples `values` `[T, rows]` taken at ascending `times_s` `[T]`."""
        self.reset(rows)
        if len(times_s) == 0:
            return
        sample_bins = np.floor_divide(times_s, self.step_s).astype(np.int64)
        kept = sample_bins > sample_bins[-1] - self.slots
        starts = np.flatnonzero(np.diff(sample_bins[kept], prepend=-1))
        means = _nanmean_blocks(np.asarray(values, dtype=np.float64)[kept], starts)
        filled_bins = sample_bins[kept][starts]
        grid = np.arange(filled_bins[0], filled_bins[-1] + 1)
        source = np.searchsorted(filled_bins, grid)
        covered = (filled_bins[source] - grid) * self.step_s < max(covers_s, self.step_s)
        dense = np.where(covered[:, None], means[source], np.nan)
        self.values[rows[:, None], (grid % self.slots)[None, :]] = dense.T
        self.last_bin[rows] = filled_bins[-1]
        self._count[rows] = 1

    def window(self, rows: IntArray, now_s: FloatArray, bins: int, ago_s: float = 0.0) -> FloatArray:
        """The `bins` bins that end `ago_s` seconds before now, oldest first: float32 `[rows, bins]`."""
        end = np.floor_divide(now_s - ago_s, self.step_s).astype(np.int64)
        offsets = np.arange(bins - 1, -1, -1)
        if len(end) and np.all(end == end[0]) and np.all(self.last_bin[rows] == self.last_bin[rows[0]]):
            picked = end[0] - offsets
            stored = (picked <= self.last_bin[rows[0]]) & (picked > self.last_bin[rows[0]] - self.slots)
            taken = self._columns(rows, int(picked[0]) % self.slots, bins)
            taken[:, ~stored] = np.nan
            return taken
        wanted = end[:, None] - offsets[None, :]
        newest = self.last_bin[rows][:, None]
        stored = (wanted <= newest) & (wanted > newest - self.slots)
        return np.where(stored, self.values[rows[:, None], wanted % self.slots], np.float32(np.nan))

    def _columns(self, rows: IntArray, first: int, bins: int) -> FloatArray:
        """`bins` slots from slot `first` on, round the end: in whole runs, which are copied fast."""
        taken = np.empty((len(rows), bins), dtype=self.values.dtype)
        done = 0
        while done < bins:
            run = min(bins - done, self.slots - first)
            taken[:, done : done + run] = self.values[rows, first : first + run]
            done, first = done + run, 0
        return taken


def _nanmean_blocks(values: FloatArray, starts: IntArray) -> FloatArray:
    seen = ~np.isnan(values)
    total = np.add.reduceat(np.where(seen, values, 0.0), starts, axis=0)
    count = np.add.reduceat(seen.astype(np.int64), starts, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
