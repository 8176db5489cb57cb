"""The API server as a network and an overloaded control plane show it: a proxy in front of any API server.

Trouble is made here and not inside of the twin, so that it is the same in front of a real cluster. Every
request of the operator is written down with what became of it: `tests.faults.invariants` reads that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import yaml

from tests.faults.relay import LoopThread, Relay, abort, forwarded, returned
from tests.integration.harness import Api, Json

_REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


@dataclass
class ApiFault:
    """Trouble for the next `times` requests that match.

    code: answer with it at once. close: reset the connection unanswered. lose: let the request through, then
    reset the connection, so that the operator does not know what became of it. delay_s: wait first. before:
    called, in a thread, before the request goes on: somebody else is quicker. after: called once the API
    server has answered, before the operator hears of it. With none of these it only counts.
    """

    path: str = ".*"
    method: str | None = None
    query: str = ""
    times: float = float("inf")
    code: int | None = None
    retry_after_s: float | None = None
    close: bool = False
    lose: bool = False
    delay_s: float = 0.0
    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None
    hits: int = 0
    _pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._pattern = re.compile(self.path)

    def takes(self, method: str, path: str, query: str) -> bool:
        wanted = self.method in (None, method) and self.query in query and self.hits < self.times
        return wanted and bool(self._pattern.search(path))


@dataclass
class Exchange:
    """One request that came to the proxy at Unix time `at`, and what became of it.

    status: the API server's (0: not asked); told: what the operator was told (0: the connection broke).
    """

    at: float
    method: str
    path: str
    query: str
    agent: str
    body: bytes
    status: int = 0
    told: int = 0
    answer: Json | None = None

    @property
    def pid(self) -> int:
        """The operator's process, from its User-Agent; 0 for kopf's own requests."""
        found = re.search(r"\bpid (\d+)\b", self.agent)
        return int(found[1]) if found else 0

    @property
    def applied(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True)
class Delivery:
    """A version of an RLScaler that the operator was shown at Unix time `at`; generation -1: its deletion."""

    at: float
    name: str
    uid: str
    generation: int


@dataclass
class _Stream:
    task: asyncio.Task[Any]
    request: aiohttp.web.BaseRequest
    response: aiohttp.web.StreamResponse

    @property
    def path(self) -> str:
        return self.request.rel_url.path


class ApiProxy(Relay):
    """`kubeconfig` leads through the proxy; `faults` are tried in order, the first that matches is taken."""

    def __init__(self, thread: LoopThread, api: Api, directory: Path, name: str = "proxy") -> None:
        self._upstream = Upstream(api)
        self._faults: list[ApiFault] = []
        self._lock = threading.Lock()
        self._streams: dict[int, _Stream] = {}
        self.exchanges: list[Exchange] = []
        self.deliveries: list[Delivery] = []
        self._delivered: dict[str, tuple[str, int]] = {}
        super().__init__(thread)
        self.kubeconfig = self._write_kubeconfig(directory / f"{name}.kubeconfig")

    def inject(self, **fields: Any) -> ApiFault:
        """Trouble from now on, until its `times` are used up or `heal`."""
        fault = ApiFault(**fields)
        with self._lock:
            self._faults = [*self._faults, fault]
        return fault

    def heal(self, *faults: ApiFault) -> None:
        """End these faults; without any, all of them."""
        with self._lock:
            self._faults = [known for known in self._faults if faults and known not in faults]

    def break_watches(self, plural: str = "") -> int:
        """Reset the connections of watches; returns how many there were."""
        return self._thread.run(self._break_watches(plural))

    def expire_watches(self, plural: str = "") -> int:
        """End watches with an ERROR event of code 410, as an API server does whose etcd was compacted."""
        return self._thread.run(self._expire_watches(plural))

    def scale_writes(self, name: str = "") -> list[Exchange]:
        """Writes of replicas that the API server took."""
        pattern = re.compile(rf"/{name or '[^/]+'}/scale$")
        return [
            e for e in list(self.exchanges) if e.method == "PATCH" and e.applied and pattern.search(e.path)
        ]

    def close(self) -> None:
        super().close()
        self._thread.run(self._upstream.close())

    # In the loop

    async def answer(self, request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        body = await request.read()
        query = request.rel_url.query_string
        path = request.rel_url.path
        exchange = Exchange(
            time.time(), request.method, path, query, request.headers.get("User-Agent", ""), body
        )
        self.exchanges.append(exchange)
        fault = self._fault(exchange)
        if fault is not None:
            refusal = await self._suffer(fault, request, exchange)
            if refusal is not None:
                return refusal
        if "watch=true" in query:
            return await self._watch(request, exchange)
        return await self._forward(request, exchange, fault)

    def _fault(self, exchange: Exchange) -> ApiFault | None:
        with self._lock:
            for fault in self._faults:
                if fault.takes(exchange.method, exchange.path, exchange.query):
                    fault.hits += 1
                    return fault
        return None

    async def _suffer(
        self, fault: ApiFault, request: aiohttp.web.BaseRequest, exchange: Exchange
    ) -> aiohttp.web.StreamResponse | None:
        await asyncio.sleep(fault.delay_s)
        if fault.before is not None:
            await asyncio.to_thread(fault.before)
        if fault.close:
            abort(request)
            return aiohttp.web.Response(status=502)
        if fault.code == 410 and "watch=true" in exchange.query:
            exchange.told = (
                200  # a watch that has been let in fails with an event, see k8s.io/apiserver's cacher
            )
            return aiohttp.web.Response(body=_expired(), content_type="application/json")
        if fault.code is not None:
            exchange.told = fault.code
            return _refusal(fault)
        return None

    async def _forward(
        self, request: aiohttp.web.BaseRequest, exchange: Exchange, fault: ApiFault | None
    ) -> aiohttp.web.StreamResponse:
        async with self._upstream.ask(request, exchange.body) as response:
            data = await response.read()
            exchange.status = response.status
            headers = returned(response.headers)
        if exchange.method in ("PATCH", "POST", "PUT"):
            exchange.answer = _parsed(data)
        elif "/rlscalers" in exchange.path and exchange.status == 200:
            listed = _parsed(data)
            self._deliver(*(listed.get("items") or []))
        if fault is not None and fault.after is not None:
            await asyncio.to_thread(fault.after)
        if fault is not None and fault.lose:
            abort(request)
            return aiohttp.web.Response(status=502)
        exchange.told = exchange.status
        return aiohttp.web.Response(status=exchange.status, headers=headers, body=data)

    async def _watch(
        self, request: aiohttp.web.BaseRequest, exchange: Exchange
    ) -> aiohttp.web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        async with self._upstream.ask(request, b"") as upstream:
            exchange.status = exchange.told = upstream.status
            response = aiohttp.web.StreamResponse(status=upstream.status, headers=returned(upstream.headers))
            response.enable_chunked_encoding()
            await response.prepare(request)
            self._streams[id(task)] = _Stream(task, request, response)
            try:
                async for line in upstream.content:
                    await response.write(line)
                    self._watched(exchange.path, line)
                await response.write_eof()
            except asyncio.CancelledError:
                if task.uncancel() == 0:
                    with contextlib.suppress(ConnectionError):
                        await response.write_eof()
            finally:
                del self._streams[id(task)]
        return response

    def _watched(self, path: str, line: bytes) -> None:
        if not path.endswith("/rlscalers"):
            return
        event = _parsed(line)
        if event.get("type") == "DELETED":
            body = event["object"]
            deleted = body | {"metadata": body["metadata"] | {"generation": -1}}
            self._deliver(deleted)
        elif event.get("type") in ("ADDED", "MODIFIED"):
            self._deliver(event["object"])

    def _deliver(self, *bodies: Json) -> None:
        now = time.time()
        for body in bodies:
            meta = body["metadata"]
            version = (meta["uid"], int(meta.get("generation", 0)))
            if self._delivered.get(meta["name"]) != version:
                self._delivered[meta["name"]] = version
                self.deliveries.append(Delivery(now, meta["name"], *version))

    async def _break_watches(self, plural: str) -> int:
        found = self._watches(plural)
        for stream in found:
            abort(stream.request)
            stream.task.cancel()
        return len(found)

    async def _expire_watches(self, plural: str) -> int:
        found = self._watches(plural)
        for stream in found:
            with contextlib.suppress(ConnectionError):
                await stream.response.write(_expired())
            stream.task.cancel()
        return len(found)

    def _watches(self, plural: str) -> list[_Stream]:
        return [stream for stream in list(self._streams.values()) if stream.path.endswith(plural)]

    def _write_kubeconfig(self, path: Path) -> Path:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxied", "cluster": {"server": self.url}}],
            "users": [{"name": "proxied", "user": {}}],
            "contexts": [{"name": "proxied", "context": {"cluster": "proxied", "user": "proxied"}}],
            "current-context": "proxied",
        }
        path.write_text(yaml.safe_dump(config))
        return path


class Upstream:
    """The real API server with the credentials of an Api's kubeconfig; sessions are made in the loop."""

    def __init__(self, api: Api) -> None:
        self._configuration = api._client.configuration
        self._session: aiohttp.ClientSession | None = None

    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, ssl=self._tls())
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, auto_decompress=True, read_bufsize=2**22
            )
        return self._session

    def headers(self) -> dict[str, str]:
        key = self._configuration.get_api_key_with_prefix("BearerToken") or ""
        return {"Authorization": key} if key else {}

    @contextlib.asynccontextmanager
    async def ask(
        self, request: aiohttp.web.BaseRequest, body: bytes
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The same request to the API server."""
        headers = {k: v for k, v in forwarded(request).items() if k.lower() != "authorization"}
        async with self.session().request(
            request.method, self.url(request.raw_path), headers=headers | self.headers(), data=body or None
        ) as response:
            yield response

    def url(self, path: str) -> str:
        return str(self._configuration.host) + path

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _tls(self) -> ssl.SSLContext | bool:
        settings = self._configuration
        if not str(settings.host).startswith("https"):
            return True
        context = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file)
        if not settings.verify_ssl:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


def _refusal(fault: ApiFault) -> aiohttp.web.Response:
    assert fault.code is not None
    headers = {} if fault.retry_after_s is None else {"Retry-After": f"{fault.retry_after_s:g}"}
    status = _status(fault.code, f"injected: {_REASONS.get(fault.code, 'trouble')}")
    return aiohttp.web.json_response(status, status=fault.code, headers=headers)


def _expired() -> bytes:
    """The last event of a watch whose resourceVersion is too old."""
    status = _status(410, "too old resource version: 1 (2)")
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


def _status(code: int, message: str) -> Json:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": _REASONS.get(code, "Unknown"),
        "code": code,
    }


def _parsed(data: bytes) -> Json:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
