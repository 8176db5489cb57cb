"""The series of telemetry that each RLScaler has of its own: replicas, state, cost.

A gauge object for each of ten thousand RLScalers and of twenty names would take hundreds of megabytes, and
writing them out would take seconds from the decisions. Here an RLScaler is one row of numbers, set in every
turn, and the exposition text is made of the rows when somebody asks. A number that is not known has no
sample: missing is never zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

NAN: Final = math.nan
LINES_A_PIECE: Final = 1000


@dataclass(slots=True)
class Measured:
    """What one turn found out about an RLScaler; NaN where it did not get that far, or where it has none.

    paused, fallback, unfamiliar, slo_in_danger: 1 or 0. slo_latency_ratio: observed latency over the
    objective. cost: replicas x costPerReplica over the pools. decided_s: Unix seconds of the decision.
    clamps: (rule, reason) of what the guard changed. policy: (mode, policy type, policy name, digest).
    """

    current: float = NAN
    ready_replicas: float = NAN
    recommended: float = NAN
    hpa: float = NAN
    desired: float = NAN
    paused: float = 0.0
    fallback: float = NAN
    unfamiliar: float = NAN
    slo_in_danger: float = NAN
    slo_latency_ratio: float = NAN
    cost: float = NAN
    decided_s: float = NAN
    sync_period_s: float = NAN
    clamps: tuple[tuple[str, str], ...] = ()
    policy: tuple[str, str, str, str] | None = None


@dataclass(slots=True)
class Told:
    """What its status says: whether Ready is True, and of a canary and a budget where it has them."""

    ready: float = NAN
    canary_cost_ratio: float = NAN
    canary_shortfall: float = NAN
    budget_cap: float = NAN
    rollout_weight: float = NAN
    rollout_failed_checks: float = NAN
    rollout_phase: str = ""


@dataclass(slots=True)
class _Row:
    labels: str
    measured: Measured = field(default_factory=Measured)
    told: Told = field(default_factory=Told)
    paid: tuple[float, float, float] = (0.0, NAN, 0.0)
    """Replica-seconds until a time (seconds), that time, and the replicas since; NaN: it stands still.

    One value, as a scrape in another thread must not see half a change: the sum would go back.
    """


@dataclass(frozen=True)
class _Series:
    name: str
    help: str
    value: Callable[[_Row], float]
    kind: str = "gauge"


SERIES: Final = (
    _Series("rlscaler_current_replicas", "Replicas of the target.", lambda r: r.measured.current),
    _Series("rlscaler_ready_replicas", "Ready replicas of the target.", lambda r: r.measured.ready_replicas),
    _Series(
        "rlscaler_recommended_replicas",
        "Replicas that the policy, or the fallback, asked for.",
        lambda r: r.measured.recommended,
    ),
    _Series(
        "rlscaler_hpa_replicas",
        "Replicas that the HPA's formula would have asked for, within the bounds.",
        lambda r: r.measured.hpa,
    ),
    _Series("rlscaler_desired_replicas", "Replicas after the guard.", lambda r: r.measured.desired),
    _Series("rlscaler_ready", "1 while the condition Ready is True.", lambda r: r.told.ready),
    _Series("rlscaler_paused", "1 while mode or annotation pauses it.", lambda r: r.measured.paused),
    _Series("rlscaler_fallback", "1 while it runs on its fallback.", lambda r: r.measured.fallback),
    _Series(
        "rlscaler_out_of_distribution",
        "1 while the policy sees what it never saw in training.",
        lambda r: r.measured.unfamiliar,
    ),
    _Series(
        "rlscaler_slo_in_danger",
        "1 while the observed latency is over the objective; no sample without both.",
        lambda r: r.measured.slo_in_danger,
    ),
    _Series(
        "rlscaler_slo_latency_ratio",
        "Observed latency over the objective's.",
        lambda r: r.measured.slo_latency_ratio,
    ),
    _Series(
        "rlscaler_cost",
        "Replicas times costPerReplica, summed over the pools; a replica without pools costs 1.",
        lambda r: r.measured.cost,
    ),
    _Series(
        "rlscaler_last_decision_timestamp_seconds",
        "Unix time of the last decision.",
        lambda r: r.measured.decided_s,
    ),
    _Series(
        "rlscaler_sync_period_seconds",
        "Seconds between its decisions, by its spec.",
        lambda r: r.measured.sync_period_s,
    ),
    _Series(
        "rlscaler_canary_cost_ratio",
        "Cost that the canary would have had over that of the policy in charge.",
        lambda r: r.told.canary_cost_ratio,
    ),
    _Series(
        "rlscaler_canary_shortfall_ratio",
        "Share of decisions after which the canary would have had too few replicas.",
        lambda r: r.told.canary_shortfall,
    ),
    _Series(
        "rlscaler_budget_cap_replicas",
        "Most replicas that its budget leaves it.",
        lambda r: r.told.budget_cap,
    ),
    _Series(
        "rlscaler_rollout_weight",
        "Most of the traffic that the canary of spec.canary gets, in percent.",
        lambda r: r.told.rollout_weight,
    ),
    _Series(
        "rlscaler_rollout_failed_checks",
        "Checks of that canary in a row that failed or could not be made.",
        lambda r: r.told.rollout_failed_checks,
    ),
)
REPLICA_SECONDS: Final = "rlscaler_replica_seconds_total"
ROLLOUT_PHASE: Final = "rlscaler_rollout_phase"
CLAMPED: Final = "rlscaler_clamped"
POLICY_INFO: Final = "rlscaler_policy_info"


class ObjectSeries:
    """One row for each RLScaler. `now`: seconds by the clock that decides."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._rows: dict[tuple[str, str], _Row] = {}

    def measure(self, namespace: str, name: str, measured: Measured) -> None:
        """Take in a turn. The time of the last decision stays where the turn came to none."""
        row = self._row(namespace, name)
        before = row.measured
        if math.isnan(measured.decided_s):
            measured.decided_s = before.decided_s
        if before.current != measured.current:
            known, now_s = not math.isnan(measured.current), self._now()
            row.paid = (_replica_seconds(row.paid, now_s), now_s if known else NAN, measured.current)
        row.measured = measured

    def tell(self, namespace: str, name: str, told: Told) -> None:
        """Take in what a new status says."""
        self._row(namespace, name).told = told

    def forget(self, namespace: str, name: str) -> None:
        """Drop a deleted RLScaler's series."""
        self._rows.pop((namespace, name), None)

    def value(self, series: str, namespace: str, name: str) -> float | None:
        """A sample's value, or None where there is none."""
        row = self._rows.get((namespace, name))
        if row is None:
            return None
        if series == REPLICA_SECONDS:
            return _replica_seconds(row.paid, self._now())
        found = next(one.value(row) for one in SERIES if one.name == series)
        return None if math.isnan(found) else found

    def pieces(self) -> Iterator[str]:
        """Prometheus' text format, a piece at a time: of ten thousand RLScalers it is 20 MB."""
        lines = self._lines()
        while piece := "".join(islice(lines, LINES_A_PIECE)):
            yield piece

    def _row(self, namespace: str, name: str) -> _Row:
        row = self._rows.get((namespace, name))
        if row is None:
            labels = f'name="{escaped(name)}",namespace="{escaped(namespace)}"'
            row = self._rows[namespace, name] = _Row(labels)
        return row

    def _lines(self) -> Iterator[str]:
        rows = list(self._rows.values())
        for series in SERIES:
            yield _head(series.name, series.kind, series.help)
            read, name = series.value, series.name
            for row in rows:
                number = read(row)
                if number == number:
                    yield f"{name}{{{row.labels}}} {number}\n"
        yield _head(REPLICA_SECONDS, "counter", "Replicas times seconds since the operator saw it first.")
        for row in rows:
            yield f"{REPLICA_SECONDS}{{{row.labels}}} {_replica_seconds(row.paid, self._now())}\n"
        yield _head(CLAMPED, "gauge", "1 for each rule of the guard that changed the last decision.")
        yield from _clamped(rows)
        yield _head(ROLLOUT_PHASE, "gauge", "1; the phase of the canary of spec.canary.")
        yield from _phases(rows)
        yield _head(POLICY_INFO, "gauge", "1; mode, policy in charge and the start of its digest.")
        yield from _policies(rows)


