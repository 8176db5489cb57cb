"""How each heuristic rates the servers, compiled: what stands beside a decision in an answer."""

from __future__ import annotations

import numpy as np

from sim.compiled import counted
from sim.scheduling.events import fits, rate_of
from sim.scheduling.heuristics import (
    FIRST_FIT,
    LEAST_LOADED,
    POWER_OF_TWO,
    RANDOM,
    ROUND_ROBIN,
    SHORTEST_DELAY,
    left_after,
    taken,
    until_room,
)
from sim.scheduling.layout import C_OFFERED, C_TURN, TOLERANCE


@counted
def rate_servers(code, a, scores, able):  # type: ignore[no-untyped-def]
    """For the offered job: float64 `[S]` as `strategies.MEANINGS` says (NaN: does not apply), bool `[S]`
    whether there is room."""
    job, servers = a.counts[0, C_OFFERED], a.speed.shape[1]
    count = 0
    for s in range(servers):
        able[s] = fits(0, job, s, a)
        count += able[s]
    for s in range(servers):
        scores[s] = np.nan
        large = a.cpu[0, job] <= a.has_cpu[0, s] + TOLERANCE
        large = large and a.memory[0, job] <= a.has_memory[0, s] + TOLERANCE
        if code == SHORTEST_DELAY and large:
            if able[s]:
                rate = rate_of(0, s, a.used_cpu[0, s] + a.cpu[0, job], a)
                scores[s] = a.estimate_s[0, job] / rate
            else:
                scores[s] = a.estimate_s[0, job] / a.speed[0, s] + until_room(0, job, s, a)
        elif able[s]:
            if code == ROUND_ROBIN:
                scores[s] = (s - a.counts[0, C_TURN]) % servers
            elif code == RANDOM:
                scores[s] = 1.0 / count
            elif code == FIRST_FIT:
                scores[s] = s
            elif code in (LEAST_LOADED, POWER_OF_TWO):
                scores[s] = taken(0, s, a)
            else:
                scores[s] = left_after(0, job, s, a)
