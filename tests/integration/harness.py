"""What the integration tests stand on: an API server (the twin or a real one), a real Prometheus that
scrapes traffic which the test sets, and the operator as a process of its own.

Nothing in here is a stand-in for a part of the operator; the same tests run against any API server.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.real_parts import real_part

Json = dict[str, Any]
T = TypeVar("T")

ROOT = Path(__file__).parents[2]
TIME_SCALE = 20.0
WINDOW_S = 20
SETTLED_REAL_S = 1.5
"""Real seconds after which the rate over the window is the rate that was set."""
RLSCALERS = "/apis/rlscaler.dev/v1alpha1"
APPS = "/apis/apps/v1"
MERGE = "application/merge-patch+json"
SCRAPE_S = 0.2
BUCKETS_MS = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(check: Callable[[], T | None], timeout_s: float = 15.0, every_s: float = 0.05) -> T:
    """What `check` returns once it is truthy; AssertionErrors on the way are waited out."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            value = check()
            if value:
                return value
            problem: Exception = AssertionError(f"still {value!r} after {timeout_s:g} s")
        except (AssertionError, KeyError, TypeError, IndexError) as error:
            problem = error
        if time.monotonic() > deadline:
            raise problem
        time.sleep(every_s)


class ApiError(Exception):
    """The API server's refusal."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Api:
    """Plain requests with a kubeconfig's credentials."""

    def __init__(self, kubeconfig: Path) -> None:
        from kubernetes.config import new_client_from_config

        self._client = new_client_from_config(config_file=str(kubeconfig))  # type: ignore[no-untyped-call]
        self.made: list[str] = []
        """Paths of what was created in namespaces, in this order."""

    def request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Json:
        from kubernetes.client.exceptions import ApiException

        headers = {"Accept": "application/json", "Content-Type": kind}
        _, url, headers, _, _ = self._client.param_serialize(
            method, path, header_params=headers, auth_settings=["BearerToken"]
        )
        try:
            response = self._client.rest_client.request(method, url, headers=headers, body=body)
            data = response.read()
        except ApiException as error:
            raise ApiError(error.status, str(error.body)) from None
        parsed = json.loads(data) if data else {}
        if response.status >= 300:
            raise ApiError(response.status, parsed.get("message", ""))
        return parsed

    def get(self, path: str) -> Json:
        return self.request("GET", path)

    def patch(self, path: str, body: Json) -> Json:
        return self.request("PATCH", path, body, MERGE)

    def create(self, path: str, body: Json) -> Json:
        created = self.request("POST", path, body)
        if "/namespaces/" in path:
            self.made.append(f"{path}/{created['metadata']['name']}")
        return created

    def delete(self, path: str) -> None:
        try:
            self.request("DELETE", path, {})
        except ApiError as error:
            if error.status != 404:
                raise

    def exists(self, path: str) -> bool:
        try:
            return bool(self.get(path))
        except ApiError as error:
            if error.status != 404:
                raise
            return False

    def delete_made_since(self, count: int) -> None:
        """What was made in namespaces after the first `count`: the last first, each when the next is gone."""
        while len(self.made) > count:
            path = self.made.pop()
            self.delete(path)
            eventually(lambda path=path: not self.exists(path), timeout_s=30.0)  # type: ignore[misc]


@dataclass
class Cluster:
    """An API server with the RLScaler CRD; `twin` is None on a real one."""

    kubeconfig: Path
    api: Api
    twin: Any = None

    def kubectl(self, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [real_part("kubectl"), "--kubeconfig", str(self.kubeconfig), *args]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)

    def serves(self, group_version: str) -> bool:
        try:
            return bool(self.api.get(f"/apis/{group_version}"))
        except ApiError:
            return False


