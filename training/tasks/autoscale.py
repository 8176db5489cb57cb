"""`--env autoscale`: one policy for any service, trained on generated or recorded traffic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import ConfigError
from training.tasks.base import Column, Published, Summary, Task, described, mean_of

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecEnv

    from training.artifact import Provenance
    from training.config import Preset
    from training.runs import Checkpoint, RunFolder

KINDS_OF = {"dqn": ("discrete", "band"), "sac": ("continuous",), "qlearning": ("discrete", "band")}
"""What an action can be for these algorithms; anything for the others."""
FRONTIER = ("cost_at_05", "cost_at_1")


class Autoscale(Task):
    """The simulator's batch of services, seen through the preset's action head."""

    name = "autoscale"
    algorithms = ("analytic", "ppo", "recurrent-ppo", "a2c", "dqn", "sac", "qlearning")
    default_preset = "default"
    shown = (
        Column("cost", "cost / fluid ideal"),
        Column("violation", "share of requests over the SLO", percent=True),
        Column("flaps_per_hour", "changes of direction an hour", in_bar=False),
        Column("cost_at_05", "cost at 0.5 % violations, generated windows", label="at 0.5 %"),
        Column("cost_at_1", "cost at 1 % violations, generated windows", label="at 1 %"),
    )

    def preset_for(self, algorithm: str | None) -> str:
        """Presets are called as their algorithms; `default` is the analytic one."""
        return self.default_preset if algorithm in (None, "analytic") else str(algorithm)

    def check(self, preset: Preset) -> None:
        """Recordings may be trained on; what an action can be depends on the algorithm."""
        self.check_algorithm(preset)
        allowed = KINDS_OF.get(preset.algo)
        if allowed and preset.action.kind not in allowed:
            raise ConfigError(
                f"action.kind: {preset.action.kind!r} is not allowed with algo: {preset.algo}; "
                f"{', '.join(allowed)} is"
            )

    def make(self, preset: Preset, seed: int, done: int = 0) -> VecEnv:
        """Services behind the preset's action head."""
        from training.environment import make_environment

        return make_environment(preset, seed, done)

    def columns(self, summaries: Sequence[Summary]) -> dict[str, float]:
        """Cost, violation and flaps: of all episodes, and of the cheap and the safe third of the dial."""
        row = _means(summaries, "")
        row |= _means([one for one in summaries if one["preference"] < 100 / 3], "_cheap")
        return row | _means([one for one in summaries if one["preference"] > 200 / 3], "_safe")

    def measured(self, preset: Preset) -> tuple[str, ...]:
        """The current frontier."""
        return FRONTIER

    def measure(self, preset: Preset, model: BaseAlgorithm) -> dict[str, float]:
        """One-knob costs at 0.5 and 1 % mean violation on a few generated windows."""
        from training.heldout import measure_policy, policy_of

        return measure_policy(policy_of(preset, model))

    def schemas(self, preset: Preset) -> dict[str, Any]:
        """Core's observation, and the action schema of the preset's head."""
        from controller.core import ACTION_SCHEMAS, OBSERVATION_SCHEMA
        from training.actions import make_head

        action = ACTION_SCHEMAS[make_head(preset.action).schema]
        return {
            "observation": described(OBSERVATION_SCHEMA),
            "action": {"name": action.name, "numbers": action.size, "meaning": action.description},
        }

    def export(self, model: BaseAlgorithm, preset: Preset, provenance: Provenance, out: Path) -> Published:
        """The artifact that the operator loads; of a recurrent policy, one that it refuses."""
        from training.actions import make_head
        from training.artifact import export_policy, read_metadata
        from training.recurrent import NOTE, export_recurrent, is_recurrent

        head = make_head(preset.action)
        write = export_recurrent if is_recurrent(model) else export_policy
        difference = write(model, head, provenance, out)
        card = read_metadata(out.read_bytes())
        return Published(card, difference, NOTE if is_recurrent(model) else "")

    def evaluate(self, run: RunFolder, model: BaseAlgorithm, checkpoint: Checkpoint) -> dict[str, Any]:
        """Frontiers of the policy, the HPA and the clairvoyant on held-out generated windows."""
        from training.heldout import evaluate_policy, policy_of

        return evaluate_policy(policy_of(run.preset(), model))


def _means(summaries: Sequence[Summary], suffix: str) -> dict[str, float]:
    return {name + suffix: mean_of(summaries, name) for name in ("cost", "violation", "flaps_per_hour")}


TASK = Autoscale()
