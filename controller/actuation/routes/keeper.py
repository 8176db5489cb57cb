"""Keeping one route in step with an RLScaler's pools: read, check, write weights, verify, restore.

The actuator calls `sync` in each turn and `restore` when the RLScaler is gone or paused. What must survive
the operator is in the route itself (`snapshot`); what is only for good manners (disputes, a rejected write)
is kept here and begins anew after a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from controller.actuation.routes import PROVIDERS
from controller.actuation.routes.base import (
    Group,
    Plan,
    RouteMismatch,
    RouteProvider,
    Weigh,
    effective_weights,
    our_groups,
    plan_changes,
    plan_weights,
    route_name,
)
from controller.actuation.routes.dispute import Dispute, last_other_writer
from controller.actuation.routes.snapshot import remembering, restoring, snapshots
from controller.api.constants import Reason
from controller.errors import Conflict, Invalid, KindNotFound, NotFound
from controller.kube import Json, Kube, Resource
from controller.trouble import Trouble

REJECTED_S = 600.0
"""Control seconds that a route is left alone after its gateway has rejected what we wrote."""


@dataclass(frozen=True)
class RouteRef:
    """One route of one RLScaler."""

    namespace: str
    owner: str
    kind: str
    name: str
    rule: str | None = None


@dataclass(frozen=True)
class Kept:
    """What became of a route: weights by service as they are wanted, changes made, trouble."""

    weights: Mapping[str, int] = field(default_factory=dict)
    changes: tuple[str, ...] = ()
    trouble: Trouble | None = None


@dataclass
class _Memory:
    dispute: Dispute = field(default_factory=Dispute)
    healthy: bool = False
    before: tuple[tuple[Group, Mapping[str, int]], ...] = ()
    """Weights before the last write, while its verdict is awaited."""
    rejected: Trouble | None = None
    rejected_until_s: float = 0.0


class RouteKeeper:
    """Writes weights through the Kubernetes API. now_s: control seconds."""

    def __init__(self, kube: Kube, now_s: Callable[[], float]) -> None:
        self._kube = kube
        self._now_s = now_s
        self._providers: dict[str, RouteProvider] = {each.kind: each for each in PROVIDERS}
        self._memories: dict[tuple[str, str], dict[RouteRef, _Memory]] = {}

    async def sync(
        self,
        ref: RouteRef,
        services: Sequence[str],
        weigh: Weigh | None,
        act: bool,
        remember: bool = True,
    ) -> Kept:
        """Bring the weights in step; without `weigh` (nothing is ready) or `act` the route is only looked at.

        remember: whether the weights of before are noted in the route, so that they can be restored.
        Raises KubernetesError; Conflict when the route has changed since it was read.
        """
        provider = self._provider(ref)
        route = await self.read(ref)
        try:
            groups = our_groups(provider, route, ref.rule, services)
        except RouteMismatch as error:
            return Kept(trouble=error.trouble)
        health = provider.health(route)
        if weigh is None:
            return Kept(trouble=health)
        plan = plan_weights(provider, route, ref.rule, services, weigh)
        if not act:
            return Kept(dict(plan.weights), trouble=health)
        memory = self._memory(ref)
        trouble = await self._objection(memory, provider, ref, route, groups, services, health)
        if trouble is not None:
            return Kept(effective_weights(groups[0], services) if groups else {}, trouble=trouble)
        kept = remembering(route, ref.owner, groups, services) if remember else ()
        changes = await self._write(memory, ref, kept, groups, services, plan)
        return Kept(dict(plan.weights), changes, health)

    async def restore(self, ref: RouteRef) -> tuple[str, ...]:
        """Put back the weights of before this RLScaler; what changed. Raises KubernetesError."""
        route = await self.read(ref)
        plan = restoring(self._provider(ref), route, ref.owner)
        if plan.operations:
            await self._apply(ref, plan)
            self._memory(ref).dispute.written = {}
        return _words(ref, plan)

    async def read(self, ref: RouteRef) -> Json:
        """The route as the API server holds it. Raises KubernetesError."""
        resource = await self.resource(ref.kind)
        try:
            return await self._kube.get(resource, ref.namespace, ref.name)
        except NotFound as error:
            raise NotFound(f"{ref.kind} {ref.namespace}/{ref.name} not found", 404) from error

    async def resource(self, kind: str) -> Resource:
        """A kind at the best version that is served. Raises KindNotFound."""
        versions = self._providers[kind].api_versions
        for version in versions:
            try:
                return await self._kube.resource(version, kind)
            except KindNotFound:
                continue
        group = versions[0].partition("/")[0]
        raise KindNotFound(f"the API server serves no {kind} ({group}); are its CRDs installed?", 404)

    def owners(self, route: Json) -> list[str]:
        """RLScalers whose weights the route remembers."""
        return sorted(snapshots(route))

    def known(self, namespace: str, owner: str) -> list[RouteRef]:
        """The routes that an RLScaler has weighed since this process began."""
        return list(self._memories.get((namespace, owner), {}))

    def forget_route(self, ref: RouteRef) -> None:
        """Drop what is remembered of one route."""
        self._memories.get((ref.namespace, ref.owner), {}).pop(ref, None)

    def forget(self, namespace: str, owner: str) -> None:
        """Drop what is remembered of a deleted RLScaler's routes."""
        self._memories.pop((namespace, owner), None)

    def _provider(self, ref: RouteRef) -> RouteProvider:
        return self._providers[ref.kind]

    def _memory(self, ref: RouteRef) -> _Memory:
        return self._memories.setdefault((ref.namespace, ref.owner), {}).setdefault(ref, _Memory())

    async def _objection(
        self,
        memory: _Memory,
        provider: RouteProvider,
        ref: RouteRef,
        route: Json,
        groups: Sequence[Group],
        services: Sequence[str],
        health: Trouble | None,
    ) -> Trouble | None:
        """Why nothing is to be written now: somebody else insists, or the gateway has rejected weights."""
        now_s = self._now_s()
        memory.dispute.see(_by_rule(groups, services), now_s)
        name = route_name(ref.kind, route)
        if memory.dispute.contested(now_s):
            who = last_other_writer(route) or "somebody else"
            words = f"{name}: {who} keeps changing the weights written here; it is left alone for a while"
            return Trouble(Reason.CONTESTED, words)
        rejected = health is not None and health.reason == Reason.ROUTE_NOT_ACCEPTED
        if rejected and memory.before and memory.healthy:
            assert health is not None
            await self._take_back(memory, provider, ref, route, services, health, now_s)
        elif health is None:
            memory.before, memory.healthy = (), True
        return memory.rejected if now_s < memory.rejected_until_s else None

    async def _take_back(
        self,
        memory: _Memory,
        provider: RouteProvider,
        ref: RouteRef,
        route: Json,
        services: Sequence[str],
        health: Trouble,
        now_s: float,
    ) -> None:
        """Undo the write after which the route was no longer accepted."""
        wanted = {group.rule: weights for group, weights in memory.before}
        groups = our_groups(provider, route, ref.rule, services)
        plan = plan_changes(route, [(group, wanted.get(group.rule, {})) for group in groups])
        if plan.operations:
            await self._apply(ref, plan)
        words = f"rejected after its weights were changed, so they were put back: {health.message}"
        memory.rejected = Trouble(Reason.ROUTE_REJECTED, words)
        memory.rejected_until_s = now_s + REJECTED_S
        memory.before, memory.dispute.written = (), {}

    async def _write(
        self,
        memory: _Memory,
        ref: RouteRef,
        kept: Sequence[Json],
        groups: Sequence[Group],
        services: Sequence[str],
        plan: Plan,
    ) -> tuple[str, ...]:
        if not plan.operations:
            return ()
        test, *writes = plan.operations
        answer = await self._apply(ref, Plan((test, *kept, *writes), plan.changes))
        memory.before = tuple((group, effective_weights(group, services)) for group in groups)
        written = our_groups(self._provider(ref), answer, ref.rule, services)
        memory.dispute.written = _by_rule(written, services)
        return _words(ref, plan)

    async def _apply(self, ref: RouteRef, plan: Plan) -> Json:
        try:
            resource = await self.resource(ref.kind)
            return await self._kube.json_patch(resource, ref.namespace, ref.name, plan.operations)
        except Invalid as error:
            # the API server answers 422 when a `test` operation fails
            raise Conflict(
                f"{ref.kind} {ref.namespace}/{ref.name} changed meanwhile: {error}", 409
            ) from error


def _by_rule(groups: Sequence[Group], services: Sequence[str]) -> dict[tuple[str, str], int]:
    return {
        (group.rule, slot.service): slot.effective
        for group in groups
        for slot in group.slots
        if slot.service is not None and slot.service in services
    }


def _words(ref: RouteRef, plan: Plan) -> tuple[str, ...]:
    return tuple(f"{ref.kind} {ref.name}, rule {change}" for change in plan.changes)
