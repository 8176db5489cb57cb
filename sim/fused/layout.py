"""Where the fused engine keeps what it knows of N services: a few arrays that compiled code reads row by row.

Everything that fits in a number lives in one row of `table`; histories are rings beside it. Logarithms of
rates are held as integers in units of 2^-20 (about 1e-6): sums and sorted windows over them are exact, so
that they can be kept up to date for ever without drifting.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from controller.core import observation as obs

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]

LOG_ONE = 1 << 20
"""The logarithm 1 in the integers' unit."""
LOG_UNKNOWN = -(1 << 31)
"""Stands for the logarithm of a bin without data; below every other value, so that maxima pass it over."""
LOG_ZERO = -(1 << 30)
"""Stands for the logarithm of 0; below every floor."""
FINE_RING = 256
"""Slots of the ring of 15-s bins: a power of two, so that a slot is a byte. FINE_SLOTS of them are read."""
COARSE_RING = 1536
"""Slots of the ring of 60-s bins; COARSE_SLOTS of them are read."""
WINDOW = 240
"""15-s bins back to which rises and maxima look: an hour."""
SHORT_WINDOW = 40
"""The same for the short variability: ten minutes."""

SCRATCH = 2048
"""Room to sort or select among a day's bins of 60 s."""

SETTINGS = (
    "min_replicas", "max_replicas", "sync_period_s", "slo_latency_ms", "preference", "start_up_s",
    "target_utilisation", "idle_after_s", "activation_rps", "slo_percentile", "failure_threshold",
    "fallback_code", "fallback_replicas", "given_rps", "network", "needs_capacity", "absent",
    "up_window_s", "up_tolerance", "up_select_min", "up_disabled",
    "down_window_s", "down_tolerance", "down_select_min", "down_disabled",
    "log_max", "log_min", "log_start_up", "log_sync_period", "lead_bins", "coarse_lead_bins",
)  # fmt: skip
"""Columns that `update` sets; those of the last line follow from the others, and are what features need of
them: natural logarithms, and the lead time (start-up and sync period) in 15-s and in 60-s bins."""
MEMORY = (
    "failures", "last_seen_s", "last_desired", "has_rate", "busy_until_s", "violation", "last_up_s",
    "last_down_s", "day_bucket", "day_move_0", "day_move_1", "day_move_2", "day_pivot",
    "capacity_mean",
    "capacity_variance", "correction", "fine_bin", "fine_count", "coarse_bin", "coarse_count",
    "next_recommendation", "next_up", "next_down",
)  # fmt: skip
"""Columns that `reset` takes back to their beginning (`BEGINNING`)."""
READING = (
    "now_s", "request_rate", "latency_ms", "error_ratio", "utilisation", "ready", "current", "in_flight",
    "outcome", "rate", "capacity_rps", "load", "hpa_replicas", "since_up_s", "since_down_s", "log_rate",
)  # fmt: skip
"""Columns of the last reading, cleaned, and what follows from it."""
COLUMNS = (*SETTINGS, *MEMORY, *READING)
_AT = {name: column for column, name in enumerate(COLUMNS)}

# fmt: off
(C_MIN, C_MAX, C_SYNC, C_SLO, C_PREFERENCE, C_START_UP, C_TARGET, C_IDLE_AFTER, C_ACTIVATION, _, C_THRESHOLD,
 C_FALLBACK, C_FALLBACK_REPLICAS, C_GIVEN, C_NETWORK, C_NEEDS_CAPACITY, C_ABSENT, C_UP_WINDOW, C_UP_TOLERANCE,
 C_UP_SELECT_MIN, C_UP_DISABLED, C_DOWN_WINDOW, C_DOWN_TOLERANCE, C_DOWN_SELECT_MIN, C_DOWN_DISABLED,
 C_LOG_MAX, C_LOG_MIN, C_LOG_START_UP, C_LOG_SYNC, C_LEAD, C_COARSE_LEAD) = (_AT[name] for name in SETTINGS)
(C_FAILURES, C_LAST_SEEN, C_LAST_DESIRED, C_HAS_RATE, C_BUSY_UNTIL, C_VIOLATION, C_LAST_UP, C_LAST_DOWN,
 C_DAY_BUCKET, C_DAY_MOVES, _, _, C_DAY_PIVOT, C_MEAN, C_VARIANCE, C_CORRECTION, C_FINE_BIN, C_FINE_COUNT,
 C_COARSE_BIN, C_COARSE_COUNT, C_NEXT_RECOMMENDATION, C_NEXT_UP, C_NEXT_DOWN) = (_AT[name] for name in MEMORY)
