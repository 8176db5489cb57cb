"""kopf's session shows it the operator's own list of RLScalers, and everything else as it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import aiohttp
import kopf
import pytest

from controller.errors import Unreachable
from controller.kopfsession import open_session
from controller.kube import CONFIG_MAPS, RLSCALERS, Kube
from controller.operator import Operator, connection
from controller.settings import Settings
from tests.integration.harness import Namespace


class Lists:
    """Notes who was listed; answers with a version, or fails."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self.error: Exception | None = None

    async def __call__(self, namespace: str | None) -> str:
        self.asked.append(namespace)
        if self.error is not None:
            raise self.error
        return "4711"


@pytest.fixture
def lists() -> Lists:
    return Lists()


@pytest.fixture
async def session(kube: Kube, lists: Lists) -> AsyncIterator[kopf.AiohttpSession]:
    made = open_session(await connection(kube.configuration), RLSCALERS, lists)
    yield made
    await made.aiohttp_session.close()


async def get(session: kopf.AiohttpSession, path: str) -> dict[str, object]:
    async with session.aiohttp_session.get(f"{session.server}{path}") as response:
        return dict(await response.json())


@pytest.mark.parametrize("query", ["", "?limit=500", "?limit=500&labelSelector=shard%3Da"])
async def test_a_list_is_empty_as_of_the_operators_own(
    session: kopf.AiohttpSession, lists: Lists, namespace: Namespace, query: str
) -> None:
    namespace.rlscaler("web")
    for asked, path in ((None, RLSCALERS.path()), (namespace.name, RLSCALERS.path(namespace.name))):
        found = await get(session, path + query)
        assert lists.asked.pop() == asked
        assert (found["kind"], found["items"]) == ("RLScalerList", [])
        assert found["metadata"] == {"resourceVersion": "4711"}, "and nothing to go on reading with"


async def test_all_else_is_as_the_api_server_says(
    session: kopf.AiohttpSession, lists: Lists, namespace: Namespace
) -> None:
    namespace.rlscaler("web")
    assert (await get(session, RLSCALERS.path(namespace.name, "web")))["kind"] == "RLScaler"
    assert (await get(session, CONFIG_MAPS.path(namespace.name)))["kind"] == "ConfigMapList"
    assert (await get(session, RLSCALERS.path(namespace.name, "absent")))["code"] == 404
    assert (await get(session, RLSCALERS.path(namespace.name) + "?labelSelector=a%20b%20c"))["code"] == 400
    assert lists.asked == []


async def test_a_watch_shows_what_happens(
    session: kopf.AiohttpSession, kube: Kube, lists: Lists, namespace: Namespace
) -> None:
    page = await kube.request("GET", RLSCALERS.path(namespace.name))
    version = page["metadata"]["resourceVersion"]
    namespace.rlscaler("web")
    path = f"{RLSCALERS.path(namespace.name)}?watch=true&timeoutSeconds=5&resourceVersion={version}"
    async with session.aiohttp_session.get(f"{session.server}{path}") as response:
        event = json.loads(await anext(aiter(response.content)))
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "web")
    assert lists.asked == []


async def test_kopf_lists_again_where_the_operator_cannot(
    session: kopf.AiohttpSession, lists: Lists, namespace: Namespace
) -> None:
    lists.error = Unreachable("the API server is away")
    with pytest.raises(aiohttp.ClientConnectionError, match="is away"):
        await get(session, RLSCALERS.path(namespace.name))


async def test_a_watch_begins_at_the_first_list_and_later_ones_at_a_list_of_their_own(
    kube: Kube, namespace: Namespace
) -> None:
    operator = Operator(Settings(namespaces=(namespace.name,)), kube)
    namespace.rlscaler("first")
    await operator.list_all(first=True)
    namespace.rlscaler("second")
    begins = await operator.listed(namespace.name)
    second = namespace.get("second")["metadata"]["resourceVersion"]
    assert int(begins) < int(second), "the watch shows the second one"
    assert operator.registry.named(namespace.name, "second") is None
    assert int(await operator.listed(namespace.name)) >= int(second)
    assert operator.registry.named(namespace.name, "second") is not None
