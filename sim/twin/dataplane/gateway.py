"""The smallest gateway: what the backendRefs of HTTPRoutes weigh is what Envoy's clusters weigh.

In the twin it hears of every change; against another API server `tests/dataplane` reads the route some times
a second.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from sim.twin.api import Api
from sim.twin.dataplane.proxy import Envoy
from sim.twin.errors import Json
from sim.twin.gateway import HTTP_ROUTES
from sim.twin.store import Change

ByRoute = dict[str, dict[str, int]]


class Gateway:
    """Keeps Envoy's weights those of routes; `changes` are what it has seen, with time.monotonic()."""

    def __init__(self, envoy: Envoy) -> None:
        self._envoy = envoy
        self.changes: list[tuple[float, ByRoute]] = []

    def take(self, weights: ByRoute) -> None:
        """Weights by route and Service; handed on if they are news."""
        if not self.changes or weights != self.changes[-1][1]:
            self._envoy.apply(weights)
            self.changes.append((time.monotonic(), weights))

    def follow(self, api: Api, namespace: str = "default") -> None:
        """Hear of every route of a namespace in the twin's store, from now on."""

        def look(change: Change | None = None) -> None:
            if change is None or change.resource == HTTP_ROUTES:
                routes = api.store.list(HTTP_ROUTES, namespace)
                self.take({route["metadata"]["name"]: route_weights(route) for route in routes})

        api.store.listeners.append(look)
        look()

    def weights(self, route: str) -> Mapping[str, int]:
        """A route's weights as they are in force, by Service."""
        return self.changes[-1][1].get(route, {}) if self.changes else {}

    def series(self, route: str, service: str, since_s: float) -> list[tuple[float, int]]:
        """One pool's weights since a moment, changes only; the weight at that moment first."""
        found: list[tuple[float, int]] = []
        for at_s, weights in self.changes:
            weight = weights.get(route, {}).get(service, 0)
            if at_s < since_s:
                found = [(since_s, weight)]
            elif not found or weight != found[-1][1]:
                found.append((at_s, weight))
        return found


def route_weights(route: Json) -> dict[str, int]:
    """What the backends of a route's first rule weigh, by Service; 1 where nothing is said."""
    refs = route["spec"]["rules"][0].get("backendRefs") or []
    return {ref["name"]: ref.get("weight", 1) for ref in refs}
