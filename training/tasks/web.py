"""`--env web`: batches of web requests onto servers, simulated or real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import ConfigError
from training.tasks.base import Column, Published, Task, described

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecEnv

    from sim.webbalancing.batch import WebConfig
    from training.artifact import Provenance
    from training.config import Preset
    from training.runs import Checkpoint, RunFolder

OBSERVATION_VERSION, ACTION_SCHEMA = "web-flat/v1", "web-discrete/v1"
ERRORS_LOG = "errors.log"
NOTE = (
    "this policy balances web requests (python training/web_balancing.py); the autoscaling operator refuses "
    f"its schema {OBSERVATION_VERSION!r}"
)


class Web(Task):
    """`rlscaler/WebBalancing-v0`. DQN gets the network that values every server by the same layers."""

    name = "web"
    algorithms = ("dqn", "ppo", "a2c")
    default_preset = "webbalancing"
    shown = (
        Column("cost", "mean cost of a request, reference times"),
        Column("accuracy", "share of batches sent where least cost was expected", percent=True),
        Column("gini", "Gini of requests over capacity"),
        Column("errors", "share of requests that failed", percent=True),
        Column("p99_ms", "p99 latency, ms", in_bar=False),
        Column("phase", "phase of the curriculum"),
        Column("logged", "lines in errors.log", in_bar=False),
    )

    def check(self, preset: Preset) -> None:
        """Real servers have one balancer."""
        super().check(preset)
        if _config(preset).face == "real" and preset.num_envs != 1:
            raise ConfigError(f"num_envs: {preset.num_envs} is not allowed with environment.face: real; 1 is")

    def make(self, preset: Preset, seed: int, done: int = 0) -> VecEnv:
        """Balancers side by side, as far in the curriculum as the steps `done` are."""
        from sim.webbalancing.sb3 import WebVecEnv
        from training.environment import episode_seed, without_render_warning

        config = _config(preset)
        config = replace(config, begin_at=done // config.batches)
        with without_render_warning():
            return WebVecEnv(preset.num_envs, config, episode_seed(seed, done))

    def begin(self, run: RunFolder, env: VecEnv) -> None:
        """Open the run's errors.log."""
        env.env_method("log_errors_to", run.path / ERRORS_LOG)

    def policy(self, preset: Preset) -> tuple[Any, dict[str, Any]] | None:
        """The network of `training.webbalancing.network`, as wide as `network.actor`'s first layer."""
        if preset.algo != "dqn":
            return None
        from training.webbalancing.network import ServerValuesPolicy

        return ServerValuesPolicy, {"width": preset.network.actor[0]}

    def schemas(self, preset: Preset) -> dict[str, Any]:
        """The features of each server and of the fleet; a value for each server."""
        return schemas_of(_config(preset).servers)

    def export(self, model: BaseAlgorithm, preset: Preset, provenance: Provenance, out: Path) -> Published:
        """The values as ONNX; those of DQN a tenth as large, which changes no choice."""
        from training.artifact import export_actor
        from training.webbalancing.network import ServerValuesPolicy, with_smaller_values

        if isinstance(model.policy, ServerValuesPolicy):
            model = with_smaller_values(model)
        difference, card = export_actor(model, self.schemas(preset), provenance, out)
        return Published(card, difference, NOTE)

    def evaluate(self, run: RunFolder, model: BaseAlgorithm, checkpoint: Checkpoint) -> dict[str, Any]:
        """50 held-out episodes of each phase in the twin, the policy's and the formulas'."""
        from training.webbalancing.evaluation import card

        return card(run.artifact, _config(run.preset()))


def _config(preset: Preset) -> WebConfig:
    from sim.webbalancing.batch import WebConfig
    from training.environment import simulator_config

    return simulator_config(WebConfig, preset.environment)


def schemas_of(servers: int) -> dict[str, Any]:
    """Observation and action before so many servers."""
    from controller.core import ObservationSchema
    from sim.webbalancing.features import FLEET_SCHEMA, SERVER_SCHEMA

    features = tuple(
        replace(feature, name=f"server_{place}_{feature.name}")
        for place in range(servers)
        for feature in SERVER_SCHEMA.features
    )
    flat = ObservationSchema(OBSERVATION_VERSION, features + FLEET_SCHEMA.features)
    return {"observation": described(flat), "action": {"name": ACTION_SCHEMA, "choices": servers}}


TASK = Web()
