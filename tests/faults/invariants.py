"""What must hold whatever breaks, as pure functions from a recorded history to violations.

`check` is asked again and again while faults go on and once more at the end. The replicas of every target
come from the API server (`tests.faults.history`), who wrote them from the proxy that the operator's requests
pass (`tests.faults.apiproxy`), and what was recommended from the operator's log. Rules of rate and
stabilisation are worked out anew here in plain Python, over the whole history and across restarts.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from tests.faults.apiproxy import Delivery, Exchange
from tests.faults.history import History, Replicas, Spec, between
from tests.integration.harness import Json

Interval = tuple[float, float]

SLACK_CONTROL_S = 5.0
"""Between our clock and the operator's, which counts an event from when it heard of it."""


@dataclass(frozen=True)
class Violation:
    """One broken rule."""

    rule: str
    name: str
    at: float
    message: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.name} at {self.at:.3f}: {self.message}"


@dataclass(frozen=True)
class Write:
    """A change of a target's replicas by the operator."""

    at: float
    """When the request came in."""
    name: str
    uid: str
    before: int
    after: int
    pid: int


@dataclass
class Evidence:
    """All that is known of a run. Intervals are Unix seconds; those without an end go to infinity."""

    history: History
    exchanges: Sequence[Exchange]
    deliveries: Sequence[Delivery]
    decisions: Sequence[Json]
    """Decision records, with their Unix time under `at`."""
    time_scale: float
    period_s: float
    blind: Mapping[str, Sequence[Interval]] = field(default_factory=dict)
    """By name: when the operator could not know the load."""
    excused: Mapping[str, Sequence[Interval]] = field(default_factory=dict)
    """By name ("" for all): when no decision can be expected."""
    forgotten: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By name: when somebody else wrote to the status, so that its record of the past may be lost."""
    restarts: Sequence[float] = ()
    """When the operator was started (again)."""

    @cached_property
    def shown(self) -> dict[str, list[Delivery]]:
        """Deliveries by name."""
        found: dict[str, list[Delivery]] = {}
        for delivery in self.deliveries:
            found.setdefault(delivery.name, []).append(delivery)
        return found

    @cached_property
    def own_versions(self) -> frozenset[str]:
        """Resource versions that writes of the operator have made."""
        answers = [e.answer or {} for e in self.exchanges if e.applied]
        return frozenset(str(answer.get("metadata", {}).get("resourceVersion")) for answer in answers)

    def real(self, control_s: float) -> float:
        return control_s / self.time_scale


def check(evidence: Evidence, now: float, crowd: float = 1.0) -> list[Violation]:
    """Every violation so far. crowd: how many processes wanted a core at a time, 1 where each had its own."""
    writes = own_writes(evidence)
    found = [*bounds(evidence, writes), *rates(evidence, writes), *stabilised(evidence, writes)]
    found += missing(evidence, writes)
    found += [*one_writer(evidence, writes), *alive(evidence, now, crowd)]
    return found


def own_writes(evidence: Evidence) -> list[Write]:
    """The operator's changes of replicas, in order, with what was there before as the API server has it."""
    by_version: dict[str, Exchange] = {}
    for exchange in evidence.exchanges:
        if exchange.method == "PATCH" and exchange.path.endswith("/scale") and exchange.applied:
            version = (exchange.answer or {}).get("metadata", {}).get("resourceVersion")
            by_version[str(version)] = exchange
    found = []
    for name, seen in evidence.history.replicas.items():
        for before, after in zip(list(seen), list(seen)[1:], strict=False):
            exchange = by_version.get(after.version)
            if exchange is not None and before.uid == after.uid:
                found.append(
                    Write(exchange.at, name, after.uid, before.replicas, after.replicas, exchange.pid)
                )
    return sorted(found, key=lambda write: write.at)


# Bounds


def bounds(evidence: Evidence, writes: Iterable[Write], notice_s: float = 2.0) -> list[Violation]:
    """Every write lies within the bounds of a spec that the operator knew, or had only just to know.

    notice_s: real seconds that it may take from a version's arrival to a write that follows it.
    """
    found = []
    for write in writes:
        allowed = known_specs(evidence, write.name, write.at, notice_s)
        limits = [_limits(spec) for spec in allowed if spec.spec is not None]
        if not any(low <= write.after <= high for low, high in limits):
            found.append(
                Violation(
                    "bounds", write.name, write.at, f"{write.before} -> {write.after}, allowed {limits}"
                )
            )
    return found


