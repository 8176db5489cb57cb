from __future__ import annotations

import pytest

from sim.envs import AutoscaleConfig
from sim.scenario import ScenarioConfig


@pytest.fixture
def short() -> AutoscaleConfig:
    """Episodes of 12 steps with little history: resets come often."""
    return AutoscaleConfig(horizon_steps=12, scenario=ScenarioConfig(histories_s=(0.0, 3600.0)))
