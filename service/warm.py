"""Compiles all that a request could need, before the first one comes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from service.cluster import Asked, Cluster
from service.demo import FLEET, PARAMS
from service.jobs import RUNNING
from service.strategies import Strategy, strategies

logger = logging.getLogger(__name__)

LONG_S = 2.0


def warm_up(known: Mapping[str, Strategy] | None = None) -> None:
    """Go through a short life of a small cluster, with every strategy."""
    started = time.perf_counter()
    told = threading.Timer(LONG_S, logger.info, ("compiling; only the first start takes this long",))
    told.daemon = True
    told.start()
    try:
        _live(known or strategies(len(FLEET)))
    finally:
        told.cancel()
    took = time.perf_counter() - started
    if took > LONG_S:
        logger.info("compiled in %.0f s", took)


def _live(known: Mapping[str, Strategy]) -> None:
    cluster = Cluster(FLEET, known, PARAMS)
    for name in known:
        for explain in (True, False):
            cluster.explain = explain
            cluster.submit(Asked(FLEET.unit_cpu, 1.0, 5.0, 5.0), name, cluster.clock_s)
    first = cluster.waiting(1)
    for job in [*first, *(job for job in list(cluster.active()) if job.status == RUNNING)][:2]:
        cluster.finish(job.id, cluster.clock_s)
    again = Cluster(FLEET, known, PARAMS)
    again.restore(list(cluster.active()), cluster.live.memory(), cluster.clock_s)
    again.advance(1e6)
