"""What a scheduler may do with the offered job, compiled."""

from __future__ import annotations

from sim.compiled import counted
from sim.scheduling.events import fits, may_hold, may_reject
from sim.scheduling.layout import C_OFFERED


@counted
def action_masks(a, masks):  # type: ignore[no-untyped-def]
    """Write bool `[N, S + 2]`: servers with room, holding, rejecting; where nothing is offered only
    holding."""
    servers = a.speed.shape[1]
    for i in range(len(masks)):
        job = a.counts[i, C_OFFERED]
        for s in range(servers):
            masks[i, s] = job >= 0 and fits(i, job, s, a)
        masks[i, servers] = job < 0 or may_hold(i, a)
        masks[i, servers + 1] = job >= 0 and may_reject(i, a)
