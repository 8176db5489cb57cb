"""Several pools behind one route, N sets at once: what replicas and route weights do to latency and cost.

Called by `sim.envs.pools` and by whoever studies a split of traffic. Every pool is a service of
`sim.physics`, with its queue, replicas, faults, metrics and billing; this module adds what they share. In
each second, for a set with the weights w (integers that sum to 100) in force:

* arrivals are drawn once for the whole set (Poisson round its rate, from the set's own seed and clock) and
  thinned over the pools: a pool's number is binomial with w_p over what is left, so that all of them are
  multinomial, as where a proxy draws a backend for each request (Envoy's `weighted_clusters`). Poisson
  arrivals thinned so are Poisson again in each pool; weights never change how many requests come;
* weights that are asked for come into force `propagation_s` later: a gateway's controller has to see them,
  and its proxies to take them over. What arrives before a change that was asked for earlier replaces it;
* a pool without a ready replica fails its share at once, as a proxy does that has no endpoint (503);
* who failed comes again with `retry_share`, after a time that is exponential with mean `retry_after_s`, by
  the weights then in force; `arrived` counts attempts, `offered` first attempts;
* **reclaims** take replicas from a pool, one by one (`reclaims_per_hour` of each) or many together
  (`sweeps_per_hour`, `sweep_share` of them). A replica that is told to go serves on for `notice_s`, and is
  replaced at once; after a sweep no new one can be had for `shortage_s` (mean, exponential);
* **grey failures** are of a pool, not of a replica (those are the service's own parameters): while it is slow
  its capacity is divided, and its latency without waiting multiplied, by `slowdown_factor`; in an outage it
  answers `outage_error_share` of its requests with an error, at no cost of capacity. Neither shows in its
  readiness. Durations are exponential.

A pool is billed `cost_per_replica` for each replica-second of its service, from creation to the end of
draining; a reclaimed replica until it is taken. All noise is a function of seed, clock and pool: two runs
that differ in replicas or weights see the same arrivals and the same events.
"""

from sim.pools.params import MAX_POOLS, WEIGHT_TOTAL, PoolArrays, PoolParams, RouteParams
from sim.pools.physics import PoolsInterval, PoolsMetrics, PoolsPhysics, equal_weights

__all__ = [
    "MAX_POOLS",
    "WEIGHT_TOTAL",
    "PoolArrays",
    "PoolParams",
    "PoolsInterval",
    "PoolsMetrics",
    "PoolsPhysics",
    "RouteParams",
    "equal_weights",
]