(C_NOW, C_REQUEST_RATE, C_LATENCY, C_ERRORS, C_UTILISATION, C_READY, C_CURRENT, C_IN_FLIGHT, C_OUTCOME,
 C_RATE, C_CAPACITY, C_LOAD, C_HPA, C_SINCE_UP, C_SINCE_DOWN, C_LOG_RATE) = (_AT[name] for name in READING)
# fmt: on

BEGINNING = np.zeros(len(MEMORY))
"""What MEMORY holds of a service that nothing is known of."""
for _name, _value in (
    ("last_seen_s", -np.inf),
    ("last_desired", -1.0),
    ("busy_until_s", np.inf),
    ("last_up_s", -np.inf),
    ("last_down_s", -np.inf),
    ("day_bucket", np.nan),
    ("day_move_0", np.nan),
    ("day_move_1", np.nan),
    ("day_move_2", np.nan),
    ("day_pivot", np.nan),
    ("capacity_mean", np.nan),
    ("correction", 1.0),
    ("fine_bin", -1.0),
    ("coarse_bin", -1.0),
):
    BEGINNING[MEMORY.index(_name)] = _value
MEMORY_SLICE = slice(len(SETTINGS), len(SETTINGS) + len(MEMORY))

# a row of `moves`: bookkeeping of the sorted window of rises, then the window itself
(K_BIN, K_LEAD, K_FLOOR, K_END, K_LOWEST, K_KNOWN, K_SHORT_KNOWN) = range(7)
K_PEAK, K_PEAK_BIN = 8, 15
K_SORTED = 24
MOVES_ROW = K_SORTED + FINE_RING
(K_SUM, K_SQUARE, K_SHORT_SUM, K_SHORT_SQUARE) = range(4)
(R_PERCENT, R_VALUE, R_PERIOD, R_PRESENT) = range(4)
UP, DOWN = 0, 1


class EngineArrays(NamedTuple):
    """All that a fused engine holds of N services.

    table float64 `[N, COLUMNS]`. fine_rate float32 `[N, FINE_RING]` and fine_log int32 alike: requests/s of
    15-s bins, slot = bin modulo the ring; coarse_rate, coarse_log the same in 60-s bins (the log of the
    newest bin is written when it is over). moves int32 `[N, MOVES_ROW]`, sums int64 `[N, 4]`: the window of
    rises. recommendations, ups, downs float64 `[N, slots, 2]`: rings of (time s, replicas). rules float64
    `[N, 2, R, 4]`: rate rules of `behavior`, up and down. scratch int32: room to sort in.
    """

    table: FloatArray
    fine_rate: FloatArray
    fine_log: IntArray
    coarse_rate: FloatArray
    coarse_log: IntArray
    moves: IntArray
    sums: IntArray
    recommendations: FloatArray
    ups: FloatArray
    downs: FloatArray
    rules: FloatArray
    scratch: IntArray


def make_arrays(services: int, recommendations: int, events: int, rules: int) -> EngineArrays:
    """Arrays of services that nothing is known of, with rings of these lengths."""
    arrays = EngineArrays(
        table=np.zeros((services, len(COLUMNS))),
        fine_rate=np.full((services, FINE_RING), np.nan, dtype=np.float32),
        fine_log=np.full((services, FINE_RING), LOG_UNKNOWN, dtype=np.int32),
        coarse_rate=np.full((services, COARSE_RING), np.nan, dtype=np.float32),
        coarse_log=np.full((services, COARSE_RING), LOG_UNKNOWN, dtype=np.int32),
        moves=np.zeros((services, MOVES_ROW), dtype=np.int32),
        sums=np.zeros((services, 4), dtype=np.int64),
        recommendations=_empty_ring(services, recommendations),
        ups=_empty_ring(services, events),
        downs=_empty_ring(services, events),
        rules=np.zeros((services, 2, rules, 4)),
        scratch=np.zeros(SCRATCH, dtype=np.int32),
    )
    arrays.table[:, MEMORY_SLICE] = BEGINNING
    arrays.moves[:, K_BIN] = -1
    return arrays


def _empty_ring(services: int, slots: int) -> FloatArray:
    ring = np.zeros((services, slots, 2))
    ring[:, :, 0] = -np.inf
    return ring


assert obs.FINE_SLOTS <= FINE_RING
assert obs.COARSE_SLOTS <= COARSE_RING
