"""Istio VirtualServices: `spec.http[].route[]`, and the same under `tls` and `tcp`.

A destination's host is a Service's name, short or with namespace and cluster domain. An absent weight is 0,
but 100 where the destination is alone. Source: networking.istio.io, `HTTPRouteDestination.weight`.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.actuation.routes.base import Group, RouteMismatch, Slot, route_name
from controller.api.constants import Reason
from controller.kube import Json
from controller.trouble import Trouble

GROUP = "networking.istio.io"
PROTOCOLS = ("http", "tls", "tcp")
ALONE = 100


class VirtualServices:
    """The RouteProvider of kind VirtualService."""

    kind = "VirtualService"
    api_versions = (f"{GROUP}/v1", f"{GROUP}/v1beta1")

    def groups(self, route: Json, rule: str | None) -> Sequence[Group]:
        """One group a rule, named where it has a name (only HTTP rules can), else by protocol and place."""
        found = [
            _group(route, protocol, index, each)
            for protocol in PROTOCOLS
            for index, each in enumerate(route["spec"].get(protocol) or [])
            if rule in (None, each.get("name"))
        ]
        if not found:
            name = route_name(self.kind, route)
            raise RouteMismatch(Reason.RULE_NOT_FOUND, f"{name} has no rule named {rule!r}")
        return found

    def health(self, route: Json) -> Trouble | None:
        """What Istio's analysis says, where its status is switched on; most meshes say nothing."""
        status = route.get("status") or {}
        name = route_name(self.kind, route)
        for message in status.get("validationMessages") or []:
            if message.get("level") == "ERROR":
                words = (message.get("type") or {}).get("code") or message.get("documentationUrl") or "error"
                return Trouble(Reason.ROUTE_NOT_ACCEPTED, f"{name}: Istio reports {words}")
        for condition in status.get("conditions") or []:
            if condition.get("type") == "Reconciled" and condition.get("status") == "False":
                words = f"{name}: Istio has not reconciled it: {condition.get('message')}"
                return Trouble(Reason.ROUTE_NOT_REPORTED, words, unknown=True)
        return None


def _group(route: Json, protocol: str, index: int, rule: Json) -> Group:
    namespace = route["metadata"]["namespace"]
    listed = rule.get("route") or []
    slots = tuple(
        Slot(
            service=_service(str((each.get("destination") or {}).get("host", "")), namespace),
            weight=each.get("weight"),
            pointer=f"/spec/{protocol}/{index}/route/{place}/weight",
            test=(
                f"/spec/{protocol}/{index}/route/{place}/destination/host",
                str((each.get("destination") or {}).get("host", "")),
            ),
            absent=ALONE if len(listed) == 1 else 0,
        )
        for place, each in enumerate(listed)
    )
    return Group(str(rule.get("name") or f"{protocol} {index}"), slots)


def _service(host: str, namespace: str) -> str | None:
    """The Service of this namespace that a host means: web, web.shop, web.shop.svc, and so on."""
    name, _, rest = host.partition(".")
    where, _, domain = rest.partition(".")
    ours = not rest or (where == namespace and (not domain or domain == "svc" or domain.startswith("svc.")))
    return name if ours else None
