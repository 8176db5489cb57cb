"""What HTTPRoutes and GRPCRoutes of the Gateway API share: rules with weighted backendRefs, and parents that
report on them.

Weights are relative to the sum of their rule. Where a rule holds only our services they share 100; where
foreign backends are beside them, ours share what ours had, so that the foreign share of traffic does not
move. Source: gateway.networking.k8s.io/v1, `BackendRef.weight` (default 1) and `RouteStatus`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controller.actuation.routes.base import Group, RouteMismatch, Slot, route_name
from controller.api.constants import Reason
from controller.kube import Json
from controller.trouble import Trouble

GROUP = "gateway.networking.k8s.io"
REQUIRED = ("Accepted", "ResolvedRefs")


class GatewayRoutes:
    """A RouteProvider for kinds with `spec.rules[].backendRefs[]`."""

    kind: str
    api_versions: tuple[str, ...]

    def groups(self, route: Json, rule: str | None) -> Sequence[Group]:
        """One group a rule; a rule without a name is called by its place."""
        listed = list(enumerate(route["spec"].get("rules") or []))
        found = [_group(route, index, each) for index, each in listed if rule in (None, each.get("name"))]
        if not found:
            name = route_name(self.kind, route)
            raise RouteMismatch(Reason.RULE_NOT_FOUND, f"{name} has no rule named {rule!r}")
        return found

    def health(self, route: Json) -> Trouble | None:
        """Accepted and ResolvedRefs of every parent, for the generation that the route has now."""
        name = route_name(self.kind, route)
        parents = (route.get("status") or {}).get("parents") or []
        if not parents:
            message = f"{name} has not been reported on by any gateway"
            return Trouble(Reason.ROUTE_NOT_REPORTED, message, unknown=True)
        generation = route["metadata"].get("generation", 0)
        problems = [_parent_problem(name, generation, each, kind) for each in parents for kind in REQUIRED]
        found = [problem for problem in problems if problem is not None]
        return min(found, key=lambda problem: problem.unknown, default=None)


def _group(route: Json, index: int, rule: Json) -> Group:
    namespace = route["metadata"]["namespace"]
    slots = tuple(
        Slot(
            service=ref.get("name") if _is_service(ref, namespace) else None,
            weight=ref.get("weight"),
            pointer=f"/spec/rules/{index}/backendRefs/{place}/weight",
            test=(f"/spec/rules/{index}/backendRefs/{place}/name", str(ref.get("name"))),
        )
        for place, ref in enumerate(rule.get("backendRefs") or [])
    )
    return Group(str(rule.get("name") or index), slots)


def _is_service(ref: Json, namespace: str) -> bool:
    named = (ref.get("group", ""), ref.get("kind", "Service"), ref.get("namespace", namespace))
    return named == ("", "Service", namespace)


def _parent_problem(name: str, generation: int, parent: Json, kind: str) -> Trouble | None:
    gateway = (parent.get("parentRef") or {}).get("name", "?")
    found: Any = next((c for c in parent.get("conditions") or [] if c.get("type") == kind), None)
    if found is None or found.get("observedGeneration", generation) < generation:
        message = f"{name}: gateway {gateway} has not reported {kind} yet"
        return Trouble(Reason.ROUTE_NOT_REPORTED, message, unknown=True)
    if found.get("status") == "True":
        return None
    word = Reason.ROUTE_NOT_ACCEPTED if kind == "Accepted" else Reason.ROUTE_REFS_NOT_RESOLVED
    return Trouble(word, f"{name}: gateway {gateway}: {found.get('reason')}: {found.get('message')}")
