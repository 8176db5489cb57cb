"""What a pools policy looks at: pools' readings, replicas, settings and weights, as arrays over many sets.

`controller.pooldeciding` is the caller. Weights are remembered from the last turn, and read from the route
when there was none. A pool that carries traffic and whose rate cannot be read makes its whole set unknown:
missing is never zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from controller.api.constants import Reason
from controller.api.convert import backend_service
from controller.api.decimals import parse_decimal
from controller.api.types import Backend, RLScalerSpec
from controller.case import Case
from controller.core import Outcome
from controller.core.poolfeatures import PoolSettings, PoolSights, relative_price
from controller.core.pools import WEIGHT_TOTAL, largest_remainder
from controller.core.poolset import by_ready_capacity
from controller.core.samples import FloatArray, IntArray
from controller.core.weighing import PoolReadings
from controller.trouble import Trouble

PROPAGATION_S = 5.0
"""Seconds until a gateway usually applies weights that were written; younger ones are not in force yet."""
_SETTINGS = (
    "capacity", "cost", "start_up_s", "risk", "min_replicas", "max_replicas", "min_weight", "max_weight",
)  # fmt: skip
_ABSENT = (1.0, 1.0, 60.0, 0.0, 0.0, 0.0, 0.0, 0.0)
_READ = ("request_rate", "latency_ms", "error_ratio", "utilisation", "in_flight", "ready")


@dataclass
class PoolMemory:
    """One RLScaler's pools through time. given: `[8, P]` in the order of _SETTINGS, NaN where not given.

    asked: weights last asked for, parts of 100; before: those before the last change, at `changed_s`.
    missing: turns in a row in which a pool with traffic could not be read. busy_since_s: since when each pool
    has had traffic.
    """

    generation: int
    slot: int
    names: tuple[str, ...]
    given: FloatArray
    max_step: int
    asked: list[int] | None = None
    before: list[int] | None = None
    changed_s: float = -math.inf
    missing: int = 0
    busy_since_s: dict[int, float] = field(default_factory=dict)

    def weigh(self, weights: Sequence[int], now_s: float) -> None:
        """These weights, of any sum, are the route's now."""
        if sum(weights) <= 0:
            return
        shares = largest_remainder(weights, WEIGHT_TOTAL)
        if shares != self.asked:
            self.before, self.asked, self.changed_s = self.asked or shares, shares, now_s

    def in_force(self, now_s: float) -> list[int] | None:
        """What the gateway is taken to apply."""
        return self.before if now_s - self.changed_s < PROPAGATION_S else self.asked


def given_of(spec: RLScalerSpec) -> FloatArray:
    """Settings of a spec's pools `[8, P]`, NaN where something is not given."""
    columns = [_given(backend, spec) for backend in spec.backends or ()]
    return np.array(columns, dtype=np.float64).T.reshape(len(_SETTINGS), -1)


def _given(backend: Backend, spec: RLScalerSpec) -> tuple[float, ...]:
    capacity = backend.capacity_per_replica or spec.objective.capacity_per_replica
    given = (backend.start_up_seconds, spec.objective.start_up_seconds)
    start_up = next((seconds for seconds in given if seconds is not None), None)
    return (
        math.nan if capacity is None else parse_decimal(capacity),
        parse_decimal(backend.cost_per_replica),
        math.nan if start_up is None else float(start_up),
        -math.expm1(-parse_decimal(backend.reclaims_per_hour)),
        float(backend.min_replicas),
        float(backend.max_replicas),
        float(backend.min_weight),
        float(backend.max_weight),
    )


def largest_step(spec: RLScalerSpec) -> int:
    """The smallest maxStep of the routes, parts of 100."""
    return min([route.max_step or WEIGHT_TOTAL for route in spec.routes or ()], default=WEIGHT_TOTAL)


def services_known(spec: RLScalerSpec, weights: dict[str, int]) -> list[int] | None:
    """Weights in the order of the pools; None unless there is one for each."""
    services = [backend_service(backend) for backend in spec.backends or ()]
    if not services or any(service not in weights for service in services):
        return None
    return [weights[service] for service in services]


