"""One artifact by HTTPS: a GET whose every freedom is limited, because an RLScaler's author picks the url.

Only https, except where the operator allows http (on loopback always); redirects are followed by hand and
keep to the same rules; names are resolved here, addresses that are nobody's server (link-local, where clouds
keep their metadata service; multicast; unspecified) are refused, and the connection goes to the address that
was checked. Size and time are limited. No proxy, no credentials, no cookies. What is wrong is told without
the url's query, which may hold a signature, and without a word of what the server said.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

import certifi

from controller import __version__
from controller.policies.errors import (
    ArtifactNotAllowed,
    ArtifactNotFound,
    ArtifactTooLarge,
    ArtifactUnreachable,
)

MAX_REDIRECTS = 5
CONNECT_S = 5.0
SILENCE_S = 10.0
WHOLE_S = 60.0
CHUNK_BYTES = 64 * 1024
HEADERS = {
    "User-Agent": f"rl-scaler/{__version__}",
    "Accept": "application/octet-stream, */*;q=0.5",
    "Accept-Encoding": "identity",
    "Connection": "close",
}
REDIRECTS = (301, 302, 303, 307, 308)
GONE = (404, 410)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Rules:
    """What the operator lets a url be. hosts: the only names that may be asked; empty: any."""

    allow_http: bool = False
    hosts: tuple[str, ...] = ()


def download(url: str, most_bytes: int, rules: Rules | None = None, whole_s: float = WHOLE_S) -> bytes:
    """The bytes at `url`, at most so many, within `whole_s` seconds.

    Raises ArtifactNotAllowed, ArtifactNotFound, ArtifactTooLarge or ArtifactUnreachable.
    """
    rules = rules or Rules()
    deadline_s = time.monotonic() + whole_s
    shown = displayed(url)
    for _ in range(MAX_REDIRECTS + 1):
        target, address = _checked(url, rules)
        try:
            with _get(target, address, deadline_s) as response:
                if response.status not in REDIRECTS:
                    return _body(response, shown, most_bytes, deadline_s)
                url = _next(url, response, shown)
        except (http.client.HTTPException, OSError) as error:
            raise ArtifactUnreachable(f"{shown}: {_why(error, deadline_s)}") from error
    raise ArtifactUnreachable(f"{shown}: more than {MAX_REDIRECTS} redirects")


def displayed(url: str) -> str:
    """The url without user, query and fragment, for messages."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "the url"
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{port}{parts.path}"


def resolve(host: str, port: int) -> list[str]:
    """Addresses of a name, in the resolver's order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _checked(url: str, rules: Rules) -> tuple[SplitResult, str]:
    """The url's parts and the address to connect to, once all rules are obeyed."""
    shown = displayed(url)
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise ArtifactNotAllowed(f"{shown} is no address: {error}") from error
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in ("https", "http") or not host:
        raise ArtifactNotAllowed(f"{shown}: only https:// addresses may be downloaded")
    if parts.username is not None or parts.password is not None:
        raise ArtifactNotAllowed(f"{shown}: user and password in a url are not allowed")
    if rules.hosts and host.lower() not in rules.hosts:
        raise ArtifactNotAllowed(f"{shown}: this operator downloads from {', '.join(rules.hosts)} only")
    addresses = _addresses(host, port, shown)
    for address in addresses:
        if address.is_link_local or address.is_multicast or address.is_unspecified:
            raise ArtifactNotAllowed(f"{shown}: {host} is an address that is not asked")
    loopback = all(address.is_loopback for address in addresses)
    if parts.scheme == "http" and not (rules.allow_http or loopback):
        raise ArtifactNotAllowed(
            f"{shown}: only https is allowed; --allow-http-artifacts of the operator would allow http"
        )
    return parts, str(addresses[0])


