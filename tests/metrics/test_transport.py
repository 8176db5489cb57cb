"""Slow, broken, guarded and encrypted servers: each has its outcome, none holds the caller or its threads."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from controller.core.samples import Outcome
from controller.metrics import (
    PrometheusConfig,
    PrometheusConfigError,
    PrometheusSource,
    SignalReading,
    TlsConfig,
)
from tests.metrics.servers import answer, free_port, http_server, send

Respond = Callable[[BaseHTTPRequestHandler], None]


async def read_once(config: PrometheusConfig) -> SignalReading:
    source = PrometheusSource(config, workers=2)
    try:
        return (await source.read({"requestRate": "up"}))["requestRate"]
    finally:
        source.close()


@contextlib.contextmanager
def serving(respond: Respond, context: ssl.SSLContext | None = None) -> Iterator[str]:
    with http_server(respond, context) as port:
        yield f"{'https' if context else 'http'}://127.0.0.1:{port}"


def always(status: int, body: str, kind: str = "application/json") -> Respond:
    return lambda handler: send(handler, status, body, kind)


def error(kind: str, text: str) -> str:
    return f'{{"status":"error","errorType":"{kind}","error":"{text}"}}'


# Answers that are none


@pytest.mark.parametrize(
    ("respond", "outcome", "message"),
    [
        pytest.param(always(500, "boom"), Outcome.HTTP_ERROR, "HTTP 500: boom", id="500"),
        pytest.param(always(503, "no backend"), Outcome.HTTP_ERROR, "HTTP 503: no backend", id="503"),
        pytest.param(
            always(503, error("timeout", "query timed out")),
            Outcome.SLOW,
            "query timed out",
            id="its own time-out",
        ),
        pytest.param(always(401, ""), Outcome.HTTP_ERROR, "HTTP 401 (credentials missing", id="401"),
        pytest.param(always(403, "no"), Outcome.HTTP_ERROR, "HTTP 403 (credentials may not", id="403"),
        pytest.param(always(404, "404 page not found"), Outcome.HTTP_ERROR, "HTTP 404", id="wrong path"),
        pytest.param(always(429, "slow down"), Outcome.HTTP_ERROR, "HTTP 429", id="throttled"),
        pytest.param(always(400, "<html>"), Outcome.HTTP_ERROR, "HTTP 400", id="a proxy's 400"),
        pytest.param(
            always(400, error("bad_data", "parse error: x")), Outcome.BAD_QUERY, "parse error: x", id="400"
        ),
        pytest.param(
            always(422, error("execution", "many-to-many")), Outcome.BAD_QUERY, "many-to-many", id="422"
        ),
        pytest.param(
            always(200, "<html>log in</html>", "text/html"),
            Outcome.HTTP_ERROR,
            "did not answer as Prometheus",
            id="a page",
        ),
        pytest.param(always(200, "{}"), Outcome.HTTP_ERROR, "did not answer as Prometheus", id="no data"),
        pytest.param(
            always(200, '{"data": {"result": 3}}'), Outcome.HTTP_ERROR, "not Prometheus's", id="no list"
        ),
    ],
)
async def test_each_kind_of_refusal_is_told_apart(respond: Respond, outcome: Outcome, message: str) -> None:
    with serving(respond) as address:
        reading = await read_once(PrometheusConfig(address))
    assert (reading.outcome, math.isnan(reading.value)) == (outcome, True)
    assert message in reading.message


async def test_nobody_listening_is_an_http_error_that_names_the_address() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    reading = await read_once(PrometheusConfig(address))
    assert reading.outcome is Outcome.HTTP_ERROR
    assert reading.message == f"{address}: Connection refused"


async def test_a_name_that_does_not_resolve_is_an_http_error() -> None:
    reading = await read_once(PrometheusConfig("http://prometheus.invalid:9090"))
    assert reading.outcome is Outcome.HTTP_ERROR
    assert "http://prometheus.invalid:9090" in reading.message


async def test_an_answer_without_end_is_refused_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("controller.metrics.client.MAX_ANSWER_BYTES", 200_000)
    with serving(always(200, "[" + "1," * 200_000)) as address:
        reading = await read_once(PrometheusConfig(address))
    assert reading.outcome is Outcome.BAD_QUERY
    assert "the answer exceeds" in reading.message


async def test_a_failing_server_is_asked_once_a_reading() -> None:
    asked: list[str] = []

    def respond(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        send(handler, 503, "")

    with serving(respond) as address:
        await read_once(PrometheusConfig(address))
    assert len(asked) == 1


async def test_a_kept_connection_that_the_server_closes_unannounced_is_opened_anew() -> None:
    served = threading.Event()

    def respond(handler: BaseHTTPRequestHandler) -> None:
        if not served.is_set():
            send(handler, 200, answer("7"))
            served.set()
        elif not hasattr(handler.server, "dropped"):
            handler.server.dropped = True  # type: ignore[attr-defined]
            handler.close_connection = True
        else:
            send(handler, 200, answer("8"))

    with serving(respond) as address:
        source = PrometheusSource(PrometheusConfig(address), workers=1)
        values = [(await source.read({"requestRate": "up"}))["requestRate"].value for _ in range(2)]
        source.close()
    assert values == [7, 8]


# Slow servers

TIMEOUT_S = 0.3


def silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(3)


def trickling(handler: BaseHTTPRequestHandler) -> None:
    """Sends one byte at a time, each well within a socket's time-out."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.03)


