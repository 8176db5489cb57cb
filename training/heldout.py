"""A policy in training on generated windows that it is not trained on: where its frontier is now.

`training.tasks.autoscale` calls this now and then while training (`measure_policy`, half a second), and at a
run's end for its card (`evaluate_policy`, half a minute). The comparison on recorded traffic is
`training/evaluate.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from controller.core import Policy
from controller.core.policy import ActionPolicy
from controller.policies.loader import load_policy
from sim.baselines import Setting, with_scale_down_window
from sim.replay import Protocol, ReplayResult, Window, replay
from training.actions import make_head
from training.config import Preset
from training.contestants import CLAIRVOYANT, HPA, Sweep, contestant, generated_windows
from training.frontier import cost_at, gap_closed
from training.networks import ActorWithHead, frozen
from training.recurrent import is_recurrent, torch_policy

MEASURED_SEED, CARD_SEED = 987_001, 987_002
"""Seeds of the windows: no training, tuning or evaluation uses them."""
MEASURED_WINDOWS, MEASURED_HOURS = 8, 4
CARD_WINDOWS, CARD_HOURS = 16, 12
LEVELS = {"cost_at_05": 0.005, "cost_at_1": 0.01}
CARD_LEVELS = (0.001, 0.005, 0.01)
ARRIVALS = 0
MakePolicy = Callable[[], Policy]
"""A policy for one replay: recurrent ones begin without a memory."""


class TorchPolicy(ActionPolicy):
    """A model's actor as it is at this moment, asked without ONNX."""

    name = "training"

    def __init__(self, actor: ActorWithHead, action_schema: str) -> None:
        self._actor, self.action_schema = actor, action_schema

    @torch.no_grad()
    def act(self, features: Any) -> Any:
        """Actions `[N, A]`."""
        return self._actor(torch.as_tensor(np.ascontiguousarray(features, dtype=np.float32))).numpy()


def policy_of(preset: Preset, model: BaseAlgorithm) -> MakePolicy:
    """The model's deterministic policy, as it is when asked."""
    head = make_head(preset.action)
    policy: Any = model.policy if model.device.type == "cpu" else frozen(model.policy)
    if is_recurrent(model):
        return lambda: torch_policy(policy, head)
    actor = ActorWithHead(policy, head)
    return lambda: TorchPolicy(actor, head.schema)


def measure_policy(make: MakePolicy) -> dict[str, float]:
    """One-knob costs over the ideal, by column, on a few windows; NaN where not reached."""
    protocol = _protocol(MEASURED_HOURS)
    result = _replayed(make, _windows(MEASURED_SEED, MEASURED_WINDOWS, MEASURED_HOURS), protocol)
    return {name: _one_knob(result, level) for name, level in LEVELS.items()}


def evaluate_policy(make: MakePolicy) -> dict[str, Any]:
    """What a card says: frontiers of policy, HPA and clairvoyant, and the share of the gap between closed."""
    protocol = _protocol(CARD_HOURS)
    windows = _windows(CARD_SEED, CARD_WINDOWS, CARD_HOURS)
    results = {"policy": _replayed(make, windows, protocol)}
    for name in (HPA, CLAIRVOYANT):
        results[name] = contestant(name, Sweep(), protocol).replay(windows, protocol, ARRIVALS)
    frontiers = {name: _frontier(result) for name, result in results.items()}
    return {
        "protocol": "generated windows of the simulator; one setting for all windows",
        "windows": CARD_WINDOWS,
        "window_hours": CARD_HOURS,
        "seed": CARD_SEED,
        "frontiers": frontiers,
        "cost_at": {f"{level:.1%}": _costs(results, level) for level in CARD_LEVELS},
    }


def evaluate_artifact(path: Path) -> dict[str, Any]:
    """`evaluate_policy` of an artifact."""
    policy = load_policy({"file": str(path)})
    return evaluate_policy(lambda: policy)


@cache
def _windows(seed: int, count: int, hours: int) -> tuple[Window, ...]:
    return tuple(generated_windows(count, seed, _protocol(hours)))


def _protocol(hours: int) -> Protocol:
    return Protocol(window_s=3600.0 * hours)


def _replayed(make: MakePolicy, windows: Sequence[Window], protocol: Protocol) -> ReplayResult:
    policy, sweep = make(), Sweep()
    settings = [
        Setting(
            f"{preference:g}",
            policy,
            with_scale_down_window(protocol.spec(preference), sweep.scale_down_window_s),
        )
        for preference in sweep.preferences
    ]
    return replay(windows, settings, protocol, ARRIVALS)


def _mean_cost(result: ReplayResult) -> Any:
    return np.exp(np.log(result.cost).mean(axis=1))


def _one_knob(result: ReplayResult, level: float) -> float:
    return cost_at(_mean_cost(result), result.violation.mean(axis=1), level)


def _frontier(result: ReplayResult) -> list[dict[str, Any]]:
    columns = {
        "setting": list(result.settings),
        "cost": _mean_cost(result).tolist(),
        "violation": result.violation.mean(axis=1).tolist(),
        "median_violation": np.median(result.violation, axis=1).tolist(),
        "flaps_per_hour": result.flaps_per_hour.mean(axis=1).tolist(),
    }
    return [
        {name: _rounded(value) for name, value in zip(columns, row, strict=True)}
        for row in zip(*columns.values(), strict=True)
    ]


def _costs(results: dict[str, ReplayResult], level: float) -> dict[str, float | None]:
    costs = {name: _one_knob(result, level) for name, result in results.items()}
    closed = float(gap_closed(costs["policy"], costs[HPA], costs[CLAIRVOYANT]))
    return {name: _rounded(value) for name, value in {**costs, "gap_closed": closed}.items()}


def _rounded(value: Any) -> Any:
    """Six digits are enough for a card; JSON has no NaN: null."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if np.isfinite(value) else None
