"""A url's every freedom is limited: what is asked, where, how long, how much; and what is told of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from controller.policies import (
    ArtifactError,
    ArtifactNotAllowed,
    ArtifactNotFound,
    ArtifactTooLarge,
    ArtifactUnreachable,
    Rules,
    displayed,
    download,
)
from controller.policies import download as download_function
from tests.metrics.servers import Respond, http_server, send
from tests.metrics.test_transport import Pki, pki  # noqa: F401

download_module = __import__(download_function.__module__, fromlist=["resolve"])
MANY = 1 << 20


@contextmanager
def serving(respond: Respond, context: object = None) -> Iterator[str]:
    with http_server(respond, context) as port:  # type: ignore[arg-type]
        yield f"{'http' if context is None else 'https'}://127.0.0.1:{port}"


def file(body: bytes = b"weights") -> Respond:
    return lambda handler: send(handler, 200, body, "application/octet-stream")


def redirect(*targets: str) -> Respond:
    """To each target in turn, and then to the file."""
    left = list(targets)

    def respond(handler: BaseHTTPRequestHandler) -> None:
        if not left:
            send(handler, 200, b"weights")
            return
        handler.send_response(302)
        handler.send_header("Location", left.pop(0))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return respond


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Say what a name resolves to; returns the list of names that were asked for."""

    def say(**addresses: str) -> list[str]:
        asked: list[str] = []

        def resolve(host: str, port: int) -> list[str]:
            asked.append(host)
            return addresses.get(host.replace(".", "_"), host).split()

        monkeypatch.setattr(download_module, "resolve", resolve)
        return asked

    return say


def test_a_file_comes_over_https_from_a_trusted_server(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("SSL_CERT_FILE", pki.path("ca.pem"))
    with serving(file(), pki.server_context()) as address:
        assert download(f"{address}/a.onnx", MANY) == b"weights"


def test_a_server_that_nobody_vouches_for_is_refused(pki: Pki) -> None:  # noqa: F811
    with (
        serving(file(), pki.server_context()) as address,
        pytest.raises(ArtifactUnreachable, match="certificate is not trusted"),
    ):
        download(f"{address}/a.onnx", MANY)


def test_a_certificate_for_another_name_is_refused(
    pki: Pki,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    names: Callable[..., list[str]],
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", pki.path("ca.pem"))
    names(elsewhere_test="127.0.0.1")
    with (
        serving(file(), pki.server_context()) as address,
        pytest.raises(ArtifactUnreachable, match="certificate is not trusted"),
    ):
        download(address.replace("127.0.0.1", "elsewhere.test") + "/a.onnx", MANY)


def test_http_is_for_loopback_alone_unless_the_operator_allows_it(names: Callable[..., list[str]]) -> None:
    names(models_test="192.0.2.7", mixed_test="127.0.0.1 192.0.2.7")
    with serving(file()) as address:
        assert download(f"{address}/a.onnx", MANY) == b"weights"
    for host in ("models.test", "mixed.test"):
        with pytest.raises(ArtifactNotAllowed, match="only https is allowed; --allow-http-artifacts"):
            download(f"http://{host}/a.onnx", MANY)
    _, address = download_module._checked("http://models.test/a.onnx", Rules(allow_http=True))
    assert address == "192.0.2.7"


def test_the_connection_goes_to_the_address_that_was_checked(names: Callable[..., list[str]]) -> None:
    asked = names(models_test="127.0.0.1")
    seen: list[str] = []

    def respond(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["Host"])
        send(handler, 200, b"weights")

    with serving(respond) as address:
        port = address.rpartition(":")[2]
        assert download(f"http://models.test:{port}/a.onnx?x=1", MANY) == b"weights"
    assert asked == ["models.test"]
    assert seen == [f"models.test:{port}"]


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1"],
)
def test_addresses_that_are_no_servers_are_not_asked(names: Callable[..., list[str]], address: str) -> None:
    names(models_test=f"192.0.2.7 {address}")
    with pytest.raises(ArtifactNotAllowed, match="test is an address that is not asked"):
        download("https://models.test/a.onnx", MANY, Rules(allow_http=True))


def test_redirects_are_followed_under_the_same_rules(names: Callable[..., list[str]]) -> None:
    names(metadata_test="169.254.169.254", models_test="192.0.2.7")
    with serving(redirect("/b.onnx", "c.onnx")) as address:
        assert download(f"{address}/a.onnx", MANY) == b"weights"
    for target, words in (
        ("https://metadata.test/latest", "is an address that is not asked"),
        ("http://models.test/a.onnx", "only https is allowed"),
        ("ftp://models.test/a.onnx", "only https:// addresses"),
        ("file:///etc/passwd", "only https:// addresses"),
    ):
        with serving(redirect(target)) as address, pytest.raises(ArtifactNotAllowed, match=words):
            download(f"{address}/a.onnx", MANY)


def test_https_never_becomes_http(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("SSL_CERT_FILE", pki.path("ca.pem"))
    with (
        serving(file()) as plain,
        serving(redirect(f"{plain}/a.onnx"), pki.server_context()) as address,
        pytest.raises(ArtifactNotAllowed, match="redirected from https to http:"),
    ):
        download(f"{address}/a.onnx", MANY, Rules(allow_http=True))


def test_redirects_come_to_an_end() -> None:
    with (
        serving(redirect(*["/a.onnx"] * 9)) as address,
        pytest.raises(ArtifactUnreachable, match="more than 5 redirects"),
    ):
        download(f"{address}/a.onnx", MANY)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://user:word@models.test/a.onnx", "user and password in a url are not allowed"),
        ("ftp://models.test/a.onnx", "only https:// addresses"),
        ("https:///a.onnx", "only https:// addresses"),
        ("https://models.test:99999/a.onnx", "is no address"),
        ("https://other.test/a.onnx", "downloads from models.test only"),
    ],
)
def test_what_may_not_be_asked_is_not_asked(names: Callable[..., list[str]], url: str, words: str) -> None:
    asked = names()
    with pytest.raises(ArtifactNotAllowed, match=words) as raised:
        download(url, MANY, Rules(hosts=("models.test",)))
    assert asked == []
    assert "word" not in str(raised.value).replace("password", "")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, ArtifactNotFound),
        (410, ArtifactNotFound),
        (204, ArtifactUnreachable),
        (403, ArtifactUnreachable),
        (500, ArtifactUnreachable),
        (302, ArtifactUnreachable),
    ],
)
def test_an_answer_that_is_no_file_is_told_by_its_status_alone(
    status: int, error: type[ArtifactError]
) -> None:
    with (
        serving(lambda handler: send(handler, status, b"inner words")) as address,
        pytest.raises(error, match=f"HTTP {status}") as raised,
    ):
        download(f"{address}/a.onnx?signature=secret#part", MANY)
    assert "secret" not in str(raised.value)
    assert "inner words" not in str(raised.value)


