"""Policies that come and go while the operator runs: downloads, hot reload, canaries, restarts in between."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.conftest import OperatorFactory
from tests.integration.harness import (
    SETTLED_REAL_S,
    Namespace,
    OperatorProcess,
    Prometheus,
    Traffic,
    eventually,
)
from tests.metrics.servers import http_server, send
from tests.policies.models import metadata, model

Json = dict[str, Any]

SLO = {"slo": {"latency": {"milliseconds": 100}}, "capacityPerReplica": "10", "startUpSeconds": 10}


def artifact(name: str, headroom: float) -> bytes:
    """A policy that wants `headroom` times the load, whatever else is observed."""
    edge = float(np.log(headroom))
    return model(
        [
            onnx.helper.make_node("MatMul", ["observation", "W"], ["hidden"]),
            onnx.helper.make_node("Constant", [], ["nil"], value_float=0.0),
            onnx.helper.make_node("Mul", ["hidden", "nil"], ["zero"]),
            onnx.helper.make_node(
                "Constant", [], ["edges"], value=numpy_helper.from_array(np.full((1, 2), edge, np.float32))
            ),
            onnx.helper.make_node("Add", ["zero", "edges"], ["action"]),
        ],
        actions=2,
        properties=metadata(name=name, action_schema="hold-band/v1"),
    )


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def put(ns: Namespace, name: str, data: bytes | None) -> None:
    """Create, change or delete the ConfigMap."""
    path = ns.path("/api/v1", "configmaps", name)
    if data is None:
        ns.api.delete(path)
        return
    body = {"binaryData": {"policy.onnx": base64.b64encode(data).decode()}}
    try:
        ns.api.patch(path, body)
    except Exception:
        head = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        ns.api.create(ns.path("/api/v1", "configmaps"), {**head, **body})


def policy(ns: Namespace, name: str) -> Json:
    return dict(ns.status(name).get("policy") or {})


def canary(ns: Namespace, name: str) -> Json:
    return dict(policy(ns, name).get("canary") or {})


def wait_policy(ns: Namespace, name: str, wanted: str, timeout_s: float = 90.0) -> Json:
    """status.policy once this policy decides."""

    def check() -> Json:
        found = policy(ns, name)
        assert found.get("name") == wanted, found
        return found

    return eventually(check, timeout_s)


def wait_phase(ns: Namespace, name: str, phase: str, timeout_s: float = 90.0) -> Json:
    """status.policy.canary once it is in this phase."""

    def check() -> Json:
        found = canary(ns, name)
        assert found.get("phase") == phase, found
        return found

    return eventually(check, timeout_s)


def wait_condition(ns: Namespace, name: str, kind: str, status: str, reason: str = "") -> Json:
    """As the namespace's own, with patience for a busy machine."""

    def check() -> Json:
        found = ns.condition(name, kind)
        assert found.get("status") == status, found
        assert reason in ("", found.get("reason")), found
        return found

    return eventually(check, timeout_s=90)


def reasons(ns: Namespace, name: str) -> list[str]:
    """Reasons of the Events about an RLScaler, oldest first."""
    items = ns.api.get(ns.path("/api/v1", "events"))["items"]
    mine = [item for item in items if item["involvedObject"]["name"] == name]
    return [
        item["reason"] for item in sorted(mine, key=lambda item: int(item["metadata"]["resourceVersion"]))
    ]


def start(ns: Namespace, traffic: Traffic, policies: dict[str, Json], **spec: Any) -> None:
    """A service under a load of 3.8 replicas for each policy, with its RLScaler; all of them at once."""
    for name in policies:
        traffic.set(ns.name, name, rate=38.0)
        ns.deployment(name, replicas=8)
    time.sleep(SETTLED_REAL_S)
    quick = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    for name, policy in policies.items():
        ns.rlscaler(name, policy={"type": "RL", **policy}, objective=SLO, behavior=quick, **spec)


# Downloads


