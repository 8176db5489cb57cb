"""Keeps Python's cycle collector from going over ten thousand RLScalers again and again.

Each answer of Prometheus is tens of thousands of short-lived objects, and for every few answers the collector
would look at everything that is alive: a second of standstill each time. What lives long is therefore set
aside (`gc.freeze`) every minute, and looked at as a whole once an hour only.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc

YOUNG = 20_000
MAPPED = 64 * 1024
"""Bytes from which a piece of memory is the system's own mapping and goes back as a whole when it is freed.
glibc would raise this to 32 MiB by itself, and the heap would grow round holes."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
FIRST_REAL_S = 20.0
EVERY_REAL_S = 60.0
WHOLE_EVERY = 60
"""A collection of everything, what was set aside included, for each so many others."""


def map_large_pieces() -> None:
    """From now on large pieces of memory are the system's own; before much is read."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(_M_MMAP_THRESHOLD, MAPPED)
        library.mallopt(_M_TRIM_THRESHOLD, 2 * MAPPED)


async def set_aside() -> None:
    """Until cancelled. What is reachable lives on; unreachable cycles among what was set aside wait."""
    gc.set_threshold(YOUNG, 10, 10)
    gc.freeze()  # what is there at the start is all needed
    rounds = 0
    while True:
        await asyncio.sleep(EVERY_REAL_S if rounds else min(FIRST_REAL_S, EVERY_REAL_S))
        rounds += 1
        if rounds % WHOLE_EVERY == 0:
            gc.unfreeze()
        gc.collect()
        gc.freeze()
        _give_back()


def _give_back() -> None:
    """Free memory back to the system, of which the start has taken more than is needed later."""
    with contextlib.suppress(OSError, AttributeError):  # glibc's own
        ctypes.CDLL("libc.so.6").malloc_trim(0)
