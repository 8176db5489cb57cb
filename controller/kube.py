"""The Kubernetes API as the control loop uses it: a few verbs, plain dicts, one exception class an
outcome.

Built on kubernetes.aio's ApiClient for credentials and connections; the typed API classes are left aside,
as scale targets may be of any kind, found by discovery. Watching RLScalers and HPAs is kopf's work; targets
are watched here, as thousands of them are read for a few numbers each.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
import yaml

from controller import __version__
from controller.errors import (
    KindNotFound,
    KubernetesError,
    NotFound,
    NotLeading,
    NotScalable,
    SettingsError,
    TooManyRequests,
    Unreachable,
    kubernetes_error,
)

Json = dict[str, Any]
JsonPatch = Sequence[Mapping[str, Any]]

MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;q=0.5"
SERVICE_ACCOUNT_TOKEN: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"
DISCOVERY_TTL_S: Final = 600.0
DISCOVERY_MISS_TTL_S: Final = 10.0
LIST_CHUNK: Final = 500
MAX_ATTEMPTS: Final = 4
WATCH_REAL_S: Final = (240, 360)
WATCH_SILENT_REAL_S: Final = 120.0
"""Twice as long as an API server is silent on a watch that has asked for bookmarks."""
MOST_WATCHES: Final = 8


@dataclass(frozen=True)
class Resource:
    """One kind as the API server serves it."""

    group_version: str
    kind: str
    plural: str
    namespaced: bool
    scalable: bool

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        root = "/api/v1" if self.group_version == "v1" else f"/apis/{self.group_version}"
        parts = [root]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(name, safe="")] if name is not None else []
        parts += [subresource] if subresource else []
        return "/".join(parts)


RLSCALERS: Final = Resource("rlscaler.dev/v1alpha1", "RLScaler", "rlscalers", True, False)
HPAS: Final = Resource("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True, False)
RLSCALER_BUDGETS: Final = Resource("rlscaler.dev/v1alpha1", "RLScalerBudget", "rlscalerbudgets", True, False)
EVENTS: Final = Resource("v1", "Event", "events", True, False)
SECRETS: Final = Resource("v1", "Secret", "secrets", True, False)
CONFIG_MAPS: Final = Resource("v1", "ConfigMap", "configmaps", True, False)


class Kube:
    """The requests we make, bounded in number and time.

    Raises the KubernetesError tree of `controller.errors`. A 429 or 503 with Retry-After is waited for and
    asked again while the waits stay within `timeout_s`.
    """

    def __init__(self, api_client: Any, timeout_s: float = 10.0, concurrency: int = 32) -> None:
        self._api = api_client
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(concurrency)
        self._kinds: dict[str, tuple[float, dict[str, Resource]]] = {}
        self.fence_s: Callable[[], float] | None = None
        """Real seconds in which a write may still be made, asked before each; None: no limit."""

    @classmethod
    async def connect(cls, kubeconfig: str = "", timeout_s: float = 10.0, concurrency: int = 32) -> Kube:
        """A client with the kubeconfig's credentials, else the pod's, else those of $KUBECONFIG."""
        from kubernetes.aio.client.api_client import ApiClient
        from kubernetes.aio.client.configuration import Configuration

        configuration = Configuration()
        await load_credentials(configuration, kubeconfig)
        configuration.connection_pool_maxsize = concurrency + MOST_WATCHES
        # aiohttp would look for proxies and a ~/.netrc anew for each request, in a thread each time
        configuration.client_session_kwargs = {"trust_env": False}
        configuration.proxy = configuration.proxy or environment_proxy(configuration.host)
        client = ApiClient(configuration)
        # who it was, in the API server's audit log
        client.user_agent = f"rl-scaler/{__version__} ({socket.gethostname()}; pid {os.getpid()})"
        return cls(client, timeout_s, concurrency)

    async def close(self) -> None:
        await self._api.close()

    @property
    def configuration(self) -> Any:
        """kubernetes.aio's Configuration, for whoever needs the same credentials (kopf)."""
        return self._api.configuration

    async def get(self, resource: Resource, namespace: str, name: str, subresource: str = "") -> Json:
        return await self.request("GET", resource.path(namespace, name, subresource))

    async def version(self, resource: Resource, namespace: str, name: str) -> str:
        """The object's resourceVersion, read without the rest of it where the server can do so."""
        found = await self.request("GET", resource.path(namespace, name), accept=METADATA_ONLY)
        return str((found.get("metadata") or {}).get("resourceVersion") or "")

    async def list_all(
        self, resource: Resource, namespace: str | None = None, labels: str = ""
    ) -> list[Json]:
        """All objects, read in chunks; without a namespace, those of all namespaces."""
        return [
            item async for page in self.pages(resource, namespace, labels) for item in page.get("items") or []
        ]

    async def pages(
        self, resource: Resource, namespace: str | None = None, labels: str = ""
    ) -> AsyncIterator[Json]:
        """The same list, a chunk at a time as the API server gives it. labels: a label selector."""
        token = ""
        while True:
            query = {"limit": str(LIST_CHUNK)} | ({"labelSelector": labels} if labels else {})
            query |= {"continue": token} if token else {}
            page = await self.request("GET", f"{resource.path(namespace)}?{urlencode(query)}")
            yield page
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    async def watch(
        self, resource: Resource, namespace: str | None, version: str
    ) -> AsyncIterator[dict[str, Any]]:
        """Events after `version` until the server ends the watch. Raises Gone when it is too old for that."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version}
        query["timeoutSeconds"] = str(random.randint(*WATCH_REAL_S))
        path = f"{resource.path(namespace)}?{urlencode(query)}"
        url, headers = await self._prepared("GET", path, "application/json")
        limits = aiohttp.ClientTimeout(
            total=None, sock_connect=self._timeout_s, sock_read=WATCH_SILENT_REAL_S
        )
        try:
            response = await self._api.rest_client.request(
                "GET", url, headers=headers, _request_timeout=limits
            )
            try:
                if response.status >= 300:
                    raise _error("GET", path, response.status, response.headers, await response.read())
                async for line in response.response.content:
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        code = int(event["object"].get("code") or 0)
                        raise kubernetes_error(code, str(event["object"].get("message")))
                    yield event
            finally:
                response.response.close()
        except TimeoutError:
            return  # nothing was said for long: the connection may be dead, so ask anew
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(_unreachable(self._api.configuration.host, self._timeout_s, error)) from error

    async def create(self, resource: Resource, namespace: str, body: Json) -> Json:
        return await self.request("POST", resource.path(namespace), body, "application/json")

    async def merge_patch(
        self, resource: Resource, namespace: str, name: str, body: Json, subresource: str = ""
    ) -> Json:
        return await self.request("PATCH", resource.path(namespace, name, subresource), body, MERGE_PATCH)

    async def json_patch(
        self, resource: Resource, namespace: str, name: str, operations: JsonPatch, fenced: bool = True
    ) -> Json:
        path = resource.path(namespace, name)
        return await self.request("PATCH", path, list(operations), JSON_PATCH, fenced)

    async def resource(self, api_version: str, kind: str) -> Resource:
        """The resource of a kind, by discovery. Raises KindNotFound."""
        known = await self._discover(api_version)
        found = known.get(kind)
        if found is None:
            raise KindNotFound(f"the API server serves no kind {kind} in {api_version}", 404)
        return found

    async def scalable(self, api_version: str, kind: str) -> Resource:
        """As `resource`, for a kind that must have /scale. Raises NotScalable."""
        found = await self.resource(api_version, kind)
        if not found.scalable:
            raise NotScalable(f"kind {kind} in {api_version} has no /scale subresource")
        return found

    async def _discover(self, api_version: str) -> dict[str, Resource]:
        expires, kinds = self._kinds.get(api_version, (0.0, {}))
        if time.monotonic() < expires:
            return kinds
        path = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        try:
            listed = (await self.request("GET", path)).get("resources") or []
        except NotFound:
            listed = []
        kinds = _kinds(api_version, listed)
        ttl = DISCOVERY_TTL_S if kinds else DISCOVERY_MISS_TTL_S
        self._kinds[api_version] = (time.monotonic() + ttl, kinds)
        return kinds

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        fenced: bool = True,
        accept: str = "application/json",
    ) -> Json:
        """One request, with the waits that the server asks for. Raises NotLeading for a fenced write."""
        patience_s = self._timeout_s
        for _ in range(MAX_ATTEMPTS - 1):
            try:
                return await self._once(method, path, body, content_type, fenced, accept)
            except KubernetesError as error:
                if not 0 < error.retry_after_s <= patience_s:
                    raise
                patience_s -= error.retry_after_s
                await asyncio.sleep(error.retry_after_s)
        return await self._once(method, path, body, content_type, fenced, accept)

    async def _once(
        self, method: str, path: str, body: Any, content_type: str, fenced: bool, accept: str
    ) -> Json:
        url, headers = await self._prepared(method, path, content_type, accept)
        async with self._slots:
            try:
                limits = self._limits(fenced and method != "GET")
                response = await self._api.rest_client.request(
                    method, url, headers=headers, body=body, _request_timeout=limits
                )
                data = await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise Unreachable(
                    _unreachable(self._api.configuration.host, self._timeout_s, error)
                ) from error
        if response.status >= 300:
            raise _error(method, path, response.status, response.headers, data)
        parsed = orjson.loads(data) if data else {}
        return parsed if isinstance(parsed, dict) else {}

    async def _prepared(
        self, method: str, path: str, content_type: str, accept: str = "application/json"
    ) -> tuple[str, dict[str, str]]:
        _, url, headers, _, _ = await self._api.param_serialize(
            method,
            path,
            header_params={"Accept": accept, "Content-Type": content_type},
            auth_settings=["BearerToken"],
        )
        return url, headers

    def _limits(self, fenced: bool) -> aiohttp.ClientTimeout:
        """Time for one request; a write is given up before anybody else may lead."""
        if not fenced or self.fence_s is None:
            return aiohttp.ClientTimeout(total=self._timeout_s)
        left_s = self.fence_s()
        if left_s <= 0:
            raise NotLeading("this operator does not lead")
        return aiohttp.ClientTimeout(total=min(self._timeout_s, left_s))


async def load_credentials(configuration: Any, kubeconfig: str = "") -> None:
    """Fill a kubernetes.aio Configuration. Raises SettingsError when nothing usable is found."""
    from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

    try:
        if not kubeconfig and _in_pod():
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            return
        path = kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
        await load_kube_config(  # type: ignore[no-untyped-call]
            config_file=path, client_configuration=configuration, persist_config=False
        )
    except (ConfigException, OSError, yaml.YAMLError, *_MALFORMED) as error:
        allowed = f"a readable kubeconfig, or a pod's ServiceAccount ({error})"
        raise SettingsError("--kubeconfig", kubeconfig, allowed) from error


def environment_proxy(url: str) -> str | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY (or in small letters) name for a URL."""
    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)