class Files:
    """A server whose files, and failures, a test may change."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.failing: set[str] = set()
        self.asked: list[str] = []

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        path = handler.path.partition("?")[0]
        if path in self.failing:
            send(handler, 503, b"nothing to see")
        elif path not in self.files:
            send(handler, 404, b"nothing to see")
        else:
            send(handler, 200, self.files[path])


@pytest.fixture
def files() -> Iterator[tuple[Files, str]]:
    shelf = Files()
    with http_server(shelf) as port:
        yield shelf, f"http://127.0.0.1:{port}"


def test_a_url_is_downloaded_once_and_one_that_fails_is_the_fallback_with_its_reason(
    namespace: Namespace,
    traffic: Traffic,
    prometheus: Prometheus,
    make_operator: OperatorFactory,
    files: tuple[Files, str],
    tmp_path: Path,
) -> None:
    ns, (shelf, address) = namespace, files
    far, late = artifact("far", 1.5), artifact("late", 1.5)
    shelf.files |= {"/far.onnx": far, "/late.onnx": late, "/other.onnx": artifact("other", 2.0)}
    shelf.failing.add("/late.onnx")
    operator = make_operator(prometheus, RLSCALER_ARTIFACT_CACHE_DIR=str(tmp_path / "cache"))
    good = at(f"{address}/far.onnx?key=hidden", digest(far))
    wrong = {
        "late": (at(f"{address}/late.onnx?key=hidden", digest(late)), "ArtifactUnreachable"),
        "absent": (at(f"{address}/absent.onnx", "1" * 64), "ArtifactNotFound"),
        "other": (at(f"{address}/other.onnx", "2" * 64), "ArtifactDigestMismatch"),
        "plain": (at("http://198.51.100.7/a.onnx", "3" * 64), "ArtifactNotAllowed"),
        "metadata": (at("https://169.254.169.254/a", "4" * 64), "ArtifactNotAllowed"),
    }
    start(ns, traffic, {"far": good, "far-too": good, **{name: spec for name, (spec, _) in wrong.items()}})
    for name in ("far", "far-too"):
        assert wait_policy(ns, name, "far")["digest"] == digest(far)
        wait_condition(ns, name, "PolicyReady", "True", "PolicyLoaded")
    for name, (_, reason) in wrong.items():
        found = eventually(partial(said, ns, name, "False", reason), timeout_s=90)
        assert "hidden" not in found["message"]
        wait_condition(ns, name, "Fallback", "True", "PolicyUnavailable")
    shelf.failing.clear()
    wait_policy(ns, "late", "late")

    operator.kill()
    shelf.failing.add("/far.onnx")
    operator.start()
    made = eventually(lambda: operator.decisions(ns.name, "far"), timeout_s=90)
    assert (made[-1]["policy"]["name"], made[-1]["fallback"]) == ("far", None)
    assert [path.partition("?")[0] for path in shelf.asked].count("/far.onnx") == 1, "it is on disk"


def at(url: str, sha256: str) -> Json:
    return {"artifact": {"url": url, "sha256": sha256.removeprefix("sha256:")}}


def said(ns: Namespace, name: str, status: str, reason: str) -> Json:
    """The condition PolicyReady with this status and reason."""
    found = ns.condition(name, "PolicyReady")
    assert (found.get("status"), found.get("reason")) == (status, reason), found
    return found


# Hot reload


def test_a_changed_config_map_or_file_is_taken_up_and_a_bad_one_is_not(
    namespace: Namespace,
    traffic: Traffic,
    prometheus: Prometheus,
    make_operator: OperatorFactory,
    tmp_path: Path,
) -> None:
    ns, first, second = namespace, artifact("one", 1.5), artifact("two", 2.0)
    folder = tmp_path / "policies"
    folder.mkdir()
    put(ns, "policy", first)
    (folder / "p.onnx").write_bytes(first)
    operator = make_operator(
        prometheus, RLSCALER_POLICY_DIR=str(folder), RLSCALER_ARTIFACT_CACHE_DIR=str(tmp_path / "cache")
    )
    sources: dict[str, Json] = {"map": {"configMap": {"name": "policy"}}, "file": {"file": "p.onnx"}}
    start(ns, traffic, {name: {"artifact": source} for name, source in sources.items()})
    for name in sources:
        wait_policy(ns, name, "one")

    put(ns, "policy", second)
    (folder / "next").write_bytes(second)
    (folder / "next").rename(folder / "p.onnx")
    for name in sources:
        assert wait_policy(ns, name, "two", timeout_s=90)["digest"] == digest(second)
        eventually(partial(loaded, ns, name, digest(second)))

    put(ns, "policy", second[:-300])
    (folder / "p.onnx").write_bytes(b"\x80\x04}q\x00.")
    for name in sources:
        found = eventually(partial(said, ns, name, "True", "ReloadFailed"), timeout_s=90)
        assert "two" in found["message"]
        assert "ArtifactInvalid" in found["message"]
        wait_condition(ns, name, "Fallback", "False", "PolicyInCharge")
        assert policy(ns, name)["name"] == "two"
        eventually(lambda name=name: "PolicyReloadFailed" in reasons(ns, name))

    operator.kill()
    operator.start()
    for name in sources:
        decision = eventually(partial(operator.decisions, ns.name, name), timeout_s=90)[-1]
        assert (decision["policy"]["name"], decision["fallback"]) == ("two", None), "it is on disk"
    put(ns, "policy", first)
    (folder / "p.onnx").write_bytes(first)
    for name in sources:
        wait_policy(ns, name, "one", timeout_s=90)
        wait_condition(ns, name, "PolicyReady", "True", "PolicyLoaded")


def loaded(ns: Namespace, name: str, digest: str) -> bool:
    """Whether an Event says that this policy decides now."""
    mine = [event for event in ns.events("PolicyLoaded") if event["involvedObject"]["name"] == name]
    return any(digest in event["message"] for event in mine)


# Canary


def told(ns: Namespace, name: str) -> list[str]:
    """Reasons of the Events about an RLScaler's canary, oldest first."""
    return [reason for reason in reasons(ns, name) if reason.startswith("Canary")]