@dataclass
class Namespace:
    """One namespace and short ways to what the tests put there."""

    cluster: Cluster
    name: str

    @property
    def api(self) -> Api:
        return self.cluster.api

    def path(self, root: str, plural: str, name: str = "", subresource: str = "") -> str:
        return "/".join(part for part in (root, "namespaces", self.name, plural, name, subresource) if part)

    def deployment(self, name: str, replicas: int = 2) -> None:
        labels = {"app": name}
        containers = [{"name": "app", "image": "registry.k8s.io/pause:3.9"}]
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
            },
        }
        self.api.create(self.path(APPS, "deployments"), body)

    def replicas(self, name: str) -> int:
        return int(self.api.get(self.path(APPS, "deployments", name))["spec"]["replicas"])

    def set_replicas(self, name: str, replicas: int) -> None:
        path = self.path(APPS, "deployments", name, "scale")
        self.api.patch(path, {"spec": {"replicas": replicas}})

    def rlscaler(self, name: str, labels: dict[str, str] | None = None, **spec: Any) -> Json:
        spec = {"scaleTargetRef": {"kind": "Deployment", "name": name}, "maxReplicas": 20, **spec}
        spec = {key: value for key, value in spec.items() if value is not None}
        metrics = {"windowSeconds": WINDOW_S, **spec.pop("metrics", {})}
        body = {
            "apiVersion": "rlscaler.dev/v1alpha1",
            "kind": "RLScaler",
            "metadata": {"name": name, "labels": labels or {}},
            "spec": {"policy": {"type": "HPA"}, **spec, "metrics": metrics},
        }
        return self.api.create(self.path(RLSCALERS, "rlscalers"), body)

    def get(self, name: str) -> Json:
        return self.api.get(self.path(RLSCALERS, "rlscalers", name))

    def status(self, name: str) -> Json:
        return dict(self.get(name).get("status") or {})

    def patch_spec(self, name: str, **spec: Any) -> None:
        self.api.patch(self.path(RLSCALERS, "rlscalers", name), {"spec": spec})

    def annotate(self, name: str, key: str, value: str | None) -> None:
        self.api.patch(self.path(RLSCALERS, "rlscalers", name), {"metadata": {"annotations": {key: value}}})

    def condition(self, name: str, kind: str) -> Json:
        found = [c for c in self.status(name).get("conditions", []) if c["type"] == kind]
        return found[0] if found else {}

    def wait_condition(self, name: str, kind: str, status: str, reason: str = "") -> Json:
        """The condition once it has the status (and the reason)."""

        def check() -> Json:
            found = self.condition(name, kind)
            assert found.get("status") == status, found
            assert reason in ("", found.get("reason")), found
            return found

        return eventually(check)

    def wait_replicas(self, name: str, *allowed: int, timeout_s: float = 15.0) -> int:
        """The replicas once they are one of `allowed`: a tolerance of 10 % leaves two that are right."""

        def check() -> int:
            now = self.replicas(name)
            assert now in allowed, (now, self.status(name).get("lastDecision"))
            return now

        return eventually(check, timeout_s)

    def events(self, reason: str) -> list[Json]:
        items = self.api.get(self.path("/api/v1", "events"))["items"]
        return [item for item in items if item["reason"] == reason]


class Readiness(threading.Thread):
    """Says that pods are ready where nobody else does: an API server without a controller manager.

    Where controllers run, a Deployment's status has an observedGeneration soon, and this keeps away from it.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        super().__init__(daemon=True)
        self._api = cluster.api
        self._path = f"{APPS}/namespaces/{namespace}/deployments"
        self._over = threading.Event()
        self._seen: dict[str, float] = {}

    def run(self) -> None:
        while not self._over.wait(0.2):
            try:
                for item in self._api.get(self._path).get("items", []):
                    self._attend(item)
            except ApiError:
                continue  # gone, or changed meanwhile: look again

    def _attend(self, item: Json) -> None:
        name, status = item["metadata"]["name"], item.get("status") or {}
        first = self._seen.setdefault(name, time.monotonic())
        if "observedGeneration" in status or time.monotonic() - first < 2.0:
            return
        wanted = item["spec"]["replicas"]
        if status.get("readyReplicas", 0) != wanted:
            counts = dict.fromkeys(("replicas", "readyReplicas", "availableReplicas"), wanted)
            self._api.patch(f"{self._path}/{name}/status", {"status": counts})

    def stop(self) -> None:
        self._over.set()
        self.join()


@dataclass
class Traffic:
    """What Envoy would count for services; the tests set rates (requests/s) and latencies (ms)."""

    rates: dict[tuple[str, str], float] = field(default_factory=dict)
    latencies: dict[tuple[str, str], float] = field(default_factory=dict)
    _totals: dict[tuple[str, str], float] = field(default_factory=dict)
    _at: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def set(self, namespace: str, service: str, rate: float, latency_ms: float = 20.0) -> None:
        """From now on. Rates are per second of control time."""
        with self._lock:
            self._advance()
            self.rates[namespace, service] = rate
            self.latencies[namespace, service] = latency_ms
            self._totals.setdefault((namespace, service), 0.0)

    def drop(self, namespace: str, service: str) -> None:
        """The service's series vanish."""
        with self._lock:
            self.rates.pop((namespace, service), None)
            self._totals.pop((namespace, service), None)

    def _advance(self) -> None:
        now = time.monotonic()
        for key, rate in self.rates.items():
            self._totals[key] += rate * TIME_SCALE * (now - self._at)
        self._at = now

    def exposition(self) -> str:
        with self._lock:
            self._advance()
            return "".join(self._series(key, total) for key, total in self._totals.items())

    def _series(self, key: tuple[str, str], total: float) -> str:
        labels = f'namespace="{key[0]}",envoy_cluster_name="{key[1]}"'
        latency = self.latencies[key]
        lines = [
            f"envoy_cluster_upstream_rq_total{{{labels}}} {total}",
            f'envoy_cluster_upstream_rq_xx{{{labels},envoy_response_code_class="2"}} {total}',
            f"envoy_cluster_upstream_rq_active{{{labels}}} 1",
        ]
        for edge in BUCKETS_MS:
            count = total if edge >= latency else 0.0
            lines.append(f'envoy_cluster_upstream_rq_time_bucket{{{labels},le="{edge}"}} {count}')
        lines.append(f'envoy_cluster_upstream_rq_time_bucket{{{labels},le="+Inf"}} {total}')
        return "\n".join(lines) + "\n"


