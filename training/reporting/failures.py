"""Where a policy fails: its worst windows, its worst five minutes, and what it saw and did just before.

Every sentence is made of the replay's numbers: how far and how fast the load rose, what was ready, when
enough was asked for, whether the observation had shown anything like it, and how the HPA and the clairvoyant
fared in the same minutes. `training.reporting.evaluated` is the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from controller.core.observation import COLUMN
from controller.core.samples import FloatArray
from sim.physics import scalar
from sim.replay import WORST_SPAN_S, Protocol, ReplayResult
from training.reporting.witness import Seen

WORST_WINDOWS = 5
WORST_SPANS = 4
LATE = 0.05
"""A control step with more violating requests than this share belongs to the incident."""
LONGEST_ONSET_S = 3600.0
ENOUGH = 0.8
"""A load seen before counts as warning from this share of the peak."""


@dataclass(frozen=True)
class Span:
    """The worst five minutes of a window; times in control steps of it. late, requests: in the span."""

    window: int
    first: int
    late: float
    requests: float

    @property
    def share(self) -> float:
        """Share of requests over the objective."""
        return self.late / max(self.requests, 1e-9)


@dataclass(frozen=True)
class Incident:
    """A span with what led to it. Loads in replicas, times in control steps.

    onset: the step in which violations began; before: the load that the policy saw there; peak, peak_step:
    the largest load until the span's end; ready: replicas then at the onset; short: steps in which the load
    was above the ready replicas; first_short, asked: the first of them, and the first step from there on (or
    before) in which enough for the peak was asked for (-1: never); capped: short at maxReplicas.
    """

    span: Span
    onset: int
    end: int
    before: float
    peak: float
    peak_step: int
    ready: float
    short: int
    first_short: int
    asked: int
    capped: bool


def worst_spans(result: ReplayResult, protocol: Protocol, count: int = WORST_SPANS) -> list[Span]:
    """The five minutes with most late requests of each window, the worst windows first; row 0 of `result`."""
    period = protocol.sync_period_s
    width = max(1, round(WORST_SPAN_S / period))
    found = []
    for window in range(len(result.windows)):
        requests = np.nan_to_num(result.timeline["requests_per_s"][0, window]) * period
        late = np.nan_to_num(result.timeline["violation_share"][0, window]) * requests
        sums, alls = (np.convolve(each, np.ones(width), "valid") for each in (late, requests))
        # of spans with equally many the last: it begins with the first late request
        first = int(np.flatnonzero(sums >= sums.max() * (1 - 1e-9))[-1])
        found.append(Span(window, first, float(sums[first]), float(alls[first])))
    found.sort(key=lambda span: -span.late)
    return [span for span in found[:count] if span.late > 0]


def incident_of(span: Span, result: ReplayResult, seen: Seen, protocol: Protocol) -> Incident:
    """What led to a span: `seen` are moments of the same replay, every tick of that window."""
    period = protocol.sync_period_s
    line = {name: values[0, span.window] for name, values in result.timeline.items()}
    load = line["requests_per_s"] / scalar(protocol.params.capacity_rps)
    end = min(span.first + round(WORST_SPAN_S / period), int(np.isfinite(load).sum()))
    onset = _onset(line["violation_share"], span.first, end, round(LONGEST_ONSET_S / period))
    peak_step = onset + int(np.nanargmax(load[onset:end]))
    over = load[onset:end] > line["ready"][onset:end]
    short = np.flatnonzero(over)
    first_short = onset + int(short[0]) if len(short) else -1
    enough = np.flatnonzero(line["desired"][onset:] >= load[peak_step])
    return Incident(
        span,
        onset,
        end,
        before=float(seen.load[seen.at(span.window, onset)]),
        peak=float(load[peak_step]),
        peak_step=peak_step,
        ready=float(line["ready"][onset]),
        short=len(short),
        first_short=first_short,
        asked=onset + int(enough[0]) if len(enough) else -1,
        capped=bool((over & (line["ready"][onset:end] >= protocol.max_replicas)).any()),
    )


def sentence(incident: Incident, seen: Seen, protocol: Protocol) -> str:
    """What happened, in words made of the incident's numbers."""
    span, period = incident.span, protocol.sync_period_s
    start = clock(incident.onset * period)
    rise_s = (incident.peak_step - incident.onset) * period
    parts = [
        f"At {start} the load was {_replicas(incident.before)} with {incident.ready:.0f} ready. "
        + _course(incident, rise_s),
        f"{span.late:,.0f} of {span.requests:,.0f} requests ({span.share:.0%}) were late in the five minutes "
        f"from {clock(span.first * period)}.",
        _cause(incident, protocol),
        _warning(incident, seen),
    ]
    return " ".join(part for part in parts if part)


def _course(incident: Incident, rise_s: float) -> str:
    ratio = incident.peak / max(incident.before, 0.05)
    if ratio < 1.1:
        return f"It rose no further than {_replicas(incident.peak)}."
    within = f"within {duration(rise_s)}" if rise_s > 0 else "at once"
    return f"It reached {_replicas(incident.peak)} {within}, {ratio:.1f} times as much."


