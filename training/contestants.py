"""Who is compared in an evaluation, and each one's outcomes over its dial. `evaluate.py` is the caller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controller.core import Policy
from controller.errors import PolicyError
from controller.policies.loader import builtin_names, load_policy
from sim.baselines import BASELINES, Setting, with_scale_down_window
from sim.baselines import sweep as settings_of
from sim.replay import EngineName, Foresight, Protocol, ReplayResult, Window, replay
from sim.traces import Trace
from sim.workloads import WorkloadMix, sample_workload
from training.errors import ConfigError

HPA, CLAIRVOYANT, STATIC = "HPA", "clairvoyant", "Static"
FORMULAS = (*BASELINES, STATIC, CLAIRVOYANT)
"""Everybody who is not an artifact, in the order of tables."""
DAY_S = 86400.0
RATE_PERIOD_S = 15.0
HELD_OUT = WorkloadMix(smooth=4.0, surges=3.0, steps=1.0, cron=1.0, spiky=0.5, outages=1.0, anything=0.5)
"""The mix of generated evaluation workloads: milder than the one in training, nearer to recorded traffic."""


@dataclass(frozen=True)
class Sweep:
    """The dials that are not the baselines' own (those are `sim.baselines.sweep`'s)."""

    preferences: tuple[float, ...] = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
    penalties: tuple[float, ...] = (60, 100, 200, 400, 1000, 3000, 10_000, 100_000)
    scale_down_window_s: int = 300
    """behavior.scaleDown.stabilizationWindowSeconds of everybody who does not sweep it."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a window that the API would refuse."""
        if not 0 <= self.scale_down_window_s <= 3600:
            raise ConfigError(f"--scale-down-window: {self.scale_down_window_s} is not allowed; 0..3600 is")


@dataclass(frozen=True)
class Contestant:
    """A family of settings under one name."""

    name: str
    settings: tuple[Setting | Foresight, ...]
    digest: str = ""
    """The artifact's; "" of formulas, which their code decides."""

    def replay(
        self,
        windows: Sequence[Window],
        protocol: Protocol,
        seed: int | Sequence[int],
        engine: EngineName = "fused",
        timeline: bool = False,
    ) -> ReplayResult:
        """Every setting on these windows."""
        return replay(windows, self.settings, protocol, seed, timeline, engine)


def contestant(name: str, sweep: Sweep, protocol: Protocol) -> Contestant:
    """One of FORMULAS (in any case), a built-in policy's name, or the path of an artifact.

    Raises ConfigError for anything else, and for an artifact that cannot be used.
    """
    known = {formula.lower(): formula for formula in FORMULAS}.get(name.lower())
    if known is None:
        return _learned(name, sweep, protocol)
    if known == CLAIRVOYANT:
        return Contestant(known, tuple(Foresight(penalty) for penalty in sweep.penalties))
    spec = with_scale_down_window(protocol.spec(), sweep.scale_down_window_s)
    return Contestant(known, tuple(settings_of(known, spec)))


def label_of(name: str) -> str:
    """What a contestant is called: an artifact's file name, or its run's if it is still in the run folder."""
    path = Path(name)
    if path.suffix != ".onnx":
        return name
    return path.parent.name if path.stem == "policy" and path.parent.name else path.stem


def generated_windows(count: int, seed: int, protocol: Protocol) -> list[Window]:
    """`count` windows of workloads made from `seed`, each with a day of history, scaled as the protocol says.

    Training never sees them: its episodes come from other generators and are an hour or so long.
    """
    return [
        _generated(np.random.default_rng([seed, index]), f"generated-{seed}-{index}", protocol)
        for index in range(count)
    ]


def _generated(rng: np.random.Generator, name: str, protocol: Protocol) -> Window:
    rates = sample_workload(rng, DAY_S + protocol.window_s, RATE_PERIOD_S, HELD_OUT)
    times = np.arange(len(rates)) * RATE_PERIOD_S - DAY_S
    now = (times >= 0) & (times < protocol.window_s)
    capacity = float(np.asarray(protocol.params.capacity_rps).reshape(-1)[0])
    factor = protocol.peak_replicas * capacity / max(float(rates[now].max()), 1e-9)
    history = Trace(times[times < 0], rates[times < 0] * factor)
    return Window(Trace(times[now], rates[now] * factor, name), history, source=name)


def _learned(name: str, sweep: Sweep, protocol: Protocol) -> Contestant:
    policy, label = _artifact(name), label_of(name)
    settings = []
    for preference in sweep.preferences:
        spec = with_scale_down_window(protocol.spec(preference), sweep.scale_down_window_s)
        settings.append(Setting(f"{label}-{preference:g}", policy, spec))
    return Contestant(label, tuple(settings), policy.digest)


def _artifact(name: str) -> Policy:
    path = Path(name)
    reference = {"file": str(path)} if path.suffix == ".onnx" else {"builtin": name}
    try:
        return load_policy(reference)
    except PolicyError as error:
        known = ", ".join((*FORMULAS, *builtin_names()))
        raise ConfigError(f"--policy {name}: {error} (known are {known}, or an .onnx file)") from error
