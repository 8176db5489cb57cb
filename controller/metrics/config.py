"""How to reach Prometheus: address, credentials and TLS, checked before the first request.

The operator makes a `PrometheusConfig` from its settings or from spec.metrics.prometheus and its Secret;
equal configurations may share one `PrometheusSource`, since they are hashable.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import requests
import requests.utils
import urllib3
from requests.auth import AuthBase, HTTPBasicAuth

from controller.metrics.errors import PrometheusConfigError


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """TLS to Prometheus. ca, cert and key are PEM text, or the path of a PEM file.

    ca: what to trust instead of the public authorities. cert, key: the client's own, for mutual TLS.
    server_name: the name that the server's certificate must carry, if not the address's host.
    """

    ca: str = ""
    cert: str = ""
    key: str = field(default="", repr=False)
    server_name: str = ""
    insecure_skip_verify: bool = False


@dataclass(frozen=True, slots=True)
class PrometheusConfig:
    """One Prometheus, or whatever else serves its HTTP API (Thanos, Mimir, VictoriaMetrics).

    timeout_s: for one query, waiting for a free worker included. bearer_token_file is read anew for
    every request, since projected tokens rotate. headers: pairs, such as (("X-Scope-OrgID", "shop"),).
    Proxies come from the usual environment variables. Raises PrometheusConfigError.
    """

    address: str
    timeout_s: float = 3.0
    range_timeout_s: float = 15.0
    bearer_token: str = field(default="", repr=False)
    bearer_token_file: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    tls: TlsConfig = TlsConfig()

    def __post_init__(self) -> None:
        _check_address(self.address)
        if not (self.timeout_s > 0 and self.range_timeout_s > 0):
            raise PrometheusConfigError("timeoutSeconds", f"{self.timeout_s!r} is not allowed; above zero")
        _check_credentials(self)
        if bool(self.tls.cert) != bool(self.tls.key):
            raise PrometheusConfigError("tls", "cert and key go together; one of them is missing")

    @property
    def url(self) -> str:
        """The address without a trailing slash."""
        return self.address.rstrip("/")


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or re.search(r"\s", address):
        raise PrometheusConfigError(
            "address",
            f"{address!r} is not allowed; an http:// or https:// address, such as http://prometheus:9090",
        )
    if parts.username or parts.password:
        raise PrometheusConfigError("address", "credentials in the address are not allowed; use a Secret")
    if parts.query or parts.fragment:
        raise PrometheusConfigError("address", f"{address!r} is not allowed; no ? or # part")


def _check_credentials(config: PrometheusConfig) -> None:
    if config.username and (config.bearer_token or config.bearer_token_file):
        raise PrometheusConfigError("auth", "both a bearer token and a user name are given; one of them")
    if config.bearer_token:
        _one_token(config.bearer_token, "the Secret")
    for name, value in config.headers:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or re.search(r"[\r\n\0]", value):
            raise PrometheusConfigError(
                "headers", f"{name!r} is not a valid header name, or its value is not one line"
            )


def _one_token(text: str, where: str) -> str:
    token = text.strip()
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise PrometheusConfigError("auth", f"the bearer token in {where} is empty or has blanks in it")
    return token


class _BearerAuth(AuthBase):
    """Authorization header; as `auth` rather than a header, so that ~/.netrc can't replace it."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token()}"
        return request


class _NoAuth(AuthBase):
    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def make_auth(config: PrometheusConfig) -> AuthBase:
    """What signs each request."""
    path = config.bearer_token_file
    if path:
        return _BearerAuth(lambda: _one_token(Path(path).read_text(encoding="utf-8"), path))
    if config.bearer_token:
        token = _one_token(config.bearer_token, "the Secret")
        return _BearerAuth(lambda: token)
    if config.username:
        return HTTPBasicAuth(config.username.encode(), config.password.encode())
    return _NoAuth()


def make_tls_context(config: PrometheusConfig) -> ssl.SSLContext | None:
    """The TLS settings of all connections; None for plain HTTP. Raises PrometheusConfigError."""
    if urlsplit(config.address).scheme != "https":
        return None
    tls = config.tls
    context = _trusting(tls.ca)
    if tls.cert:
        _load_client_certificate(context, tls)
    if tls.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return context


def _trusting(ca: str) -> ssl.SSLContext:
    if not ca:
        context = ssl.create_default_context()
        context.load_verify_locations(requests.utils.DEFAULT_CA_BUNDLE_PATH)
        return context
    try:
        return ssl.create_default_context(cadata=_pem(ca))
    except (OSError, ValueError) as error:
        raise PrometheusConfigError("tls.ca", f"no certificate can be read from it: {error}") from error


def _pem(text_or_path: str) -> str:
    return text_or_path if "-----BEGIN" in text_or_path else Path(text_or_path).read_text(encoding="utf-8")


def _load_client_certificate(context: ssl.SSLContext, tls: TlsConfig) -> None:
    try:
        with _as_file(_pem(tls.cert)) as cert, _as_file(_pem(tls.key)) as key:
            context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise PrometheusConfigError("tls.cert", f"certificate and key can't be used: {error}") from error


def _no_password() -> str:
    """Without it OpenSSL would ask for an encrypted key's password on the terminal."""
    raise ValueError("the key is encrypted")


@contextlib.contextmanager
def _as_file(text: str) -> Iterator[str]:
    """A path to `text`, since OpenSSL reads client certificates from files only; in memory where possible."""
    if not hasattr(os, "memfd_create"):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            yield file.name
        return
    descriptor = os.memfd_create("rl-scaler-tls")
    try:
        os.write(descriptor, text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