def known_specs(evidence: Evidence, name: str, at: float, notice_s: float) -> list[Spec]:
    """Versions of an RLScaler on which the operator may have acted at a time.

    The newest that it was shown `notice_s` before, and whatever it was shown or was written since then.
    """
    versions = [spec for spec in evidence.history.specs.get(name, ()) if spec.at <= at + notice_s]
    shown = [
        (delivery.uid, delivery.generation)
        for delivery in evidence.shown.get(name, ())
        if delivery.at <= at - notice_s
    ]
    if not shown:
        return versions
    last = shown[-1]
    places = [i for i, spec in enumerate(versions) if (spec.uid, spec.generation) == last]
    return versions[places[-1] :] if places else versions


def _limits(spec: Spec) -> tuple[int, int]:
    assert spec.spec is not None
    return int(spec.spec.get("minReplicas", 1)), int(spec.spec["maxReplicas"])


# Behavior


@dataclass(frozen=True)
class Rules:
    """One direction of spec.behavior, with autoscaling/v2's defaults."""

    window_s: float
    policies: tuple[tuple[str, int, float], ...]
    select: str

    @classmethod
    def of(cls, spec: Json, direction: str) -> Rules:
        up = direction == "scaleUp"
        given = (spec.get("behavior") or {}).get(direction) or {}
        default = [{"type": "Percent", "value": 100, "periodSeconds": 15}]
        default += [{"type": "Pods", "value": 4, "periodSeconds": 15}] if up else []
        policies = tuple(
            (p["type"], int(p["value"]), float(p["periodSeconds"])) for p in given.get("policies") or default
        )
        window = given.get("stabilizationWindowSeconds")
        return cls(
            float(window if window is not None else (0 if up else 300)),
            policies,
            given.get("selectPolicy") or "Max",
        )

    @property
    def longest_s(self) -> float:
        return max(period for _, _, period in self.policies)


def rates(evidence: Evidence, writes: Sequence[Write]) -> list[Violation]:
    """The rate rules of `behavior`, over all writes of the operator and whatever lay between them."""
    found = []
    for write in writes:
        spec = _steady_spec(evidence, write)
        if spec is None:
            continue
        up = write.after > write.before
        rules = Rules.of(spec, "scaleUp" if up else "scaleDown")
        if _unknowable(evidence, write, rules.longest_s):
            continue
        past = [w for w in writes if w.name == write.name and w.at < write.at]
        limit = rate_limit(write, past, rules, up, evidence.time_scale)
        if (write.after > limit) if up else (write.after < limit):
            said = f"{write.before} -> {write.after}, the rate rules allow {limit}"
            found.append(Violation("rate", write.name, write.at, said))
    return found


def rate_limit(write: Write, past: Sequence[Write], rules: Rules, up: bool, time_scale: float) -> int:
    """As `calculateScale{Up,Down}LimitWithScalingRules` of kubernetes' horizontal.go, at its widest.

    A change as old as a period, give or take the clocks' difference, counts or not, whichever allows more.
    """
    if rules.select == "Disabled":
        return write.before
    widest, proposals = (max if up else min), []
    for kind, value, period_s in rules.policies:
        starts = _possible_starts(write, past, period_s, time_scale)
        proposals.append(widest(_proposal(start, kind, value, up) for start in starts))
    most = up == (rules.select == "Max")
    return max(proposals) if most else min(proposals)


def _possible_starts(write: Write, past: Sequence[Write], period_s: float, time_scale: float) -> list[int]:
    """Replicas at the start of the period, for each of the changes from which it may be counted."""
    ages = [(write.at - w.at) * time_scale for w in past]
    at_least = sum(age < period_s - SLACK_CONTROL_S for age in ages)
    at_most = sum(age < period_s + SLACK_CONTROL_S for age in ages)
    newest_first = [w.after - w.before for w in reversed(past)]
    return [write.before - sum(newest_first[:counted]) for counted in range(at_least, at_most + 1)]


