"""What a route provider must do: read a route, plan weight changes (pure), judge its health (pure), apply.

A plan touches weights alone. Everything else in the route, foreign backends included, is somebody else's and
stays byte for byte; each planned operation first tests that it still means the backend it was made for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.kube import Json
from controller.trouble import Trouble

Weigh = Callable[[int], Mapping[str, int]]
"""Weights by service name for a total that the services share."""


@dataclass(frozen=True)
class WeightChange:
    """One backend's weight, before and after; `before` None where the field was absent."""

    rule: str
    service: str
    before: int | None
    after: int

    def __str__(self) -> str:
        return (
            f"{self.rule}: {self.service} {'unset' if self.before is None else self.before} -> {self.after}"
        )


@dataclass(frozen=True)
class Plan:
    """The operations to send and what they change; `problem` where nothing can be planned."""

    operations: tuple[Json, ...] = ()
    changes: tuple[WeightChange, ...] = ()
    weights: tuple[tuple[str, int], ...] = ()
    problem: Trouble | None = None


class RouteProvider(Protocol):
    """One kind of route."""

    kind: str

    async def read(self, namespace: str, name: str) -> Json:
        """The route as the API server holds it. Raises KubernetesError."""
        ...

    def plan(self, route: Json, rule: str | None, services: Sequence[str], weigh: Weigh) -> Plan:
        """What to change so that `services` share their traffic as `weigh` says."""
        ...

    def health(self, route: Json) -> Trouble | None:
        """Whether the route's controller has accepted it, from its status; None is healthy."""
        ...

    async def apply(self, namespace: str, name: str, plan: Plan) -> Json:
        """Send the plan; raises Conflict when the route has changed since it was read."""
        ...