def _cause(incident: Incident, protocol: Protocol) -> str:
    period = protocol.sync_period_s
    lead_s = scalar(protocol.params.start_up_s) + 2 * period
    if incident.short == 0:
        return (
            "There were enough replicas for the mean load of every control step: what was late queued within "
            "seconds, or behind a backlog."
        )
    short_s = incident.short * period
    if incident.capped:
        return f"It stood at maxReplicas ({protocol.max_replicas}), and was short for {duration(short_s)}."
    if incident.asked < 0:
        return f"Enough for that peak was never asked for; it was short for {duration(short_s)}."
    delay_s = (incident.asked - incident.first_short) * period
    start_s = scalar(protocol.params.start_up_s)
    if delay_s <= period:
        return (
            f"Enough was asked for within {duration(max(delay_s, period))} of the shortage; the rest of the "
            f"{duration(short_s)} is the time that replicas take to start ({start_s:.0f} s) and the backlog."
        )
    how = "too late" if delay_s > lead_s else "in steps"
    return (
        f"Enough was asked for {how}: {duration(delay_s)} after the load had passed what was ready; replicas "
        f"take {start_s:.0f} s to start. It was short for {duration(short_s)}."
    )


def _warning(incident: Incident, seen: Seen) -> str:
    """Whether what the observation knew had shown such a load."""
    moment = seen.features[seen.at(incident.span.window, incident.onset)]
    load = max(incident.before, 0.05)
    yesterday = load * float(np.exp(moment[COLUMN["season_1d"]]))
    day = load * float(np.exp(max(moment[COLUMN["move_q999_1d"]], 0.0)))
    if incident.peak < 1.1 * load:
        return ""
    if moment[COLUMN["season_1d_known"]] > 0.5 and yesterday >= ENOUGH * incident.peak:
        return f"The same time a day before had shown it ({_replicas(yesterday)})."
    if day >= ENOUGH * incident.peak:
        return f"A rise as large was among the rarest of the last day ({_replicas(day)} would have been one)."
    return f"Its history showed no such rise: the rarest of the last day would have led to {_replicas(day)}."


def others(span: Span, results: Mapping[str, ReplayResult], protocol: Protocol) -> dict[str, float]:
    """Share of late requests in the same five minutes, of other policies: one-setting replays by name."""
    width = max(1, round(WORST_SPAN_S / protocol.sync_period_s))
    found = {}
    for name, result in results.items():
        part = slice(span.first, span.first + width)
        requests = np.nan_to_num(result.timeline["requests_per_s"][0, span.window, part])
        share = np.nan_to_num(result.timeline["violation_share"][0, span.window, part])
        found[name] = float((share * requests).sum() / max(requests.sum(), 1e-9))
    return found


def observed(incident: Incident, seen: Seen, edges: FloatArray) -> list[tuple[str, str]]:
    """(what, value) of the observation at the onset, in a person's units; edges `[2]` of its band."""
    moment = seen.features[seen.at(incident.span.window, incident.onset)]

    def value(name: str) -> float:
        return float(moment[COLUMN[name]])

    def times(name: str) -> str:
        return f"×{np.exp(value(name)):.2f}"

    asked = seen.current[seen.at(incident.span.window, incident.onset)]
    found = [
        ("load", _replicas(incident.before)),
        ("asked for until then", _replicas(float(asked))),
        ("answer", f"{edges[0]:.0f} to {edges[1]:.0f} replicas"),
        ("change in 1, 5, 15 min", ", ".join(times(f"load_change_{s}s") for s in (60, 300, 900))),
        ("rises in an hour (90, 99.5 %)", f"{times('move_q900_1h')}, {times('move_q995_1h')}"),
        ("rises in a day (99, 99.9 %)", f"{times('move_q990_1d')}, {times('move_q999_1d')}"),
        ("an hour ago at this time", times("season_1h") if value("season_1h_known") > 0.5 else "unknown"),
        ("a day ago at this time", times("season_1d") if value("season_1d_known") > 0.5 else "unknown"),
        ("backlog", f"{np.expm1(value('backlog')):.2f} s"),
    ]
    if value("latency_known") > 0.5:
        found.append(("latency over objective", times("latency_over_slo")))
    return found


def _onset(violation: FloatArray, first: int, end: int, most: int) -> int:
    """Where the incident began: back from the span's first late step as long as one of four steps is late."""
    late = np.nan_to_num(violation) > LATE
    inside = np.flatnonzero(late[first:end])
    onset = first + int(inside[0]) if len(inside) else first
    earliest = max(0, onset - most)
    while onset > earliest:
        before = np.flatnonzero(late[max(onset - 4, earliest) : onset])
        if len(before) == 0:
            break
        onset = max(onset - 4, earliest) + int(before[0])
    return onset


def clock(seconds: float) -> str:
    """Time since a window's start: 13:05:30."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"


def duration(seconds: float) -> str:
    """45 s, 3 min, 3 min 30 s."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    return f"{minutes} min" + (f" {rest} s" if rest else "")


def _replicas(count: float) -> str:
    return f"{count:.0f} replicas" if count >= 10 else f"{count:.1f} replicas"
