"""From a decision to writes: which pools move by how much (pure), then /scale and routes, reported as
facts.

The loop calls `scale` and `sync_routes` for one RLScaler at a time, after the guard. Nothing in here
decides how many replicas a service needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controller.actuation.routes import HttpRoutes, Plan, RouteProvider
from controller.actuation.scale import Scaler
from controller.actuation.target import Target
from controller.actuation.targets import TargetWatches
from controller.api.constants import Reason
from controller.core import Pool, route_weights, split_replicas
from controller.errors import Conflict, Forbidden, KindNotFound, KubernetesError, NotFound, NotScalable
from controller.kube import Kube
from controller.trouble import Trouble


@dataclass(frozen=True)
class Scaled:
    """What became of the wish: the targets as they are now, and what went wrong with which."""

    targets: tuple[Target, ...]
    changed: bool
    trouble: Trouble | None = None
    retry_after_s: float = 0.0


@dataclass(frozen=True)
class RouteWish:
    """One route to keep in step: provider kind, name and rule, as in spec.routes."""

    kind: str
    name: str
    rule: str | None


@dataclass
class Routed:
    """What became of the routes: weights by service, the changes made, and the first trouble."""

    weights: dict[str, int] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    trouble: Trouble | None = None


class Actuator:
    """Carries decisions out through the Kubernetes API."""

    def __init__(self, kube: Kube, watches: TargetWatches | None = None) -> None:
        self.scaler = Scaler(kube, watches)
        self._routes: dict[str, RouteProvider] = {HttpRoutes.kind: HttpRoutes(kube)}

    async def scale(self, targets: Sequence[Target], wanted: Sequence[int]) -> Scaled:
        """Write replicas where they differ; the first failure ends it, as the rest was decided together."""
        now = list(targets)
        changed = False
        for i, (target, replicas) in enumerate(zip(targets, wanted, strict=True)):
            if replicas == target.replicas:
                continue
            try:
                now[i] = await self.scaler.write(target, replicas)
                changed = True
            except KubernetesError as error:
                trouble = scale_trouble(error, Reason.FAILED_UPDATE_SCALE)
                return Scaled(tuple(now), changed, trouble, error.retry_after_s)
        return Scaled(tuple(now), changed)

    async def sync_routes(
        self,
        namespace: str,
        wishes: Sequence[RouteWish],
        services: Sequence[str],
        pools: Sequence[Pool],
        ready: Sequence[int],
        act: bool,
    ) -> Routed:
        """Bring the weights of our backendRefs in step with the ready replicas of the pools."""
        result = Routed()
        for wish in wishes:
            try:
                trouble = await self._sync_route(namespace, wish, services, pools, ready, act, result)
            except KubernetesError as error:
                trouble = _route_trouble(error)
            result.trouble = result.trouble or trouble
        return result

    async def _sync_route(
        self,
        namespace: str,
        wish: RouteWish,
        services: Sequence[str],
        pools: Sequence[Pool],
        ready: Sequence[int],
        act: bool,
        result: Routed,
    ) -> Trouble | None:
        provider = self._routes.get(wish.kind)
        if provider is None:
            return Trouble(
                Reason.ROUTE_NOT_FOUND, f"routes of kind {wish.kind} are not available in this release"
            )
        route = await provider.read(namespace, wish.name)
        if sum(ready) <= 0:
            result.weights |= {}
            return provider.health(route)

        def weigh(total: int) -> Mapping[str, int]:
            weights = route_weights(ready, pools, total) or [0] * len(pools)
            return dict(zip(services, weights, strict=True))

        plan = provider.plan(route, wish.rule, services, weigh)
        if plan.problem is not None:
            return plan.problem
        result.weights |= dict(plan.weights)
        await self._apply(provider, namespace, wish.name, plan, act, result)
        return provider.health(route)

    async def _apply(
        self, provider: RouteProvider, namespace: str, name: str, plan: Plan, act: bool, result: Routed
    ) -> None:
        if not plan.operations or not act:
            return
        await provider.apply(namespace, name, plan)
        result.changes += [f"{provider.kind} {name}, rule {change}" for change in plan.changes]


def pool_steps(current: Sequence[int], desired: int, pools: Sequence[Pool]) -> list[int]:
    """Replicas for each pool so that their sum moves from `current` to `desired`, and no further.

    A step up only raises pools and a step down only lowers them, the furthest from their share first: moving
    replicas between pools while the total stands still would take away ready ones before others have started.
    A pool outside its own bounds is brought back into them whatever the total does.
    """
    step = [min(max(n, p.min_replicas), p.max_replicas) for n, p in zip(current, pools, strict=True)]
    share = split_replicas(desired, pools)
    sign = 1 if desired > sum(step) else -1
    bounds = [pool.max_replicas if sign > 0 else pool.min_replicas for pool in pools]
    for ends in (share, bounds):  # shares may not add up where weight floors and bounds disagree
        for i in sorted(range(len(pools)), key=lambda i: sign * (step[i] - ends[i])):
            left = sign * (desired - sum(step))
            step[i] += sign * max(0, min(left, sign * (ends[i] - step[i])))
    return step


def scale_trouble(error: KubernetesError, otherwise: Reason) -> Trouble:
    """AbleToScale's reason for what the API server answered."""
    for kind, reason in _SCALE_REASONS:
        if isinstance(error, kind):
            return Trouble(reason, str(error))
    return Trouble(otherwise, str(error))


_SCALE_REASONS: tuple[tuple[type[KubernetesError], Reason], ...] = (
    (KindNotFound, Reason.KIND_NOT_FOUND),
    (NotFound, Reason.TARGET_NOT_FOUND),
    (NotScalable, Reason.NOT_SCALABLE),
    (Forbidden, Reason.FORBIDDEN),
    (Conflict, Reason.SCALE_CONFLICT),
)


def _route_trouble(error: KubernetesError) -> Trouble:
    reason = Reason.ROUTE_NOT_FOUND if isinstance(error, NotFound) else Reason.ROUTE_UPDATE_FAILED
    return Trouble(reason, str(error))
