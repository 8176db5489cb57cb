"""Traffic whose counters misbehave: they reset, vanish, or stand still under old timestamps."""

from __future__ import annotations

import time

from tests.integration.harness import Traffic

TIME_SCALE = 60.0
"""Control seconds in a real one, for all fault tests: a sync period of 15 s takes a quarter of a second."""

DIP, DIP_S = 0.125, 2.0
"""Share of a window that a reset loses, and for how long (real seconds) it is missing from rate()."""


class UnsteadyTraffic(Traffic):
    """What Envoy would count at this time scale, with the faults of real counters."""

    def __init__(self) -> None:
        super().__init__()
        self._frozen: dict[tuple[str, str], tuple[float, str]] = {}
        self._hidden: set[tuple[str, str]] = set()
        self._reset_at: dict[tuple[str, str], float] = {}
        self.failing = False
        """Whether a scrape fails altogether."""

    def reset(self, namespace: str, service: str) -> None:
        """The process that counts was restarted: what it had counted since the last scrape is lost."""
        with self._lock:
            self._advance()
            self._totals[namespace, service] = 0.0
            self._reset_at[namespace, service] = time.monotonic()

    def hide(self, namespace: str, service: str, hidden: bool = True) -> None:
        """The series vanish, and come back where the counter is by then."""
        with self._lock:
            (self._hidden.add if hidden else self._hidden.discard)((namespace, service))

    def freeze(self, namespace: str, service: str, frozen: bool = True) -> None:
        """The same samples again and again, under the time at which they were taken."""
        key = (namespace, service)
        with self._lock:
            self._advance()
            self._frozen.pop(key, None)
            if frozen:
                stamp = f" {int(time.time() * 1000)}\n"
                text = self._series(key, self._totals[key])
                self._frozen[key] = (time.monotonic(), text.replace("\n", stamp))

    def seen_rate(self, namespace: str, service: str) -> float | None:
        """Requests/s of a service whose series are there, as rate() would give them."""
        key = (namespace, service)
        with self._lock:
            rate = None if key in self._hidden else self.rates.get(key)
            lossy = time.monotonic() - self._reset_at.get(key, -DIP_S) < DIP_S
        return rate * (1.0 - DIP) if rate is not None and lossy else rate

    def exposition(self) -> str:
        if self.failing:
            raise ConnectionResetError
        with self._lock:
            self._advance()
            parts = []
            for key, total in self._totals.items():
                if key in self._hidden:
                    continue
                frozen = self._frozen.get(key)
                parts.append(frozen[1] if frozen else self._series(key, total))
            return "".join(parts)

    def _advance(self) -> None:
        now = time.monotonic()
        for key, rate in self.rates.items():
            self._totals[key] += rate * TIME_SCALE * (now - self._at)
        self._at = now
