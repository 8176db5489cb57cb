"""Every command of docs/EMERGENCY.md, run as it is written there, and that it does what it is for."""

from __future__ import annotations

import re
import shlex
import subprocess
import time

import pytest
import yaml

from controller.cli import main
from tests.charts.conftest import CHART
from tests.integration.harness import (
    OBJECTIVE,
    Json,
    Namespace,
    OperatorProcess,
    Traffic,
    eventually,
    service_under_load,
)
from tests.real_parts import real_part

DOC = CHART.parent / "docs" / "EMERGENCY.md"
SEVERAL_TURNS_REAL_S = 2.0


def commands() -> list[str]:
    return re.findall(r"`((?:kubectl|rl-scaler) [^`]+)`", DOC.read_text().split("|---|")[1])


def test_it_is_ten_lines() -> None:
    rows = [line for line in DOC.read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 10
    assert all("`" in row for row in rows)


class Runbook:
    """Runs the commands of the page on one namespace, and remembers which."""

    def __init__(self, ns: Namespace, operator: OperatorProcess, name: str) -> None:
        self._ns, self._operator, self._name = ns, operator, name
        self.left = commands()

    def run(self, beginning: str, *words: str, more: tuple[str, ...] = ()) -> str:
        """What the command that begins so and holds the words prints; `more` is added to it."""
        found = [one for one in commands() if one.startswith(beginning) and all(w in one for w in words)]
        (command,) = found
        if command in self.left:
            self.left.remove(command)
        filled = re.sub(r"\b(NAME|TARGET)\b", self._name, command).replace("-n NS", f"-n {self._ns.name}")
        words_to_run = shlex.split(filled.replace("-n rl-scaler", f"-n {self._ns.name}"))
        if words_to_run[0] == "rl-scaler":
            assert main([*words_to_run[1:], "--server", self._operator.url]) == 0
            return ""
        assert words_to_run[0] == "kubectl"
        kubectl = [real_part("kubectl"), "--kubeconfig", str(self._ns.cluster.kubeconfig)]
        done = subprocess.run(
            [*kubectl, *words_to_run[1:], *more], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout


@pytest.fixture
def runbook(operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic) -> Runbook:
    """A Deployment `web` at four replicas under its RLScaler, and the operator's own Deployment."""
    ns = shared_namespace
    ns.deployment("rl-scaler", replicas=1)
    service_under_load(ns, traffic, "web", rate=20.0, replicas=4, policy={"type": "RL"}, objective=OBJECTIVE)
    ns.wait_condition("web", "PolicyReady", "True")
    return Runbook(ns, operator, "web")


def stays(ns: Namespace, replicas: int) -> None:
    until = time.monotonic() + SEVERAL_TURNS_REAL_S
    while time.monotonic() < until:
        assert ns.replicas("web") == replicas
        time.sleep(0.2)


def autoscaled(ns: Namespace, runbook: Runbook) -> Json:
    """spec of the HPA that the command makes; the twin has no autoscaling/v1, by which kubectl would ask."""
    if ns.cluster.twin is not None:
        text = runbook.run("kubectl", "autoscale deploy TARGET", more=("--dry-run=client", "-o", "yaml"))
        return dict(yaml.safe_load(text)["spec"])
    runbook.run("kubectl", "autoscale deploy TARGET")
    return dict(ns.api.get(ns.path("/apis/autoscaling/v2", "horizontalpodautoscalers", "web"))["spec"])


def paused(ns: Namespace, status: str) -> None:
    ns.wait_condition("web", "Paused", status)


def test_the_commands_do_what_they_are_for(
    runbook: Runbook,
    operator: OperatorProcess,
    shared_namespace: Namespace,
    traffic: Traffic,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ns = shared_namespace
    runbook.run("rl-scaler explain")
    assert "What the policy asked for" in capsys.readouterr().out

    runbook.run("kubectl", "annotate rls NAME rlscaler.dev/paused=true")
    paused(ns, "True")
    runbook.run("kubectl", " scale deploy TARGET")
    traffic.set(ns.name, "web", rate=100.0)
    stays(ns, 12)

    runbook.run("kubectl", "annotate rls NAME rlscaler.dev/paused-")
    paused(ns, "False")
    ns.patch_spec("web", outsideChange={"holdSeconds": 0})
    runbook.run("kubectl", "patch rls NAME", "HPA")
    eventually(lambda: ns.status("web")["policy"]["type"] == "HPA", timeout_s=30.0)
    ns.wait_replicas("web", 20, timeout_s=40.0)

    runbook.run("kubectl", "patch rls NAME", "minReplicas")
    ns.wait_replicas("web", 12, timeout_s=40.0)
    stays(ns, 12)

    runbook.run("kubectl", "patch rls NAME", "Shadow")
    ns.wait_condition("web", "Ready", "True", "Shadowing")
    ns.patch_spec("web", minReplicas=1, maxReplicas=20)
    stays(ns, 12)

    ns.patch_spec("web", mode="Active")
    runbook.run("kubectl", "annotate rls --all")
    paused(ns, "True")

    runbook.run("kubectl", "scale deploy rl-scaler --replicas=0")
    assert ns.replicas("rl-scaler") == 0
    kept = ns.replicas("web")
    assert operator.stop() == 0
    stays(ns, kept)

    runbook.run("kubectl", "delete rls NAME")
    stays(ns, kept)
    hpa = autoscaled(ns, runbook)
    assert (hpa["minReplicas"], hpa["maxReplicas"], hpa["scaleTargetRef"]["name"]) == (4, 40, "web")

    runbook.run("kubectl", "scale deploy rl-scaler --replicas=1")
    assert ns.replicas("rl-scaler") == 1
    assert runbook.left == []