def _proposal(start: int, kind: str, value: int, up: bool) -> int:
    if kind == "Pods":
        return start + value if up else start - value
    return math.ceil(start * (1 + value / 100)) if up else math.trunc(start * (1 - value / 100))


def _steady_spec(evidence: Evidence, write: Write) -> Json | None:
    """The spec behind a write if there is but one, and if the target was within its bounds before it."""
    known = known_specs(evidence, write.name, write.at, 2.0)
    if len(known) != 1 or known[0].spec is None:
        return None
    low, high = _limits(known[0])
    return known[0].spec if low <= write.before <= high else None


def _unknowable(evidence: Evidence, write: Write, past_s: float) -> bool:
    """Whether what counts in the last `past_s` control seconds could be known to the operator at all.

    Not after a new RLScaler or target took a name, nor where its status was overwritten and then needed for
    a restart; and a restart takes what somebody else did to the target for its own.
    """
    start = write.at - evidence.real(past_s) - 2.0
    seen = evidence.history.of(write.name)
    if any(r.at > start and (r.uid != write.uid) for r in seen if r.at <= write.at):
        return True
    if any(r.uid == write.uid and r.at > start and r is _first(seen, write.uid) for r in seen):
        return True
    specs = [s for s in evidence.history.specs.get(write.name, ()) if start < s.at <= write.at]
    if any(s.generation in (1, -1) for s in specs):
        return True
    began = _fresh_start(evidence, write, start)
    if began is None:
        return False
    return _overwritten(evidence, write.name, min(start, began)) or _touched(evidence, write, began)


def _fresh_start(evidence: Evidence, write: Write, since: float) -> float | None:
    """When the operator was last started, if it has not looked at the service before `since`.

    On a busy machine it may take long from a start to the first decision.
    """
    began = max((at for at in evidence.restarts if at <= write.at), default=None)
    if began is None or began > since:
        return began
    looked = any(d["name"] == write.name and began < d["at"] <= since for d in evidence.decisions)
    return None if looked else began


def _first(seen: Sequence[Replicas], uid: str) -> Replicas:
    return next(r for r in seen if r.uid == uid)


def _overwritten(evidence: Evidence, name: str, start: float) -> bool:
    return any(at > start - 2.0 for at in evidence.forgotten.get(name, ()))


def _touched(evidence: Evidence, write: Write, began: float) -> bool:
    """Whether somebody else has scaled the target since not long before the start of the operator."""
    since = min(write.at, began) - 10.0
    recent = [r for r in evidence.history.of(write.name) if since < r.at <= write.at]
    return any(r.version not in evidence.own_versions for r in recent)


def stabilised(evidence: Evidence, writes: Iterable[Write]) -> list[Violation]:
    """No write goes below what was recommended within the scale-down window, be it before a kill."""
    decided: dict[str, list[tuple[float, Json]]] = {}
    for decision in evidence.decisions:
        decided.setdefault(decision["name"], []).append((decision["at"], decision))
    found = []
    for write in writes:
        spec = _steady_spec(evidence, write)
        if spec is None or write.after >= write.before:
            continue
        window_s = Rules.of(spec, "scaleDown").window_s
        if _unknowable(evidence, write, window_s):
            continue
        since = write.at - evidence.real(window_s) + evidence.real(SLACK_CONTROL_S) + 1.0
        highest = int(spec["maxReplicas"])
        said = [
            min(int(decision["recommendedReplicas"]), highest)
            for at, decision in decided.get(write.name, ())
            if since < at <= write.at and decision.get("recommendedReplicas") is not None
        ]
        if said and write.after < max(said):
            text = f"{write.before} -> {write.after}, {max(said)} were recommended {window_s:g} s ago or less"
            found.append(Violation("stabilisation", write.name, write.at, text))
    return found


# Missing data


def missing(evidence: Evidence, writes: Iterable[Write], notice_s: float = 2.0) -> list[Violation]:
    """No scale-down while the load has been unknown for `notice_s` real seconds or more."""
    found = []
    for write in writes:
        if write.after >= write.before or _out_of_bounds(evidence, write):
            continue
        for start, end in evidence.blind.get(write.name, ()):
            if start + notice_s < write.at < end:
                text = f"{write.before} -> {write.after}, no load was to be read since {start:.3f}"
                found.append(Violation("missing data", write.name, write.at, text))
    return found