def what_is_missing(case: Case, memory: PoolMemory, readings: PoolReadings, now_s: float) -> Trouble | None:
    """Why the pools of a set cannot be decided for one by one; None where they can.

    A pool without a ready replica or without weight has nothing to count, and neither has one that got its
    first traffic less than a window and a sync period ago.
    """
    assert case.pool_readings is not None
    assert case.entry.spec is not None
    grace_s = case.entry.spec.metrics.window_seconds + case.entry.period_s
    ready, weights = readings.ready[0], memory.asked or [0] * len(memory.names)
    for pool, name in enumerate(memory.names):
        if case.targets[pool].ready is None:
            return Trouble(Reason.POOL_METRICS_MISSING, f"{name}: its ready replicas are not known")
        if not (ready[pool] > 0 and weights[pool] > 0):
            memory.busy_since_s.pop(pool, None)
            continue
        since_s = memory.busy_since_s.setdefault(pool, now_s)
        read = case.pool_readings[pool].get("requestRate")
        if read is None or read.outcome is Outcome.OK:
            continue
        if read.outcome is Outcome.EMPTY and now_s - since_s < grace_s:
            continue
        words = f"{name}: requestRate: {read.outcome.reason}: {read.message}"
        return Trouble(Reason.POOL_METRICS_MISSING, words)
    return None


@dataclass(frozen=True)
class SetRow:
    """One set of a batch: its case, its place in the view, its memory and its readings (`[1, P]`)."""

    case: Case
    index: int
    memory: PoolMemory
    readings: PoolReadings

    @property
    def pools(self) -> int:
        return len(self.memory.names)


def settings_of(rows: Sequence[SetRow], start_up_s: FloatArray) -> PoolSettings:
    """Settings `[N, P]`, P being the most pools of a set. start_up_s: of the sets, where pools have none."""
    pools = max(row.pools for row in rows)
    given = np.tile(np.array(_ABSENT)[None, :, None], (len(rows), 1, pools))
    present = np.zeros((len(rows), pools), dtype=bool)
    for place, row in enumerate(rows):
        given[place, :, : row.pools] = row.memory.given
        given[place, 0, : row.pools] = row.readings.capacity_rps[0]
        present[place, : row.pools] = True
    column = {name: given[:, number, :] for number, name in enumerate(_SETTINGS)}
    start_up = column["start_up_s"]
    return PoolSettings(
        present=present,
        capacity_rps=column["capacity"],
        price=relative_price(column["cost"], column["capacity"], present),
        start_up_s=np.where(np.isfinite(start_up), start_up, start_up_s[:, None]),
        risk=column["risk"],
        **{name: column[name].astype(np.int64) for name in _SETTINGS[4:]},
    )


def sights_of(rows: Sequence[SetRow], static: PoolSettings, now_s: float) -> PoolSights:
    """What is seen of the sets' pools `[N, P]`."""
    shape = static.present.shape
    column = {name: np.zeros(shape) for name in _READ}
    current = np.zeros(shape)
    for place, row in enumerate(rows):
        for name in column:
            column[name][place, : row.pools] = getattr(row.readings, name)[0]
        current[place, : row.pools] = [target.replicas for target in row.case.targets]
    usual = by_ready_capacity(column["ready"], static.capacity_rps)
    asked, in_force = usual.copy(), usual
    for place, row in enumerate(rows):
        now, applied = row.memory.asked, row.memory.in_force(now_s)
        if now is not None and applied is not None:
            asked[place, : row.pools], in_force[place, : row.pools] = now, applied
    return PoolSights(
        **column,
        current=current,
        weights=in_force,
        weights_asked=asked,
        told=np.zeros(shape),
    )


def max_steps(rows: Sequence[SetRow]) -> IntArray:
    """Largest change of a weight of each set in a turn, parts of 100, int `[N]`."""
    return np.array([row.memory.max_step for row in rows], dtype=np.int64)
