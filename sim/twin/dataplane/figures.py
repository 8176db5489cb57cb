"""What came of a set's requests in a while: for the demo's table and the benchmark's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.twin.dataplane.clients import Sample


@dataclass(frozen=True)
class Figures:
    """requests; latencies in ms, as clients saw them, failed ones included; late: share above the objective
    or failed; share: of the requests that one pool got. NaN where there were none."""

    requests: int
    p50_ms: float
    p99_ms: float
    error_ratio: float
    late: float
    share: float


def figures(samples: Sequence[Sample], pool: str, slo_ms: float) -> Figures:
    """Of some requests; `pool` is the Service whose share is told."""
    if not samples:
        return Figures(0, *[math.nan] * 5)
    ms = 1000.0 * np.array([sample.seconds for sample in samples])
    failed = np.array([sample.status != 200 for sample in samples])
    p50_ms, p99_ms = np.quantile(ms, (0.5, 0.99))
    late = float(np.mean(failed | (ms > slo_ms)))
    share = float(np.mean([sample.pool == pool for sample in samples]))
    return Figures(len(samples), float(p50_ms), float(p99_ms), float(failed.mean()), late, share)


def deserved_share(capacities_rps: Sequence[float], pool: int, factor: float) -> float:
    """A pool's part of the capacity of all, 0..1, while it is `factor` times slower."""
    left = [each / factor if index == pool else each for index, each in enumerate(capacities_rps)]
    return left[pool] / sum(left)


def seconds_to_lose(
    series: Sequence[tuple[float, int]], since_s: float, share: float, deserved: float, part: float = 0.8
) -> float:
    """From a moment until a pool has lost this part of what it has above its due; NaN if it never does.

    series: weights out of 100 by time, as `Gateway.series` gives them. share, deserved: 0..1, before and due.
    """
    enough = 100.0 * (share - part * (share - deserved))
    found = (at_s - since_s for at_s, weight in series if at_s >= since_s and weight <= enough)
    return next(found, math.nan)


def swings(series: Sequence[tuple[float, int]]) -> int:
    """How often weights change their direction."""
    steps = np.sign(np.diff([weight for _, weight in series]))
    return int((np.diff(steps[steps != 0]) != 0).sum())
