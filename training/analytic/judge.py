"""A quick frontier inside the twin: every preference on evaluation windows, in seconds instead of minutes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sim.replay import Protocol, Window
from training.analytic.traffic import Pool, window_episode
from training.analytic.twin import Twin
from training.frontier import cost_at

Action = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Judged:
    """Cost over the ideal, share of requests that violate, changes of direction an hour: `[S, W]` each."""

    preferences: tuple[float, ...]
    cost: np.ndarray
    violation: np.ndarray
    flaps_per_hour: np.ndarray

    @property
    def mean_cost(self) -> np.ndarray:
        """Geometric mean over windows, `[S]`."""
        return np.asarray(np.exp(np.log(self.cost).mean(axis=1)))

    @property
    def mean_violation(self) -> np.ndarray:
        """Mean over windows, `[S]`."""
        return np.asarray(self.violation.mean(axis=1))

    def cost_at(self, level: float) -> float:
        """Geometric-mean cost at a mean violation with one preference for all; NaN where not reached."""
        return cost_at(self.mean_cost, self.mean_violation, level)


def window_pool(windows: Sequence[Window], protocol: Protocol, seed: int = 0) -> Pool:
    """The windows as episodes; all must be equally long."""
    steps = min(int(window.trace.duration_s // protocol.sync_period_s) for window in windows)
    return Pool([window_episode(one, protocol, steps, seed + i) for i, one in enumerate(windows)])


@torch.no_grad()
def judge(act: Action, pool: Pool, preferences: Sequence[float]) -> Judged:
    """Outcomes `[S, W]` of a policy at each preference (0..100) on the pool's episodes."""
    windows, count = len(pool), len(preferences)
    rows = torch.arange(windows).repeat(count)
    dial = torch.tensor([one / 100.0 for one in preferences]).repeat_interleave(windows)
    twin = Twin(pool, rows)
    state = twin.fresh()
    billed, late, arrived = torch.zeros(len(rows)), torch.zeros(len(rows)), torch.zeros(len(rows))
    flaps, ideal = torch.zeros(len(rows)), torch.zeros(len(rows))
    for step in range(pool.steps):
        at = torch.full((len(rows),), step)
        features, shown = twin.observe(state, at, dial)
        state, outcome = twin.step(state, at, act(features), shown)
        billed += outcome.billed
        late += outcome.late
        arrived += outcome.arrived
        ideal += pool.rates[rows, step].mean(1)
        flaps += outcome.flap
    hours = pool.steps * twin.constant("step_s") / 3600.0

    def shaped(values: torch.Tensor) -> np.ndarray:
        return values.reshape(count, windows).double().numpy()

    # an episode without any request has no ideal: its replicas are then counted as they are
    cost, violation = billed / ideal.clamp(min=1e-3), late / arrived.clamp(min=1e-6)
    return Judged(tuple(preferences), shaped(cost), shaped(violation), shaped(flaps / hours))
