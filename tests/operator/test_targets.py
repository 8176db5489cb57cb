"""Targets come from one watch where enough of them are read, and from requests where there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from controller.actuation.scale import Scaler
from controller.actuation.target import TargetRef
from controller.actuation.targets import TargetWatches
from controller.errors import Conflict, NotFound
from controller.kube import Kube
from tests.integration.harness import Namespace

pytestmark = pytest.mark.twin_only
LEAST = 3


@pytest.fixture
async def scaler(kube: Kube, namespace: Namespace) -> AsyncIterator[Scaler]:
    watches = TargetWatches(kube, (namespace.name,), LEAST)
    yield Scaler(kube, watches)
    watches.close()


def ref(ns: Namespace, name: str) -> TargetRef:
    return TargetRef("apps/v1", "Deployment", name, ns.name)


def reads(ns: Namespace) -> int:
    """Requests for one Deployment so far."""
    log = list(ns.cluster.twin.cluster.log)
    return sum(e.method == "GET" and f"/{ns.name}/deployments/" in e.path for e in log)


async def until_known(scaler: Scaler, target: TargetRef, replicas: int | None) -> None:
    async with asyncio.timeout(20):
        while (found := scaler.known(target)) is not None or replicas is not None:
            if found is not None and found.replicas == replicas:
                return
            await asyncio.sleep(0.02)


async def watching(scaler: Scaler, ns: Namespace) -> None:
    for number in range(LEAST):
        ns.deployment(f"web-{number}", replicas=number + 1)
    for number in range(LEAST):
        await scaler.read(ref(ns, f"web-{number}"))


async def test_few_targets_are_read_one_by_one(scaler: Scaler, namespace: Namespace) -> None:
    namespace.deployment("web", replicas=4)
    for _ in range(3):
        assert (await scaler.read(ref(namespace, "web"))).replicas == 4
    assert scaler.known(ref(namespace, "web")) is None
    assert reads(namespace) == 3


async def test_many_targets_are_known_without_requests_and_stay_up_to_date(
    scaler: Scaler, namespace: Namespace
) -> None:
    await watching(scaler, namespace)
    before = reads(namespace)
    target = ref(namespace, "web-1")
    assert (await scaler.read(target)).replicas == 2
    namespace.set_replicas("web-1", 7)
    await until_known(scaler, target, 7)
    found = await scaler.read(target)
    assert (found.replicas, found.ref) == (7, target)
    assert reads(namespace) == before


async def test_what_we_wrote_is_known_at_once_and_an_older_event_does_not_undo_it(
    scaler: Scaler, namespace: Namespace
) -> None:
    await watching(scaler, namespace)
    target = ref(namespace, "web-0")
    for replicas in (2, 3, 4):
        await asyncio.sleep(1.0)  # until the pods are ready: what else writes to it has then settled
        written = await scaler.write(await scaler.read(target), replicas)
        found = scaler.known(target)
        assert found is not None
        assert found.replicas == replicas
        assert int(found.resource_version) >= int(written.resource_version)
    await until_known(scaler, target, 4)


async def test_a_write_on_what_the_watch_has_missed_is_refused(scaler: Scaler, namespace: Namespace) -> None:
    await watching(scaler, namespace)
    old = await scaler.read(ref(namespace, "web-2"))
    namespace.set_replicas("web-2", 9)
    with pytest.raises(Conflict, match="scaled from 3 to 9"):
        await scaler.write(old, 4)
    assert namespace.replicas("web-2") == 9


async def test_a_target_that_is_deleted_is_not_found(scaler: Scaler, namespace: Namespace) -> None:
    await watching(scaler, namespace)
    namespace.api.delete(namespace.path("/apis/apps/v1", "deployments", "web-2"))
    await until_known(scaler, ref(namespace, "web-2"), None)
    with pytest.raises(NotFound, match="web-2 not found"):
        await scaler.read(ref(namespace, "web-2"))


async def test_a_watch_that_has_expired_is_begun_anew(scaler: Scaler, namespace: Namespace) -> None:
    await watching(scaler, namespace)
    twin = namespace.cluster.twin
    twin.call(twin.cluster.api.store.close_watches)
    twin.call(twin.cluster.api.store.compact)
    namespace.set_replicas("web-1", 5)
    await until_known(scaler, ref(namespace, "web-1"), 5)


async def test_without_the_right_to_list_targets_are_read_one_by_one(
    scaler: Scaler, namespace: Namespace
) -> None:
    refused = namespace.cluster.twin.inject(path=f"/{namespace.name}/deployments$", method="GET", code=403)
    for number in range(LEAST):
        namespace.deployment(f"web-{number}", replicas=number + 1)
    for number in range(LEAST):
        assert (await scaler.read(ref(namespace, f"web-{number}"))).replicas == number + 1
    assert refused.hits == 1
    assert scaler.known(ref(namespace, "web-0")) is None


async def test_after_a_start_with_many_targets_none_is_read_for_itself(
    kube: Kube, namespace: Namespace
) -> None:
    for number in range(LEAST):
        namespace.deployment(f"web-{number}", replicas=number + 1)
    watches = TargetWatches(kube, (namespace.name,), LEAST)
    try:
        await watches.begin(ref(namespace, f"web-{number}") for number in range(LEAST))
        found = [await Scaler(kube, watches).read(ref(namespace, f"web-{n}")) for n in range(LEAST)]
    finally:
        watches.close()
    assert [target.replicas for target in found] == [1, 2, 3]
    assert reads(namespace) == 0
