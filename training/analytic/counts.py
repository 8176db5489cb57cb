"""Traffic as recordings show it: counts in bins, drawn by chance, joined by straight lines.

`traffic` draws such episodes for training, `bars` windows to choose by.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from controller.core import observation as obs
from sim.workloads import WorkloadMix, sample_shape

FloatArray = npt.NDArray[np.floating]
NODE_S = obs.FINE_STEP_S
"""Resolution of traffic; linear in between."""
FEWEST = 0.1
"""Requests in a coarse bin of the emptiest traffic in training."""
COARSE_BINS_S = (60.0, 60.0, 120.0, 300.0, 300.0, 600.0, 1800.0, 3600.0)


def coarse_workload(
    rng: np.random.Generator, duration_s: float, mix: WorkloadMix, fewest: float = 0.5
) -> FloatArray:
    """Traffic as recordings show it: counts a bin, drawn by chance, joined by straight lines; peak 1.

    Counts are negative binomial round a random shape, with means from `fewest` a bin (most of it empty) to
    thousands.
    """
    bin_s = float(rng.choice(COARSE_BINS_S))
    times = rng.uniform(0.0, 7 * obs.DAY_S) + np.arange(math.ceil(duration_s / bin_s) + 2) * bin_s
    shape = np.maximum(sample_shape(rng, mix).rates(times, rng), 0.0)
    shape = shape / max(float(shape.mean()), 1e-9)
    mean_count = math.exp(rng.uniform(math.log(fewest), math.log(3000.0)))
    clumping = math.exp(rng.uniform(math.log(0.01), math.log(1.0)))
    intensity = shape * mean_count * rng.gamma(1.0 / clumping, clumping, len(shape))
    counts = rng.poisson(np.minimum(intensity, 1e12)).astype(np.float64)
    return _joined(counts, times - times[0], duration_s)


def function_workload(rng: np.random.Generator, duration_s: float) -> FloatArray:
    """Invocations of one function or a few, in bins of a minute as their recordings show them; peak 1.

    Each is started by a timer (a fixed number at full periods, now and then missed), or by events with gaps
    that are gamma-distributed and batches that are geometric, in spells with silence between them.
    """
    bins = math.ceil(duration_s / obs.COARSE_STEP_S) + 2
    counts = np.zeros(bins)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        size = math.exp(rng.uniform(0.0, math.log(300.0)))
        counts += _timer(rng, bins, size) if rng.random() < 0.4 else _events(rng, bins, size)
    return _joined(counts, np.arange(bins) * obs.COARSE_STEP_S, duration_s)


def _timer(rng: np.random.Generator, bins: int, size: float) -> FloatArray:
    """size: invocations each time."""
    period = int(rng.choice([2, 3, 5, 5, 10, 10, 15, 20, 30, 60, 60, 120]))
    place = (np.arange(bins) + int(rng.integers(period))) % period
    on = place < max(1, round(rng.uniform(0.0, 0.4) * period))
    missed = rng.random(bins) < rng.choice([0.0, 0.0, 0.02, 0.2])
    spread = 1.0 if rng.random() < 0.5 else rng.gamma(4.0, 0.25, bins)
    return np.asarray(np.where(on & ~missed, np.ceil(size * spread), 0.0))


def _events(rng: np.random.Generator, bins: int, size: float) -> FloatArray:
    """size: mean invocations in a batch."""
    mean_gap = math.exp(rng.uniform(math.log(0.3), math.log(90.0)))
    shape = 1.0 / math.exp(rng.uniform(0.0, math.log(16.0)))
    gaps = rng.gamma(shape, mean_gap / shape, math.ceil(4.0 * bins / mean_gap) + 20)
    moments = np.cumsum(gaps)
    moments = moments[moments < bins]
    counts = np.zeros(bins)
    np.add.at(counts, moments.astype(np.int64), rng.geometric(1.0 / size, len(moments)))
    if rng.random() < 0.5:
        spell = math.exp(rng.uniform(math.log(20.0), math.log(600.0)))
        phase = rng.uniform(0.0, 1.0)
        counts[np.mod(np.arange(bins) / spell + phase, 1.0) > rng.uniform(0.2, 0.9)] = 0.0
    return counts


def _joined(counts: FloatArray, times: FloatArray, duration_s: float) -> FloatArray:
    """Counts of bins that begin at `times` as rates every NODE_S, straight lines between; peak 1."""
    fine = np.interp(np.arange(math.ceil(duration_s / NODE_S) + 1) * NODE_S, times, counts)
    peak = float(fine.max())
    return fine / peak if peak > 0 else np.full(len(fine), 0.5)
