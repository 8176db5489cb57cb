"""Request-level simulation: the second fidelity, for validation. See docs/fidelity.md."""

from sim.requests.simulator import RequestSimulator
from sim.requests.world import ALL_BALANCERS, BALANCERS

__all__ = ["ALL_BALANCERS", "BALANCERS", "RequestSimulator"]
