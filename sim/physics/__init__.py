"""Services under load, N at once, as a fluid with 1-s steps: what a replica count does to latency and cost.

Called by the environments, by replay, and by the cluster twin. One compiled kernel advances every
service by its own number of seconds. In each second, for a service with `c` ready replicas of joint
capacity `C` requests/s:

* arrivals are Poisson round the rate, over-dispersed, or the rate itself; at most `C` are served, in order;
* who waits longer than `timeout_s` leaves as an error, so that the backlog never exceeds `timeout_s * C`;
  who failed comes again with `retry_share`, after an exponential time;
* latency is `backlog / C` plus service plus `W`, where `W` is the wait of `sim.latency`: M/M/c in
  Sakasegawa's approximation with an exponential tail. Its rho is limited to RHO_MAX: beyond it no stationary
  wait exists and the backlog carries the overload. Service is
  `base_latency_ms`, or gamma distributed (`servicetimes`);
* percentiles, the share over the objective and histograms are read off that one distribution;
* replicas can crash, fall with their node, be slow, cold, crowded or answer errors (`faults`, `flow`).

A replica is billed from its creation until `drain_s` after its removal: what it holds by then it finishes,
so removal costs no request, while the backlog, which no replica holds yet, stays for the others. New replicas
take `start_up_s` to serve; a smaller count removes those that are not ready first, as a ReplicaSet does.

What the metrics show differs from the truth as Prometheus makes it differ (`metrics`): counters are sampled
at each scrape, rates are increases over the samples of a window, scrapes can get lost, all of it can lag.

All noise is a function of the service's seed and of a counter (`sim.noise`): runs with other actions see the
same first attempts, and the same numbers decide on faults.

The kernels `reset_rows`, `place_rows`, `scale_rows`, `advance_rows` and `metrics_rows` take the arrays of
`ServicePhysics.arrays` and can be called from other compiled code. Whoever caches such code (`cache=True`)
must delete its cache when this package changes: numba only looks at the caller's own file.
"""

from sim.latency import RHO_MAX
from sim.physics import layout, params
from sim.physics.advance import advance_rows
from sim.physics.layout import *  # noqa: F403
from sim.physics.metrics import metrics_rows
from sim.physics.params import *  # noqa: F403
from sim.physics.replicas import place_rows, reset_rows, scale_rows
from sim.physics.service import Interval, ServiceMetrics, ServicePhysics, service_seeds, to_samples

__all__ = [
    "RHO_MAX",
    "Interval",
    "ServiceMetrics",
    "ServicePhysics",
    "advance_rows",
    "metrics_rows",
    "place_rows",
    "reset_rows",
    "scale_rows",
    "service_seeds",
    "to_samples",
    *layout.__all__,
    *params.__all__,
]
