"""Request-level simulation: the second fidelity, for validation. See docs/fidelity.md."""

from sim.requests.simulator import RequestSimulator
from sim.requests.world import BALANCERS

__all__ = ["BALANCERS", "RequestSimulator"]
