"""The HTTP side of reading Prometheus: one `PrometheusConnect` a worker thread, with our rules of transport.

prometheus-api-client's defaults don't suit a control loop: three retries with back-off, no timeout, and no
limit to an answer's size. Here every request has a deadline after which its socket is shut (a server that
trickles bytes would otherwise hold the thread for ever), a size limit, and at most one immediate retry, for a
kept-alive connection that the other side had closed.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from weakref import WeakSet

import orjson
import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from controller.core.samples import Outcome
from controller.metrics.config import PrometheusConfig, make_auth
from controller.metrics.errors import PrometheusConfigError
from controller.metrics.judge import Answer, failed, judge_status

MAX_ANSWER_BYTES = 32 * 1024 * 1024

_reading = threading.Lock()
"""One large answer at a time is taken apart: in parallel they would only take memory, not less time."""


class AnswerTooLarge(Exception):
    """An answer beyond MAX_ANSWER_BYTES: the query selects far more than one series."""


class _Adapter(HTTPAdapter):
    """Our TLS context, a size limit, and a handle on the connections so that `abort` can end them."""

    def __init__(self, context: ssl.SSLContext | None, server_name: str) -> None:
        self._context, self._server_name = context, server_name
        self._connections: WeakSet[Any] = WeakSet()
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=Retry(total=0, redirect=None))

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        if self._context is None:
            return host, pool
        checked = self._context.verify_mode != ssl.CERT_NONE
        own = {"ssl_context": self._context, "cert_reqs": "CERT_REQUIRED" if checked else "CERT_NONE"}
        return host, own | ({"server_hostname": self._server_name} if self._server_name else {})

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Trust is the context's business; requests would add the public authorities to it."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if "ConnectionCls" not in vars(pool):
            pool.ConnectionCls = self._remembered(pool.ConnectionCls)
        return pool

    def _remembered(self, connection_class: Callable[..., Any]) -> Callable[..., Any]:
        def connect(**kwargs: Any) -> Any:
            connection = connection_class(**kwargs)
            self._connections.add(connection)
            return connection

        return connect

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        response = super().send(request, *args, **kwargs)
        body = bytearray()
        for part in response.iter_content(64 * 1024):
            body += part
            if len(body) > MAX_ANSWER_BYTES:
                response.close()
                raise AnswerTooLarge(f"the answer exceeds {MAX_ANSWER_BYTES // 1024**2} MiB")
        response._content = bytes(body)
        return response

    def abort(self) -> None:
        """End the request under way from another thread: shut its sockets, which wakes the reader."""
        for connection in list(self._connections):
            sock = getattr(connection, "sock", None)
            if isinstance(sock, socket.socket):
                with contextlib.suppress(OSError):
                    # Not SSLSocket's own shutdown, which drops the TLS state under the reader.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Client:
    """One worker thread's connection to Prometheus. Not for use by two threads, `abort` apart."""

    def __init__(self, config: PrometheusConfig, context: ssl.SSLContext | None) -> None:
        self._url = config.url
        self._adapter = _Adapter(context, config.tls.server_name)
        self._aborted = False
        self._last: requests.Response | None = None
        self._session = requests.Session()
        self._session.hooks["response"].append(self._keep)
        self._connect = PrometheusConnect(
            config.url, headers=dict(config.headers), session=self._session, auth=make_auth(config)
        )
        self._session.mount(config.url, self._adapter)

    def _keep(self, response: requests.Response, *args: Any, **kwargs: Any) -> None:
        self._last = response

    def instant(self, query: str, time_s: float | None, deadline: float) -> Any:
        """`data.result` of an instant query, or an Answer that says why not. deadline: time.monotonic()."""
        # Two series are enough to know that there are several; servers that don't know `limit` ignore it.
        params = {"limit": "2"} | ({} if time_s is None else {"time": repr(time_s)})

        def ask(timeout_s: float) -> Any:
            own = params | _server_timeout(timeout_s)
            return self._connect.custom_query(query, own, timeout=timeout_s)

        return self._attempt(ask, deadline)

    def post(self, path: str, fields: Mapping[str, str], deadline: float, read: Callable[[Any], Any]) -> Any:
        """What `read` makes of `data.result`, for queries too long for an address; or an Answer: why not.

        path: /api/v1/query or /api/v1/query_range. A ValueError of `read` is an answer that can't be used.
        """
        connect = self._connect

        def ask(timeout_s: float) -> Any:
            response = self._session.post(
                f"{self._url}{path}",
                data={**fields, **_server_timeout(timeout_s)},
                headers=connect.headers,
                auth=connect.auth,
                timeout=timeout_s,
            )
            if response.status_code != 200:
                raise PrometheusApiClientException(f"HTTP status {response.status_code}")
            with _reading:
                result = orjson.loads(response.content)["data"]["result"]
                try:
                    return read(result)
                except (ValueError, KeyError, TypeError, IndexError) as error:
                    return failed(Outcome.BAD_QUERY, f"the grouped answer can't be used: {error}")

        return self._attempt(ask, deadline)

    def over_range(self, query: str, start_s: float, end_s: float, step_s: float, deadline: float) -> Any:
        """`data.result` of a range query, or an Answer that says why not."""
        # The library rounds start and end to whole seconds; parameters of ours win over its own.
        params = {"start": repr(start_s), "end": repr(end_s)}
        start, end = datetime.fromtimestamp(start_s, UTC), datetime.fromtimestamp(end_s, UTC)

        def ask(timeout_s: float) -> Any:
            own = params | _server_timeout(timeout_s)
            return self._connect.custom_query_range(query, start, end, repr(step_s), own, timeout=timeout_s)

        return self._attempt(ask, deadline)

    def _attempt(self, ask: Callable[[float], Any], deadline: float) -> Any:
        """`ask` once, or twice where a kept-alive connection turned out to be closed."""
        self._aborted = False
        try:
            return self._ask(ask, deadline)
        except requests.ConnectionError as error:
            if isinstance(root_cause(error), ConnectionResetError) and not self._aborted:
                with contextlib.suppress(requests.ConnectionError):
                    return self._ask(ask, deadline)
            return self._unreachable(error)

    def _ask(self, ask: Callable[[float], Any], deadline: float) -> Any:
        self._last = None
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            return failed(Outcome.SLOW, "no time was left")
        try:
            return ask(remaining_s)
        except requests.ConnectionError:
            raise
        except PrometheusApiClientException as error:
            return self._refused(error)
        except AnswerTooLarge as error:
            return failed(Outcome.BAD_QUERY, str(error))
        except (requests.exceptions.JSONDecodeError, orjson.JSONDecodeError, KeyError, TypeError):
            return failed(Outcome.HTTP_ERROR, f"{self._url} did not answer as Prometheus does")
        except (OSError, ValueError, PrometheusConfigError) as error:
            return self._unreachable(error)
        finally:
            self._last = None  # or every idle worker would keep megabytes

    def _refused(self, error: Exception) -> Answer:
        if self._last is None:
            return failed(Outcome.HTTP_ERROR, str(error))
        return judge_status(self._last.status_code, self._last.content)

    def _unreachable(self, error: BaseException) -> Answer:
        cause = root_cause(error)
        if isinstance(error, requests.Timeout) or isinstance(cause, TimeoutError):
            return failed(Outcome.SLOW, f"{self._url} gave no answer in time")
        kind = "TLS: " if isinstance(cause, ssl.SSLError) else ""
        return failed(Outcome.HTTP_ERROR, f"{self._url}: {kind}{_text(cause)}")

    def abort(self) -> None:
        """Make the request under way fail at once; for the thread that waits for this one."""
        self._aborted = True
        self._adapter.abort()

    def close(self) -> None:
        """Close the kept-alive connection."""
        self._session.close()


def _server_timeout(timeout_s: float) -> dict[str, str]:
    """Ask Prometheus too to stop evaluating, so that slow queries don't pile up there."""
    return {"timeout": f"{max(1, round(timeout_s * 1000))}ms"}


def root_cause(error: BaseException) -> BaseException:
    """The innermost exception: requests wraps urllib3, which wraps the socket's, as cause or argument."""
    for _ in range(10):
        wrapped = [argument for argument in error.args if isinstance(argument, BaseException)]
        inner = error.__cause__ or error.__context__ or (wrapped[-1] if wrapped else None)
        if inner is None:
            break
        error = inner
    return error


def _text(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return str(error) or type(error).__name__
