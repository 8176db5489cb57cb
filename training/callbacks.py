"""What happens between two updates: statistics, metrics rows, checkpoints, progress, and an orderly stop.

Everything hangs on one moment, the start of a rollout, when the update before is complete: a row of
metrics.csv, a checkpoint and a stop all fall on it, so a resumed run has the same rows as any other.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.callbacks import BaseCallback

from training.actions import HeadVecEnv
from training.config import Preset
from training.environment import mean_summaries
from training.networks import statistics
from training.progress import Progress
from training.runs import Checkpoint, MetricsFile, RunFolder

FloatArray = npt.NDArray[np.float32]
LOGGED = {
    "train/learning_rate": "learning_rate",
    "train/approx_kl": "approx_kl",
    "train/clip_fraction": "clip_fraction",
    "train/entropy_loss": "entropy_loss",
    "train/explained_variance": "explained_variance",
    "train/policy_gradient_loss": "policy_loss",
    "train/value_loss": "value_loss",
    "train/std": "std",
}


class StopTraining(Exception):
    """Ctrl-C was pressed: leave `learn` between two updates."""


class StopOnInterrupt:
    """While active, the first Ctrl-C (or SIGTERM) asks for a stop after this update; the second is final."""

    def __init__(self, announce: Callable[[], None]) -> None:
        self.requested = False
        self._announce = announce
        self._old: dict[int, Any] = {}

    def __enter__(self) -> StopOnInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._announce()


class Recorder(BaseCallback):
    """Keeps a run's records; see the module's docstring for when."""

    def __init__(
        self,
        env: HeadVecEnv,
        run: RunFolder,
        metrics: MetricsFile,
        progress: Progress,
        stop: StopOnInterrupt,
        seed: int,
        preset: Preset,
    ) -> None:
        super().__init__()
        self._env = env
        self._run = run
        self._metrics = metrics
        self._progress = progress
        self._stop = stop
        self._seed = seed
        self._checkpoint_every = preset.checkpoint_every
        self._normalise_until = preset.network.normalise_until
        self._started = time.monotonic() - metrics.elapsed_s
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
        buffer = getattr(self.model, "rollout_buffer", None)
        if buffer is not None and self.model.num_timesteps <= self._normalise_until:
            # the next rollout's start is too late: the buffer has been emptied by then
            self._seen = buffer.observations.reshape(-1, buffer.observations.shape[-1]).copy()

    def _on_rollout_start(self) -> None:
        self.finish_update()
        if self._stop.requested:
            raise StopTraining

    def finish_update(self) -> None:
        """Record the update that has just been completed; nothing to do before the first one."""
        steps = self.model.num_timesteps
        if steps == self._rows_at:
            return
        self._rows_at = steps
        self._move_statistics()
        row = self._row(steps)
        self._metrics.write(row)
        self._progress.update(row)
        self._tensorboard(row)
        if steps // self._checkpoint_every > self._last_checkpoint // self._checkpoint_every:
            self.save()

    def save(self) -> Checkpoint:
        """Write a checkpoint, unless there is one. The JSON goes last: a zip that has one is whole."""
        checkpoint = self._run.checkpoint_at(self.model.num_timesteps)
        self._last_checkpoint = checkpoint.timesteps
        if not checkpoint.state.is_file():
            self.model.save(checkpoint.model)
            state = {"timesteps": checkpoint.timesteps, "seed": self._seed, "updates": self.model._n_updates}
            checkpoint.state.write_text(json.dumps(state) + "\n")
        return checkpoint

    def _move_statistics(self) -> None:
        """After the update, so that it trained on the statistics that the rollout was sampled with."""
        features = statistics(self.model.policy)
        if features is not None and self._seen is not None:
            features.update(self._seen)
        self._seen = None

    def _row(self, steps: int) -> dict[str, float]:
        now = time.monotonic()
        then, steps_then = self._rate
        self._rate = (now, steps)
        row = {"timesteps": float(steps), "elapsed_s": now - self._started}
        row["steps_per_s"] = (steps - steps_then) / max(now - then, 1e-9)
        row["reward"], summaries = self._env.pop_results()
        row |= mean_summaries(summaries)
        logged = self.model.logger.name_to_value
        return row | {name: float(logged.get(key, np.nan)) for key, name in LOGGED.items()}

    def _tensorboard(self, row: dict[str, float]) -> None:
        for name in ("reward", "cost", "violation", "flaps_per_hour", "steps_per_s"):
            if name in row:
                self.logger.record(f"autoscale/{name}", row[name])
        self.logger.dump(self.model.num_timesteps)


def seed_everything(seed: int, timesteps: int) -> None:
    """Seed every generator from the seed and the step, so a run continued at a step is the same each time."""
    mixed = int(np.random.SeedSequence([seed, timesteps]).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)