def trickling_headers(handler: BaseHTTPRequestHandler) -> None:
    with contextlib.suppress(OSError):
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.03)


@pytest.mark.parametrize("respond", [silent, trickling, trickling_headers])
async def test_a_slow_server_is_slow_and_frees_caller_and_thread_at_the_timeout(respond: Respond) -> None:
    with serving(respond) as address:
        source = PrometheusSource(PrometheusConfig(address, timeout_s=TIMEOUT_S), workers=1)
        started = time.monotonic()
        first = (await source.read({"requestRate": "up"}))["requestRate"]
        took = time.monotonic() - started
        assert first.outcome is Outcome.SLOW
        assert TIMEOUT_S * 0.9 < took < TIMEOUT_S + 1.0
        await asyncio.sleep(0.1)
        second = (await source.read({"requestRate": "up"}))["requestRate"]
        assert "no answer within 0.3 s" in second.message, "the one thread must have been freed for this"
        source.close()


async def test_the_caller_gets_all_signals_at_the_timeout_however_few_the_threads() -> None:
    with serving(silent) as address:
        source = PrometheusSource(PrometheusConfig(address, timeout_s=TIMEOUT_S), workers=2)
        started = time.monotonic()
        readings = await source.read({f"signal{i}": f"up + {i}" for i in range(20)})
        took = time.monotonic() - started
        source.close()
    assert took < TIMEOUT_S + 1.0
    assert {reading.outcome for reading in readings.values()} == {Outcome.SLOW}
    assert any("all workers were busy" in reading.message for reading in readings.values())


async def test_a_hanging_server_never_has_more_threads_than_workers() -> None:
    before = {thread for thread in threading.enumerate() if thread.name.startswith("prometheus")}
    with serving(silent) as address:
        source = PrometheusSource(PrometheusConfig(address, timeout_s=0.05), workers=3)
        for _ in range(10):
            await source.read({f"signal{i}": f"up + {i}" for i in range(10)})
        threads = {
            thread for thread in threading.enumerate() if thread.name.startswith("prometheus")
        } - before
        source.close()
    assert len(threads) == 3


async def test_a_server_that_recovers_is_read_again_at_once() -> None:
    broken = threading.Event()
    broken.set()

    def respond(handler: BaseHTTPRequestHandler) -> None:
        silent(handler) if broken.is_set() else send(handler, 200, answer("5"))

    with serving(respond) as address:
        source = PrometheusSource(PrometheusConfig(address, timeout_s=TIMEOUT_S), workers=2)
        assert (await source.read({"requestRate": "up"}))["requestRate"].outcome is Outcome.SLOW
        broken.clear()
        assert (await source.read({"requestRate": "up"}))["requestRate"].value == 5
        source.close()


