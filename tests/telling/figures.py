"""`python -m tests.telling.figures`: what telemetry and records of 10,000 RLScalers take."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from controller.core.observation import OBSERVATION_SCHEMA
from controller.decisions import DecisionLog
from controller.metrics import SignalReading
from controller.objectseries import Measured
from controller.telemetry import Telemetry
from tests.telling.records import BY_RATE, LEARNED, NOW, Outcome, record

OBJECTS = 10_000


def memory_mb(work: Callable[[], object]) -> float:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    work()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return used / 1e6


def fill(telemetry: Telemetry) -> None:
    for number in range(OBJECTS):
        some = float(number)
        found = Measured(
            4.0 + some, 3.0, 6.0, 5.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.7 + some, 4.0, NOW + some, 15.0
        )
        found.clamps = (("Bounds", "TooManyReplicas"),)
        found.policy = ("Active", "RL", "default", "sha256:0123456789ab")
        telemetry.objects.measure("shop", f"web-{number}", found)


def remember(log: DecisionLog) -> None:
    """Two turns of each; messages and readings are objects of their own, as a turn makes them."""
    for number in range(2 * OBJECTS):
        readings = {name: SignalReading(float(number), Outcome.OK, "", NOW + number) for name in "abcde"}
        features = np.full(OBSERVATION_SCHEMA.size, number, np.float32)
        message = f"stays at 4: default recommended 4, {number}"
        seen = {"requestRate": float(number), "loadReplicas": number / 7.0, "readyReplicas": 4.0}
        changes = {"readings": readings, "features": features, "message": message, "observed": seen}
        log.add(record(f"web-{number % OBJECTS}", policy=LEARNED, clamps=(BY_RATE,), **changes))


def main() -> None:
    telemetry, log = Telemetry(), DecisionLog()
    print(f"series: {memory_mb(lambda: fill(telemetry)):.0f} MB")
    started = time.process_time()
    text = telemetry.render()
    took_s = time.process_time() - started
    lines = sum(not line.startswith(b"#") for line in text.splitlines())
    print(f"a scrape: {lines:,} samples, {len(text) / 1e6:.0f} MB, {took_s:.2f} s of the processor")
    print(f"records: {memory_mb(lambda: remember(log)):.0f} MB for {len(log):,}")


if __name__ == "__main__":
    main()
