"""The operator's decision engine, compiled for simulation: `FusedEngine`, and its row kernels.

`sim.replay` and the environments call it; `controller.core` remains the reference (tests/sim/test_fused.py).
"""

from sim.fused.engine import FusedDecisions, FusedEngine
from sim.fused.layout import EngineArrays

__all__ = ["EngineArrays", "FusedDecisions", "FusedEngine"]