async def test_one_slow_query_does_not_hold_up_its_siblings_values() -> None:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        silent(handler) if "slow" in handler.path else send(handler, 200, answer("5"))

    with serving(respond) as address:
        source = PrometheusSource(PrometheusConfig(address, timeout_s=TIMEOUT_S))
        readings = await source.read({"requestRate": "up", "latency": "slow"})
        source.close()
    assert readings["requestRate"].value == 5
    assert readings["latency"].outcome is Outcome.SLOW


async def test_closing_ends_what_is_under_way() -> None:
    with serving(silent) as address:
        source = PrometheusSource(PrometheusConfig(address, timeout_s=30), workers=2)
        reading = asyncio.create_task(source.read({"requestRate": "up"}))
        await asyncio.sleep(0.2)
        started = time.monotonic()
        source.close()
        got = (await reading)["requestRate"]
    assert time.monotonic() - started < 1
    assert got.outcome is Outcome.HTTP_ERROR


async def test_a_cancelled_reading_frees_its_thread() -> None:
    with serving(silent) as address:
        source = PrometheusSource(PrometheusConfig(address, timeout_s=30), workers=1)
        reading = asyncio.create_task(source.read({"requestRate": "up"}))
        await asyncio.sleep(0.2)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        started = time.monotonic()
        await asyncio.get_running_loop().run_in_executor(source._now._pool, lambda: None)
        source.close()
    assert time.monotonic() - started < 1


async def test_two_hundred_reads_at_once_are_all_answered() -> None:
    with serving(always(200, answer("5"))) as address:
        source = PrometheusSource(PrometheusConfig(address, timeout_s=10), workers=8)
        queries = [{"requestRate": f"up + {i}"} for i in range(200)]
        readings = await asyncio.gather(*(source.read(query) for query in queries))
        source.close()
    assert {reading["requestRate"].value for reading in readings} == {5.0}


async def test_equal_queries_are_asked_once() -> None:
    asked: list[str] = []

    def respond(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        send(handler, 200, answer("5"))

    with serving(respond) as address:
        source = PrometheusSource(PrometheusConfig(address))
        readings = await source.read({"requestRate": "up", "inFlight": "up"})
        source.close()
    assert [reading.value for reading in readings.values()] == [5, 5]
    assert len(asked) == 1


# Credentials


@dataclass(frozen=True)
class Seen:
    """One request that a server got."""

    path: str
    headers: dict[str, str]


def echoing(seen: list[Seen]) -> Respond:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        seen.append(Seen(handler.path, dict(handler.headers)))
        send(handler, 200, answer("5"))

    return respond


async def headers_sent(**config: object) -> dict[str, str]:
    seen: list[Seen] = []
    with serving(echoing(seen)) as address:
        reading = await read_once(PrometheusConfig(address, **config))  # type: ignore[arg-type]
    assert reading.outcome is Outcome.OK, reading.message
    return seen[0].headers


async def test_a_bearer_token_is_sent() -> None:
    assert (await headers_sent(bearer_token="t0k3n\n"))["Authorization"] == "Bearer t0k3n"


async def test_a_netrc_file_does_not_replace_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert (await headers_sent(bearer_token="t0k3n"))["Authorization"] == "Bearer t0k3n"
    assert "Authorization" not in await headers_sent()


async def test_a_token_file_is_read_anew_for_every_request(tmp_path: Path) -> None:
    token = tmp_path / "token"
    seen: list[Seen] = []
    with serving(echoing(seen)) as address:
        source = PrometheusSource(PrometheusConfig(address, bearer_token_file=str(token)), workers=1)
        missing = (await source.read({"requestRate": "up"}))["requestRate"]
        for content in ("first\n", "second\n"):
            token.write_text(content)
            await source.read({"requestRate": "up"})
        source.close()
    assert [request.headers["Authorization"] for request in seen] == ["Bearer first", "Bearer second"]
    assert missing.outcome is Outcome.HTTP_ERROR
    assert f"No such file or directory: {token}" in missing.message


async def test_basic_credentials_are_sent() -> None:
    sent = await headers_sent(username="ann", password="pä:ss")
    assert sent["Authorization"] == "Basic YW5uOnDDpDpzcw=="


async def test_extra_headers_are_sent() -> None:
    assert (await headers_sent(headers=(("X-Scope-OrgID", "shop"),)))["X-Scope-OrgID"] == "shop"


async def test_a_path_in_the_address_is_kept() -> None:
    seen: list[Seen] = []
    with serving(echoing(seen)) as address:
        await read_once(PrometheusConfig(f"{address}/select/0/prometheus/"))
    assert seen[0].path.startswith("/select/0/prometheus/api/v1/query?")


async def test_a_token_is_not_carried_to_where_a_redirect_leads() -> None:
    seen: list[Seen] = []
    with serving(echoing(seen)) as elsewhere:
        target = elsewhere.replace("127.0.0.1", "localhost")

        def respond(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(302)
            handler.send_header("Location", target + handler.path)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        with serving(respond) as address:
            await read_once(PrometheusConfig(address, bearer_token="t0k3n"))
    assert "Authorization" not in seen[0].headers


async def test_a_proxy_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Seen] = []
    with serving(echoing(seen)) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "")
        reading = await read_once(PrometheusConfig("http://prometheus.invalid:9090"))
    assert reading.outcome is Outcome.OK
    assert seen[0].path.startswith("http://prometheus.invalid:9090/api/v1/query?")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param({"address": "prometheus:9090"}, "prometheus.address: 'prometheus:9090'", id="no scheme"),
        pytest.param({"address": "http://"}, "prometheus.address", id="no host"),
        pytest.param({"address": "http://p:99999"}, "prometheus.address", id="no such port"),
        pytest.param({"address": "http://p/?a=b"}, "no ? or # part", id="query"),
        pytest.param({"address": "http://ann:secret@p"}, "credentials in the address", id="password in it"),
        pytest.param({"timeout_s": 0.0}, "timeoutSeconds: 0.0 is not allowed", id="no time"),
        pytest.param({"bearer_token": "a b"}, "has blanks in it", id="blank in token"),
        pytest.param({"bearer_token": "a\nHost: x"}, "has blanks in it", id="line end in token"),
        pytest.param({"bearer_token": "a", "username": "b"}, "one of them", id="token and user"),
        pytest.param({"headers": (("X A", "b"),)}, "not a valid header name", id="header name"),
        pytest.param({"headers": (("X-A", "b\r\nc"),)}, "not one line", id="header value"),
        pytest.param({"tls": TlsConfig(cert="x.pem")}, "cert and key go together", id="cert without key"),
    ],
)
def test_a_configuration_that_can_not_work_is_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(PrometheusConfigError) as raised:
        PrometheusConfig(**{"address": "http://p:9090", **config})  # type: ignore[arg-type]
    assert message in str(raised.value)
    assert "secret" not in str(raised.value)


