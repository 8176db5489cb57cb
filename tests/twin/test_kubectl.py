"""The real kubectl against the twin, with no flags to soften it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
import yaml

from controller.api.crd import crd_yaml

from .conftest import deployment, eventually

Kubectl = Callable[..., subprocess.CompletedProcess[str]]
RLSCALER = """
apiVersion: rlscaler.dev/v1alpha1
kind: RLScaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 2
  maxReplicas: 60
"""


def done(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture
def rls(kubectl: Kubectl) -> Kubectl:
    done(kubectl("apply", "-f", "-", stdin=crd_yaml()))
    return kubectl


def test_apply_creates_configures_and_then_leaves_alone(rls: Kubectl) -> None:
    text = yaml.safe_dump(deployment())
    outcomes = [
        done(rls("apply", "-f", "-", stdin=t))
        for t in (text, text, text.replace("replicas: 2", "replicas: 3"))
    ]
    assert [o.split()[-1] for o in outcomes] == ["created", "unchanged", "configured"]
    assert done(rls("apply", "-f", "-", stdin=RLSCALER)) == "rlscaler.rlscaler.dev/web created\n"
    assert done(rls("apply", "-f", "-", stdin=RLSCALER)) == "rlscaler.rlscaler.dev/web unchanged\n"
    assert done(rls("diff", "-f", "-", stdin=RLSCALER)) == ""
    done(rls("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=RLSCALER))


def test_get_rls_prints_the_columns_of_the_crd(rls: Kubectl) -> None:
    done(rls("apply", "-f", "-", stdin=RLSCALER))
    header, row = done(rls("get", "rls")).splitlines()
    assert header.split() == [
        "NAME",
        "TARGET",
        "MIN",
        "MAX",
        "CURRENT",
        "DESIRED",
        "MODE",
        "READY",
        "REASON",
        "AGE",
    ]
    assert row.split()[:4] == ["web", "2", "60", "Active"]
    wide = done(rls("get", "rls", "web", "-o", "wide")).splitlines()[0]
    assert "REASON" in wide
    assert done(rls("get", "rls", "-A", "--no-headers")).startswith("default")
    assert done(rls("get", "autoscaling", "-o", "name")) == "rlscaler.rlscaler.dev/web\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("minReplicas: 90", "spec.minReplicas must be less than or equal to spec.maxReplicas"),
        ("mode: Sleepy", 'spec.mode: Unsupported value: "Sleepy": supported values: "Active"'),
        ("objective: {preference: 400}", "should be less than or equal to 100"),
        ("metrics: {preset: bogus}", 'spec.metrics.preset: Unsupported value: "bogus"'),
        ("modus: Active", 'strict decoding error: unknown field "spec.modus"'),
        (
            "backends: []",
            "spec.backends in body should have at least 1 items",
        ),
    ],
    ids=lambda v: v.split(":")[0] if ":" in v else "",
)
def test_kubectl_apply_tells_what_is_wrong(rls: Kubectl, line: str, expected: str) -> None:
    kept = [text for text in RLSCALER.splitlines() if not text.strip().startswith(line.split(":")[0] + ":")]
    process = rls("apply", "-f", "-", stdin="\n".join([*kept, f"  {line}"]))
    assert process.returncode != 0
    assert expected in process.stderr


def test_get_scale_and_describe_a_deployment(kubectl: Kubectl) -> None:
    done(kubectl("apply", "-f", "-", stdin=yaml.safe_dump(deployment())))
    eventually(lambda: "2/2" in done(kubectl("get", "deploy", "web")))
    assert done(kubectl("scale", "deploy", "web", "--replicas", "3")) == "deployment.apps/web scaled\n"
    eventually(lambda: done(kubectl("get", "pods", "-l", "app=web")).count("Running") == 3)
    assert "3 desired | 3 updated | 3 total | 3 available" in done(kubectl("describe", "deploy", "web"))
    assert done(kubectl("rollout", "status", "deploy/web")).startswith('deployment "web" successfully')
    assert done(kubectl("delete", "deploy", "web")) == 'deployment.apps "web" deleted\n'
    assert done(kubectl("get", "pods")) == ""


def test_watching_prints_rows_as_they_change(kubectl: Kubectl) -> None:
    done(kubectl("apply", "-f", "-", stdin=yaml.safe_dump(deployment())))
    seen = done(kubectl("get", "deploy", "-w", "--request-timeout", "1s")).splitlines()
    assert seen[0].split()[0] == "NAME"
    assert seen[-1].split()[:2] == ["web", "2/2"]


def test_wait_sees_conditions(rls: Kubectl) -> None:
    done(rls("wait", "--for", "condition=Established", "crd/rlscalers.rlscaler.dev", "--timeout", "5s"))


def test_configmaps_and_secrets_are_created_from_literals(kubectl: Kubectl) -> None:
    done(kubectl("create", "configmap", "cm", "--from-literal", "a=b"))
    done(kubectl("create", "secret", "generic", "s", "--from-literal", "token=x"))
    assert done(kubectl("get", "cm", "cm", "-o", "jsonpath={.data.a}")) == "b"
    assert done(kubectl("get", "secret", "s", "-o", "jsonpath={.data.token}")) == "eA=="


def test_explain_reads_the_schema(rls: Kubectl) -> None:
    done(rls("get", "rls"))  # explain alone would go by what it had cached before the CRD came
    assert "preference" in done(rls("explain", "rls.spec.objective"))
    assert done(rls("auth", "can-i", "patch", "rls")) == "yes\n"


def test_a_kind_whose_crd_is_missing_is_told(kubectl: Kubectl) -> None:
    process = kubectl("apply", "-f", "-", stdin=RLSCALER)
    assert "ensure CRDs are installed first" in process.stderr
