"""What happens between two updates: statistics, metrics rows, checkpoints, progress, and an orderly stop.

Everything hangs on one moment, the start of a rollout, when the update before is complete: a row of
metrics.csv, a checkpoint and a stop all fall on it, so a resumed run has the same rows as any other.
"""

from __future__ import annotations

import json
import time

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from training.config import Preset
from training.environment import ResultsVecEnv
from training.interrupt import StopOnInterrupt, StopTraining
from training.measuring import Measuring
from training.networks import statistics
from training.progress import Progress
from training.runs import Checkpoint, MetricsFile, RunFolder
from training.sitting import seed_numpy
from training.tasks import Task

__all__ = ["Recorder", "StopOnInterrupt", "StopTraining", "seed_everything"]
FloatArray = npt.NDArray[np.float32]
LOGGED = {
    "train/learning_rate": "learning_rate",
    "train/approx_kl": "approx_kl",
    "train/clip_fraction": "clip_fraction",
    "train/entropy_loss": "entropy_loss",
    "train/explained_variance": "explained_variance",
    "train/policy_gradient_loss": "policy_loss",
    "train/policy_loss": "policy_loss",
    "train/value_loss": "value_loss",
    "train/std": "std",
    "train/loss": "loss",
    "train/actor_loss": "actor_loss",
    "train/critic_loss": "critic_loss",
    "train/ent_coef": "entropy_weight",
    "rollout/exploration_rate": "exploration_rate",
}
OF_ALGORITHM = {
    "dqn": ("learning_rate", "loss", "exploration_rate"),
    "sac": ("learning_rate", "actor_loss", "critic_loss", "entropy_weight"),
    "a2c": ("learning_rate", "entropy_loss", "explained_variance", "policy_loss", "value_loss", "std"),
}
"""Columns of LOGGED that an algorithm has; others: those of PPO."""
OF_PPO = ("learning_rate", "approx_kl", "clip_fraction", "entropy_loss", "explained_variance", "policy_loss",
          "value_loss", "std")  # fmt: skip


