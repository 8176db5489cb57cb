"""A twin cluster in a thread, talked to over real HTTP; pods take 60 control seconds, here 0.1 real ones."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sim.twin.hosted import HostedCluster

Json = dict[str, Any]
APPS = "/apis/apps/v1/namespaces/default"
CORE = "/api/v1/namespaces/default"


@pytest.fixture
def cluster() -> Iterator[HostedCluster]:
    with HostedCluster(time_scale=600, start_up_s=60) as hosted:
        yield hosted


@pytest.fixture
def http(cluster: HostedCluster) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cluster.url, timeout=10) as client:
        yield client


@pytest.fixture
def kubectl(cluster: HostedCluster, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    config = cluster.write_kubeconfig(tmp_path / "kubeconfig")

    def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = ["kubectl", "--kubeconfig", str(config), "--cache-dir", str(tmp_path / "cache"), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30)

    return run


def deployment(name: str = "web", replicas: int = 2, **spec: Any) -> Json:
    labels = {"app": name}
    container = {"name": "main", "image": "example.com/app:1"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    body = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template} | spec
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": body}


def config_map(name: str = "cm", **more: Any) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name} | more, "data": {"a": "1"}}


def ok(response: httpx.Response) -> Json:
    assert response.status_code < 300, response.text
    body: Json = response.json()
    return body


def refused(response: httpx.Response, code: int, reason: str) -> str:
    """The message of a refusal, after checking its code and reason."""
    body = response.json()
    assert (response.status_code, body["reason"]) == (code, reason), body
    assert (body["kind"], body["status"], body["code"]) == ("Status", "Failure", code)
    return str(body["message"])


def patch(http: httpx.Client, url: str, body: Any, kind: str = "merge") -> httpx.Response:
    return http.patch(url, json=body, headers={"Content-Type": f"application/{kind}-patch+json"})


def eventually(check: Callable[[], Any], timeout_s: float = 5.0) -> Any:
    """The first true value of a check; it is repeated until then."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = check()
        if value or time.monotonic() > deadline:
            assert value, "it did not come to pass"
            return value
        time.sleep(0.02)
