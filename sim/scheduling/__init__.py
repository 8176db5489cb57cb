"""Jobs onto servers, N clusters at once: place, hold or reject, with cpu, memory and speeds.

Called by `sim.envs.scheduling` and `training.scheduling`, and by whoever studies schedulers.

* A job arrives with a demand of cpu and memory and an estimate of its duration. It is put into one queue and
  offered to the scheduler, which places it on a server that has room, leaves it in the queue, or rejects it.
* Servers keep **reservations** (`overcommit=1`, the default), as kube-scheduler, Borg and Slurm do: what a
job
  asked for is its own until it ends, and it runs at its server's speed. With `overcommit` above 1 cpu can be
  oversold: an overloaded server's jobs share it evenly (processor sharing) and lose `thrash` on top. Memory
  is never oversold.
* When a job ends, waiting jobs are offered again in the queue's order: by arrival, those that fit nowhere
being
  passed over (kube-scheduler's active queue; backfilling without reservations), by estimated size, or
  strictly first come first served. Only jobs that fit somewhere are offered; a scheduler that holds `depth`
  of them is not asked again before the next event. While nothing runs at all, what fits has to be placed.
* A job that no server could ever take, or that comes to a full queue, is rejected at once.

Time goes from event to event, exactly: no ticks. Every job is to come, queued, running, finished or rejected,
once. Everything is a function of workload, servers, seed and decisions.
"""

from sim.scheduling.heuristics import HEURISTICS
from sim.scheduling.params import ORDERS, SchedulingParams, Servers, Workload
from sim.scheduling.physics import Outcome, SchedulingPhysics, run_heuristic

__all__ = [
    "HEURISTICS",
    "ORDERS",
    "Outcome",
    "SchedulingParams",
    "SchedulingPhysics",
    "Servers",
    "Workload",
    "run_heuristic",
]