_MALFORMED = (ValueError, TypeError, KeyError, AttributeError)
"""What kubernetes.aio raises over files that are YAML but no kubeconfig."""


def _in_pod() -> bool:
    return Path(SERVICE_ACCOUNT_TOKEN).exists()


def _kinds(api_version: str, listed: list[Json]) -> dict[str, Resource]:
    scalable = {
        str(entry["name"]).removesuffix("/scale") for entry in listed if entry["name"].endswith("/scale")
    }
    return {
        entry["kind"]: Resource(
            api_version,
            entry["kind"],
            entry["name"],
            bool(entry.get("namespaced")),
            entry["name"] in scalable,
        )
        for entry in listed
        if "/" not in entry["name"]
    }


def _error(method: str, path: str, status: int, headers: Mapping[str, str], data: bytes) -> KubernetesError:
    try:
        message = str(orjson.loads(data).get("message") or "")
    except (ValueError, AttributeError):
        message = data[:200].decode("utf-8", "replace")
    error = kubernetes_error(status, message or f"{method} {path.partition('?')[0]}: HTTP {status}")
    if status in (429, 503):
        error.retry_after_s = _retry_after_s(headers, TooManyRequests if status == 429 else None)
    return error


def _retry_after_s(headers: Mapping[str, str], kind: type[KubernetesError] | None) -> float:
    """Seconds to wait; a 429 without the header waits one second, any other error none."""
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return 1.0 if kind is TooManyRequests else 0.0


def _unreachable(host: str, timeout_s: float, error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"the API server {host} gave no answer in {timeout_s:g} s"
    return f"the API server {host} cannot be reached: {error or type(error).__name__}"
