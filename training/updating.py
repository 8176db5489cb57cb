"""What sittings of our own learners share: a run folder, a learner, and the book-keeping between two updates.

`training.analytic.run` and `training.poolsets.run` are the callers; Stable-Baselines3's algorithms have
`training.session`.
"""

from __future__ import annotations

import json
import pickle
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.tensorboard import SummaryWriter

from training.errors import ExportError
from training.interrupt import StopOnInterrupt, announce_stop
from training.measuring import Measuring
from training.progress import make_progress
from training.runs import Checkpoint, MetricsFile, RunFolder
from training.sitting import Plan


class Learner(Protocol):
    """Something that is updated, and counts it."""

    done: int

    def update(self) -> dict[str, float]:
        """One update; its figures, `loss` among them."""

    def state(self) -> dict[str, Any]:
        """All that a checkpoint holds."""


class Trainer(ABC):
    """Updates a learner. steps_an_update: control steps that one update is made from; updates: in the end."""

    def __init__(
        self,
        plan: Plan,
        run: RunFolder,
        learner: Learner,
        steps_an_update: int,
        updates: int,
        measured: Sequence[str],
    ) -> None:
        self.plan, self.run, self.preset = plan, run, plan.preset
        self._learner, self._steps_an_update, self._updates = learner, steps_an_update, updates
        self.metrics = MetricsFile(run.metrics, self.steps)
        self._events = SummaryWriter(str(run.path / "tensorboard"), purge_step=self.steps)
        self._started = time.monotonic() - self.metrics.elapsed_s
        self._measuring = Measuring(tuple(measured), self.preset.timesteps)

    @abstractmethod
    def measure(self) -> dict[str, float]:
        """How good the policy is by now, under the names that were given as `measured`."""

    def prepare(self) -> None:  # noqa: B027
        """Called once, when Ctrl-C is already heard and the progress bar is there."""

    @property
    def steps(self) -> int:
        """Control steps so far, over all services or sets."""
        return self._learner.done * self._steps_an_update

    def learn(self) -> tuple[Checkpoint, bool]:
        """Update until the preset's steps are reached, or until Ctrl-C; the last checkpoint, and whether."""
        every, shown = self.preset.checkpoint_every, self.plan.task.shown
        with (
            StopOnInterrupt(announce_stop) as stop,
            make_progress(self.preset.timesteps, self.steps, self.plan.args.progress, shown) as progress,
        ):
            self.prepare()
            while self._learner.done < self._updates and not stop.requested:
                before = self.steps
                progress.update(self._update(before))
                if self.steps // every > before // every:
                    self.save()
        self._events.close()
        return self.save(), self._learner.done >= self._updates

    def save(self) -> Checkpoint:
        """Write a checkpoint, unless there is one. The JSON goes last: a zip that has one is whole."""
        checkpoint = self.run.checkpoint_at(self.steps)
        if not checkpoint.state.is_file():
            torch.save(self._learner.state(), checkpoint.model)
            state = {"timesteps": checkpoint.timesteps, "seed": self.plan.seed, "updates": self._learner.done}
            checkpoint.state.write_text(json.dumps(state) + "\n")
        return checkpoint

    def _update(self, before: int) -> dict[str, float]:
        began = time.monotonic()
        outcome = self._learner.update()
        now = time.monotonic()
        row = {
            "timesteps": float(self.steps),
            "elapsed_s": now - self._started,
            "steps_per_s": self._steps_an_update / max(now - began, 1e-9),
            "reward": -outcome["loss"],
            **outcome,
            **self._measuring.columns(before, self.steps, self.measure),
        }
        self.metrics.write(row)
        for name in ("reward", "steps_per_s", *(column.name for column in self.plan.task.shown)):
            if row[name] == row[name]:
                self._events.add_scalar(f"{self.plan.task.name}/{name}", row[name], self.steps)
        return row


def updates_for(steps: int, steps_an_update: int) -> int:
    """Updates that make up at least so many control steps."""
    return max(1, -(-steps // steps_an_update))


def read_checkpoint(path: Path, algo: str) -> dict[str, Any]:
    """What a learner saved. Raises ExportError, which names the algorithm that it is not of."""
    try:
        return dict(torch.load(path, weights_only=True))
    except FileNotFoundError:
        raise ExportError(f"{path}: no such model") from None
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise ExportError(f"{path}: not a checkpoint of --algo {algo}: {error}") from error
