"""TwinCluster: kmock's Kubernetes emulator made to behave like an API server.

kmock brings the HTTP server, parsed requests, their log, and scripted reactions (`cluster['get /...'] << 500`
still wins over everything here). This adds what operators depend on: resourceVersions and 409, generation,
subresources, schemas of CRDs, Tables, watches from a revision, finalizers, owners, and controllers for
workloads and routes. Used by `sim.twin.hosted` (for synchronous tests) and by `python -m sim.twin`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp.test_utils
import aiohttp.web
import attrs
import yaml
from kmock import KubernetesEmulator, RawHandler, Server
from kmock._internal.rendering import Request

from sim.twin import discovery, errors, patches, protobuf, tables
from sim.twin.api import Api, WriteOptions, storage_key
from sim.twin.errors import ApiError, Json
from sim.twin.gateway import GatewayController
from sim.twin.managers import manager_of
from sim.twin.resources import REVIEWS, ResourceType
from sim.twin.selectors import Matcher, parse_field_selector, parse_label_selector
from sim.twin.store import Change, Watch
from sim.twin.workloads import NODE, WorkloadController

_log = logging.getLogger(__name__)
BOOKMARK_S = 30.0
MAX_BODY = 3 * 1024 * 1024  # the API server's own limit
_KEPT_REQUESTS = 2_000
_PATCHES: dict[str, Callable[[Any, Any], Any]] = {
    "application/merge-patch+json": patches.merge_patch,
    "application/json-patch+json": patches.json_patch,
    "application/strategic-merge-patch+json": patches.strategic_merge_patch,
}
_APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True)
class Target:
    """What a URL names."""

    resource: ResourceType
    namespace: str | None
    name: str | None
    subresource: str | None


@dataclass(frozen=True)
class LoggedRequest:
    """One request as it came in, with the status it got (watches: when they ended)."""

    time: float  # time.monotonic()
    method: str
    path: str
    params: dict[str, str]
    content_type: str
    user_agent: str
    body: bytes
    code: int


@dataclass
class Fault:
    """Trouble for the next `times` requests that match: an error status, a delay, or a side effect."""

    code: int | None = None  # None: the request is served after the delay and the action
    method: str | None = None
    path: str = ".*"
    times: int = 1
    retry_after_s: int | None = None
    delay_s: float = 0.0
    action: Callable[[], None] | None = None
    hits: int = 0
    _pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._pattern = re.compile(self.path)

    def matches(self, method: str, path: str) -> bool:
        return self.hits < self.times and self.method in (None, method) and bool(self._pattern.search(path))


class _BigBodyServer(aiohttp.test_utils.RawTestServer):
    """aiohttp's raw server with the API server's limit on bodies instead of 1 MiB."""

    async def _make_runner(self, debug: bool = False, **kwargs: Any) -> Any:
        loop = asyncio.get_running_loop()

        def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> Any:
            return aiohttp.web.BaseRequest(
                message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY
            )

        server = aiohttp.web.Server(self._handler, request_factory=request, **kwargs)
        return aiohttp.web.ServerRunner(server, shutdown_timeout=1.0)


@attrs.define(kw_only=True)
class TwinCluster(KubernetesEmulator):
    """An API server on loopback: `async with TwinCluster(time_scale=60) as cluster: cluster.url`.

    `start_up_s` is how long a pod takes to become ready, in control seconds; one real second is
    `time_scale` of them. `port=0` picks a free one.
    """

    port: int = 0
    host: str = "127.0.0.1"
    time_scale: float = 60.0
    start_up_s: float = 60.0
    workloads: bool = True
    """Whether Deployments and the like get pods; without, their status is whatever is written to it."""

    api: Api = attrs.field(factory=Api, init=False)
    log: deque[LoggedRequest] = attrs.field(factory=lambda: deque(maxlen=100_000), init=False)
    faults: list[Fault] = attrs.field(factory=list, init=False)
    _server: Server | None = attrs.field(default=None, init=False)
    _controllers: list[Any] = attrs.field(factory=list, init=False)
    _closing: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        # kmock's own fallback reactions are not registered: whatever no reaction takes is served here.
        pass

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._controllers = [GatewayController(self.api)]
        if self.workloads:
            self._controllers.append(WorkloadController(self.api, self.time_scale, self.start_up_s))
        self._create_node()
        self._server = Server(self, self.host, self.port, server_cls=_BigBodyServer)
        await self._server.__aenter__()
        self.port = self._server.port
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self._closing = True
        self.api.store.close_watches()
        for controller in self._controllers:
            controller.stop()
        if self._server is not None:
            await self._server.__aexit__(*exc)
            self._server = None
        await super().__aexit__(*exc)

    @property
    def url(self) -> str:  # type: ignore[override]
        """`http://127.0.0.1:<port>`, with no slash at the end."""
        return f"http://{self.host}:{self.port}"

    def write_kubeconfig(self, path: str | Path) -> Path:
        """Writes a kubeconfig that names this cluster and returns its path."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "twin", "cluster": {"server": self.url}}],
            "users": [{"name": "twin", "user": {"token": "twin"}}],
            "contexts": [
                {"name": "twin", "context": {"cluster": "twin", "user": "twin", "namespace": "default"}}
            ],
            "current-context": "twin",
        }
        target = Path(path)
        target.write_text(yaml.safe_dump(config, sort_keys=False))
        return target

    def inject(self, fault: Fault | None = None, **fields: Any) -> Fault:
        """Makes coming requests fail: `cluster.inject(code=429, path='/scale$', retry_after_s=1)`."""
        fault = fault or Fault(**fields)
        self.faults.append(fault)
        return fault

    def _create_node(self) -> None:
        node = self.api.resource(("", "nodes"))
        self.api.create(node, None, {"metadata": {"name": NODE, "labels": {"kubernetes.io/os": "linux"}}})
        status = {
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "capacity": {"cpu": "1000", "memory": "4000Gi", "pods": "10000"},
            "allocatable": {"cpu": "1000", "memory": "4000Gi", "pods": "10000"},
            "nodeInfo": {"kubeletVersion": discovery.VERSION["gitVersion"]},
        }
        self.api.update(node, None, NODE, lambda o: o | {"status": status}, "status")

    # One request

    async def __call__(self, raw_request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        request = await _parse(raw_request, len(self._requests))
        self._requests.append(request)
        try:
            return await self._handle(request)
        except Exception as error:  # a fault of the twin's own: tell the client, keep serving
            _log.exception("the twin failed to serve %s %s", request.method, request.url)
            self._errors[-1].append(error)
            return _json(ApiError(500, "InternalError", f"Internal error occurred: {error!r}").status(), 500)

    async def _handle(self, request: Request) -> aiohttp.web.StreamResponse:
        if len(self._requests) > _KEPT_REQUESTS:
            del self._requests[: _KEPT_REQUESTS // 2]
        try:
            await self._suffer(request)
            response = await self._react(request) or await self._serve(request)
        except ApiError as error:
            response = _json(error.status(), error.code, error.headers)
        self._record(request, response.status)
        return response

    async def _react(self, request: Request) -> aiohttp.web.StreamResponse | None:
        """kmock's scripted reactions, if a test has declared any."""
        if not self._payloads:
            return None
        try:
            return await RawHandler._handle(self, request)
        except NotImplementedError:
            return None

    async def _suffer(self, request: Request) -> None:
        fault = next((f for f in self.faults if f.matches(request.method.value, request.url.path)), None)
        if fault is None:
            return
        fault.hits += 1
        if fault.action is not None:
            fault.action()
        await asyncio.sleep(fault.delay_s)
        if fault.code is not None:
            raise _injected(fault)

    def _record(self, request: Request, code: int) -> None:
        headers = request.headers
        agent, content_type = headers.get("User-Agent", ""), headers.get("Content-Type", "")
        path, params = request.url.path, dict(request.params)
        entry = (time.monotonic(), request.method.value, path, params, content_type, agent)
        self.log.append(LoggedRequest(*entry, request.body, code))

    async def _serve(self, request: Request) -> aiohttp.web.StreamResponse:
        path = request.url.path
        if path in ("/healthz", "/livez", "/readyz"):
            return aiohttp.web.Response(text="ok")
        if path == "/openapi/v2":
            return _openapi_v2(request)
        target = self._route(path)
        if target is None:
            return _json(discovery.respond(path, self.api.served))
        if target.resource in REVIEWS:
            return _json(_review(request, target.resource), 201)
        method = request.method.value
        if method == "GET":
            return await self._read(request, target)
        return self._write(request, method, target)

    def _route(self, path: str) -> Target | None:
        parts = path.strip("/").split("/")
        if parts[0] == "api" and len(parts) > 2:
            group, version, rest = "", parts[1], parts[2:]
        elif parts[0] == "apis" and len(parts) > 3:
            group, version, rest = parts[1], parts[2], parts[3:]
        else:
            return None
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        plural, name, subresource = rest[0], *([*rest[1:3], None, None][:2])
        review = next(
            (r for r in REVIEWS if (r.group, r.version, r.plural) == (group, version, plural)), None
        )
        resource = review or self.api.served.get((group, version, plural))
        if resource is None or len(rest) > 3 or (namespace is not None and not resource.namespaced):
            raise errors.no_such_resource()
        if name is not None and resource.namespaced and namespace is None:
            raise errors.no_such_resource()
        return Target(resource, namespace, name, subresource)

    # Reading

    async def _read(self, request: Request, target: Target) -> aiohttp.web.StreamResponse:
        if request.params.get("watch") in ("true", "1"):
            return await self._watch(request, target)
        if target.name is None:
            return _json(self._list(request, target))
        obj = self.api.require(target.resource, target.namespace, target.name)
        return _json(self._present(request, target, obj))

    def _present(self, request: Request, target: Target, obj: Json) -> Json:
        """One object as the request wants it: itself, its Scale, or a Table."""
        if target.subresource == "scale":
            return self.api.scale_of(target.resource, obj)
        if target.subresource not in (None, "status") or (
            target.subresource and not target.resource.has_status
        ):
            raise errors.no_such_resource()
        return self._as_accepted(request, target.resource, [obj], None)

    def _as_accepted(
        self, request: Request, resource: ResourceType, objects: list[Json], revision: str | None
    ) -> Json:
        if tables.wants_table(request.headers.get("Accept", "")):
            include = request.params.get("includeObject", "Metadata")
            version = revision or objects[0]["metadata"]["resourceVersion"]
            return tables.render(resource, objects, include, version)
        if revision is None:
            return self.api.shown(resource, objects[0])
        items = [self.api.shown(resource, o) for o in objects]
        if not resource.custom:  # typed lists leave these out of their items
            items = [{k: v for k, v in i.items() if k not in ("apiVersion", "kind")} for i in items]
        header = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
        return header | {"metadata": {"resourceVersion": revision}, "items": items}

    def _matcher(self, request: Request, target: Target) -> Matcher:
        by_label = parse_label_selector(request.params.get("labelSelector", ""))
        by_field = parse_field_selector(request.params.get("fieldSelector", ""), target.resource.plural)
        namespace, name = target.namespace, target.name
        return lambda obj: (
            namespace in (None, obj["metadata"].get("namespace"))
            and name in (None, obj["metadata"]["name"])
            and by_label(obj)
            and by_field(obj)
        )

    def _list(self, request: Request, target: Target) -> Json:
        matches = self._matcher(request, target)
        objects = [o for o in self.api.store.list(storage_key(target.resource)) if matches(o)]
        revision, after = _continued(request.params.get("continue", ""))
        revision = revision or str(self.api.store.revision)
        shown, rest = _page(objects, request.params.get("limit", ""), after)
        body = self._as_accepted(request, target.resource, shown, revision)
        if rest:
            last = shown[-1]["metadata"]
            token = json.dumps([revision, last.get("namespace") or "", last["name"]])
            body["metadata"] |= {"continue": token, "remainingItemCount": rest}
        return body

    # Watching

    async def _watch(self, request: Request, target: Target) -> aiohttp.web.StreamResponse:
        matches = self._matcher(request, target)
        store, key = self.api.store, storage_key(target.resource)
        since = _revision(request.params.get("resourceVersion", ""), store.revision)
        initial = request.params.get("sendInitialEvents") == "true" or since == 0
        present = [o for o in store.list(key) if matches(o)] if initial else []
        stream = _WatchStream(self, request, target, matches)
        assert request._raw_request is not None
        try:
            watch = store.watch(key, store.revision if initial else since)
        except ApiError as error:
            if error.code != 410:
                raise
            return await stream.refuse(request._raw_request, error)
        try:
            await stream.open(request._raw_request)
            for obj in present:
                await stream.send("ADDED", obj)
            if request.params.get("sendInitialEvents") == "true":
                await stream.bookmark(store.revision, initial_end=True)
            await self._follow(watch, stream, _timeout(request))
            await stream.response.write_eof()
        except ConnectionError:
            pass  # the client is gone, which is how most watches end
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise
        finally:
            store.unwatch(watch)
        return stream.response

    async def _follow(self, watch: Watch, stream: _WatchStream, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        end, next_bookmark = loop.time() + timeout_s, loop.time() + BOOKMARK_S
        while not self._closing and loop.time() < end:
            wait = min(end, next_bookmark) - loop.time()
            try:
                change = await asyncio.wait_for(watch.queue.get(), max(0.0, wait))
            except TimeoutError:
                if loop.time() >= next_bookmark:
                    next_bookmark += BOOKMARK_S
                    await stream.bookmark(self.api.store.revision)
                continue
            if change is None:
                return
            await stream.change(change)

    # Writing

    def _write(self, request: Request, method: str, target: Target) -> aiohttp.web.StreamResponse:
        strict = request.params.get("fieldValidation", "Warn")
        manager = manager_of(request.params.get("fieldManager", ""), request.headers.get("User-Agent", ""))
        options = WriteOptions(request.params.get("dryRun") == "All", strict, manager)
        if method == "POST" and target.name is None:
            obj = self.api.create(target.resource, target.namespace, _body(request), options)
            code = 201
        elif method == "DELETE":
            return _json(self._delete(request, target))
        elif method in ("PUT", "PATCH") and target.name is not None:
            code, obj = self._change(request, method, target, options)
        else:
            raise errors.method_not_allowed()
        warnings = ", ".join(f"299 - {json.dumps(w)}" for w in options.warnings)
        body = obj if target.subresource == "scale" else self._present(request, target, obj)
        return _json(body, code, {"Warning": warnings} if warnings else {})

    def _change(
        self, request: Request, method: str, target: Target, options: WriteOptions
    ) -> tuple[int, Json]:
        assert target.name is not None
        resource, namespace, name = target.resource, target.namespace, target.name
        content_type = request.headers.get("Content-Type", "").partition(";")[0].strip()
        body = _body(request)
        change: Callable[[Json], Json]
        if method == "PUT":
            change = _replacement(resource, body)
        elif content_type == _APPLY:
            if self.api.store.get(storage_key(resource), namespace, name) is None and not target.subresource:
                return 201, self.api.create(resource, namespace, _applied(request, name, body), options)
            change = _application(request, name, body)
        else:
            change = _patch(resource, content_type, body)
        if target.subresource == "scale":
            return 200, self.api.update_scale(resource, namespace, name, change, options)
        subresource = self._known_subresource(target)
        return 200, self.api.update(resource, namespace, name, change, subresource, options)

    def _known_subresource(self, target: Target) -> str | None:
        if target.subresource is None or (target.subresource == "status" and target.resource.has_status):
            return target.subresource
        raise errors.no_such_resource()

    def _delete(self, request: Request, target: Target) -> Json:
        options = _body(request) if request.body else {}
        if "propagationPolicy" in request.params:
            options["propagationPolicy"] = request.params["propagationPolicy"]
        if target.name is None:
            matches = self._matcher(request, target)
            found = [o for o in self.api.store.list(storage_key(target.resource)) if matches(o)]
            for obj in found:
                meta = obj["metadata"]
                self.api.delete(target.resource, meta.get("namespace"), meta["name"], options)
            return self._as_accepted(request, target.resource, found, str(self.api.store.revision))
        obj = self.api.delete(target.resource, target.namespace, target.name, options)
        if obj["metadata"].get("finalizers"):
            return self.api.shown(target.resource, obj)
        uid = obj["metadata"]["uid"]
        details = {"name": target.name, "kind": target.resource.plural, "uid": uid}
        details |= {"group": target.resource.group} if target.resource.group else {}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


class _WatchStream:
    """The response of one watch: newline-delimited events in the form that the request accepts."""

    def __init__(self, cluster: TwinCluster, request: Request, target: Target, matches: Matcher) -> None:
        self._cluster, self._request, self._target, self._matches = cluster, request, target, matches
        self.response = aiohttp.web.StreamResponse(headers={"Content-Type": "application/json"})

    async def open(self, raw: aiohttp.web.BaseRequest) -> None:
        self.response.enable_chunked_encoding()
        await self.response.prepare(raw)

    async def refuse(self, raw: aiohttp.web.BaseRequest, error: ApiError) -> aiohttp.web.StreamResponse:
        """A watch from too long ago, answered as by a kube-apiserver's watch cache: 200, an ERROR event."""
        await self.open(raw)
        await self._write({"type": "ERROR", "object": error.status()})
        await self.response.write_eof()
        return self.response

    async def change(self, change: Change) -> None:
        """What a change is under this watch's selectors: an object may enter or leave them."""
        now = change.type != "DELETED" and self._matches(change.obj)
        before = change.previous is not None and self._matches(change.previous)
        if now:
            await self.send("MODIFIED" if before else "ADDED", change.obj)
        elif before:
            await self.send("DELETED", change.obj)

    async def send(self, kind: str, obj: Json) -> None:
        shown = self._cluster._as_accepted(self._request, self._target.resource, [obj], None)
        await self._write({"type": kind, "object": shown})

    async def bookmark(self, revision: int, *, initial_end: bool = False) -> None:
        if self._request.params.get("allowWatchBookmarks") not in ("true", "1"):
            return
        meta: Json = {"resourceVersion": str(revision)}
        if initial_end:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        if tables.wants_table(self._request.headers.get("Accept", "")):
            return
        await self._write({"type": "BOOKMARK", "object": self._target.resource.header() | {"metadata": meta}})

    async def _write(self, event: Json) -> None:
        await self.response.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")


async def _parse(raw_request: aiohttp.web.BaseRequest, number: int) -> Request:
    try:
        return await Request._parse(raw_request, id=number)
    except ValueError:  # kmock 0.8 trips over /api/v1/namespaces itself
        body = await raw_request.read()
        return Request(
            id=number,
            raw_request=raw_request,
            method=raw_request.method,
            url=raw_request.url,
            params=dict(raw_request.query),
            headers=dict(raw_request.headers),
            body=body,
            text=body.decode(errors="replace"),
            data=json.loads(body) if body.startswith((b"{", b"[")) else None,
        )


def _json(body: Json, code: int = 200, headers: dict[str, str] | None = None) -> aiohttp.web.Response:
    return aiohttp.web.json_response(body, status=code, headers=headers)


def _openapi_v2(request: Request) -> aiohttp.web.Response:
    """Nothing is described in version 2: kubectl only falls back on it for kinds that nobody serves."""
    if "protobuf" in request.headers.get("Accept", ""):
        return aiohttp.web.Response(body=b"", content_type="application/octet-stream")
    info = {"title": "Kubernetes", "version": discovery.VERSION["gitVersion"]}
    return _json({"swagger": "2.0", "info": info, "paths": {}, "definitions": {}})


def _continued(token: str) -> tuple[str, tuple[str, str] | None]:
    """Of a `continue` token: the list's resourceVersion, and the last (namespace, name) of the chunk before.

    The revision is the first chunk's, so that a watch from it misses nothing; objects are shown as they are
    now, not as they were then.
    """
    if not token:
        return "", None
    try:
        revision, namespace, name = json.loads(token)
    except (ValueError, TypeError) as error:
        raise errors.bad_request("continue key is not valid") from error
    return revision, (namespace, name)


def _page(objects: list[Json], limit: str, after: tuple[str, str] | None) -> tuple[list[Json], int]:
    """One chunk of a sorted list, and how many are left after it."""
    if after is not None:
        keys = [(o["metadata"].get("namespace") or "", o["metadata"]["name"]) for o in objects]
        objects = objects[bisect_right(keys, after) :]
    size = int(limit) if limit.isdigit() and int(limit) else len(objects)
    return objects[:size], max(0, len(objects) - size)


def _injected(fault: Fault) -> ApiError:
    names = {429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 409: "Conflict"}
    headers = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
    details = {} if fault.retry_after_s is None else {"retryAfterSeconds": fault.retry_after_s}
    assert fault.code is not None
    reason = names.get(fault.code, "Unknown")
    message = "too many requests, please try again later" if fault.code == 429 else f"injected: {reason}"
    return ApiError(fault.code, reason, message, details, headers)


def _body(request: Request) -> Any:
    if request.headers.get("Content-Type", "").startswith(protobuf.MEDIA_TYPE):
        return protobuf.decode(request.body)
    data = request.data
    if data is None or not isinstance(data, dict | list):
        try:
            data = yaml.safe_load(request.body.decode())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise errors.bad_request(f"couldn't parse the body of the request: {error}") from error
    if not isinstance(data, dict | list):
        raise errors.bad_request("the body of the request is not an object")
    return data


def _review(request: Request, resource: ResourceType) -> Json:
    """Everybody may do everything."""
    is_json = request.headers.get("Content-Type", "").startswith("application/json")
    asked = request.data if is_json and isinstance(request.data, dict) else {}
    rule = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
    rules = {"resourceRules": [rule], "nonResourceRules": [], "incomplete": False}
    status = {"allowed": True} if resource.kind == "SelfSubjectAccessReview" else rules
    return {**asked, **resource.header(), "status": status}


def _revision(text: str, current: int) -> int:
    if not text:
        return 0
    if not text.isdigit():
        raise errors.bad_request(f'invalid resource version "{text}"')
    if int(text) > current:
        message = f"Timeout: Too large resource version: {text}, current: {current}"
        raise ApiError(504, "Timeout", message, {"retryAfterSeconds": 1}, {"Retry-After": "1"})
    return int(text)


def _timeout(request: Request) -> float:
    seconds = request.params.get("timeoutSeconds", "")
    return float(seconds) if seconds.isdigit() and int(seconds) > 0 else 3600.0


def _replacement(resource: ResourceType, body: Json) -> Callable[[Json], Json]:
    meta = body.get("metadata") or {}
    if resource.custom and not meta.get("resourceVersion"):
        fault = errors.FieldError(
            "metadata.resourceVersion",
            "FieldValueInvalid",
            "Invalid value: 0x0: must be specified for an update",
        )
        raise errors.invalid(resource.group, resource.plural, meta.get("name", ""), [fault])
    return lambda _: body


def _patch(resource: ResourceType, content_type: str, body: Any) -> Callable[[Json], Json]:
    accepted = [t for t in _PATCHES if not (resource.custom and "strategic" in t)]
    if content_type not in accepted:
        raise errors.unsupported_media_type([*accepted, _APPLY])
    apply = _PATCHES[content_type]
    return lambda obj: apply(obj, body)


def _applied(request: Request, name: str, body: Json) -> Json:
    if not request.params.get("fieldManager"):
        text = "fieldManager: Required value: is required for apply patch"
        raise errors.bad_request(f'PatchOptions.meta.k8s.io "" is invalid: {text}')
    return body | {"metadata": (body.get("metadata") or {}) | {"name": name}}


def _application(request: Request, name: str, body: Json) -> Callable[[Json], Json]:
    applied = _applied(request, name, body)
    return lambda obj: patches.apply_configuration(obj, applied)
