"""`--env grid`: a small electricity grid, run a week at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.errors import ConfigError
from training.tasks.base import Column, Published, Task, described

if TYPE_CHECKING:
    from pathlib import Path

    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecEnv

    from sim.grid.batch import SmartGridConfig
    from training.artifact import Provenance
    from training.config import Preset

OBSERVATION_VERSION, ACTION_SCHEMA = "grid/v1", "grid-box/v1"
FILES = ("grid_file", "series_file")
NOTE = (
    "this policy runs electricity grids (training/grid.py evaluate --policy NAME=FILE); the autoscaling "
    f"operator refuses its schema {OBSERVATION_VERSION!r}"
)


class SmartGrid(Task):
    """`rlscaler/SmartGrid-v0`: generated grids, or (environment.grid_file, series_file) one of your own."""

    name = "grid"
    algorithms = ("ppo", "sac", "a2c")
    default_preset = "grid"
    shown = (
        Column("saving", "saved against no storage, steps' bills a step", percent=True),
        Column("bill", "costs, steps' bills a step"),
        Column("unserved", "share of the load unserved", percent=True),
        Column("curtailed", "share of sun and wind curtailed", percent=True, in_bar=False),
        Column("autonomy", "share of the load not imported", percent=True, in_bar=False),
        Column("cycles_per_day", "full cycles of the storages a day", in_bar=False),
    )

    def preset_for(self, algorithm: str | None) -> str:
        """SAC has its own."""
        return "grid-sac" if algorithm == "sac" else self.default_preset

    def make(self, preset: Preset, seed: int, done: int = 0) -> VecEnv:
        """Grids side by side."""
        from sim.envs.grid_sb3 import SmartGridVecEnv
        from training.environment import episode_seed, without_render_warning

        with without_render_warning():
            return SmartGridVecEnv(preset.num_envs, environment_config(preset), episode_seed(seed, done))

    def policy(self, preset: Preset) -> tuple[Any, dict[str, Any]] | None:
        """An actor that begins as a rule (`training.smartgrid.network`); SAC has the library's."""
        if preset.algo == "sac":
            return None
        from training.networks import policy_kwargs
        from training.smartgrid.network import LOG_STD, RuleFirstPolicy

        count = environment_config(preset).dispatchables
        return RuleFirstPolicy, {
            **policy_kwargs(preset.network),
            "log_std_init": LOG_STD,
            "dispatchables": count,
        }

    def schemas(self, preset: Preset) -> dict[str, Any]:
        """The features of site, dispatchables and storages; a number for each of the latter two."""
        config = environment_config(preset)
        return schemas_of(config.dispatchables, config.storages)

    def export(self, model: BaseAlgorithm, preset: Preset, provenance: Provenance, out: Path) -> Published:
        """The actor as ONNX, in a schema of its own that the operator refuses."""
        from training.artifact import export_actor

        difference, card = export_actor(model, self.schemas(preset), provenance, out)
        return Published(card, difference, NOTE)

    def evaluate(self, run: Any, model: BaseAlgorithm, checkpoint: Any) -> dict[str, Any]:
        """Costs over perfect foresight's on held-out generated weeks, the policy's and the rules'."""
        from training.smartgrid.evaluation import generated_card

        return generated_card(run.artifact)


def environment_config(preset: Preset) -> SmartGridConfig:
    """The environment's settings with the preset's on top. Raises ConfigError."""
    from sim.errors import SimulationError
    from sim.grid.batch import SmartGridConfig
    from sim.grid.files import load_grid
    from sim.grid.series import fit_series, load_series
    from training.environment import simulator_config

    content = dict(preset.environment)
    files = {name: content.pop(name) for name in FILES if name in content}
    if not files:
        return simulator_config(SmartGridConfig, {"stagger": True, **content})
    if "grid_file" not in files:
        raise ConfigError("environment.series_file: not allowed without environment.grid_file")
    try:
        grid = load_grid(files["grid_file"])
        series = fit_series(grid, load_series(files["series_file"])) if "series_file" in files else None
        count = {"dispatchables": len(grid.dispatchables), "storages": len(grid.storages)}
        known = simulator_config(SmartGridConfig, {"stagger": True, **count, **content})
        return SmartGridConfig(**{**vars(known), "grid": grid, "series": series})
    except SimulationError as error:
        raise ConfigError(f"environment: {error}") from error


def schemas_of(dispatchables: int, storages: int) -> dict[str, Any]:
    """What a policy for so many dispatchables and storages observes and does."""
    from dataclasses import replace

    from controller.core import ObservationSchema
    from sim.grid.features import SITE_SCHEMA, SOURCE_SCHEMA, STORAGE_SCHEMA

    features = list(SITE_SCHEMA.features)
    for kind, count, schema in (
        ("dispatchable", dispatchables, SOURCE_SCHEMA),
        ("storage", storages, STORAGE_SCHEMA),
    ):
        features += [
            replace(feature, name=f"{kind}{place}_{feature.name}")
            for place in range(count)
            for feature in schema.features
        ]
    observation = described(ObservationSchema(OBSERVATION_VERSION, tuple(features)))
    slots = {"dispatchables": dispatchables, "storages": storages}
    return {
        "observation": observation | slots,
        "action": {"name": ACTION_SCHEMA, "numbers": dispatchables + storages},
    }


TASK = SmartGrid()
