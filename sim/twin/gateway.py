"""The Gateway controller: says of each route whether it is accepted and its backends exist."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sim.twin.api import Api
from sim.twin.errors import ApiError, Json
from sim.twin.store import Change, ResourceKey, now_rfc3339

HTTP_ROUTES: ResourceKey = ("gateway.networking.k8s.io", "httproutes")
ROUTES: tuple[ResourceKey, ...] = (HTTP_ROUTES, ("gateway.networking.k8s.io", "grpcroutes"))
SERVICES: ResourceKey = ("", "services")
CONTROLLER = "twin.rlscaler.dev/gateway"


class GatewayController:
    """Writes `status.parents` of every route, anew when a route or a Service changes."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._due: asyncio.Handle | None = None
        api.store.listeners.append(self._observe)

    def stop(self) -> None:
        if self._due is not None:
            self._due.cancel()

    def _observe(self, change: Change) -> None:
        if change.resource in (*ROUTES, SERVICES) and self._due is None:
            self._due = asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._due = None
        for routes in ROUTES:
            self._report(routes)

    def _report(self, routes: ResourceKey) -> None:
        resource = self._api.resource(routes)
        for route in self._api.store.list(routes):
            meta, change = route["metadata"], _with_status({"parents": self._parents(route)})
            try:
                self._api.update(resource, meta["namespace"], meta["name"], change, "status")
            except ApiError as error:
                if error.code != 404:
                    raise

    def _parents(self, route: Json) -> list[Json]:
        before = {
            (_key(p["parentRef"]), c["type"]): c
            for p in (route.get("status") or {}).get("parents") or []
            for c in p["conditions"]
        }
        missing = self._missing_backends(route)
        found = []
        for parent in (route.get("spec") or {}).get("parentRefs") or []:
            wanted = [_condition("Accepted", True, "Accepted", "Route is accepted"), _resolved(missing)]
            conditions = []
            for condition in wanted:
                old = before.get((_key(parent), condition["type"]), {})
                kept = old.get("lastTransitionTime") if old.get("status") == condition["status"] else None
                stamp = {"lastTransitionTime": kept or now_rfc3339()}
                generation = route["metadata"].get("generation", 1)
                conditions.append(condition | stamp | {"observedGeneration": generation})
            found.append({"parentRef": parent, "controllerName": CONTROLLER, "conditions": conditions})
        return found

    def _missing_backends(self, route: Json) -> list[str]:
        namespace = route["metadata"]["namespace"]
        rules = (route.get("spec") or {}).get("rules") or []
        refs = [b for rule in rules for b in rule.get("backendRefs") or [] if b.get("kind") == "Service"]
        get = self._api.store.get
        return [b["name"] for b in refs if get(SERVICES, b.get("namespace", namespace), b["name"]) is None]


def _with_status(status: Json) -> Callable[[Json], Json]:
    return lambda route: route | {"status": status}


def _key(parent: Json) -> tuple[str | None, str | None, str | None]:
    return parent.get("namespace"), parent.get("name"), parent.get("sectionName")


def _condition(kind: str, status: bool, reason: str, message: str) -> Json:
    return {"type": kind, "status": str(status), "reason": reason, "message": message}


def _resolved(missing: list[str]) -> Json:
    if not missing:
        return _condition("ResolvedRefs", True, "ResolvedRefs", "All references are resolved")
    names = ", ".join(missing)
    return _condition("ResolvedRefs", False, "BackendNotFound", f"backend Service not found: {names}")
