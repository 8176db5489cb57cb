"""ingress-nginx canary Ingresses: the weight is an annotation of the Ingress that carries the canary.

`spec.routes` names the canary Ingress. Its backend is one pool, the rest of the traffic goes to the other
pool, that of the Ingress beside it. Requests that canary-by-header or -by-cookie picks are not weighed, and
these annotations are left as they are. Source: ingress-nginx, annotations canary, canary-weight and
canary-weight-total (default 100).
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.actuation.routes.base import TOTAL, Group, RouteMismatch, Slot, route_name
from controller.api.constants import Reason
from controller.kube import Json
from controller.trouble import Trouble

PREFIX = "nginx.ingress.kubernetes.io/"
CANARY, WEIGHT, WEIGHT_TOTAL = (PREFIX + name for name in ("canary", "canary-weight", "canary-weight-total"))


class CanaryIngresses:
    """The RouteProvider of kind Ingress."""

    kind = "Ingress"
    api_versions = ("networking.k8s.io/v1",)

    def groups(self, route: Json, rule: str | None) -> Sequence[Group]:
        """The one group of a canary Ingress: its backend, and the rest."""
        name = route_name(self.kind, route)
        annotations = route["metadata"].get("annotations") or {}
        if rule is not None:
            raise RouteMismatch(Reason.RULE_NOT_FOUND, f"{name} has no named rules; leave out rule {rule!r}")
        if annotations.get(CANARY) != "true":
            words = f'{name} is no canary: the annotation {CANARY} is not "true"'
            raise RouteMismatch(Reason.ROUTE_NOT_WEIGHTED, words)
        services = sorted(set(_services(route)))
        if len(services) != 1:
            words = f"{name} must send everything to one Service; it has {', '.join(services) or 'none'}"
            raise RouteMismatch(Reason.ROUTE_NOT_WEIGHTED, words)
        slot = Slot(
            service=services[0],
            weight=_whole(name, annotations, WEIGHT),
            pointer=_pointer(WEIGHT),
            test=(_pointer(CANARY), "true"),
            absent=0,
            as_text=True,
        )
        total = _whole(name, annotations, WEIGHT_TOTAL)
        return [Group("canary", (slot,), TOTAL if total is None else total, remainder=True)]

    def health(self, route: Json) -> Trouble | None:
        """An Ingress does not say whether its annotations were understood."""
        return None


def _services(route: Json) -> list[str]:
    spec = route["spec"]
    backends = [spec.get("defaultBackend") or {}]
    for rule in spec.get("rules") or []:
        backends += [path.get("backend") or {} for path in (rule.get("http") or {}).get("paths") or []]
    return [each["service"]["name"] for each in backends if each.get("service")]


def _whole(name: str, annotations: Json, key: str) -> int | None:
    text = annotations.get(key)
    if text is None:
        return None
    if not str(text).isdigit():
        words = f"{name}: annotation {key} is {text!r}, must be a whole number"
        raise RouteMismatch(Reason.ROUTE_NOT_WEIGHTED, words)
    return int(text)


def _pointer(key: str) -> str:
    return "/metadata/annotations/" + key.replace("~", "~0").replace("/", "~1")
