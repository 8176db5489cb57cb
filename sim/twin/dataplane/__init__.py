"""Real requests for the twin: HTTP servers of different speeds behind a real Envoy, whose weights are those
of HTTPRoute objects. Called by the demo, `benchmarks.dataplane` and `tests/dataplane` (docs/dataplane.md)."""

from sim.twin.dataplane.clients import Clients, Sample
from sim.twin.dataplane.gateway import Gateway
from sim.twin.dataplane.proxy import Envoy, EnvoyError
from sim.twin.dataplane.servers import PoolServer

__all__ = ["Clients", "Envoy", "EnvoyError", "Gateway", "PoolServer", "Sample"]
