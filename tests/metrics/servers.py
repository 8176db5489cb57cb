"""Real servers that the metrics tests talk to: exporters, Prometheus, Envoy, and HTTP servers that fail."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

Respond = Callable[[BaseHTTPRequestHandler], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what many tests are about."""


@contextlib.contextmanager
def http_server(respond: Respond, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """An HTTP/1.1 server on a free port of 127.0.0.1 whose every request is answered by `respond`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            respond(self)

        def do_POST(self) -> None:
            respond(self)

        def log_message(self, *args: Any) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(
    handler: BaseHTTPRequestHandler, status: int, body: str | bytes, kind: str = "application/json"
) -> None:
    data = body.encode() if isinstance(body, str) else body
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def answer(value: str = "1", kind: str = "vector") -> str:
    """The body that Prometheus would send for one sample now."""
    sample = [time.time(), value]
    result: Any = [{"metric": {}, "value": sample}] if kind == "vector" else sample
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(ready: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException, KeyError, IndexError, ValueError):
            if ready():
                return
        time.sleep(0.05)
    raise AssertionError(f"{what} was not ready within {timeout_s:g} s")


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


@contextlib.contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent)
        try:
            yield child
        finally:
            child.kill()
            child.wait()


@contextlib.contextmanager
def prometheus(directory: Path, jobs: list[dict[str, Any]], interval: str = "200ms") -> Iterator[str]:
    """A real Prometheus that scrapes `jobs` (entries of scrape_configs); yields its address."""
    binary = shutil.which("prometheus")
    assert binary, "prometheus is not installed: apt-get install prometheus"
    config = {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": jobs}
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        binary,
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with process(command, directory / "prometheus.log"):
        wait_for(lambda: get(port, "/-/ready")[0] == 200, "Prometheus")
        yield f"http://127.0.0.1:{port}"


def job(
    name: str, port: int, path: str = "/metrics", honor_labels: bool = False, **labels: str
) -> dict[str, Any]:
    return {
        "job_name": name,
        "metrics_path": path,
        "honor_labels": honor_labels,
        "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": labels}],
    }


def envoy_cluster(name: str, port: int | None, **settings: Any) -> dict[str, Any]:
    """A cluster of one endpoint at a local port, or of none."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}] if port else []
    assignment = {"cluster_name": name, "endpoints": endpoints}
    return {"name": name, "type": "STATIC", "load_assignment": assignment} | settings


def _envoy_config(admin: int, listen: int, clusters: list[dict[str, Any]]) -> dict[str, Any]:
    api = "type.googleapis.com/envoy.extensions.filters"
    names = [cluster["name"] for cluster in clusters]
    routes = [{"match": {"prefix": f"/{name}"}, "route": {"cluster": name}} for name in names]
    manager = {
        "@type": f"{api}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{api}.http.router.v3.Router"}}
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": listen}},
        "filter_chains": [{"filters": filters}],
    }
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        # histograms reach /stats/prometheus at a flush, five seconds apart by default
        "stats_flush_interval": "0.5s",
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


@contextlib.contextmanager
def envoy(directory: Path, clusters: list[dict[str, Any]]) -> Iterator[tuple[int, int]]:
    """A real Envoy that routes /NAME... to the cluster NAME; yields its ports (in, admin)."""
    listen, admin = free_port(), free_port()
    file = directory / "envoy.yaml"
    file.write_text(yaml.safe_dump(_envoy_config(admin, listen, clusters)))
    binary = Path(sys.executable).with_name("envoy")
    command = [str(binary), "-c", str(file), "--concurrency", "1", "--log-level", "warn"]
    with process([*command, "--use-dynamic-base-id"], directory / "envoy.log"):
        wait_for(lambda: get(admin, "/ready")[0] == 200, "Envoy")
        yield listen, admin