def with_canary(ns: Namespace, name: str, headroom: float, **settings: Any) -> Json:
    """spec.policy of an RLScaler with a canary, whose artifacts are put into ConfigMaps."""
    put(ns, f"{name}-now", artifact("now", 2.0))
    put(ns, f"{name}-next", artifact("next", headroom))
    gate = {"minDurationSeconds": 120, **settings.pop("gate", {})}
    spec = {
        "artifact": {"configMap": {"name": f"{name}-next"}},
        "gate": gate,
        "rollback": {"windowSeconds": 120},
        **settings,
    }
    return {"type": "RL", "artifact": {"configMap": {"name": f"{name}-now"}}, "canary": spec}


def test_a_canary_is_promoted_by_its_annotation_and_survives_a_kill(
    namespace: Namespace, traffic: Traffic, prometheus: Prometheus, make_operator: OperatorFactory
) -> None:
    ns, name = namespace, "by-hand"
    operator = make_operator(prometheus)
    spec = with_canary(ns, name, 1.5)
    start(ns, traffic, {name: spec})
    wait_phase(ns, name, "Shadow")
    scored = eventually(lambda: canary(ns, name) if canary(ns, name).get("judged", 0) >= 3 else None, 90)
    assert float(scored["costRatio"]) < 1.0
    assert float(scored["shortfall"]) >= float(scored["activeShortfall"])
    assert policy(ns, name)["name"] == "now"
    assert ns.replicas(name) > 6

    operator.kill()
    held = canary(ns, name)
    operator.start()
    eventually(lambda: operator.decisions(ns.name, name), timeout_s=90)
    assert canary(ns, name)["decisions"] >= held["decisions"]
    assert canary(ns, name)["since"] == held["since"]

    prefix = digest(artifact("next", 1.5)).removeprefix("sha256:")[:12]
    ns.annotate(name, "rlscaler.dev/promote", prefix)
    wait_phase(ns, name, "Promoted")
    assert wait_policy(ns, name, "next")["digest"].removeprefix("sha256:").startswith(prefix)
    ns.wait_replicas(name, 5, 6, timeout_s=90)
    assert ns.get(name)["spec"]["policy"]["artifact"] == {
        "configMap": {"name": f"{name}-now", "key": "policy.onnx"}
    }

    operator.kill()
    operator.start()
    made = eventually(lambda: operator.decisions(ns.name, name), timeout_s=90)
    assert made[-1]["policy"]["name"] == "next", "from the first decision on"

    ns.patch_spec(name, policy={"artifact": {"configMap": {"name": f"{name}-next"}}})
    eventually(lambda: "canary" not in policy(ns, name) and policy(ns, name)["name"] == "next", 90)
    eventually(lambda: told(ns, name) == ["CanaryStarted", "CanaryPromoted"])


