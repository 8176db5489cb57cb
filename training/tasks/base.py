"""What `train.py --env` names: a task. It makes the environment, and says what is shown and published of it.

`training.session` trains any task with any of the algorithms that the task allows. Modules of tasks import
nothing heavy at their top (no torch, no numba), so that `train.py --help` stays fast: their methods do.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from training.errors import ConfigError

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecEnv

    from training.artifact import Provenance
    from training.config import Preset
    from training.runs import Checkpoint, RunFolder

Summary = Mapping[str, float]


@dataclass(frozen=True)
class Column:
    """A column of metrics.csv that people watch: in the bar, as a plot, in TensorBoard."""

    name: str
    title: str
    """Of its plot."""
    percent: bool = False
    """Whether the bar shows it times 100, with a percent sign."""
    in_bar: bool = True
    label: str = ""
    """What the bar calls it; its name if empty."""


@dataclass(frozen=True)
class Published:
    """What `Task.publish` left behind."""

    card: dict[str, Any] = field(default_factory=dict)
    """The content of card.json; the session adds size, last metrics row and evaluation."""
    difference: float | None = None
    """Largest difference between the artifact's graph and the model; None: there is no graph."""
    note: str = ""
    """What a reader should know, such as that the operator cannot serve it."""


class Task(ABC):
    """One environment that can be trained on."""

    name: ClassVar[str]
    """As in `--env`."""
    algorithms: ClassVar[tuple[str, ...]]
    """As in `--algo`; the first one is the default."""
    default_preset: ClassVar[str]
    """Used where neither `--preset` nor an algorithm says another."""
    shown: ClassVar[tuple[Column, ...]]
    """Columns of metrics.csv for bar, plots and TensorBoard, `reward` and `steps_per_s` apart."""

    def preset_for(self, algorithm: str | None) -> str:
        """The preset for an algorithm where `--preset` is not given."""
        return self.default_preset

    def check(self, preset: Preset) -> None:
        """Refuse a preset that this task cannot train. Raises ConfigError."""
        self.check_algorithm(preset)
        if preset.traces:
            raise ConfigError(f"traces: not allowed with env: {self.name}; autoscale has recordings")

    def check_algorithm(self, preset: Preset) -> None:
        """Refuse an algorithm that is not one of this task's. Raises ConfigError."""
        if preset.algo not in self.algorithms:
            allowed = ", ".join(self.algorithms)
            raise ConfigError(f"algo: {preset.algo!r} is not allowed with env: {self.name}; {allowed} are")

    @abstractmethod
    def make(self, preset: Preset, seed: int, done: int = 0) -> VecEnv:
        """`preset.num_envs` environments of Stable-Baselines3, seeded by `seed` and by the steps `done`.

        At an episode's end its info has a `summary`, a dict of floats. A run that is resumed at `done` steps
        gets new episodes instead of those that it has seen. Raises ConfigError for settings it does not know.
        """

    def begin(self, run: RunFolder, env: VecEnv) -> None:  # noqa: B027
        """A sitting begins: its run folder and its environments are there."""

    def policy(self, preset: Preset) -> tuple[Any, dict[str, Any]] | None:
        """A policy class of the task's own and its arguments; None: the library's, of `network`."""
        return None

    def columns(self, summaries: Sequence[Summary]) -> dict[str, float]:
        """Columns of a row of metrics.csv from the episodes that ended since the last; always the same ones.

        Here the means of what `shown` names, NaN where no episode ended or where the summary lacks it.
        """
        return {column.name: mean_of(summaries, column.name) for column in self.shown}

    def measured(self, preset: Preset) -> tuple[str, ...]:
        """Columns that `measure` fills now and then; NaN in between."""
        return ()

    def measure(self, preset: Preset, model: BaseAlgorithm) -> dict[str, float]:
        """A quick look at how good the policy is now, some seconds at most; called for < 3 % of the time."""
        return {}

    def schemas(self, preset: Preset) -> dict[str, Any]:
        """What a policy of this task observes and does, as plain JSON: `observation` (version, digest,
        features) and `action` (name, numbers or choices).

        It goes into run folders and models; `export.py` refuses a model whose schemas are not today's.
        """
        return {}

    @abstractmethod
    def export(self, model: BaseAlgorithm, preset: Preset, provenance: Provenance, out: Path) -> Published:
        """Write the policy to `out` as an artifact; what card.json is to say of it.

        Raises ExportError where the model does not fit, or the graph is not equal to it.
        """

    def publish(
        self, run: RunFolder, model: BaseAlgorithm, checkpoint: Checkpoint, name: str | None = None
    ) -> Published:
        """Write the policy of a run's checkpoint to `run.artifact`; what card.json is to say."""
        from training.publish import provenance

        return self.export(model, run.preset(), provenance(run, checkpoint, name), run.artifact)

    def evaluate(self, run: RunFolder, model: BaseAlgorithm, checkpoint: Checkpoint) -> dict[str, Any]:
        """A short evaluation on held-out episodes for card.json's `evaluation`; `{}`: there is none.

        Called after `publish`, not with `--no-evaluate`. About a minute at most.
        """
        return {}


def described(schema: Any) -> dict[str, Any]:
    """A schema of observations (`controller.core.ObservationSchema`) as artifacts have it."""
    return {"version": schema.version, "digest": schema.digest, "features": list(schema.names)}


def mean_of(summaries: Sequence[Summary], name: str) -> float:
    """Mean of a summary's number over episodes; NaN where there is none."""
    values = [one[name] for one in summaries if name in one]
    return math.fsum(values) / len(values) if values else math.nan
