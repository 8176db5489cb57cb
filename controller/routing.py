"""Which routes an RLScaler weighs, and putting their weights back: when it is paused, deleted or lost.

The turn calls `wishes` and `paused`; the operator calls `gone` for a deleted RLScaler, and `sweep` once at
start for those that were deleted while no operator ran. There is no finalizer: an RLScaler can always be
deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from controller.actuation.apply import Actuator, Routed, RouteWish
from controller.actuation.routes import PROVIDERS
from controller.actuation.routes.keeper import RouteRef
from controller.api.types import RLScalerSpec
from controller.errors import KubernetesError, NotFound
from controller.kube import RLSCALERS, Json, Kube
from controller.logs import about, naming
from controller.registry import Entry

logger = logging.getLogger(__name__)


def wishes(spec: RLScalerSpec) -> list[RouteWish]:
    """Every route of a spec."""
    return [
        RouteWish(
            route.kind,
            route.name,
            route.rule,
            route.max_step,
            remember=route.restore_on_delete or route.restore_on_pause,
        )
        for route in spec.routes or ()
    ]


class Restorer:
    """Puts weights back that an RLScaler no longer stands for."""

    def __init__(self, kube: Kube, actuator: Actuator) -> None:
        self._kube = kube
        self._actuator = actuator

    async def paused(self, entry: Entry) -> Routed | None:
        """Restore the routes that ask for it on pause; None where none does."""
        assert entry.spec is not None
        names = {(route.kind, route.name) for route in entry.spec.routes or () if route.restore_on_pause}
        asked = [wish for wish in wishes(entry.spec) if (wish.kind, wish.name) in names]
        if not asked or entry.mode == "Shadow":
            return None
        return await self._actuator.restore_routes(entry.namespace, entry.name, asked)

    async def gone(self, entry: Entry) -> None:
        """Restore the routes of an RLScaler that is no longer served, if it really is deleted."""
        self._actuator.routes.forget(entry.namespace, entry.name)
        if entry.spec is None or not entry.spec.routes:
            return
        names = {(route.kind, route.name) for route in entry.spec.routes if route.restore_on_delete}
        asked = [wish for wish in wishes(entry.spec) if (wish.kind, wish.name) in names]
        try:
            if not asked or await self._exists(entry.namespace, entry.name):
                return
        except KubernetesError as error:
            words = (entry.namespace, entry.name, error)
            logger.warning("%s/%s: weights not restored: %s", *words, extra=about(entry))
            return
        done = await self._actuator.restore_routes(entry.namespace, entry.name, asked)
        _tell(entry.namespace, entry.name, done)

    async def sweep(self, kinds: Iterable[str], namespaces: Iterable[str]) -> None:
        """Restore what RLScalers left behind that were deleted while no operator ran; never raises."""
        for kind in (provider.kind for provider in PROVIDERS if provider.kind in kinds):
            try:
                await self._sweep_kind(kind, namespaces)
            except NotFound:
                continue  # the API server has no such kind
            except KubernetesError as error:
                logger.info("%ss cannot be listed, so weights left behind stay: %s", kind, error)
            except Exception:
                logger.exception("unexpected error while looking for weights left behind")

    async def _sweep_kind(self, kind: str, namespaces: Iterable[str]) -> None:
        resource = await self._actuator.routes.resource(kind)
        for namespace in tuple(namespaces) or (None,):
            async for page in self._kube.pages(resource, namespace):
                for route in page.get("items") or []:
                    await self._sweep_route(kind, route)

    async def _sweep_route(self, kind: str, route: Json) -> None:
        namespace, name = route["metadata"]["namespace"], route["metadata"]["name"]
        for owner in self._actuator.routes.owners(route):
            if not await self._exists(namespace, owner):
                ref = RouteRef(namespace, owner, kind, name)
                _tell(namespace, owner, Routed(changes=list(await self._actuator.routes.restore(ref))))

    async def _exists(self, namespace: str, name: str) -> bool:
        try:
            await self._kube.get(RLSCALERS, namespace, name)
        except NotFound:
            return False
        return True


def _tell(namespace: str, name: str, done: Routed) -> None:
    if done.trouble is not None:
        words = (namespace, name, done.trouble.message)
        logger.warning("%s/%s: weights not restored: %s", *words, extra=naming(namespace, name))
    elif done.changes:
        words = (namespace, name, "; ".join(done.changes))
        logger.info("%s/%s: deleted, weights restored: %s", *words, extra=naming(namespace, name))