def _addresses(host: str, port: int, shown: str) -> list[Address]:
    try:
        found = [ipaddress.ip_address(text.partition("%")[0]) for text in resolve(host, port)]
    except (OSError, UnicodeError) as error:
        raise ArtifactUnreachable(f"{shown}: the name {host} cannot be resolved") from error
    plain = [getattr(address, "ipv4_mapped", None) or address for address in found]
    if not plain:
        raise ArtifactUnreachable(f"{shown}: the name {host} has no address")
    return plain


@contextlib.contextmanager
def _get(target: SplitResult, address: str, deadline_s: float) -> Iterator[http.client.HTTPResponse]:
    """A GET sent to a checked address, its headers read; the socket is shut when time is up."""
    host = target.hostname or ""
    https = target.scheme == "https"
    left_s = max(deadline_s - time.monotonic(), 0.1)
    port = target.port or (443 if https else 80)
    plain = socket.create_connection((address, port), timeout=min(CONNECT_S, left_s))
    watch = threading.Timer(left_s, _shut, (plain,))
    watch.daemon = True
    watch.start()
    connection = http.client.HTTPConnection(host, port)
    connection.default_port = 443 if https else 80
    try:
        plain.settimeout(min(SILENCE_S, left_s))
        connection.sock = _tls().wrap_socket(plain, server_hostname=host) if https else plain
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        connection.request("GET", path, headers=HEADERS)
        yield connection.getresponse()
    finally:
        watch.cancel()
        connection.close()
        plain.close()


def _shut(plain: socket.socket) -> None:
    """Whoever reads from the socket in another thread gets its end."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(plain, socket.SHUT_RDWR)


def _tls() -> ssl.SSLContext:
    """The system's authorities (SSL_CERT_FILE adds one's own), and those that come with Python's clients."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _next(url: str, response: http.client.HTTPResponse, shown: str) -> str:
    location = response.headers.get("Location", "")
    if not location:
        raise ArtifactUnreachable(f"{shown}: HTTP {response.status} without a Location")
    following = urljoin(url, location)
    if urlsplit(url).scheme == "https" and urlsplit(following).scheme != "https":
        raise ArtifactNotAllowed(f"{shown}: redirected from https to {displayed(following)}")
    return following


def _body(response: http.client.HTTPResponse, shown: str, most_bytes: int, deadline_s: float) -> bytes:
    _check_time(shown, deadline_s)  # a socket that was shut looks like the end of the headers
    if response.status in GONE:
        raise ArtifactNotFound(f"{shown}: HTTP {response.status}")
    if response.status != 200:
        raise ArtifactUnreachable(f"{shown}: HTTP {response.status}")
    announced = response.headers.get("Content-Length", "")
    if announced.isdigit() and int(announced) > most_bytes:
        raise ArtifactTooLarge(f"{shown} has {announced} bytes; {most_bytes // 1024**2} MiB are allowed")
    parts: list[bytes] = []
    size = 0
    while chunk := response.read1(CHUNK_BYTES):
        parts.append(chunk)
        size += len(chunk)
        if size > most_bytes:
            raise ArtifactTooLarge(f"{shown} has more than the {most_bytes // 1024**2} MiB that are allowed")
        _check_time(shown, deadline_s)
    _check_time(shown, deadline_s)
    if announced.isdigit() and size < int(announced):
        raise ArtifactUnreachable(f"{shown}: the connection ended after {size} of {announced} bytes")
    return b"".join(parts)


def _check_time(shown: str, deadline_s: float) -> None:
    if time.monotonic() >= deadline_s:
        raise ArtifactUnreachable(f"{shown}: not done in time")


def _why(error: BaseException, deadline_s: float) -> str:
    """One short clause for what went wrong; the exception's own words quote addresses and answers."""
    if isinstance(error, TimeoutError) or time.monotonic() >= deadline_s:
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "no TLS connection"
    if isinstance(error, http.client.HTTPException):
        return "not an HTTP answer, or one that ended early"
    return (
        f"no connection: {error.strerror}"
        if isinstance(error, OSError) and error.strerror
        else "no connection"
    )
