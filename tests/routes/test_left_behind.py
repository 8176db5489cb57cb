"""Weights of RLScalers that were deleted while no operator ran."""

from __future__ import annotations

from controller.actuation.apply import Actuator
from controller.actuation.routes.keeper import RouteRef
from controller.kube import Kube
from controller.routing import Restorer
from tests.integration.harness import Namespace
from tests.routes.tables import OURS
from tests.routes.test_keeper import HTTP, Clock, make, plain, share, stored, weights


async def test_they_are_put_back_at_the_next_start_but_those_of_living_ones_are_not(
    kube: Kube, namespace: Namespace
) -> None:
    before = make(namespace, HTTP)
    actuator = Actuator(kube, now_s=Clock())
    namespace.rlscaler("living", mode="Paused")
    for owner in ("living", "dead"):
        ref = RouteRef(namespace.name, owner, "HTTPRoute", "web", "main")
        await actuator.routes.sync(ref, OURS, share(0.5 if owner == "living" else 0.75), act=True)

    restorer = Restorer(kube, Actuator(kube, now_s=Clock()))
    await restorer.sweep(["HTTPRoute"], [namespace.name])
    assert weights(namespace, HTTP) == {"web-od": 40, "web-spot": 40}, "what the living one had found"
    await restorer.sweep(["HTTPRoute"], [namespace.name])
    assert weights(namespace, HTTP) == {"web-od": 40, "web-spot": 40}
    assert actuator.routes.owners(stored(namespace, HTTP)) == ["living"]

    await actuator.routes.restore(RouteRef(namespace.name, "living", "HTTPRoute", "web"))
    assert plain(stored(namespace, HTTP)) == plain(before)
