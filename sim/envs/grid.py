"""Gymnasium's faces of the smart-grid environment: one grid (`Env`), or N side by side (`VectorEnv`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sim.envs.vector import BatchEnv, BatchVectorEnv, feature_table, filled_in
from sim.grid.batch import GridBatch, SmartGridConfig
from sim.grid.drawing import GridFrame, draw_state, tell
from sim.grid.features import SITE_SCHEMA, SOURCE_SCHEMA, STORAGE_SCHEMA, observation_bounds


def observation_space(config: SmartGridConfig) -> spaces.Box:
    """The Box of SITE_SCHEMA, then SOURCE_SCHEMA a dispatchable, then STORAGE_SCHEMA a storage."""
    low, high = observation_bounds(config.dispatchables, config.storages)
    return spaces.Box(low, high, dtype=np.float32)


def action_space(config: SmartGridConfig) -> spaces.Box:
    """A Box in -1..1: a level a dispatchable, a power a storage."""
    return spaces.Box(-1.0, 1.0, (config.actions,), dtype=np.float32)


class SmartGridEnv(BatchEnv):
    """Run the dispatchable sources and the storages of a small electricity grid for a week.

    ## Description
    Consumers, sun and wind do what they do; the agent decides, each step (an hour), how dispatchable sources
    run and what storages take or give. The rest is imported and exported, and what is then still missing or
    left over is unserved or curtailed, at a price: `sim.grid` has the physics, in which energy is conserved
    exactly. A step's load and weather are known when it is decided on (a storage's inverter follows its meter
    within seconds), those of later steps are not; the import price is known 12 hours ahead.

    ## Action space
    `Box(-1, 1, (D + S,), float32)`: for each dispatchable its level (-1 its least, 1 its largest, within its
    ramp), then for each storage its power (-1 discharging, 1 charging with all it has, within its energy).
    What is asked of an absent one is ignored.

    ## Observation space
    `Box`, float32, shape ({site} + D * {source} + S * {storage},), scale-free: powers over the peak load,
    prices over the mean of the week before the episode. First the site:

    {site_table}

    then each dispatchable (all 0 where there is none):

    {source_table}

    then each storage:

    {storage_table}

    ## Rewards
    The money of a step over that of a step of mean load at the mean price (of the week before), each term in
    `info`: `reference` less `imports`, `exports` (below 0 where they earn), `fuel`, `wear`, `carbon`,
    `unserved`, `curtailment` and `stock` (worth of the energy that left the storages, at the mean price).
    `reference` is what the step would have cost without storages, dispatchables run in the order of their
    cost: it does not depend on actions and takes the weather out of the reward. So a return is what was
    saved, in steps' bills, and minus what it is short of `reference` is what evaluation counts. Weights:
    `sim.grid.batch.GridReward`.

    ## Starting state
    `sim.grid.scenarios` draws a grid (a home, a community, a microgrid, an island) and a week with the one
    before it; or the config's own grid, its weather drawn or a random week of its series. `reset(seed=...)`
    fixes all of it.

    ## Episode end
    Never terminated; truncated after `horizon_h` (168) hours: bootstrap the value there.

    ## Information
    Each step: the terms, `price`, `cost`, `hour`, the flows in kW (`load_kw`, `solar_kw`, `wind_kw`,
    `dispatched_kw`, `charge_kw`, `discharge_kw`, `imported_kw`, `exported_kw`, `unserved_kw`, `curtailed_kw`)
    and, arrays, `dispatchable_kw` `[D]`, `storage_kw`, `stored_kwh`, `charge_share` `[S]`. At truncation
    `summary`, the episode in numbers.

    ## Rendering
    `rgb_array`: the grid as a network with its flows, and the last days (needs matplotlib). `ansi`: lines of
    text.

    ## Version history
    * v0: first version, observation `grid/v1`.
    """

    def __init__(self, config: SmartGridConfig | None = None, render_mode: str | None = None) -> None:
        self.config = config or SmartGridConfig()
        super().__init__(
            lambda seed: GridBatch(self.config, 1, seed, autoreset=False),
            observation_space(self.config),
            action_space(self.config),
            render_mode,
        )

    def frame_of(self, info: dict[str, Any], action: Any) -> GridFrame:
        """A step for the pictures."""
        batch = self.running()
        return GridFrame.of(info, batch.scenarios[0], int(batch.physics.arrays.clock[0]) - 1)

    def draw_ansi(self, frames: list[GridFrame]) -> str:
        """The grid now and the last two days as lines of text."""
        return tell(self.running().scenarios[0].grid, frames)

    def draw_rgb(self, frames: list[GridFrame]) -> npt.NDArray[np.uint8]:
        """The network with its flows above the last days, uint8 `[480, 640, 3]`."""
        return draw_state(self.running().scenarios[0].grid, frames)


class SmartGridVectorEnv(BatchVectorEnv):
    """N grids of `SmartGridEnv` in one batch; grid i seeded with `seed + i` lives as a lone one would."""

    def __init__(self, num_envs: int = 1, config: SmartGridConfig | None = None) -> None:
        self.config = config or SmartGridConfig()
        super().__init__(
            lambda seed: GridBatch(self.config, num_envs, seed),
            num_envs,
            observation_space(self.config),
            action_space(self.config),
        )


SmartGridEnv.__doc__ = filled_in(
    SmartGridEnv.__doc__,
    {
        "site": str(SITE_SCHEMA.size),
        "source": str(SOURCE_SCHEMA.size),
        "storage": str(STORAGE_SCHEMA.size),
        "site_table": feature_table(SITE_SCHEMA.features),
        "source_table": feature_table(SOURCE_SCHEMA.features),
        "storage_table": feature_table(STORAGE_SCHEMA.features),
    },
)
