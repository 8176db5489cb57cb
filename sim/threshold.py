"""The rule that people write by hand: add servers above one utilisation, remove below another, then wait.

What discrete policies are compared with (docs/discrete.md; `training/discrete.py` tunes it and plays it). It
decides from what the operator's policies may look at (`controller.core.View`), under the same guard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.core import ACTION_SCHEMAS, OBSERVATION_SCHEMA, ServiceSpec, View
from sim.baselines import Setting
from sim.errors import require

FloatArray = npt.NDArray[np.floating[Any]]
MEMORY_S = 300.0
"""The age of the last change is known as exp(-age / MEMORY_S), a feature of the observation."""
_UP, _DOWN = (OBSERVATION_SCHEMA.names.index(name) for name in ("since_scale_up", "since_scale_down"))


@dataclass(frozen=True)
class Threshold:
    """The rule's numbers."""

    add_above: float = 0.7
    """Utilisation of the ready servers above which servers are added."""
    remove_below: float = 0.4
    """Utilisation below which servers are removed."""
    add_share: float = 0.25
    """Share of the servers that is added at once; one at least."""
    remove_share: float = 0.1
    """Share of the servers that is removed at once; one at least."""
    cooldown_up_s: float = 60.0
    """Seconds after a change before servers are added again."""
    cooldown_down_s: float = 300.0
    """Seconds after a change before servers are removed again."""

    def __post_init__(self) -> None:
        ordered = 0 <= self.remove_below < self.add_above
        require(ordered, "remove_below", self.remove_below, f"0 or more, below add_above = {self.add_above}")
        for name in ("add_share", "remove_share"):
            require(0 < getattr(self, name) <= 10, name, getattr(self, name), "above 0, up to 10")
        for name in ("cooldown_up_s", "cooldown_down_s"):
            require(0 <= getattr(self, name) <= 1800, name, getattr(self, name), "in 0..1800")

    @property
    def name(self) -> str:
        """Its numbers, short."""
        steps = f"+{self.add_share:.0%}-{self.remove_share:.0%}"
        waits = f"{self.cooldown_up_s:g}s-{self.cooldown_down_s:g}s"
        return f"threshold-{self.remove_below:.0%}-{self.add_above:.0%}-{steps}-{waits}"


class ThresholdPolicy:
    """Core's Policy by that rule; without a utilisation it says nothing."""

    type = "Threshold"
    digest = ""
    schema = ""

    def __init__(self, rule: Threshold) -> None:
        self.rule = rule
        self.name = rule.name

    def recommend(self, view: View) -> FloatArray:
        """Replicas float `[N]`: the present ones, changed by the rule."""
        rule, used = self.rule, view.samples.utilisation
        newest = np.maximum(view.features[:, _UP], view.features[:, _DOWN])
        up = (used > rule.add_above) & (newest <= _decayed(rule.cooldown_up_s))
        down = (used < rule.remove_below) & (newest <= _decayed(rule.cooldown_down_s))
        change = np.where(up, rule.add_share, np.where(down, -rule.remove_share, 0.0))
        decode = ACTION_SCHEMAS["relative-change/v1"].decode
        changed = decode(change[:, None], view.current, view.load)
        return np.where(np.isnan(used), np.nan, changed)


def threshold(spec: ServiceSpec, rule: Threshold) -> Setting:
    """The rule as a contestant under this specification."""
    return Setting(rule.name, ThresholdPolicy(rule), spec)


def _decayed(seconds: float) -> np.float32:
    """The feature's value so long after a change, with room for its rounding."""
    return np.float32(np.exp(-seconds / MEMORY_S) * (1.0 + 1e-5))
