"""From a decision to writes: which pools move by how much (pure), then /scale and routes, reported as
facts.

The loop calls `scale` and `sync_routes` for one RLScaler at a time, after the guard. Nothing in here
decides how many replicas a service needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from controller.actuation.routes.keeper import Kept, RouteKeeper, RouteRef
from controller.actuation.scale import Scaler
from controller.actuation.target import Target
from controller.actuation.targets import TargetWatches
from controller.actuation.weights import Ask, weigher
from controller.api.constants import Reason
from controller.core import Pool, split_replicas
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
    """One route to keep in step, as in spec.routes.

    max_step: percentage points a turn, None for no limit. remember: whether to note the weights of before.
    """

    kind: str
    name: str
    rule: str | None
    max_step: int | None = None
    remember: bool = True


@dataclass
class Routed:
    """What became of the routes: weights by service, the changes made, and the first trouble."""

    weights: dict[str, int] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    trouble: Trouble | None = None
    restored: bool = False
    """Whether the weights of before are to be in the routes."""
    note: str = ""
    """By what the weights were decided, where it is not by ready replicas."""


@dataclass(frozen=True)
class Shared:
    """The pools that share one traffic: their Services, bounds and ready replicas, in one order.

    ask: their shares from their current weights (None: leave these); without it, by ready replicas.
    """

    services: Sequence[str]
    pools: Sequence[Pool]
    ready: Sequence[int]
    ask: Ask | None = None


class Actuator:
    """Carries decisions out through the Kubernetes API. now_s: control seconds, for what routes wait for."""

    def __init__(
        self,
        kube: Kube,
        watches: TargetWatches | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.scaler = Scaler(kube, watches)
        self.routes = RouteKeeper(kube, now_s)

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
        self, namespace: str, owner: str, wishes: Sequence[RouteWish], shared: Shared, act: bool
    ) -> Routed:
        """Bring the weights of our backends in step with the ready replicas of the pools.

        owner: name of the RLScaler, which the routes remember its weights by.
        """
        result = Routed()
        refs = {RouteRef(namespace, owner, wish.kind, wish.name, wish.rule): wish for wish in wishes}
        if act:
            await self._leave(namespace, owner, refs, result)
        for ref, wish in refs.items():
            weigh = weigher(shared.services, shared.pools, shared.ready, wish.max_step, shared.ask)
            try:
                kept = await self.routes.sync(ref, shared.services, weigh, act, wish.remember)
            except KubernetesError as error:
                kept = Kept(trouble=route_trouble(error))
            result.weights |= kept.weights
            result.changes += kept.changes
            result.trouble = result.trouble or kept.trouble
        return result

    async def restore_routes(self, namespace: str, owner: str, wishes: Sequence[RouteWish]) -> Routed:
        """Put back the weights that the routes had before this RLScaler."""
        result = Routed(restored=True)
        for wish in wishes:
            await self._restore(RouteRef(namespace, owner, wish.kind, wish.name, wish.rule), result)
        return result

    async def _leave(self, namespace: str, owner: str, wished: Collection[RouteRef], result: Routed) -> None:
        """Restore the routes that the RLScaler weighed until its spec changed."""
        for ref in self.routes.known(namespace, owner):
            if ref not in wished:
                await self._restore(ref, result)
                if result.trouble is None:
                    self.routes.forget_route(ref)

    async def _restore(self, ref: RouteRef, result: Routed) -> None:
        try:
            result.changes += await self.routes.restore(ref)
        except NotFound:
            pass  # the route is gone, and its weights with it
        except KubernetesError as error:
            result.trouble = result.trouble or route_trouble(error)


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


def route_trouble(error: KubernetesError) -> Trouble:
    """RoutesSynced's reason for what the API server answered."""
    reason = Reason.ROUTE_NOT_FOUND if isinstance(error, NotFound) else Reason.ROUTE_UPDATE_FAILED
    return Trouble(reason, str(error))
