"""`python -m sim.twin --data-plane envoy` as a person runs it: real requests go where the HTTPRoute says."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from sim.twin.__main__ import main
from sim.twin.dataplane.servers import POOL_HEADER
from tests.integration.harness import eventually
from tests.real_parts import real_part

ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes"
SCALERS = "/apis/rlscaler.dev/v1alpha1/namespaces/default/rlscalers"
SET = "ready-ejection"


def test_requests_follow_the_route_until_ctrl_c(tmp_path: Path) -> None:
    for part in ("envoy", "prometheus"):
        real_part(part)
    command = [sys.executable, "-m", "sim.twin", "--data-plane", "envoy", "--rules", "Ready+ejection"]
    log = tmp_path / "stdout"
    with log.open("w") as stdout:
        arguments = ["--dir", str(tmp_path / "twin"), "--rate", "5", "--start-up", "0.2"]
        process = subprocess.Popen([*command, *arguments], stdout=stdout, stderr=stdout, text=True)
    try:
        eventually(lambda: "Ctrl-C ends it." in log.read_text(), timeout_s=60)
        text = log.read_text()
        assert re.search(
            r"try +kubectl --kubeconfig \S+/twin/kubeconfig get rls,deployments,httproutes", text
        )
        assert re.search(r"the operator +rl-scaler operator --kubeconfig \S+ --time-scale 1 ", text)
        api = re.search(r"Kubernetes API +(http\S+)", text)[1]
        front = re.search(rf"'Host: {SET}' (http\S+)", text)[1]
        with httpx.Client(base_url=api) as cluster:
            assert [each["metadata"]["name"] for each in cluster.get(SCALERS).json()["items"]] == [SET]
            assert _pools(front) > {f"{SET}-on-demand"}
            _give_all_to(cluster, f"{SET}-spot")
            eventually(lambda: _pools(front) == {f"{SET}-spot"}, timeout_s=30)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0, log.read_text()
        with pytest.raises(httpx.TransportError):
            httpx.get(front)
    finally:
        process.kill()
        process.wait()


def _pools(front: str, requests: int = 24) -> set[str]:
    """Who answers."""
    return {httpx.get(front, headers={"Host": SET}).headers[POOL_HEADER] for _ in range(requests)}


def _give_all_to(cluster: httpx.Client, service: str) -> None:
    route = cluster.get(f"{ROUTES}/{SET}").json()
    for backend in route["spec"]["rules"][0]["backendRefs"]:
        backend["weight"] = 100 if backend["name"] == service else 0
    cluster.put(f"{ROUTES}/{SET}", json=route).raise_for_status()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rules", "Fastest"], "rule: 'Fastest' is not allowed, must be one of Equal, Capacity"),
        (["--rules", "Ready", "Ready"], "sets: ['ready', 'ready'] is not allowed"),
        (["--rate", "0"], "--rate: 0.0 is not allowed, must be above 0"),
    ],
)
def test_bad_input_is_told(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    real_part("envoy")
    assert main(["--data-plane", "envoy", "--dir", str(tmp_path / "twin"), *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "twin").exists()