def _out_of_bounds(evidence: Evidence, write: Write) -> bool:
    limits = [_limits(s) for s in known_specs(evidence, write.name, write.at, 2.0) if s.spec is not None]
    return any(not low <= write.before <= high for low, high in limits)


# Writers


def one_writer(evidence: Evidence, writes: Iterable[Write]) -> list[Violation]:
    """A process that was succeeded writes no more, and nobody writes beside an HorizontalPodAutoscaler."""
    found = []
    newest = 0
    order: list[int] = []
    for write in writes:
        if write.pid not in order:
            order.append(write.pid)
            newest = len(order) - 1
        elif order.index(write.pid) < newest:
            found.append(Violation("one writer", write.name, write.at, f"pid {write.pid} was succeeded"))
        for since, until in _rivals(evidence, write.name):
            if since + 2.0 < write.at < until:
                found.append(Violation("one writer", write.name, write.at, "an HPA scales the target too"))
    return found


def _rivals(evidence: Evidence, name: str) -> list[Interval]:
    intervals, began = [], None
    for at, there in evidence.history.hpas.get(name, ()):
        if there and began is None:
            began = at
        elif not there and began is not None:
            intervals.append((began, at))
            began = None
    return intervals + ([(began, math.inf)] if began is not None else [])


# Liveness


def alive(evidence: Evidence, now: float, crowd: float = 1.0, periods: int = 20) -> list[Violation]:
    """Between two decisions lie at most so many periods in which one could be expected, more in a crowd."""
    limit_s = evidence.real(periods * evidence.period_s) * max(crowd, 1.0)
    everyone = list(evidence.excused.get("", ()))
    times: dict[str, list[float]] = {}
    for decision in evidence.decisions:
        times.setdefault(decision["name"], []).append(decision["at"])
    found = []
    for name, specs in evidence.history.specs.items():
        excused = [*everyone, *evidence.excused.get(name, ()), *_absent(specs, limit_s / 2)]
        moments = [specs[0].at, *times.get(name, ()), now]
        for last, following in itertools.pairwise(moments):
            if following - last <= limit_s:
                continue
            waited = following - last - between(excused, last, following)
            if waited > limit_s:
                text = f"no decision for {waited:.1f} s in which one was due, until {following:.3f}"
                found.append(Violation("liveness", name, last, text))
    return found


def _absent(specs: Sequence[Spec], grace_s: float) -> list[Interval]:
    """When an RLScaler was paused or not there."""
    found = []
    for spec, after in zip(specs, [*specs[1:], None], strict=True):
        idle = spec.spec is None or spec.paused or spec.spec.get("mode") == "Paused"
        if idle:
            found.append((spec.at, after.at + grace_s if after is not None else math.inf))
    return found


def unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


# Status


def unknown_fields(exchanges: Iterable[Exchange], schema: Json) -> list[Violation]:
    """Statuses that were sent with fields that the CRD does not know: the API server would drop them."""
    found = []
    for exchange in exchanges:
        if exchange.method != "PATCH" or not exchange.path.endswith("/status"):
            continue
        if "/rlscalers/" not in exchange.path:
            continue
        patch = json.loads(exchange.body).get("status") or {}
        strange = _strangers(patch, schema, "status")
        name = re.sub(r".*/rlscalers/([^/]+)/status", r"\1", exchange.path)
        if strange:
            found.append(Violation("status", name, exchange.at, f"unknown fields {strange}"))
        if exchange.status == 422:
            told = (exchange.answer or {}).get("message", "")
            found.append(Violation("status", name, exchange.at, f"refused as invalid: {told}"))
    return found


def _strangers(value: object, schema: Json, path: str) -> list[str]:
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        return [
            entry
            for key, part in value.items()
            for entry in (
                _strangers(part, known[key], f"{path}.{key}") if key in known else [f"{path}.{key}"]
            )
        ]
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [entry for part in value for entry in _strangers(part, schema["items"], f"{path}[]")]
    return []
