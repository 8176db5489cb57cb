"""Gateway API HTTPRoutes: weights of our own backendRefs by JSON patch, and nothing else.

Weights are relative to the sum of their rule. Where a rule holds only our services they share 100; where
foreign backends are beside them, ours share what ours had, so that the foreign share of traffic does not
move.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controller.actuation.routes.base import Plan, Weigh, WeightChange
from controller.api.constants import Reason
from controller.errors import Conflict, Invalid, KindNotFound, NotFound
from controller.kube import Json, Kube, Resource
from controller.trouble import Trouble

GROUP = "gateway.networking.k8s.io"
VERSIONS = ("v1", "v1beta1")
TOTAL = 100
DEFAULT_WEIGHT = 1
REQUIRED = ("Accepted", "ResolvedRefs")


class HttpRoutes:
    """The RouteProvider of kind HTTPRoute."""

    kind = "HTTPRoute"

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def read(self, namespace: str, name: str) -> Json:
        try:
            return await self._kube.get(await self._resource(), namespace, name)
        except KindNotFound:
            raise
        except NotFound as error:
            raise NotFound(f"HTTPRoute {namespace}/{name} not found", 404) from error

    async def apply(self, namespace: str, name: str, plan: Plan) -> Json:
        try:
            return await self._kube.json_patch(await self._resource(), namespace, name, plan.operations)
        except Invalid as error:
            # The API server answers 422 when a `test` operation fails.
            raise Conflict(f"HTTPRoute {namespace}/{name} changed meanwhile: {error}", 409) from error

    def plan(self, route: Json, rule: str | None, services: Sequence[str], weigh: Weigh) -> Plan:
        return plan_weights(route, rule, services, weigh)

    def health(self, route: Json) -> Trouble | None:
        return route_health(route)

    async def _resource(self) -> Resource:
        for version in VERSIONS:
            try:
                return await self._kube.resource(f"{GROUP}/{version}", self.kind)
            except KindNotFound:
                continue
        raise KindNotFound(
            f"the API server serves no HTTPRoute ({GROUP}); are the Gateway API CRDs installed?", 404
        )


def plan_weights(route: Json, rule: str | None, services: Sequence[str], weigh: Weigh) -> Plan:
    """Pure part of HttpRoutes.plan: the JSON patch that gives `services` their weights."""
    rules = [(i, r) for i, r in enumerate(route["spec"].get("rules") or []) if rule in (None, r.get("name"))]
    if not rules:
        return Plan(problem=Trouble(Reason.RULE_NOT_FOUND, f"{_name(route)} has no rule named {rule!r}"))
    found = [(i, r, _ours(route, r, services)) for i, r in rules]
    held = [(i, r, ours) for i, r, ours in found if ours]
    for i, r, ours in held or found:
        problem = _mismatch(route, r, str(i), [r["backendRefs"][j]["name"] for j in ours], services)
        if problem:
            return Plan(problem=problem)
    return _combine(route, [_plan_rule(i, r, ours, weigh) for i, r, ours in held])


def _mismatch(
    route: Json, rule: Json, index: str, names: list[str], services: Sequence[str]
) -> Trouble | None:
    """Every service must be in the rule exactly once, or its weights cannot mean shares."""
    where = f"in rule {_rule_name(rule, index)}"
    missing = sorted(set(services) - set(names))
    if missing:
        return Trouble(
            Reason.BACKEND_NOT_IN_ROUTE, f"{_name(route)} has no backendRef for {', '.join(missing)} {where}"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        return Trouble(
            Reason.BACKEND_TWICE_IN_ROUTE, f"{_name(route)} has {', '.join(twice)} more than once {where}"
        )
    return None


def _combine(route: Json, parts: list[tuple[list[Json], list[WeightChange], dict[str, int]]]) -> Plan:
    operations = [operation for part, _, _ in parts for operation in part]
    changes = [change for _, part, _ in parts for change in part]
    weights = parts[0][2] if parts else {}
    if not operations:
        return Plan(weights=tuple(weights.items()))
    version = route["metadata"]["resourceVersion"]
    guard = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
    return Plan((guard, *operations), tuple(changes), tuple(weights.items()))


def _plan_rule(
    index: int, rule: Json, ours: list[int], weigh: Weigh
) -> tuple[list[Json], list[WeightChange], dict[str, int]]:
    refs = rule["backendRefs"]
    total = _shared_total(refs, ours)
    wanted = weigh(total) if total else {refs[j]["name"]: 0 for j in ours}
    operations: list[Json] = []
    changes: list[WeightChange] = []
    for j in ours:
        name, before, after = refs[j]["name"], refs[j].get("weight"), int(wanted[refs[j]["name"]])
        if (DEFAULT_WEIGHT if before is None else before) == after:
            continue
        path = f"/spec/rules/{index}/backendRefs/{j}"
        operations.append({"op": "test", "path": f"{path}/name", "value": name})
        operations.append({"op": "add", "path": f"{path}/weight", "value": after})
        changes.append(WeightChange(_rule_name(rule, str(index)), name, before, after))
    return operations, changes, {refs[j]["name"]: int(wanted[refs[j]["name"]]) for j in ours}


def _shared_total(refs: list[Json], ours: list[int]) -> int:
    """What our services share: 100, or what they have now when foreign backends are beside them."""
    if len(ours) == len(refs):
        return TOTAL
    return sum(_weight(refs[j]) for j in ours)


def _ours(route: Json, rule: Json, services: Sequence[str]) -> list[int]:
    namespace = route["metadata"]["namespace"]
    return [j for j, ref in enumerate(rule.get("backendRefs") or []) if _is_ours(ref, namespace, services)]


def _is_ours(ref: Json, namespace: str, services: Sequence[str]) -> bool:
    return (
        ref.get("name") in services
        and ref.get("kind", "Service") == "Service"
        and ref.get("group", "") == ""
        and ref.get("namespace", namespace) == namespace
    )


def _weight(ref: Json) -> int:
    weight = ref.get("weight")
    return DEFAULT_WEIGHT if weight is None else int(weight)


def _rule_name(rule: Json, otherwise: str | None) -> str:
    return str(rule.get("name") or otherwise or 0)


def _name(route: Json) -> str:
    return f"HTTPRoute {route['metadata']['namespace']}/{route['metadata']['name']}"


def route_health(route: Json) -> Trouble | None:
    """Accepted and ResolvedRefs of every parent, for the generation that the route has now."""
    parents = (route.get("status") or {}).get("parents") or []
    if not parents:
        message = f"{_name(route)} has not been reported on by any gateway"
        return Trouble(Reason.ROUTE_NOT_REPORTED, message, unknown=True)
    problems = [_parent_problem(route, parent, kind) for parent in parents for kind in REQUIRED]
    found = [problem for problem in problems if problem is not None]
    return min(found, key=lambda problem: problem.unknown, default=None)


def _parent_problem(route: Json, parent: Json, kind: str) -> Trouble | None:
    gateway = (parent.get("parentRef") or {}).get("name", "?")
    found: Any = next((c for c in parent.get("conditions") or [] if c.get("type") == kind), None)
    generation = route["metadata"].get("generation", 0)
    if found is None or found.get("observedGeneration", generation) < generation:
        return Trouble(
            Reason.ROUTE_NOT_REPORTED,
            f"{_name(route)}: gateway {gateway} has not reported {kind} yet",
            unknown=True,
        )
    if found.get("status") == "True":
        return None
    word = Reason.ROUTE_NOT_ACCEPTED if kind == "Accepted" else Reason.ROUTE_REFS_NOT_RESOLVED
    return Trouble(word, f"{_name(route)}: gateway {gateway}: {found.get('reason')}: {found.get('message')}")