def test_secrets_are_not_shown_when_a_configuration_is_printed() -> None:
    config = PrometheusConfig(
        "http://p",
        username="u",
        password="s3cret",
        headers=(("A", "s3cret"),),
        tls=TlsConfig("", "c", "s3cret"),
    )
    assert "s3cret" not in repr(config)


# TLS


@dataclass(frozen=True)
class Pki:
    """A certificate authority made for the tests, with certificates of a server and of a client."""

    folder: Path

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    def server_context(self, ask_client: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path("server.pem"), self.path("server.key"))
        if ask_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.path("ca.pem"))
        return context


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    folder = tmp_path_factory.mktemp("pki")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    usage = ["-addext", "keyUsage=critical,keyCertSign"]
    for ca in ("ca", "other-ca"):
        out = ["-keyout", f"{ca}.key", "-out", f"{ca}.pem"]
        _openssl(folder, "req", "-x509", *curve, "-subj", f"/CN={ca}", *usage, *out)
    for name, san in (
        ("server", "DNS:prometheus.test,IP:127.0.0.1"),
        ("named", "DNS:prometheus.test"),
        ("client", "DNS:c"),
    ):
        request = ["-keyout", f"{name}.key", "-out", f"{name}.csr", "-addext", f"subjectAltName={san}"]
        _openssl(folder, "req", *curve, "-subj", f"/CN={name}", *request)
        sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-copy_extensions", "copy"]
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", *sign, "-days", "2", "-out", f"{name}.pem")
    return Pki(folder)


async def read_tls(pki: Pki, tls: TlsConfig, ask_client: bool = False) -> SignalReading:
    with serving(always(200, answer("5")), pki.server_context(ask_client)) as address:
        return await read_once(PrometheusConfig(address, tls=tls))