def test_a_file_that_announces_too_many_bytes_is_not_read() -> None:
    with serving(file(b"x" * 2000)) as address:
        assert len(download(f"{address}/a.onnx", 2000)) == 2000
        with pytest.raises(ArtifactTooLarge, match="has 2000 bytes"):
            download(f"{address}/a.onnx", 1999)


def test_a_file_that_never_ends_is_cut_off() -> None:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while True:
            handler.wfile.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")

    with serving(respond) as address, pytest.raises(ArtifactTooLarge, match="more than the"):
        download(f"{address}/a.onnx", MANY)


def test_a_file_that_ends_early_is_no_file() -> None:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x" * 10)
        handler.close_connection = True

    with serving(respond) as address, pytest.raises(ArtifactUnreachable, match="ended"):
        download(f"{address}/a.onnx", MANY)


def drip_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for letter in b"X-Long: " + b"x" * 10_000:
        handler.wfile.write(bytes([letter]))
        handler.wfile.flush()
        time.sleep(0.05)


def drip_body(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "10000")
    handler.end_headers()
    for _ in range(10_000):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.05)


def silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(3.0)


@pytest.mark.parametrize("respond", [drip_headers, drip_body, silent])
def test_a_server_that_takes_for_ever_is_given_up(respond: Respond) -> None:
    with serving(respond) as address, pytest.raises(ArtifactUnreachable, match="in time"):
        download(f"{address}/a.onnx", MANY, whole_s=0.6)


def test_nobody_there_is_said() -> None:
    with serving(file()) as address:
        pass
    with pytest.raises(ArtifactUnreachable, match="no connection"):
        download(f"{address}/a.onnx", MANY)


def test_an_answer_that_is_not_http_is_said() -> None:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"SSH-2.0-inner words\r\n")

    with (
        serving(respond) as address,
        pytest.raises(ArtifactUnreachable, match="not an HTTP answer") as raised,
    ):
        download(f"{address}/a.onnx", MANY)
    assert "inner words" not in str(raised.value)


def test_a_name_without_an_address_is_said() -> None:
    with pytest.raises(ArtifactUnreachable, match="cannot be resolved"):
        download("https://does-not-exist.invalid/a.onnx", MANY)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@h.test:8443/a/b.onnx?sig=s#f", "https://h.test:8443/a/b.onnx"),
        ("https://[2001:db8::1]/a", "https://[2001:db8::1]/a"),
        ("https://h.test:x/a", "the url"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert displayed(url) == shown
