"""Sections that ask why: how the policy behaves, and where it fails. `training.reporting.build` asks."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from controller.core.samples import FloatArray
from sim.physics import scalar
from sim.replay import ReplayResult, replay
from training.frontier import LEVELS
from training.pictures import looks_of
from training.reporting import failures, slices
from training.reporting.evaluated import Evaluated, milliseconds
from training.reporting.markup import Section, facts, figure, paragraph, table, text
from training.reporting.theme import WIDTH_IN, inline, styled
from training.reporting.witness import Seen, edges, replay_watched
from training.summary import level_name

AROUND_S = (600.0, 1500.0)
"""What is shown before an incident's onset and after it, at least."""


def behaviour(about: Evaluated) -> Section:
    """Slices through the median observation."""
    seen = about.overall[1]
    protocol = about.measured.setup.protocol
    base = slices.median_of(seen)
    found = slices.slices_of(base, protocol)
    rows = [
        [one.name, f"{one.low:.2f} to {one.high:.2f}", f"{one.edge_at_low:.0f}", f"{one.edge_at_high:.0f}"]
        for one in slices.strongest(about.policy, base)
    ]
    name = about.shown(about.setting(about.label).name)
    body = [
        paragraph(
            f"What the policy answers when one quantity varies and everything else stays at the median of "
            f"{len(seen.load):,} observations that it met at {name}: a load of {base.load:.1f} replicas, "
            f"{base.current:.0f} asked for. Combinations that never occur together may be among them."
        ),
        figure(slices.draw_slices(about.policy, base, found, protocol)),
        facts(slices.sentences(about.policy, base, found)),
        table(
            ["feature", "10 to 90 % of what was met", "lower edge at 10 %", "at 90 %"],
            rows,
            "The features that move the lower edge most, one at a time from the median observation; replicas",
        ),
    ]
    return Section("behaviour", "Behaviour", "".join(body))


def failure_cases(about: Evaluated) -> Section:
    """Worst windows, worst five minutes."""
    name = about.shown(about.setting(about.label).name)
    spans = failures.worst_spans(about.overall[0], about.measured.setup.protocol)
    parts = [
        paragraph(
            f"At {name}, the cheapest setting that keeps {level_name(LEVELS[-1])} in the mean, or the safest."
        ),
        _worst_windows(about),
    ]
    if not spans:
        parts.append(paragraph("No request of any window was late."))
    parts += [_incident(about, number, span) for number, span in enumerate(spans, start=1)]
    return Section("failures", "Failure cases", "".join(parts))


def _worst_windows(about: Evaluated) -> str:
    one, index = about.outcomes(about.label), about.chosen[about.label]
    late = one.window_violation[index]
    order = np.argsort(-late)[: failures.WORST_WINDOWS]
    rows = [
        [
            about.measured.windows[w].name,
            f"{one.window_cost[index, w]:.2f}",
            f"{late[w]:.2%}",
            *(f"{about.outcomes(n).window_violation[about.chosen[n], w]:.2%}" for n in about.rivals),
            f"{one.worst_violation[index, w].mean():.0%}",
            milliseconds(float(np.mean(one.p99_ms[index, w]))),
        ]
        for w in order
    ]
    share = float(late[order].sum() / max(late.sum(), 1e-12))
    return table(
        ["window", "cost", "late", *(f"{name}'s" for name in about.rivals), "worst 5 min", "p99"],
        rows,
        f"The {len(order)} windows with most late requests; {share:.0%} of the mean violation is theirs",
    )


def _incident(about: Evaluated, number: int, span: failures.Span) -> str:
    setup = about.measured.setup
    window = about.measured.windows[span.window]
    result, seen = replay_watched(about.policy, about.setting(about.label), [window], setup)
    # replayed alone, with the same arrivals: they depend on the window's name, not on the batch
    alone = failures.Span(0, span.first, span.late, span.requests)
    found = failures.incident_of(alone, result, seen, setup.protocol)
    results = {
        name: replay([window], [about.setting(name)], setup.protocol, setup.seed, True, setup.engine)
        for name in about.rivals
    }
    shares = failures.others(alone, results, setup.protocol)
    others = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    told = failures.sentence(found, seen, setup.protocol)
    against = f" Late in the same five minutes: {others}." if others else ""
    when = f"{window.name}, {failures.clock(span.first * setup.protocol.sync_period_s)}"
    return (
        f"<h3>{number}. {text(when)}</h3>"
        + paragraph(told + against)
        + figure(
            _draw_incident(about, when, found, result, seen, results),
            "Above: replicas. Below: p95 latency, dotted its objective. Shaded: the five minutes.",
        )
        + paragraph("What the observation showed as the first of these requests came in:", "note")
        + facts(failures.observed(found, seen, _answer(about, found, seen)), "seen")
    )


