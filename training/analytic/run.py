"""One sitting of `train.py --algo analytic`: the same run folder and artifact as any other algorithm's.

`training.train` hands over to `train` here, `training.export` to `export`.
"""

from __future__ import annotations

from pathlib import Path

import torch

from sim.replay import Protocol
from sim.scenario import ScenarioConfig
from training import updating
from training.analytic.artifact import export_network
from training.analytic.judge import judge, window_pool
from training.analytic.learner import Learner, seen_range
from training.analytic.policy import BandNetwork
from training.analytic.traffic import SYNC_PERIODS_S, Pool
from training.artifact import read_metadata
from training.callbacks import seed_everything
from training.config import Preset
from training.contestants import Sweep, generated_windows
from training.environment import simulator_config
from training.errors import ConfigError, ExportError
from training.heldout import LEVELS, MEASURED_HOURS, MEASURED_SEED, MEASURED_WINDOWS, evaluate_artifact
from training.publish import provenance
from training.recordings import Recordings
from training.runs import Checkpoint, RunFolder
from training.sitting import Plan, finish, say_stopped
from training.tasks import Published
from training.updating import read_checkpoint, updates_for

ALGO = "analytic"


class Trainer(updating.Trainer):
    """The learner of one run, judged on a few windows now and then."""

    def __init__(self, plan: Plan, run: RunFolder, learner: Learner) -> None:
        super().__init__(plan, run, learner, steps_an_update(plan.preset), learner.updates, tuple(LEVELS))
        self.learner = learner
        self._measured: Pool | None = None

    def prepare(self) -> None:
        """Make the first episodes."""
        self.learner.prepare()

    def measure(self) -> dict[str, float]:
        """The averaged network's frontier on a few windows, inside the twin: one batch, a second."""
        if self._measured is None:
            protocol = Protocol(window_s=3600.0 * MEASURED_HOURS)
            windows = generated_windows(MEASURED_WINDOWS, MEASURED_SEED, protocol)
            self._measured = window_pool(windows, protocol)
        judged = judge(self.learner.average, self._measured, Sweep().preferences)
        return {name: judged.cost_at(level) for name, level in LEVELS.items()}


def train(plan: Plan) -> int:
    """Train as planned; 0 done, 130 stopped by Ctrl-C (saved)."""
    torch.set_num_threads(1)
    # vanishing probabilities would be computed with a hundred times slower
    torch.set_flush_denormal(True)
    trainer = _begin(plan)
    run = trainer.run
    print(f"run folder: {run.path}", flush=True)
    checkpoint, finished = trainer.learn()
    if not finished:
        say_stopped(run, checkpoint)
        return 130
    difference = export(run, checkpoint, run.artifact, None)
    evaluation = evaluate_artifact(run.artifact) if plan.args.evaluate else {}
    card = read_metadata(run.artifact.read_bytes())
    finish(plan, run, checkpoint, Published(card, difference), evaluation)
    return 0


def export(run: RunFolder, checkpoint: Checkpoint, out: Path, name: str | None) -> float:
    """Write the artifact of a checkpoint's averaged weights; the largest difference to them."""
    network = BandNetwork(run.preset(), serving=True)
    state = read_checkpoint(checkpoint.model, ALGO)
    try:
        network.load_state_dict(state["average"])
    except (KeyError, RuntimeError) as error:
        raise ExportError(f"{checkpoint.model}: does not fit the run's preset: {error}") from error
    return export_network(network, provenance(run, checkpoint, name), out, seen=seen_range(state))


def steps_an_update(preset: Preset) -> int:
    """Control steps in one unroll of all services."""
    return preset.num_envs * preset.analytic.unroll_steps


def scenario_of(preset: Preset) -> ScenarioConfig:
    """The services and workloads of the preset's environment; refuses what the twin cannot do."""
    content = preset.environment.get("scenario", {})
    scenario = simulator_config(ScenarioConfig, content, "environment.scenario.")
    strange = sorted(set(scenario.sync_periods_s) - set(SYNC_PERIODS_S))
    if strange:
        allowed = f"any of {SYNC_PERIODS_S}"
        raise ConfigError(f"environment.scenario.sync_periods_s: {strange} is not allowed; {allowed} is")
    if max(scenario.scale_down_windows_s) > 300:
        windows = scenario.scale_down_windows_s
        raise ConfigError(
            f"environment.scenario.scale_down_windows_s: {windows} is not allowed; up to 300 is"
        )
    return scenario


def _begin(plan: Plan) -> Trainer:
    """The learner, new or as the checkpoint left it."""
    preset, seed = plan.preset, plan.seed
    seed_everything(seed, plan.done)
    updates = updates_for(preset.timesteps, steps_an_update(preset))
    recordings = Recordings.load(preset.traces, preset.trace_share)
    learner = Learner(preset, scenario_of(preset), seed, updates, recordings)
    if plan.checkpoint is not None:
        learner.load(read_checkpoint(plan.checkpoint.model, ALGO), seed)
    return Trainer(plan, plan.open(), learner)