def _replica_seconds(paid: tuple[float, float, float], now_s: float) -> float:
    total, since_s, replicas = paid
    return total if math.isnan(since_s) else total + replicas * max(0.0, now_s - since_s)


def _head(name: str, kind: str, text: str) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _clamped(rows: Iterable[_Row]) -> Iterator[str]:
    for row in rows:
        for rule, reason in row.measured.clamps:
            yield f'{CLAMPED}{{clamp="{rule}",{row.labels},reason="{reason}"}} 1.0\n'


def _phases(rows: Iterable[_Row]) -> Iterator[str]:
    for row in rows:
        if row.told.rollout_phase:
            yield f'{ROLLOUT_PHASE}{{{row.labels},phase="{escaped(row.told.rollout_phase)}"}} 1.0\n'


def _policies(rows: Iterable[_Row]) -> Iterator[str]:
    for row in rows:
        if row.measured.policy is not None:
            mode, kind, policy, digest = (escaped(word) for word in row.measured.policy)
            more = f'digest="{digest}",mode="{mode}",{row.labels},policy="{policy}",type="{kind}"'
            yield f"{POLICY_INFO}{{{more}}} 1.0\n"


def escaped(value: str) -> str:
    """A label's value as the text format writes it."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def told_by(status: Mapping[str, Any]) -> Told:
    """What a status says that has a series."""
    ready = next((c["status"] for c in status.get("conditions") or [] if c["type"] == "Ready"), None)
    canary = (status.get("policy") or {}).get("canary") or {}
    rollout = status.get("canary") or {}
    checks = [rollout[name] for name in ("failedChecks", "missingChecks") if name in rollout]
    return Told(
        ready=NAN if ready is None else float(ready == "True"),
        canary_cost_ratio=_number(canary.get("costRatio")),
        canary_shortfall=_number(canary.get("shortfall")),
        budget_cap=_number((status.get("budget") or {}).get("cap")),
        rollout_weight=_number(rollout.get("weight")),
        rollout_failed_checks=float(sum(checks)) if checks else NAN,
        rollout_phase=str(rollout.get("phase", "")),
    )


def _number(value: Any) -> float:
    """A number of the API, which writes decimals as strings; NaN for none."""
    try:
        return NAN if value is None else float(value)
    except ValueError:
        return NAN
