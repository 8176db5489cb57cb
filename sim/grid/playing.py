"""Playing policies through the same weeks, and the bound that knows them beforehand. Called by
evaluations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sim.errors import require
from sim.grid.baselines import GridPolicy
from sim.grid.batch import GridBatch, SmartGridConfig
from sim.grid.planning import perfect_foresight
from sim.grid.scenarios import GridScenario

FloatArray = npt.NDArray[np.floating]


def play(
    scenarios: Sequence[GridScenario], policy: GridPolicy, config: SmartGridConfig
) -> list[dict[str, float]]:
    """Summaries of each scenario's episode (`GridBatch`): `spent` is its costs less the worth of what is
    stored more at its end than at its beginning. All scenarios must have one length of step."""
    steps = {scenario.grid.steps_per_hour for scenario in scenarios}
    require(len(steps) == 1, "step_s", sorted(steps), "one length in all scenarios")
    batch = GridBatch(config, len(scenarios), autoreset=False, scenarios=scenarios)
    batch.reset()
    for _ in range(config.horizon_h * steps.pop()):
        result = batch.step(policy(batch))
    return result.episodes


def bound(scenario: GridScenario, config: SmartGridConfig) -> float:
    """What perfect foresight spends on the episode, counted as `spent` is."""
    batch = GridBatch(config, 1, autoreset=False, scenarios=[scenario])
    batch.reset()
    grid, length = scenario.grid, config.horizon_h * scenario.grid.steps_per_hour
    values = batch.stock_value[0, : len(grid.storages)]
    plan = perfect_foresight(grid, scenario.series.cut(scenario.start, length), values)
    before = sum(
        value * storage.initial * storage.energy_kwh
        for value, storage in zip(values, grid.storages, strict=True)
    )
    return plan.objective + float(before)