class Recorder(BaseCallback):
    """Keeps a run's records; see the module's docstring for when."""

    def __init__(
        self,
        env: ResultsVecEnv,
        run: RunFolder,
        metrics: MetricsFile,
        progress: Progress,
        stop: StopOnInterrupt,
        seed: int,
        preset: Preset,
        task: Task,
    ) -> None:
        super().__init__()
        self._env = env
        self._run = run
        self._metrics = metrics
        self._progress = progress
        self._stop = stop
        self._seed = seed
        self._preset = preset
        self._task = task
        self._started = time.monotonic() - metrics.elapsed_s
        self._measuring = Measuring(task.measured(preset), preset.timesteps)
        self._last_checkpoint = 0
        self._rows_at = 0
        self._seen: FloatArray | None = None
        self._rate = (time.monotonic(), 0)

    def _on_training_start(self) -> None:
        self._rows_at = self._last_checkpoint = self.model.num_timesteps
        self._rate = (time.monotonic(), self.model.num_timesteps)
        self._env.pop_results()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        seen = rollout_observations(self.model)
        for features in statistics(self.model.policy):
            features.widen(seen)
        if self.model.num_timesteps <= self._preset.network.normalise_until:
            # the next rollout's start is too late: the buffer has been emptied by then
            self._seen = seen.copy()

    def _on_rollout_start(self) -> None:
        self._move_statistics()
        steps, every = self.model.num_timesteps, self._preset.rows_every
        if steps // every > self._rows_at // every:
            self.finish_update()
            if self._stop.requested:
                raise StopTraining

    def finish_update(self) -> None:
        """Record the updates since the last row; nothing to do before the first one."""
        steps = self.model.num_timesteps
        if steps == self._rows_at:
            return
        self._move_statistics()
        row = self._row(steps)
        self._rows_at = steps
        self._metrics.write(row)
        self._progress.update(row)
        self._tensorboard(row)
        every = self._preset.checkpoint_every
        if steps // every > self._last_checkpoint // every:
            self.save()

    def save(self) -> Checkpoint:
        """Write a checkpoint, unless there is one. The JSON goes last: a zip that has one is whole."""
        checkpoint = self._run.checkpoint_at(self.model.num_timesteps)
        self._last_checkpoint = checkpoint.timesteps
        if not checkpoint.state.is_file():
            self.model.save(checkpoint.model)
            save_replay_buffer(self.model, checkpoint)
            state = {"timesteps": checkpoint.timesteps, "seed": self._seed, "updates": self.model._n_updates}
            checkpoint.state.write_text(json.dumps(state) + "\n")
        return checkpoint

    def _move_statistics(self) -> None:
        """After the update, so that it trained on the statistics that the rollout was sampled with."""
        if self._seen is not None:
            for features in statistics(self.model.policy):
                features.update(self._seen)
        self._seen = None

    def _row(self, steps: int) -> dict[str, float]:
        now = time.monotonic()
        then, steps_then = self._rate
        row = {"timesteps": float(steps), "elapsed_s": now - self._started}
        row["steps_per_s"] = (steps - steps_then) / max(now - then, 1e-9)
        row["reward"], summaries = self._env.pop_results()
        row |= self._task.columns(summaries)
        row |= self._measuring.columns(
            self._rows_at, steps, lambda: self._task.measure(self._preset, self.model)
        )
        self._rate = (time.monotonic(), steps)
        wanted = OF_ALGORITHM.get(self._preset.algo, OF_PPO)
        logged = self.model.logger.name_to_value
        found = {name: float(logged[key]) for key, name in LOGGED.items() if key in logged}
        return row | {name: found.get(name, np.nan) for name in wanted}

    def _tensorboard(self, row: dict[str, float]) -> None:
        for name in ("reward", "steps_per_s", *(column.name for column in self._task.shown)):
            if row.get(name, np.nan) == row.get(name):
                self.logger.record(f"{self._task.name}/{name}", row[name])
        self.logger.dump(self.model.num_timesteps)


def rollout_observations(model: BaseAlgorithm) -> FloatArray:
    """Observations `[B, F]` of the rollout that has just been collected."""
    if not isinstance(model, OffPolicyAlgorithm):
        observations = model.rollout_buffer.observations  # type: ignore[attr-defined]
        return np.asarray(observations.reshape(-1, observations.shape[-1]))
    buffer = model.replay_buffer
    assert buffer is not None
    steps = min(int(model.train_freq.frequency), buffer.size())  # type: ignore[union-attr]
    newest = (buffer.pos - 1 - np.arange(steps)) % buffer.buffer_size
    seen = buffer.observations[newest]
    return np.asarray(seen.reshape(-1, seen.shape[-1]))


def save_replay_buffer(model: BaseAlgorithm, checkpoint: Checkpoint) -> None:
    """Beside the checkpoint, in place of older ones: they are large, and only the newest is continued."""
    if not isinstance(model, OffPolicyAlgorithm):
        return
    model.save_replay_buffer(checkpoint.replay_buffer)
    for path in checkpoint.model.parent.glob("*" + checkpoint.replay_buffer.suffix):
        if path != checkpoint.replay_buffer:
            path.unlink()


def load_replay_buffer(model: BaseAlgorithm, checkpoint: Checkpoint) -> bool:
    """Take the checkpoint's replay buffer, if the algorithm has one; False where it is missing."""
    if not isinstance(model, OffPolicyAlgorithm):
        return True
    if not checkpoint.replay_buffer.is_file():
        return False
    model.load_replay_buffer(checkpoint.replay_buffer, truncate_last_traj=False)
    return True


def seed_everything(seed: int, timesteps: int) -> None:
    """Seed every generator from the seed and the step, so a run continued at a step is the same each time."""
    torch.manual_seed(seed_numpy(seed, timesteps))
