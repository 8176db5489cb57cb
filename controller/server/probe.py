"""What the HTTP server asks of the operator; a test's own answers do as well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from controller.decisions import DecisionRecord, Filter, News

if TYPE_CHECKING:
    from controller.registry import Entry


class Probe(Protocol):
    """What the server asks of the operator."""

    def alive(self) -> str | None:
        """None while the control loop turns, else what is wrong."""
        ...

    def ready(self) -> str | None:
        """None once RLScalers are listed and the first tick is done, else what is awaited."""
        ...

    def leads(self) -> bool:
        """Whether it decides; False while it stands by for another."""
        ...

    def entries(self) -> Iterable[Entry]:
        """The RLScalers that are served."""
        ...

    def last(self, namespace: str, name: str) -> DecisionRecord | None:
        """An RLScaler's newest decision."""
        ...

    def decisions(self, wanted: Filter) -> Sequence[DecisionRecord]:
        """Recent decisions that are wanted, newest first, at most `wanted.limit`."""
        ...

    def news(self, number: int | None, wanted: Filter) -> News:
        """Wanted decisions after the one of this number; None: none yet, only the present number."""
        ...

    def explain(self, namespace: str, name: str) -> dict[str, Any] | None:
        """The last decision about an RLScaler, explained; None where there is no such RLScaler."""
        ...

    def exposition(self) -> Iterable[bytes]:
        """Telemetry in the Prometheus text format, a piece at a time."""
        ...
