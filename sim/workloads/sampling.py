"""Domain randomisation: a workload drawn at random for each training episode.

Harsh and varied on purpose, since a policy learns only the trouble that it has seen. The draws of a family
never change: a preset reproduces by its seed. New families therefore have weight 0 unless they are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sim.errors import require
from sim.workloads.applications import LlmInference, Serverless
from sim.workloads.base import DAY_S, HOUR_S, WEEK_S, FloatArray, Workload, is_number
from sim.workloads.bursts import AnnouncedEvents, DeployDips, FlashCrowds, Mmpp, Outages, Spiky
from sim.workloads.compose import Product, Sum
from sim.workloads.noise import Noise, OnOff, SelfSimilar
from sim.workloads.shapes import Cron, Diurnal, Ramp, Staircase, Weekly


@dataclass(frozen=True)
class WorkloadMix:
    """How often `sample_workload` draws each family (any positive scale; 0 never)."""

    smooth: float = 2.0
    """A day's wave (at any speed) with noise."""
    surges: float = 2.5
    """A wave with flash crowds."""
    steps: float = 1.5
    """Jumps between levels and ramps."""
    cron: float = 1.0
    """A wave with regular spikes."""
    spiky: float = 2.0
    """Bursts out of nothing or nearly nothing."""
    outages: float = 1.0
    """A wave with dips and rebounds."""
    anything: float = 1.5
    """Several of these at once."""
    events: float = 0.0
    """A wave with announced events: build-up, plateau, sharp last peak."""
    weekly: float = 0.0
    """A week from hourly and daily profiles with noise."""
    staircase: float = 0.0
    """Load-test stairs, with jumps or ramps."""
    self_similar: float = 0.0
    """A wave with fractional noise, or heavy-tailed callers."""
    serverless: float = 0.0
    """Functions together: a few popular ones, timers at full minutes."""
    llm: float = 0.0
    """Conversations with a language model, bursty and partly silent."""
    deploys: float = 0.0
    """A wave with the dips of rolling deployments."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(is_number(value) and value >= 0, name, value, "0 or more")
        require(sum(vars(self).values()) > 0, "mix", self, "positive for at least one family")

    @classmethod
    def wide(cls) -> WorkloadMix:
        """Every family, the newer ones as often as the middling old ones: half of all draws are new."""
        return cls(
            events=2.0, weekly=1.5, staircase=1.0, self_similar=2.0, serverless=1.5, llm=2.0, deploys=1.0
        )


def sample_shape(rng: np.random.Generator, mix: WorkloadMix | None = None) -> Workload:
    """Draw a workload with random parameters; its level is about 1 and only its shape matters."""
    weights = vars(mix or WorkloadMix())
    share = np.array(list(weights.values())) / sum(weights.values())
    family = list(weights)[int(rng.choice(len(share), p=share))]
    return _FAMILIES[family](rng)


def sample_workload(
    rng: np.random.Generator, duration_s: float, dt_s: float, mix: WorkloadMix | None = None
) -> FloatArray:
    """Random rates `[ceil(duration_s / dt_s) + 1]`, one every `dt_s`, scaled to a peak of 1.

    This is the domain randomisation of training. Deterministic by `rng`.
    """
    require(duration_s > 0, "duration_s", duration_s, "greater than 0")
    require(0 < dt_s <= duration_s, "dt_s", dt_s, f"in 0..{duration_s:g}")
    times_s = rng.uniform(0.0, WEEK_S) + np.arange(math.ceil(duration_s / dt_s) + 1) * dt_s
    rates = sample_shape(rng, mix).rates(times_s, rng)
    peak = float(rates.max())
    return rates / peak if peak > 1e-9 else np.full(len(times_s), 0.5)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def _wave(rng: np.random.Generator) -> Workload:
    return Diurnal(
        day_amplitude=rng.uniform(0.0, 0.9),
        half_day_amplitude=rng.uniform(0.0, 0.3),
        weekend_drop=rng.uniform(0.0, 0.6),
        peak_s=rng.uniform(0.0, DAY_S),
        # a wave of two hours makes an episode see what takes others a day
        period_s=DAY_S if rng.random() < 0.5 else _log_uniform(rng, 2 * HOUR_S, DAY_S),
    )


def _noise(rng: np.random.Generator) -> Workload:
    return Noise(
        _log_uniform(rng, 0.01, 0.5), (_log_uniform(rng, 15, 120), 300.0, _log_uniform(rng, 600, 6000))
    )


def _surges(rng: np.random.Generator) -> Workload:
    return FlashCrowds(
        per_day=_log_uniform(rng, 2, 60),
        magnitude=_log_uniform(rng, 0.3, 12),
        magnitude_spread=rng.uniform(0.2, 1.0),
        rise_s=_log_uniform(rng, 5, 900),
        hold_s=_log_uniform(rng, 15, 1800),
        decay_s=_log_uniform(rng, 30, 3600),
    )


def _levels(rng: np.random.Generator) -> Workload:
    count = int(rng.integers(2, 7))
    levels = np.exp(rng.uniform(-2.5, 0.0, count))
    jumps = Mmpp(tuple(float(level) for level in levels), _log_uniform(rng, 60, 3600))
    if rng.random() < 0.5:
        return jumps
    ramp = Ramp(float(levels[0]), float(levels[1]), rng.uniform(0, WEEK_S), _log_uniform(rng, 300, DAY_S))
    return Product((jumps, ramp))


def _cron(rng: np.random.Generator) -> Workload:
    period_s = float(rng.choice([300.0, 600.0, 900.0, 1800.0, 3600.0, 21600.0]))
    width_s = min(_log_uniform(rng, 15, 600), period_s / 2)
    return Cron(period_s, rng.uniform(0, period_s), width_s, _log_uniform(rng, 0.3, 6))


def _spiky(rng: np.random.Generator) -> Workload:
    floor = 0.0 if rng.random() < 0.5 else _log_uniform(rng, 0.002, 0.2)
    burst_s = _log_uniform(rng, 10, 900)
    return Spiky(burst_s * _log_uniform(rng, 0.5, 20), burst_s, 1.0, rng.uniform(0.1, 1.2), floor)


def _outages(rng: np.random.Generator) -> Workload:
    return Outages(
        per_day=_log_uniform(rng, 2, 24),
        length_s=_log_uniform(rng, 30, 1800),
        depth=rng.uniform(0.3, 1.0),
        rebound=rng.uniform(0.0, 1.5),
        rebound_s=_log_uniform(rng, 30, 600),
    )


def _anything(rng: np.random.Generator) -> Workload:
    base = Sum((_wave(rng), _spiky(rng))) if rng.random() < 0.5 else _wave(rng)
    factors = [make(rng) for make in (_surges, _cron, _outages, _levels) if rng.random() < 0.5]
    return Product((base, *factors, _noise(rng)))


def _events(rng: np.random.Generator) -> Workload:
    return AnnouncedEvents(
        per_day=_log_uniform(rng, 2, 16),
        magnitude=_log_uniform(rng, 0.5, 10),
        magnitude_spread=rng.uniform(0.1, 0.6),
        build_up_s=_log_uniform(rng, 300, 7200),
        length_s=_log_uniform(rng, 600, 10800),
        finale=rng.uniform(0.0, 1.0),
        finale_s=_log_uniform(rng, 120, 1200),
        decay_s=_log_uniform(rng, 300, 7200),
    )


def _weekly(rng: np.random.Generator) -> Workload:
    hours = np.maximum(np.asarray(Weekly().hours) * np.exp(0.15 * rng.standard_normal(24)), 0.05)
    shifted = np.roll(hours, int(rng.integers(24)))
    weekend = rng.uniform(0.3, 1.1, 2)
    days = np.concatenate([rng.uniform(0.9, 1.1, 5), weekend])
    return Weekly(hours=tuple(map(float, shifted)), days=tuple(map(float, days)))


def _staircase(rng: np.random.Generator) -> Workload:
    levels = tuple(float(level) for level in np.exp(rng.uniform(-2.5, 0.0, int(rng.integers(3, 9)))))
    ramp_s = 0.0 if rng.random() < 0.5 else _log_uniform(rng, 30, 1800)
    return Staircase(levels, _log_uniform(rng, 120, 3600), ramp_s, rng.uniform(0, DAY_S))


def _self_similar(rng: np.random.Generator) -> Workload:
    if rng.random() < 0.5:
        return SelfSimilar(rng.uniform(0.6, 0.95), _log_uniform(rng, 0.05, 0.6))
    on_s = _log_uniform(rng, 10, 300)
    off_s = on_s * _log_uniform(rng, 0.5, 8)
    return OnOff(1.0, int(rng.integers(5, 80)), on_s, off_s, rng.uniform(1.15, 1.9))


def _serverless(rng: np.random.Generator) -> Workload:
    return Serverless(
        mean=_log_uniform(rng, 0.05, 50),
        functions=int(rng.integers(3, 40)),
        popularity_sigma=rng.uniform(1.0, 3.5),
        timer_share=rng.uniform(0.0, 0.5),
        variation=_log_uniform(rng, 1.0, 6.0),
        day_amplitude=rng.uniform(0.0, 0.6),
    )


def _llm(rng: np.random.Generator) -> Workload:
    return LlmInference(
        mean=_log_uniform(rng, 0.02, 5),
        variation=_log_uniform(rng, 1.0, 5.0),
        turns=rng.uniform(1.0, 6.0),
        think_s=_log_uniform(rng, 20, 200),
        think_spread=rng.uniform(0.3, 1.2),
        idle_share=0.0 if rng.random() < 0.5 else rng.uniform(0.05, 0.8),
        active_s=_log_uniform(rng, 300, 7200),
        day_amplitude=rng.uniform(0.0, 0.8),
        peak_s=rng.uniform(0, DAY_S),
    )


def _deploys(rng: np.random.Generator) -> Workload:
    return DeployDips(
        per_day=_log_uniform(rng, 2, 24),
        batches=int(rng.integers(1, 9)),
        batch_s=_log_uniform(rng, 30, 300),
        depth=rng.uniform(0.05, 0.6),
        from_hour=0.0,
        to_hour=24.0,
    )


_FAMILIES: dict[str, Callable[[np.random.Generator], Workload]] = {
    "smooth": lambda rng: Product((_wave(rng), _noise(rng))),
    "surges": lambda rng: Product((_wave(rng), _surges(rng), _noise(rng))),
    "steps": lambda rng: Product((_levels(rng), _noise(rng))),
    "cron": lambda rng: Product((_wave(rng), _cron(rng), _noise(rng))),
    "spiky": lambda rng: Product((_spiky(rng), _noise(rng))),
    "outages": lambda rng: Product((_wave(rng), _outages(rng), _noise(rng))),
    "anything": _anything,
    "events": lambda rng: Product((_wave(rng), _events(rng), _noise(rng))),
    "weekly": lambda rng: Product((_weekly(rng), _noise(rng))),
    "staircase": lambda rng: Product((_staircase(rng), _noise(rng))),
    "self_similar": lambda rng: Product((_wave(rng), _self_similar(rng))),
    "serverless": _serverless,
    "llm": _llm,
    "deploys": lambda rng: Product((_wave(rng), _deploys(rng), _noise(rng))),
}
