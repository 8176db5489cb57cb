"""One episode that the table plays without exploring, second after second: what dashboards show.

The service and its traffic are the same every time, from a seed that training does not use, so that two
pictures can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sim.envs.batch import AutoscaleBatch
from sim.physics import scalar
from sim.workloads import WorkloadMix
from training.config import Preset
from training.qlearning.learner import table_config
from training.qlearning.table import Table

FloatArray = npt.NDArray[np.floating]
HOURS = 4.0
SEED = 90_006
PREFERENCE = 50.0
PEAK_REPLICAS = 40.0
MIX = WorkloadMix(smooth=1.0, surges=2.0, steps=0.0, cron=0.0, spiky=0.0, outages=0.0, anything=0.0)
"""A day wave or flash crowds: what most services see."""


@dataclass(frozen=True)
class Showcase:
    """An episode of T control steps, float `[T]` each.

    hours: since its beginning. utilisation: of the ready servers, as metrics show it. load: servers that the
    traffic needs. ready, desired: servers. reward: of the step. choice: row of the head's table. violation:
    share of the step's requests. choices: what the rows are called.
    """

    hours: FloatArray
    utilisation: FloatArray
    load: FloatArray
    ready: FloatArray
    desired: FloatArray
    reward: FloatArray
    choice: FloatArray
    violation: FloatArray
    choices: tuple[str, ...]


COLUMNS = ("utilisation", "load", "ready", "desired", "reward", "choice", "violation")


@dataclass(frozen=True)
class Story:
    """What a dashboard tells: the episodes of training (`Learner.episodes`), and one that is played now."""

    episodes: Mapping[str, FloatArray]
    showcase: Showcase


def play_showcase(preset: Preset, table: Table) -> Showcase:
    """HOURS of a service with a peak of PEAK_REPLICAS servers, at the middle of the dial."""
    config = table_config(preset, table.head)
    scenario = replace(
        config.scenario,
        mix=MIX,
        preference=(PREFERENCE, PREFERENCE),
        peak_replicas=(PEAK_REPLICAS, PEAK_REPLICAS),
        sync_periods_s=config.scenario.sync_periods_s[:1],
    )
    period_s = scenario.sync_periods_s[0]
    steps = int(HOURS * 3600 / period_s)
    batch = AutoscaleBatch(replace(config, scenario=scenario, horizon_steps=steps, clones=1), 1, SEED, False)
    observations = batch.reset()
    capacity_rps = scalar(batch.params(0).capacity_rps)
    rows = []
    for _ in range(steps):
        choice = int(table.best[table.states.index(observations)[0]])
        result = batch.step([choice])
        now, shown = batch.situation(), batch.metrics()
        row = (shown.utilisation, now["requests_per_s"] / capacity_rps, now["ready_replicas"],
               now["desired_replicas"], result.rewards, [choice], now["violation_share"])  # fmt: skip
        rows.append([float(np.asarray(value)[0]) for value in row])
        observations = result.observations
    columns = np.array(rows).T
    hours = np.arange(1, steps + 1) * period_s / 3600.0
    return Showcase(hours, **dict(zip(COLUMNS, columns, strict=True)), choices=table.choices)