OBJECTIVE = {"capacityPerReplica": "10", "targetUtilization": 50}
"""10 requests/s a replica at 50 %: one replica for every five requests/s."""


def service_under_load(
    ns: Namespace, traffic: Traffic, name: str, rate: float, replicas: int, **spec: Any
) -> None:
    """A Deployment under load that Prometheus knows, and its RLScaler; nothing is waited for after that."""
    traffic.set(ns.name, name, rate=rate)
    ns.deployment(name, replicas=replicas)
    time.sleep(SETTLED_REAL_S)
    ns.rlscaler(name, **{"objective": OBJECTIVE, **spec})


class Exporter:
    """Serves a Traffic over HTTP."""

    def __init__(self, traffic: Traffic) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                # a Prometheus that a test stops hangs up in mid-answer
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self._answer(traffic.exposition().encode())

            def _answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Prometheus:
    """A real Prometheus that scrapes one exporter; may be stopped and started again."""

    def __init__(self, directory: Path, target_port: int) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._dir = directory
        self._process: subprocess.Popen[bytes] | None = None
        scrape = {
            "job_name": "envoy",
            "honor_labels": True,
            "static_configs": [{"targets": [f"127.0.0.1:{target_port}"]}],
        }
        interval = f"{int(SCRAPE_S * 1000)}ms"
        config = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": "10s"},
            "scrape_configs": [scrape],
        }
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))

    def start(self) -> None:
        command = [
            real_part("prometheus"),
            f"--config.file={self._dir / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._dir / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=error",
        ]
        with (self._dir / "prometheus.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        eventually(lambda: http_get(f"{self.address}/-/ready")[0] == 200)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def http_get(url: str) -> tuple[int, str]:
    """Status and body; status 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


class OperatorProcess:
    """`python -m controller operator` as users run it."""

    def __init__(self, kubeconfig: Path, namespace: str, prometheus: str, log: Path, **env: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._command = [sys.executable, "-m", "controller", "operator", "--kubeconfig", str(kubeconfig)]
        self._env = os.environ | {
            "RLSCALER_NAMESPACES": namespace,
            "RLSCALER_PROMETHEUS_ADDRESS": prometheus,
            "RLSCALER_HTTP_ADDRESS": f"127.0.0.1:{self.port}",
            "RLSCALER_TIME_SCALE": f"{TIME_SCALE:g}",
            "RLSCALER_LOG_LEVEL": "debug",
            "OMP_NUM_THREADS": "1",
            **env,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> OperatorProcess:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._env, cwd=ROOT, stdout=log, stderr=log)
        eventually(self.is_listed, timeout_s=30.0)
        return self

    def is_listed(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-4000:]
        status, text = http_get(f"{self.url}/readyz")
        return status == 200 or "turn" in text

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """kill -9."""
        return self._end(signal.SIGKILL)

    def _end(self, number: int) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(number)
        code = self._process.wait(timeout=20)
        self._process = None
        return code

    def decisions(self, namespace: str, name: str) -> list[Json]:
        """Newest first."""
        _, body = http_get(f"{self.url}/v1/decisions?namespace={namespace}&name={name}&limit=1000")
        return list(json.loads(body)["decisions"])

    def errors(self) -> list[str]:
        """Lines that the operator logged as errors."""
        lines = self.log.read_text().splitlines()
        return [line for line in lines if '"level": "error"' in line or line.startswith("Traceback")]
