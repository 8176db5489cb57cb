"""What may be other than a policy expects: changes of the evaluation's protocol, one at a time.

Each condition says what the service or its metrics really do, what its specification says, or what its
traffic is like. Everybody who is compared meets it alike. `training/robustness.py` is the caller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sim.physics import scalar
from sim.replay import LeftOut, Protocol, Window, cut_windows
from sim.traces import Trace, load_trace
from training.contestants import generated_windows
from training.frontier import FloatArray

STEP_S = 15.0
"""Resolution of silenced traffic."""
SPELL_S = 90.0
"""Mean length of a silence, and of the traffic between two: about half of all intervals are empty."""


@dataclass(frozen=True)
class Condition:
    """A protocol changed in one respect. silences: whether the traffic comes in bursts out of nothing."""

    name: str
    what: str
    protocol: Protocol
    silences: bool = False


def conditions(usual: Protocol) -> list[Condition]:
    """All of them, the usual protocol first. Bounds are kept at twice the peak."""
    return [
        Condition("usual", "the protocol itself", usual),
        *_specification(usual),
        *_service(usual),
        *_scale(usual),
        Condition("zero-inflated bursts", "about half of all 15-s intervals without a request", usual, True),
    ]


def _specification(usual: Protocol) -> list[Condition]:
    return [
        Condition(
            "capacity +30 %",
            "the specification says 30 % more than a replica can serve",
            replace(usual, stated_capacity=1.3),
        ),
        Condition("capacity -30 %", "the specification says 30 % less", replace(usual, stated_capacity=0.7)),
        Condition(
            "capacity unknown",
            "the specification says nothing; it is estimated online",
            replace(usual, stated_capacity=math.nan),
        ),
        Condition(
            "start-up twice as long",
            "the specification says half of what it takes",
            replace(usual, stated_start_up=0.5),
        ),
    ]


def _service(usual: Protocol) -> list[Condition]:
    def served(**changes: float) -> Protocol:
        return replace(usual, params=replace(usual.params, **changes))

    scrape_s = scalar(usual.params.scrape_interval_s)
    return [
        Condition("one scrape late", f"metrics lag {scrape_s:g} s more", served(metric_lag_s=scrape_s)),
        Condition("start-up 15 s", "and the specification says so", served(start_up_s=15.0)),
        Condition("start-up 180 s", "and the specification says so", served(start_up_s=180.0)),
        Condition(
            "objective 50 ms",
            "8 ms without waiting, 125 requests/s a replica",
            served(capacity_rps=125.0, base_latency_ms=8.0, slo_latency_ms=50.0, timeout_s=2.0),
        ),
        Condition(
            "objective 5 s",
            "800 ms without waiting, 1.25 requests/s a replica",
            served(capacity_rps=1.25, base_latency_ms=800.0, slo_latency_ms=5000.0, timeout_s=60.0),
        ),
        Condition(
            "1 request/s a replica",
            "objective 2.5 s over 400 ms",
            served(capacity_rps=1.0, base_latency_ms=400.0, slo_latency_ms=2500.0, timeout_s=60.0),
        ),
        Condition("10,000 requests/s a replica", "the usual objective", served(capacity_rps=10_000.0)),
    ]


def _scale(usual: Protocol) -> list[Condition]:
    def peak(replicas: float) -> Protocol:
        return replace(usual, peak_replicas=replicas, max_replicas=round(2 * replicas))

    return [
        Condition("peak 5 replicas", "maxReplicas 10", peak(5.0)),
        Condition("peak 500 replicas", "maxReplicas 1000", peak(500.0)),
        Condition("decisions every 5 s", "syncPeriodSeconds", replace(usual, sync_period_s=5)),
        Condition("decisions every 60 s", "syncPeriodSeconds", replace(usual, sync_period_s=60)),
    ]


def windows_of(
    condition: Condition, traces: Sequence[Path], count: int, seed: int
) -> tuple[list[Window], list[LeftOut]]:
    """The same pieces of traffic for every condition, scaled as its protocol says; and what is left out.

    Without traces `count` generated windows of `seed`.
    """
    protocol = condition.protocol
    left_out: list[LeftOut] = []
    if traces:
        windows, left_out = cut_windows([load_trace(path) for path in traces], protocol)
    else:
        windows = generated_windows(count, seed, protocol)
    if condition.silences:
        windows = [
            silenced(one, np.random.default_rng([seed, index]), protocol) for index, one in enumerate(windows)
        ]
    return windows, left_out


def silenced(window: Window, rng: np.random.Generator, protocol: Protocol) -> Window:
    """The window, and its past, cut by silences; its peak is the protocol's again.

    Spells of silence and of traffic take turns, geometrically distributed with mean SPELL_S.
    """
    trace, past = window.trace, window.history
    begin_s = trace.times_s[0]
    now = begin_s + np.arange(0.0, trace.duration_s, STEP_S)
    factor = _spells(rng, len(now))
    rates = trace.at(now) * factor
    wanted = protocol.peak_replicas * scalar(protocol.params.capacity_rps)
    scale = wanted / max(float(rates.max()), 1e-9)
    history = None
    if past is not None:
        before = np.arange(past.times_s[0], past.times_s[-1] + STEP_S, STEP_S)
        before = before[before < 0]
        history = Trace(before, past.at(before) * _spells(rng, len(before)) * scale, past.name)
    return replace(window, trace=Trace(now, rates * scale, trace.name), history=history)


def _spells(rng: np.random.Generator, steps: int) -> FloatArray:
    """0 and 1 in turn for spells of random length, float `[steps]`."""
    changes = rng.random(steps) < STEP_S / SPELL_S
    return ((np.cumsum(changes) + rng.integers(2)) % 2).astype(np.float64)
