"""What a route provider must say of its kind, and how weight changes are planned from that; all of it pure.

A provider knows where a kind of route keeps its weights (`groups`) and how it reports trouble (`health`);
reading, writing, snapshots and disputes are the same for all: `controller.actuation.routes.keeper`. A plan
touches weights alone. Everything else in the route, foreign backends included, is somebody else's and stays
byte for byte; each planned operation first tests that it still means the backend it was made for.

JSON patches, not server-side apply: the lists that hold weights are atomic in every one of these kinds, so
that an applied weight would take ownership of the whole list, foreign backends and filters included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.api.constants import Reason
from controller.kube import Json
from controller.trouble import Trouble

TOTAL = 100

Weigh = Callable[[int, Mapping[str, int]], Mapping[str, int]]
"""Weights by service name for a total that the services share, from the weights they have now."""


class RouteMismatch(Exception):
    """The route has not what spec.routes and spec.backends say; carries the condition's words."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.trouble = Trouble(reason, message)


@dataclass(frozen=True)
class Slot:
    """One weighted backend of a route. service: its Service in the route's own namespace, None for any other
    backend. weight: as written, None where absent; absent: what that means. test: a JSON pointer and its
    value that make sure the slot is still that backend. pointer: where the weight is written; as text in an
    annotation."""

    service: str | None
    weight: int | None
    pointer: str
    test: tuple[str, str]
    absent: int = 1
    as_text: bool = False

    @property
    def effective(self) -> int:
        return self.absent if self.weight is None else self.weight


@dataclass(frozen=True)
class Group:
    """Slots that share one traffic. total: what they share where all of them are ours. remainder: the
    traffic that no slot takes goes to one more service, which the route does not name."""

    rule: str
    slots: tuple[Slot, ...]
    total: int = TOTAL
    remainder: bool = False


@dataclass(frozen=True)
class WeightChange:
    """One backend's weight, before and after; None where the field is absent."""

    rule: str
    service: str
    before: int | None
    after: int | None

    def __str__(self) -> str:
        before, after = ("unset" if weight is None else weight for weight in (self.before, self.after))
        return f"{self.rule}: {self.service} {before} -> {after}"


@dataclass(frozen=True)
class Plan:
    """The operations to send and what they change; `problem` where nothing can be planned.

    weights: by service, in the first rule that holds them.
    """

    operations: tuple[Json, ...] = ()
    changes: tuple[WeightChange, ...] = ()
    weights: tuple[tuple[str, int], ...] = ()
    problem: Trouble | None = None


class RouteProvider(Protocol):
    """One kind of route."""

    @property
    def kind(self) -> str:
        """As in spec.routes."""
        ...

    @property
    def api_versions(self) -> tuple[str, ...]:
        """What to ask the API server for, the best first."""
        ...

    def groups(self, route: Json, rule: str | None) -> Sequence[Group]:
        """The groups of weights of the rule, or of every rule. Raises RouteMismatch."""
        ...

    def health(self, route: Json) -> Trouble | None:
        """Whether the route's controller has accepted it, from its status; None is healthy or not known."""
        ...


def route_name(kind: str, route: Json) -> str:
    """How messages call it."""
    return f"{kind} {route['metadata']['namespace']}/{route['metadata']['name']}"


def our_groups(
    provider: RouteProvider, route: Json, rule: str | None, services: Sequence[str]
) -> list[Group]:
    """The groups that hold our services, each of them once. Raises RouteMismatch."""
    groups = provider.groups(route, rule)
    held = [group for group in groups if any(slot.service in services for slot in group.slots)]
    for group in held or groups:
        _check(route_name(provider.kind, route), group, services)
    return held


def plan_weights(
    provider: RouteProvider, route: Json, rule: str | None, services: Sequence[str], weigh: Weigh
) -> Plan:
    """The JSON patch that gives `services` their weights in every group that holds them."""
    try:
        groups = our_groups(provider, route, rule, services)
    except RouteMismatch as error:
        return Plan(problem=error.trouble)
    wanted = [(group, _wanted(group, services, weigh)) for group in groups]
    plan = plan_changes(route, wanted)
    weights = tuple(wanted[0][1].items()) if wanted else ()
    return Plan(plan.operations, plan.changes, weights)


def plan_changes(route: Json, wanted: Sequence[tuple[Group, Mapping[str, int]]]) -> Plan:
    """The operations that bring each group's slots to the weights by service that are wanted."""
    operations: list[Json] = []
    changes: list[WeightChange] = []
    for group, weights in wanted:
        for slot in group.slots:
            if slot.service is None or slot.service not in weights:
                continue
            after = weights[slot.service]
            if slot.effective != after:
                operations += _write(slot, after)
                changes.append(WeightChange(group.rule, slot.service, slot.weight, after))
    if not operations:
        return Plan()
    return Plan((unchanged_since(route), *operations), tuple(changes))


def unchanged_since(route: Json) -> Json:
    """The operation that fails when the route is no longer the one that was read."""
    version = route["metadata"]["resourceVersion"]
    return {"op": "test", "path": "/metadata/resourceVersion", "value": version}


def effective_weights(group: Group, services: Sequence[str]) -> dict[str, int]:
    """What our services have now, by name."""
    found = {slot.service: slot.effective for slot in group.slots if slot.service in services}
    weights = {service: found[service] for service in services if service in found}
    if group.remainder:
        for service in services:
            weights.setdefault(service, max(0, group.total - sum(slot.effective for slot in group.slots)))
    return weights


def _check(name: str, group: Group, services: Sequence[str]) -> None:
    """Every service must be in the group exactly once, or its weights cannot mean shares."""
    held = [slot.service for slot in group.slots if slot.service in services]
    missing = sorted(set(services) - {service for service in held if service})
    if group.remainder:
        _check_remainder(name, group, held, missing)
    elif missing:
        words = f"{name} has no backendRef for {', '.join(missing)} in rule {group.rule}"
        raise RouteMismatch(Reason.BACKEND_NOT_IN_ROUTE, words)
    twice = sorted({service for service in held if service and held.count(service) > 1})
    if twice:
        words = f"{name} has {', '.join(twice)} more than once in rule {group.rule}"
        raise RouteMismatch(Reason.BACKEND_TWICE_IN_ROUTE, words)


def _check_remainder(name: str, group: Group, held: Sequence[str | None], missing: Sequence[str]) -> None:
    if not held:
        words = f"{name} sends its weight to none of {', '.join(missing)}"
        raise RouteMismatch(Reason.BACKEND_NOT_IN_ROUTE, words)
    if len(missing) != 1:
        given = len(missing) + len(held)
        words = f"{name} splits traffic between two pools, its own and the rest; {given} are given"
        raise RouteMismatch(Reason.BACKEND_NOT_IN_ROUTE, words)


def _wanted(group: Group, services: Sequence[str], weigh: Weigh) -> dict[str, int]:
    total = _shared_total(group, services)
    now = effective_weights(group, services)
    if not total:
        return dict.fromkeys(now, 0)
    given = weigh(total, now)
    return {service: int(given[service]) for service in now}


def _shared_total(group: Group, services: Sequence[str]) -> int:
    """What our services share: all of it, or what they have now when foreign backends are beside them."""
    ours = [slot for slot in group.slots if slot.service in services]
    if len(ours) == len(group.slots):
        return group.total
    return sum(slot.effective for slot in ours)


def _write(slot: Slot, after: int) -> list[Json]:
    path, value = slot.test
    weight = str(after) if slot.as_text else after
    return [
        {"op": "test", "path": path, "value": value},
        {"op": "add", "path": slot.pointer, "value": weight},
    ]
