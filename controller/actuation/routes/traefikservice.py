"""Traefik's weighted TraefikServices: `spec.weighted.services[]`.

It has no rules and reports nothing. Source: traefik.io/v1alpha1, `ServiceWRR`; an absent weight is 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.actuation.routes.base import Group, RouteMismatch, Slot, route_name
from controller.api.constants import Reason
from controller.kube import Json
from controller.trouble import Trouble


class TraefikServices:
    """The RouteProvider of kind TraefikService."""

    kind = "TraefikService"
    api_versions = ("traefik.io/v1alpha1",)

    def groups(self, route: Json, rule: str | None) -> Sequence[Group]:
        """The one group of a weighted TraefikService."""
        name = route_name(self.kind, route)
        if rule is not None:
            raise RouteMismatch(Reason.RULE_NOT_FOUND, f"{name} has no rules; leave out rule {rule!r}")
        listed = (route["spec"].get("weighted") or {}).get("services")
        if not listed:
            raise RouteMismatch(Reason.BACKEND_NOT_IN_ROUTE, f"{name} has no weighted services")
        return [Group("weighted", tuple(_slot(route, place, each) for place, each in enumerate(listed)))]

    def health(self, route: Json) -> Trouble | None:
        """Traefik writes no status."""
        return None


def _slot(route: Json, place: int, each: Json) -> Slot:
    namespace = route["metadata"]["namespace"]
    ours = each.get("kind", "Service") == "Service" and each.get("namespace", namespace) == namespace
    return Slot(
        service=each.get("name") if ours else None,
        weight=each.get("weight"),
        pointer=f"/spec/weighted/services/{place}/weight",
        test=(f"/spec/weighted/services/{place}/name", str(each.get("name"))),
    )
