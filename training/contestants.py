"""Who is compared in an evaluation, and each one's outcomes over its knob. `evaluate.py` is the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controller.core import Policy, ServiceSpec
from controller.errors import PolicyError
from controller.policies.loader import builtin_names, load_policy
from sim.baselines import Setting, forecast, hpa, with_scale_down_window
from sim.replay import Protocol, ReplayResult, Window, replay, replay_clairvoyant
from sim.traces import Trace
from sim.workloads import WorkloadMix, sample_workload
from training.errors import ConfigError
from training.frontier import FloatArray, Outcomes

HPA, FORECAST, CLAIRVOYANT = "hpa", "forecast", "clairvoyant"
FORMULAS = (HPA, FORECAST, CLAIRVOYANT)
DAY_S = 86400.0
RATE_PERIOD_S = 15.0
WINDOWS_AT_ONCE = 5
HELD_OUT = WorkloadMix(smooth=4.0, surges=3.0, steps=1.0, cron=1.0, spiky=0.5, outages=1.0, anything=0.5)
"""The mix of generated evaluation workloads: milder than the one in training, nearer to recorded traffic."""


@dataclass(frozen=True)
class Sweep:
    """The knobs that are tried."""

    preferences: tuple[float, ...] = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
    hpa_targets: tuple[float, ...] = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    hpa_windows_s: tuple[int, ...] = (0, 60, 300)
    forecast_targets: tuple[float, ...] = (0.4, 0.55, 0.7, 0.85, 1.0)
    penalties: tuple[float, ...] = (60, 100, 200, 400, 1000, 3000, 10_000, 100_000)
    scale_down_window_s: int = 300


@dataclass(frozen=True)
class Contestant:
    """A family of settings under one name; no settings for the clairvoyant, which plans instead."""

    name: str
    settings: tuple[Setting, ...]

    def replay(self, windows: Sequence[Window], sweep: Sweep, protocol: Protocol, seed: int) -> ReplayResult:
        """Every setting on these windows."""
        if self.name == CLAIRVOYANT:
            return replay_clairvoyant(windows, sweep.penalties, protocol, seed)
        return replay(windows, self.settings, protocol, seed)


def contestant(name: str, sweep: Sweep, protocol: Protocol) -> Contestant:
    """hpa, forecast, clairvoyant, a built-in policy's name, or the path of an artifact.

    Raises ConfigError for anything else, and for an artifact that cannot be used.
    """
    spec = protocol.spec()
    if name == HPA:
        pairs = [(window, target) for window in sweep.hpa_windows_s for target in sweep.hpa_targets]
        return Contestant(HPA, tuple(hpa(spec, target, window) for window, target in pairs))
    if name == FORECAST:
        knobs = [
            (target, preference) for target in sweep.forecast_targets for preference in (0.0, 50.0, 100.0)
        ]
        return Contestant(FORECAST, tuple(_forecast(spec, *knob, sweep) for knob in knobs))
    if name == CLAIRVOYANT:
        return Contestant(CLAIRVOYANT, ())
    policy = _artifact(name)
    label = label_of(name)
    return Contestant(
        label, tuple(_learned(policy, label, protocol, one, sweep) for one in sweep.preferences)
    )


def label_of(name: str) -> str:
    """What a contestant is called: an artifact's file name, or its run's if it is still in the run folder."""
    path = Path(name)
    if path.suffix != ".onnx":
        return name
    return path.parent.name if path.stem == "policy" and path.parent.name else path.stem


def play(
    one: Contestant,
    windows: Sequence[Window],
    sweep: Sweep,
    protocol: Protocol,
    seed: int,
    advance: Callable[[int], None],
) -> Outcomes:
    """Outcomes `[S, W]` of a contestant; `advance` is told how many windows have been done."""
    parts: list[ReplayResult] = []
    for start in range(0, len(windows), WINDOWS_AT_ONCE):
        batch = windows[start : start + WINDOWS_AT_ONCE]
        parts.append(one.replay(batch, sweep, protocol, seed + start))
        advance(len(batch))

    def joined(figure: str) -> FloatArray:
        return np.concatenate([getattr(part, figure) for part in parts], axis=1)

    return Outcomes(
        one.name, parts[0].settings, joined("cost"), joined("violation"), joined("flaps_per_hour")
    )


def generated_windows(count: int, seed: int, protocol: Protocol) -> list[Window]:
    """`count` windows of workloads made from `seed`, each with a day of history, scaled as the protocol says.

    Training never sees them: its episodes come from other generators and are an hour or so long.
    """
    return [
        _generated(np.random.default_rng([seed, index]), f"generated-{index}", protocol)
        for index in range(count)
    ]


def _generated(rng: np.random.Generator, name: str, protocol: Protocol) -> Window:
    rates = sample_workload(rng, DAY_S + protocol.window_s, RATE_PERIOD_S, HELD_OUT)
    times = np.arange(len(rates)) * RATE_PERIOD_S - DAY_S
    now = (times >= 0) & (times < protocol.window_s)
    capacity = float(np.asarray(protocol.params.capacity_rps).reshape(-1)[0])
    factor = protocol.peak_replicas * capacity / max(float(rates[now].max()), 1e-9)
    return Window(
        Trace(times[now], rates[now] * factor, name), Trace(times[times < 0], rates[times < 0] * factor)
    )


def _forecast(spec: ServiceSpec, target: float, preference: float, sweep: Sweep) -> Setting:
    made = forecast(with_scale_down_window(spec, sweep.scale_down_window_s), preference, target)
    return Setting(f"{made.name}-{target:.0%}", made.policy, made.spec)


def _learned(policy: Policy, label: str, protocol: Protocol, preference: float, sweep: Sweep) -> Setting:
    spec = with_scale_down_window(protocol.spec(preference), sweep.scale_down_window_s)
    return Setting(f"{label}-{preference:g}", policy, spec)


def _artifact(name: str) -> Policy:
    path = Path(name)
    reference = {"file": str(path)} if path.suffix == ".onnx" else {"builtin": name}
    try:
        return load_policy(reference)
    except PolicyError as error:
        known = ", ".join((*FORMULAS, *builtin_names()))
        raise ConfigError(f"--policy {name}: {error} (known are {known}, or an .onnx file)") from error