def test_a_canary_is_promoted_by_its_gate_and_taken_back_when_the_objective_is_missed(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns, name = shared_namespace, "by-gate"
    lenient = {"maxCostRatio": "1.2", "maxShortfall": "0.5", "maxFlapRatio": "9"}  # a busy machine is noisy
    spec = with_canary(ns, name, 1.5, promotion="Automatic", gate=lenient)
    start(ns, traffic, {name: spec})
    promoted = wait_phase(ns, name, "Promoted", timeout_s=90)
    assert promoted["scoredSeconds"] >= 120
    wait_policy(ns, name, "next")

    traffic.set(ns.name, name, rate=38.0, latency_ms=400.0)
    back = wait_phase(ns, name, "RolledBack", timeout_s=90)
    assert "over the objective" in back["message"]
    wait_policy(ns, name, "now")
    traffic.set(ns.name, name, rate=38.0)
    ns.annotate(name, "rlscaler.dev/promote", digest(artifact("next", 1.5))[:20])
    made = len(operator.decisions(ns.name, name))
    eventually(lambda: len(operator.decisions(ns.name, name)) >= made + 5, timeout_s=90)
    assert canary(ns, name)["phase"] == "RolledBack"
    eventually(lambda: told(ns, name) == ["CanaryStarted", "CanaryPromoted", "CanaryRolledBack"])
    put(ns, f"{name}-next", artifact("better", 1.8))
    found = wait_phase(ns, name, "Promoted", timeout_s=120)
    assert found["name"] == "better", "other bytes are another canary"


def test_a_canary_that_would_be_short_is_not_promoted(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns, name = shared_namespace, "too-cheap"
    spec = with_canary(ns, name, 0.5, promotion="Automatic")
    start(ns, traffic, {name: spec})
    eventually(lambda: float(canary(ns, name).get("shortfall", "0")) > 0.8, timeout_s=90)
    made = len(operator.decisions(ns.name, name))
    eventually(lambda: len(operator.decisions(ns.name, name)) >= made + 5, timeout_s=90)
    assert (canary(ns, name)["phase"], policy(ns, name)["name"]) == ("Shadow", "now")
    assert "shortfall" in canary(ns, name)["message"]
    assert ns.replicas(name) > 5, "the canary would have gone to 2"


def test_a_bad_canary_is_unavailable_and_the_active_policy_undisturbed(
    operator: OperatorProcess, shared_namespace: Namespace, traffic: Traffic
) -> None:
    ns, name = shared_namespace, "bad-canary"
    spec = {**with_canary(ns, name, 1.5), "type": "HPA"}
    put(ns, f"{name}-next", b"not ONNX" * 100)
    start(ns, traffic, {name: spec})
    found = wait_phase(ns, name, "Unavailable")
    assert found["message"].startswith("ArtifactInvalid: ")
    wait_condition(ns, name, "PolicyReady", "True", "Formula")
    wait_condition(ns, name, "Ready", "True")
    assert policy(ns, name)["name"] == "hpa"
    put(ns, f"{name}-next", artifact("next", 1.5))
    assert wait_phase(ns, name, "Shadow")["against"] == "hpa"
    eventually(lambda: told(ns, name) == ["CanaryUnavailable", "CanaryStarted"])
