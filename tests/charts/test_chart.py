"""The chart as Helm sees it: lint, values, and what is rendered for each of ci/*-values.yaml."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python import chart as helm
from helm_python.chart import Chart
from helm_python.errors import HelmValuesError

from controller.settings import Settings
from tests.charts.conftest import CHART, CI_VALUES, Json, Render, ci_names, only, values_of
from tests.charts.readme import documented, leaves, table

ROOT = CHART.parent
OPTIONAL = {"ServiceMonitor", "NetworkPolicy", "PodDisruptionBudget"}


@pytest.mark.parametrize("name", ci_names())
def test_helm_lint_finds_no_fault(name: str) -> None:
    report = helm.lint(CHART, values_of(name), strict=True, namespace="autoscaling")
    faults = [message for message in report["messages"] if message["severity"] > 1]
    assert (faults, report["errors"]) == ([], [])


@pytest.mark.parametrize("name", ci_names())
def test_every_object_has_kind_name_and_labels(render: Render, name: str) -> None:
    for item in render(values_of(name)):
        assert item["apiVersion"]
        assert item["metadata"]["name"]
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "rl-scaler"
        assert labels["app.kubernetes.io/instance"] == "rl-scaler"


def test_optional_objects_are_off_by_default(render: Render) -> None:
    kinds = {item["kind"] for item in render()}
    assert kinds == {"Deployment", "ServiceAccount", "Service", "ClusterRole", "ClusterRoleBinding"}


def test_everything_can_be_switched_on(render: Render) -> None:
    assert {item["kind"] for item in render(values_of("everything"))} >= OPTIONAL


def test_a_release_with_another_name_can_stand_beside_it(chart: Chart) -> None:
    files = chart.render({}, name="blue", namespace="autoscaling")
    deployment = yaml.safe_load(files["rl-scaler/templates/deployment.yaml"])
    assert deployment["metadata"]["name"] == "blue-rl-scaler"


@pytest.mark.parametrize("name", ci_names())
def test_the_selectors_find_the_pod(render: Render, name: str) -> None:
    objects = render(values_of(name))
    pod = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    for item in objects:
        selector = item.get("spec", {}).get("podSelector") or item.get("spec", {}).get("selector")
        if selector is not None:
            assert selector.get("matchLabels", selector).items() <= pod.items(), item["kind"]


@pytest.mark.parametrize("name", ci_names())
def test_the_pod_passes_the_restricted_pod_security_standard(render: Render, name: str) -> None:
    pod = only(render(values_of(name)), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    (container,) = pod["containers"]
    security = container["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not any("hostPath" in volume for volume in pod["volumes"])


@pytest.mark.parametrize("name", ci_names())
def test_there_is_one_pod_and_never_two(render: Render, name: str) -> None:
    spec = only(render(values_of(name)), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_probes_ask_the_named_port(render: Render) -> None:
    (container,) = only(render(), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]
    asked = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")}
    assert asked == {
        "startup": {"path": "/healthz", "port": "http"},
        "liveness": {"path": "/healthz", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
    }
    assert only(render(), "Service")["spec"]["ports"][0]["targetPort"] == "http"


def test_only_tmp_and_the_cache_are_writable(render: Render) -> None:
    pod = only(render(), "Deployment")["spec"]["template"]["spec"]
    assert pod["volumes"] == [
        {"name": "tmp", "emptyDir": {}},
        {"name": "artifacts", "emptyDir": {"sizeLimit": "512Mi"}},
    ]
    cache = {"name": "artifacts", "mountPath": "/var/cache/rl-scaler"}
    assert pod["containers"][0]["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}, cache]
    assert environment(render)["RLSCALER_ARTIFACT_CACHE_DIR"] == cache["mountPath"]


def environment(render: Render, **values: object) -> dict[str, str]:
    pod = only(render(values), "Deployment")["spec"]["template"]["spec"]
    return {entry["name"]: entry.get("value", "") for entry in pod["containers"][0]["env"]}


def test_where_artifacts_may_come_from_is_told_to_the_operator(render: Render) -> None:
    usual = environment(render)
    assert {"RLSCALER_ARTIFACT_HOSTS", "RLSCALER_ALLOW_HTTP_ARTIFACTS"}.isdisjoint(usual)
    told = environment(render, artifacts={"hosts": ["a.test", "b.test"], "allowHttp": True})
    assert told["RLSCALER_ARTIFACT_HOSTS"] == "a.test,b.test"
    assert told["RLSCALER_ALLOW_HTTP_ARTIFACTS"] == "true"


@pytest.mark.parametrize("name", ci_names())
def test_the_operator_understands_its_environment(render: Render, name: str) -> None:
    (container,) = only(render(values_of(name)), "Deployment")["spec"]["template"]["spec"]["containers"]
    settings = Settings.load({}, {item["name"]: item["value"] for item in container["env"]})
    values = values_of(name)
    assert settings.http_address == "0.0.0.0:8080"
    assert settings.namespaces == tuple(values.get("watchNamespaces", ()))
    assert settings.prometheus_address == values.get("prometheus", {}).get("address", "")
    assert settings.log_level == values.get("log", {}).get("level", "info")
    assert container["args"][0] == "operator"


def test_a_digest_wins_over_the_tag(render: Render) -> None:
    (container,) = only(render(values_of("everything")), "Deployment")["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["image"] == f"registry.example.com/rl-scaler@sha256:{'0' * 64}"


def test_the_network_policy_lets_in_the_probes_and_out_what_the_operator_calls(render: Render) -> None:
    policy = only(render(values_of("everything")), "NetworkPolicy")["spec"]
    assert policy["ingress"][0]["ports"] == [{"port": "http", "protocol": "TCP"}]
    out = [port["port"] for rule in policy["egress"] for port in rule.get("ports", [])]
    assert out == [53, 53, 443, 6443, 9090]


WRONG: dict[str, tuple[Json, str]] = {
    "a misspelt value": ({"replicasCount": 2}, "replicasCount"),
    "a misspelt value inside": ({"prometheus": {"url": "http://p"}}, "url"),
    "an address without a scheme": ({"prometheus": {"address": "prometheus:9090"}}, "/prometheus/address"),
    "an unknown log level": ({"log": {"level": "trace"}}, "/log/level"),
    "one namespace instead of a list": ({"watchNamespaces": "shop"}, "/watchNamespaces"),
    "a namespace that cannot be": ({"watchNamespaces": ["Shop"]}, "/watchNamespaces/0"),
    "an unknown pull policy": ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    "a port out of range": ({"service": {"port": 70000}}, "/service/port"),
    "a flag without dashes": ({"extraArgs": ["metrics-workers=3"]}, "/extraArgs/0"),
    "scale targets without a group": (
        {"rbac": {"extraScaleTargets": [{"resources": ["rollouts"]}]}},
        "/rbac/extraScaleTargets/0",
    ),
}


@pytest.mark.parametrize(("values", "place"), WRONG.values(), ids=WRONG)
def test_wrong_values_are_refused_and_named(chart: Chart, values: Json, place: str) -> None:
    with pytest.raises(HelmValuesError) as refused:
        chart.validate_schema(chart.merge_values(values))
    assert place in str(refused.value)


@pytest.mark.parametrize("name", ci_names())
def test_the_schema_takes_the_ci_values(chart: Chart, name: str) -> None:
    chart.validate_schema(chart.merge_values(values_of(name)))


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert _names(values, schema) == []


def _names(values: Json, schema: Json, path: str = "") -> list[str]:
    known = schema.get("properties")
    if known is None:
        return []
    extra = ["global"] if not path else ["claims"]
    differ = [f"{path}{name}" for name in values.keys() ^ known.keys() if name not in extra]
    children = [(name, value) for name, value in values.items() if isinstance(value, dict) and name in known]
    return differ + [
        found for name, value in children for found in _names(value, known[name], f"{path}{name}.")
    ]


def test_every_value_is_documented_and_the_readme_is_made_of_it() -> None:
    text = (CHART / "values.yaml").read_text()
    comments = dict(documented(text))
    assert [name for name, _ in leaves(yaml.safe_load(text), set(comments)) if name not in comments] == []
    assert table() in (CHART / "README.md").read_text(), "run: python -m tests.charts.readme"


def test_the_crds_come_with_the_chart(chart: Chart) -> None:
    assert {crd["name"] for crd in chart.crds} == {"crds/rlscalers.yaml", "crds/rlscalerbudgets.yaml"}
    for crd in chart.crds:
        assert crd["data"] == (CHART / crd["name"]).read_text()


def test_chart_and_package_have_one_version() -> None:
    project: Any = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert metadata["appVersion"] == metadata["version"] == project["version"]


def test_the_packaged_chart_leaves_ci_values_out(chart: Chart, tmp_path: Path) -> None:
    archive = chart.save(tmp_path)
    helm.expand(tmp_path / "out", archive)
    assert (tmp_path / "out" / "rl-scaler" / "crds" / "rlscalers.yaml").exists()
    assert not (tmp_path / "out" / "rl-scaler" / "ci").exists()
    assert len(CI_VALUES) >= 4
