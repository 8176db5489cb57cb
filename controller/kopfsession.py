"""kopf's HTTP session, in which a list of RLScalers is the one that the operator has read itself.

kopf lists what it is about to watch, and keeps every object until its handler has run. The operator has read
the same list just before, in chunks. So kopf is told that there is nothing, as of the version of the
operator's list, and watches from there: nothing is missed, nothing is read twice, and with ten thousand
RLScalers no ten thousand handlers run beside the first decisions.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import kopf

from controller.errors import KubernetesError
from controller.kube import Resource

RETRY_REAL_S = 1.0

Listed = Callable[[str | None], Awaitable[str]]
"""Sees to it that a namespace (None: all of them) has been listed; returns the version to watch from."""


def open_session(info: kopf.ConnectionInfo, resource: Resource, listed: Listed) -> kopf.AiohttpSession:
    """A session as kopf would make it from `info`, but for lists of `resource`."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        proxy=info.proxy_url,
        response_class=_response_class(resource, listed),
    )
    return kopf.AiohttpSession(server=info.server, aiohttp_session=session)


def _response_class(resource: Resource, listed: Listed) -> type[aiohttp.ClientResponse]:
    path = re.compile(rf"/apis/{resource.group_version}/(?:namespaces/([^/]+)/)?{resource.plural}$")

    class Response(aiohttp.ClientResponse):
        async def json(self, **options: Any) -> Any:
            found = path.search(self.url.path)
            if found is None or self.method != "GET" or self.status != 200 or "watch" in self.url.query:
                return await super().json(**options)
            await self.read()
            return {
                "apiVersion": resource.group_version,
                "kind": f"{resource.kind}List",
                "metadata": {"resourceVersion": await _version(listed, found[1])},
                "items": [],
            }

    return Response


async def _version(listed: Listed, namespace: str | None) -> str:
    """Raises ClientConnectionError, after which kopf lists again, where the operator cannot list."""
    try:
        return await listed(namespace)
    except KubernetesError as error:
        await asyncio.sleep(RETRY_REAL_S)
        raise aiohttp.ClientConnectionError(str(error)) from error