async def test_a_private_authority_is_trusted_when_given_as_a_file_or_as_text(pki: Pki) -> None:
    for ca in (pki.path("ca.pem"), pki.text("ca.pem")):
        assert (await read_tls(pki, TlsConfig(ca=ca))).value == 5


@pytest.mark.parametrize("ca", ["", "other-ca.pem"], ids=["public authorities", "another authority"])
async def test_an_unknown_authority_is_refused(pki: Pki, ca: str) -> None:
    reading = await read_tls(pki, TlsConfig(ca=ca and pki.path(ca)))
    assert reading.outcome is Outcome.HTTP_ERROR
    assert "TLS: " in reading.message


async def test_verification_can_be_switched_off(pki: Pki) -> None:
    assert (await read_tls(pki, TlsConfig(insecure_skip_verify=True))).value == 5


async def test_the_servers_name_must_match(pki: Pki) -> None:
    wrong = await read_tls(pki, TlsConfig(ca=pki.path("ca.pem"), server_name="other.test"))
    assert wrong.outcome is Outcome.HTTP_ERROR
    assert "other.test" in wrong.message
    right = await read_tls(pki, TlsConfig(ca=pki.path("ca.pem"), server_name="prometheus.test"))
    assert right.value == 5


async def test_a_client_certificate_is_shown_when_given_as_a_file_or_as_text(pki: Pki) -> None:
    without = await read_tls(pki, TlsConfig(ca=pki.path("ca.pem")), ask_client=True)
    assert without.outcome is Outcome.HTTP_ERROR
    for read in (pki.path, pki.text):
        tls = TlsConfig(ca=pki.path("ca.pem"), cert=read("client.pem"), key=read("client.key"))
        assert (await read_tls(pki, tls, ask_client=True)).value == 5


async def test_a_slow_tls_server_is_slow(pki: Pki) -> None:
    with serving(trickling, pki.server_context()) as address:
        tls = TlsConfig(ca=pki.path("ca.pem"))
        source = PrometheusSource(PrometheusConfig(address, timeout_s=TIMEOUT_S, tls=tls), workers=1)
        for _ in range(2):
            reading = (await source.read({"requestRate": "up"}))["requestRate"]
            assert reading.outcome is Outcome.SLOW
            assert "no answer" in reading.message
            await asyncio.sleep(0.1)
        source.close()


async def test_a_plain_server_behind_https_is_an_http_error() -> None:
    with serving(always(200, answer("5"))) as address:
        reading = await read_once(PrometheusConfig(address.replace("http:", "https:")))
    assert reading.outcome is Outcome.HTTP_ERROR
    assert "TLS: " in reading.message


@pytest.mark.parametrize(
    ("tls", "message"),
    [
        pytest.param(TlsConfig(ca="/no/such/ca.pem"), "tls.ca", id="no file"),
        pytest.param(TlsConfig(ca="-----BEGIN CERTIFICATE-----\nx\n"), "tls.ca", id="no certificate"),
        pytest.param(TlsConfig(cert="/no/c.pem", key="/no/k.pem"), "tls.cert", id="no client certificate"),
    ],
)
def test_tls_material_that_can_not_be_read_is_refused_when_the_source_is_made(
    tls: TlsConfig, message: str
) -> None:
    with pytest.raises(PrometheusConfigError, match=message):
        PrometheusSource(PrometheusConfig("https://p:9090", tls=tls))


def test_a_key_that_does_not_belong_to_the_certificate_is_refused(pki: Pki) -> None:
    tls = TlsConfig(cert=pki.path("client.pem"), key=pki.text("server.key"))
    with pytest.raises(PrometheusConfigError, match="certificate and key can't be used"):
        PrometheusSource(PrometheusConfig("https://p:9090", tls=tls))


def test_no_copy_of_a_client_key_stays_open(pki: Pki) -> None:
    tls = TlsConfig(cert=pki.text("client.pem"), key=pki.text("client.key"))
    source = PrometheusSource(PrometheusConfig("https://p:9090", tls=tls))
    links = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    source.close()
    assert links
    assert not [link for link in links if "rl-scaler-tls" in link]
