"""One sitting of `train.py --env pools --algo evolution`: the same run folder and card as any other run's.

`training.train` hands over to `train` here, `training.export` to `export`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from controller.policies.loader import builtin_names
from sim.envs.pool_batch import PoolsConfig
from training import updating
from training.artifact import read_metadata
from training.callbacks import seed_everything
from training.config import Preset
from training.environment import simulator_config
from training.errors import ConfigError, ExportError
from training.heldout_pools import evaluate_decider
from training.poolsets.export import BUILTIN, ServiceBand, export_pools, pools_metadata
from training.poolsets.learner import Learner, decider_of, loss_of, seen_range
from training.poolsets.network import PoolsNetwork
from training.poolsets.playing import ArtifactDecider, Ejecting, play
from training.publish import provenance
from training.runs import Checkpoint, RunFolder
from training.sitting import Plan, finish, say_stopped
from training.tasks import Published
from training.updating import read_checkpoint, updates_for

ALGO = "evolution"
MEASURED_SEED, MEASURED_EPISODES = 988_003, 128
"""Of the episodes that show how good the policy is while it is trained: no training and no benchmark uses
them."""
MEASURED = ("measured_loss",)


class Trainer(updating.Trainer):
    """The learner of one run, measured on held-out episodes now and then."""

    def __init__(self, plan: Plan, run: RunFolder, learner: Learner) -> None:
        updates = _updates(plan.preset, plan.preset.timesteps)
        super().__init__(plan, run, learner, steps_an_update(plan.preset), updates, MEASURED)
        self.learner = learner

    def measure(self) -> dict[str, float]:
        """The averaged network's mean loss on held-out episodes, each at its own preference."""
        settings = self.preset.evolution
        act = Ejecting(decider_of(self.learner.average, self.learner.band), settings.ejects)
        played = play(config_of(self.preset), act, MEASURED_EPISODES, MEASURED_SEED)
        return {"measured_loss": float(np.mean(loss_of(played, settings)))}


def train(plan: Plan) -> int:
    """Train as planned; 0 done, 130 stopped by Ctrl-C (saved)."""
    torch.set_num_threads(1)
    trainer = _begin(plan)
    run = trainer.run
    print(f"run folder: {run.path}", flush=True)
    checkpoint, finished = trainer.learn()
    if not finished:
        say_stopped(run, checkpoint)
        return 130
    difference = export(run, checkpoint, run.artifact, None)
    data = run.artifact.read_bytes()
    evaluation = {}
    if plan.args.evaluate:
        decide = ArtifactDecider(data)
        evaluation = evaluate_decider(decide, config_of(plan.preset), plan.preset.evolution.ejects)
    finish(plan, run, checkpoint, Published(read_metadata(data), difference), evaluation)
    return 0


def export(run: RunFolder, checkpoint: Checkpoint, out: Path, name: str | None) -> float:
    """Write the artifact of a checkpoint's averaged parameters; the largest difference to them."""
    state = read_checkpoint(checkpoint.model, ALGO)
    network = PoolsNetwork(run.preset().evolution.width)
    try:
        network.load_state_dict(state["average"])
        band = ServiceBand(state["band"])
    except (KeyError, RuntimeError) as error:
        raise ExportError(f"{checkpoint.model}: does not fit the run's preset: {error}") from error
    content = pools_metadata(provenance(run, checkpoint, name), seen=seen_range(state))
    content["provenance"]["service_policy"] = band.digest
    return export_pools(network, out, content, band)


def steps_an_update(preset: Preset) -> int:
    """Control steps of all sets in an episode."""
    return preset.num_envs * config_of(preset).horizon_steps


def config_of(preset: Preset) -> PoolsConfig:
    """The preset's environment: whole episodes, numbers of a Box."""
    for name in ("clones", "levels", "stagger"):
        if name in preset.environment:
            raise ConfigError(f"environment.{name}: not allowed with algo: evolution")
    return simulator_config(PoolsConfig, preset.environment)


def _begin(plan: Plan) -> Trainer:
    """The learner, new or as the checkpoint left it."""
    preset, seed = plan.preset, plan.seed
    seed_everything(seed, plan.done)
    state = None if plan.checkpoint is None else read_checkpoint(plan.checkpoint.model, ALGO)
    band = _band(preset.evolution.service_policy) if state is None else ServiceBand(state["band"])
    falls = _updates(preset, preset.evolution.schedule_steps or preset.timesteps)
    learner = Learner(preset, replace(config_of(preset), clones=2), band, seed, falls)
    if state is not None:
        learner.load(state)
    return Trainer(plan, plan.open(), learner)


def _updates(preset: Preset, steps: int) -> int:
    """Updates that make up at least so many control steps."""
    return updates_for(steps, steps_an_update(preset))


def _band(name: str) -> ServiceBand:
    path = BUILTIN.with_name(f"{name}.onnx")
    if not path.is_file():
        known = ", ".join(builtin_names())
        raise ConfigError(f"evolution.service_policy: {name!r} is not one of {known}")
    return ServiceBand.from_file(path)