def _answer(about: Evaluated, found: failures.Incident, seen: Seen) -> FloatArray:
    """The band `[2]` at the onset."""
    at = seen.at(0, found.onset)
    current = float(seen.current[at])
    answer = edges(about.policy, seen.features[at : at + 1], seen.load[at : at + 1], current)
    return np.asarray(answer[:, 0])


def _draw_incident(
    about: Evaluated,
    when: str,
    found: failures.Incident,
    result: ReplayResult,
    seen: Seen,
    others: Mapping[str, ReplayResult],
) -> str:
    protocol = about.measured.setup.protocol
    period, steps = protocol.sync_period_s, result.timeline["ready"].shape[2]
    first = max(0, found.onset - round(AROUND_S[0] / period))
    last = min(steps, max(found.end + 20, found.onset + round(AROUND_S[1] / period)))
    part = np.arange(first, last)
    minutes = (part - found.onset) * period / 60.0
    with styled():
        drawn, (upper, lower) = plt.subplots(
            2, 1, figsize=(WIDTH_IN, 4.1), sharex=True, height_ratios=(2, 1), layout="constrained"
        )
        load = result.timeline["requests_per_s"][0, 0][part] / scalar(protocol.params.capacity_rps)
        upper.fill_between(minutes, load, color="0.8", linewidth=0, step="post", label="load")
        if about.policy.action_schema == "hold-band/v1":
            band = edges(about.policy, seen.features[part], seen.load[part], 0.0)
            low, high = np.minimum(band, protocol.max_replicas)
            upper.fill_between(
                minutes,
                low,
                high,
                color="C0",
                alpha=0.16,
                linewidth=0,
                step="post",
                label="the policy's band",
            )
        _replicas(upper, about, minutes, part, result, others)
        lower.plot(minutes, result.timeline["p95_ms"][0, 0][part], color=_colour(about), linewidth=1.3)
        _latency_axis(lower, scalar(protocol.params.slo_latency_ms))
        span = [(step - found.onset) * period / 60.0 for step in (found.span.first, found.end)]
        for axis in (upper, lower):
            axis.axvspan(span[0], span[1], color="C3", alpha=0.08, linewidth=0)
            axis.margins(x=0)
        drawn.legend(loc="outside upper center", ncols=6)
        return inline(drawn, f"Failure case: {when}", "load, replicas and p95 latency around it")


def _replicas(
    axis: Axes,
    about: Evaluated,
    minutes: FloatArray,
    part: np.ndarray,
    result: ReplayResult,
    others: Mapping[str, ReplayResult],
) -> None:
    looks = looks_of([about.label, *others])
    asked, ready = (result.timeline[name][0, 0][part] for name in ("desired", "ready"))
    axis.step(minutes, asked, where="post", color="C0", linewidth=1, label="asked for")
    axis.step(minutes, ready, where="post", color=_colour(about), linewidth=2, label="ready")
    for name, other in others.items():
        theirs, look = other.timeline["ready"][0, 0][part], looks[name]
        axis.step(
            minutes, theirs, look.line, where="post", color=look.colour, linewidth=1.1, label=f"ready, {name}"
        )
    axis.set_ylim(bottom=0)
    axis.set_ylabel("replicas")


def _colour(about: Evaluated) -> str:
    return looks_of([about.label])[about.label].colour


def _latency_axis(axis: Axes, objective_ms: float) -> None:
    axis.axhline(objective_ms, color="C3", linestyle=":", linewidth=1)
    axis.set(yscale="log", ylabel="p95, ms", xlabel="minutes from the first late requests")
    axis.yaxis.set_major_locator(FixedLocator([50, 250, 1000, 5000, 20_000]))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
