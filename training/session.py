"""One sitting of `train.py` with Stable-Baselines3 or sb3-contrib, from the plan to the artifact."""

from __future__ import annotations

from dataclasses import dataclass

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import configure

from training.algorithms import load_model, make_model, one_thread
from training.callbacks import Recorder, load_replay_buffer, seed_everything
from training.config import dump_preset
from training.environment import ResultsVecEnv
from training.interrupt import StopOnInterrupt, StopTraining, announce_stop
from training.progress import make_progress
from training.runs import Checkpoint, MetricsFile, RunFolder, git_commit, versions
from training.sitting import Plan, finish, say_stopped
from training.stamps import Stamp


@dataclass
class Sitting:
    """A run folder with a model that is ready to learn until the preset's timesteps."""

    plan: Plan
    run: RunFolder
    model: BaseAlgorithm
    env: ResultsVecEnv


def train(plan: Plan) -> int:
    """Train as planned; see `train.main` for the exit status."""
    one_thread()
    sitting = _begin(plan)
    run = sitting.run
    print(f"run folder: {run.path}", flush=True)
    plan.task.begin(run, sitting.env)
    try:
        checkpoint, finished = _learn(sitting)
    finally:
        sitting.env.close()
    if not finished:
        say_stopped(run, checkpoint)
        return 130
    published = plan.task.publish(run, sitting.model, checkpoint)
    evaluation = plan.task.evaluate(run, sitting.model, checkpoint) if plan.args.evaluate else {}
    finish(plan, run, checkpoint, published, evaluation)
    return 0


def _begin(plan: Plan) -> Sitting:
    """The model on its environment, new or as the checkpoint left it."""
    preset, seed, device = plan.preset, plan.seed, plan.args.device
    seed_everything(seed, plan.done)
    env = ResultsVecEnv(plan.task.make(preset, seed, plan.done))
    if plan.checkpoint is None:
        model = make_model(preset, env, seed, device, plan.task.policy(preset))
        return _stamped(Sitting(plan, plan.open(), model, env))
    model = load_model(plan.checkpoint.model, env, device, preset.algo)
    model.action_space.seed(seed + plan.done)
    if not load_replay_buffer(model, plan.checkpoint):
        print(f"{plan.checkpoint.replay_buffer} is missing: the policy goes on with an empty replay buffer")
    return _stamped(Sitting(plan, plan.open(), model, env))


def _stamped(sitting: Sitting) -> Sitting:
    """Its checkpoints say what they are, wherever they are taken."""
    plan = sitting.plan
    Stamp(
        preset=dump_preset(plan.preset),
        seed=plan.seed,
        commands=sitting.run.commands(),
        git_commit=git_commit(),
        versions=versions(),
        schemas=plan.task.schemas(plan.preset),
        traces=plan.traces,
    ).put_on(sitting.model)
    return sitting


def _learn(sitting: Sitting) -> tuple[Checkpoint, bool]:
    """Learn until the preset's timesteps, or until Ctrl-C; the last checkpoint, and whether it is the end."""
    run, plan, preset, model = sitting.run, sitting.plan, sitting.plan.preset, sitting.model
    model.set_logger(configure(str(run.path / "tensorboard"), ["tensorboard"]))
    metrics = MetricsFile(run.metrics, plan.done)
    with (
        StopOnInterrupt(announce_stop) as stop,
        make_progress(preset.timesteps, plan.done, plan.args.progress, plan.task.shown) as progress,
    ):
        recorder = Recorder(sitting.env, run, metrics, progress, stop, plan.seed, preset, plan.task)
        try:
            model.learn(
                preset.timesteps - plan.done,
                callback=recorder,
                log_interval=None,  # type: ignore[arg-type]
                reset_num_timesteps=plan.done == 0,
            )
            finished = True
        except StopTraining:
            finished = False
        recorder.finish_update()
        return recorder.save(), finished
