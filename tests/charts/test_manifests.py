"""manifests/: every object parses, API servers take every RLScaler, and every configuration is valid.

Prometheus' and Envoy's configurations are checked by promtool and Envoy themselves where they are installed.
"""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from controller.api.crd import build_crd
from controller.api.types import RLScalerSpec
from controller.metrics import QueryContext, render_queries
from sim.twin.hosted import HostedCluster
from tests.api.apiserver import CustomResource
from tests.charts.conftest import CHART, Json
from tests.real_parts import real_part

MANIFESTS = Path(__file__).parents[2] / "manifests"
FILES = sorted(path for path in MANIFESTS.rglob("*.yaml") if "webbalancing" not in path.parts)
"""Those for Kubernetes; `manifests/webbalancing` is for Docker Compose."""


@functools.cache
def objects(path: Path) -> list[Json]:
    return [item for item in yaml.safe_load_all(path.read_text()) if item]


def named(kind: str) -> list[tuple[str, Json]]:
    """(file/name, object) of every object of a kind."""
    found = [(path, item) for path in FILES for item in objects(path) if item.get("kind") == kind]
    return [(f"{path.parent.name}/{path.stem}/{item['metadata']['name']}", item) for path, item in found]


RESOURCE = CustomResource(build_crd())
RLSCALERS = named("RLScaler")
DEPLOYMENTS = named("Deployment")


def the(kind: str, namespace: str, name: str) -> Json:
    metadata = {"namespace": namespace, "name": name}
    (found,) = [item for _, item in named(kind) if metadata.items() <= item["metadata"].items()]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_object_has_kind_and_name(path: Path) -> None:
    for item in objects(path):
        if path.name != "values.yaml":
            assert item["apiVersion"]
            assert item.get("metadata", item)["name"]


@pytest.mark.parametrize("item", [item for _, item in RLSCALERS], ids=[name for name, _ in RLSCALERS])
def test_the_api_server_takes_every_rlscaler_as_it_is_written(item: Json) -> None:
    stored = RESOURCE.apply(item)
    assert _written(item["spec"], stored["spec"]) == [], "fields that the API server would drop"


def _written(given: Json, stored: Json, path: str = "spec") -> list[str]:
    lost = [f"{path}.{name}" for name in given if name not in stored]
    inside = [(name, value) for name, value in given.items() if isinstance(value, dict) and name in stored]
    return lost + [
        found for name, value in inside for found in _written(value, stored[name], f"{path}.{name}")
    ]


@pytest.mark.parametrize("item", [item for _, item in RLSCALERS], ids=[name for name, _ in RLSCALERS])
def test_every_rlscaler_scales_a_deployment_of_these_manifests(item: Json) -> None:
    spec = RLScalerSpec.model_validate(item["spec"])
    pools = spec.backends or ()
    targets = [spec.scale_target_ref] if spec.scale_target_ref else [pool.scale_target_ref for pool in pools]
    for target in targets:
        assert target is not None
        the(target.kind, item["metadata"]["namespace"], target.name)
    for route in spec.routes or ():
        route_spec = the(route.kind, item["metadata"]["namespace"], route.name)["spec"]
        backends = {ref["name"] for rule in route_spec["rules"] for ref in rule["backendRefs"]}
        assert backends == {pool.service for pool in pools}


@pytest.mark.parametrize("item", [item for _, item in RLSCALERS], ids=[name for name, _ in RLSCALERS])
def test_the_queries_of_every_rlscaler_can_be_filled_in(item: Json) -> None:
    metrics = RLScalerSpec.model_validate(item["spec"]).metrics
    own = {key: value for key, value in metrics.queries.dump().items() if value}
    queries = render_queries(metrics.preset, own, QueryContext("demo", "web"))
    assert "requestRate" in queries
    assert not [query for query in queries.values() if "{{" in query]


def test_the_samples_show_each_way_of_use() -> None:
    specs = [RLScalerSpec.model_validate(item["spec"]) for _, item in RLSCALERS]
    assert {spec.mode for spec in specs} >= {"Active", "Shadow"}
    assert {spec.policy.type for spec in specs} == {"RL", "HPA", "Formula"}
    assert any(spec.metrics.preset == "custom" for spec in specs)
    assert any(spec.backends and spec.routes for spec in specs)


@pytest.mark.parametrize("item", [item for _, item in DEPLOYMENTS], ids=[name for name, _ in DEPLOYMENTS])
def test_every_deployment_pins_its_images_and_has_no_rights(item: Json) -> None:
    pod = item["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert isinstance(pod["securityContext"]["runAsUser"], int)
    for container in pod["containers"]:
        assert re.search(r":v?\d+\.\d+\.\d+$", container["image"]), container["image"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"]["cpu"]


@pytest.mark.parametrize("item", [item for _, item in DEPLOYMENTS], ids=[name for name, _ in DEPLOYMENTS])
def test_selectors_find_pods_and_services_find_ports(item: Json) -> None:
    labels = item["spec"]["template"]["metadata"]["labels"]
    assert item["spec"]["selector"]["matchLabels"] == labels
    ports = {
        port["name"] for c in item["spec"]["template"]["spec"]["containers"] for port in c.get("ports", [])
    }
    for _, service in named("Service"):
        same = service["metadata"]["namespace"] == item["metadata"]["namespace"]
        if same and service["spec"]["selector"].items() <= labels.items():
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_scaled_deployments_leave_replicas_to_the_rlscaler() -> None:
    for namespace, name in (("demo", "web"), ("pools", "web-od"), ("pools", "web-spot")):
        assert "replicas" not in the("Deployment", namespace, name)["spec"]


def test_the_operators_values_lead_to_this_prometheus() -> None:
    values = yaml.safe_load((MANIFESTS / "kind" / "values.yaml").read_text())
    service = the("Service", "monitoring", "prometheus")
    assert (
        values["prometheus"]["address"]
        == f"http://prometheus.monitoring:{service['spec']['ports'][0]['port']}"
    )


def test_envoys_cluster_is_what_preset_envoy_asks_for() -> None:
    config = yaml.safe_load(the("ConfigMap", "demo", "edge")["data"]["envoy.yaml"])
    clusters = {cluster["name"] for cluster in config["static_resources"]["clusters"]}
    (rlscaler,) = [item for name, item in RLSCALERS if "simple" in name]
    queries = render_queries("envoy", {}, QueryContext("demo", rlscaler["spec"]["scaleTargetRef"]["name"]))
    asked = re.findall(r'envoy_cluster_name="([^"]+)"', queries["requestRate"])
    assert set(asked) <= clusters


def test_statistics_are_scraped_where_envoy_serves_them() -> None:
    pod = the("Deployment", "demo", "edge")["spec"]["template"]
    config = yaml.safe_load(the("ConfigMap", "demo", "edge")["data"]["envoy.yaml"])
    (listener,) = [item for item in config["static_resources"]["listeners"] if item["name"] == "statistics"]
    port = listener["address"]["socket_address"]["port_value"]
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(port)
    assert f"path: {pod['metadata']['annotations']['prometheus.io/path']}" in str(
        the("ConfigMap", "demo", "edge")["data"]["envoy.yaml"]
    )


@pytest.mark.parametrize(
    ("cluster", "namespace", "name"),
    [("httproute/pools/web/rule/0", "pools", "web"), ("httproute/a-b/c-d/rule/12", "a-b", "c-d")],
)
def test_a_gateways_cluster_gets_the_labels_of_its_route(cluster: str, namespace: str, name: str) -> None:
    """Prometheus' relabelling, by hand: anchored regular expressions, in order."""
    config = yaml.safe_load(the("ConfigMap", "monitoring", "prometheus")["data"]["prometheus.yml"])
    labels = {"envoy_cluster_name": cluster, "namespace": "envoy-gateway-system"}
    for rule in config["scrape_configs"][0]["metric_relabel_configs"]:
        found = re.fullmatch(rule["regex"], labels[rule["source_labels"][0]])
        if found:
            labels[rule["target_label"]] = found.expand(rule.get("replacement", "$1").replace("$", "\\"))
    assert (labels["namespace"], labels["envoy_cluster_name"]) == (namespace, name)
    assert labels["envoy_route_cluster"] == cluster


def test_promtool_takes_the_prometheus_configuration(tmp_path: Path) -> None:
    settings = yaml.safe_load(the("ConfigMap", "monitoring", "prometheus")["data"]["prometheus.yml"])
    for job in settings["scrape_configs"]:
        # Debian builds promtool without Kubernetes discovery, and the pod's token is not here.
        if job.pop("kubernetes_sd_configs", None):
            job["static_configs"] = [{"targets": ["example:80"]}]
        job.pop("authorization", None)
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump(settings))
    checked = subprocess.run(
        [real_part("promtool"), "check", "config", str(config)], capture_output=True, text=True, timeout=30
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_envoy_takes_its_configuration(tmp_path: Path) -> None:
    config = tmp_path / "envoy.yaml"
    config.write_text(the("ConfigMap", "demo", "edge")["data"]["envoy.yaml"])
    checked = subprocess.run(
        [real_part("envoy"), "--mode", "validate", "--config-path", str(config), "--disable-hot-restart"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stderr[-2000:]


def test_the_script_applies_what_is_here() -> None:
    script = (MANIFESTS / "kind" / "up.sh").read_text()
    mentioned = re.findall(r'"\$(manifests|root|here)/([\w./-]+)"', script)
    base = {"manifests": MANIFESTS, "root": MANIFESTS.parent, "here": MANIFESTS / "kind"}
    assert len(mentioned) >= 8
    for variable, path in mentioned:
        assert (base[variable] / path).exists(), path


def test_shellcheck_finds_no_fault_in_the_script() -> None:
    shellcheck = real_part("shellcheck", required=False)
    checked = subprocess.run(
        [shellcheck, str(MANIFESTS / "kind" / "up.sh")], capture_output=True, text=True, timeout=30
    )
    assert checked.returncode == 0, checked.stdout


def test_the_script_refuses_unknown_arguments() -> None:
    run = subprocess.run(
        ["bash", str(MANIFESTS / "kind" / "up.sh"), "--gatway"], capture_output=True, text=True, timeout=30
    )
    assert run.returncode == 2
    assert "unknown argument '--gatway'; allowed: --gateway" in run.stderr


@pytest.mark.parametrize("folder", ["demo", "gateway", "prometheus"])
def test_a_folder_can_be_applied_in_the_order_of_its_files(folder: str) -> None:
    """`kubectl apply -f folder` goes by file name: a namespace must come before what is in it."""
    made: set[str] = set()
    for path in sorted((MANIFESTS / folder).glob("*.yaml")):
        for item in objects(path):
            if item["kind"] == "Namespace":
                made.add(item["metadata"]["name"])
            elif "namespace" in item["metadata"]:
                assert item["metadata"]["namespace"] in made, f"{path.name}: {item['kind']}"


@pytest.mark.twin_only
def test_kubectl_applies_everything(tmp_path: Path) -> None:
    with HostedCluster() as twin:
        kubectl = [real_part("kubectl"), "--kubeconfig", str(twin.write_kubeconfig(tmp_path / "kubeconfig"))]
        steps = [CHART / "crds", *(MANIFESTS / name for name in ("prometheus", "demo", "gateway"))]
        for step in [*steps, *sorted((MANIFESTS / "samples").glob("*.yaml"))]:
            applied = subprocess.run(
                [*kubectl, "apply", "-f", str(step)], capture_output=True, text=True, timeout=60
            )
            assert applied.returncode == 0, applied.stderr
        shown = subprocess.run(
            [*kubectl, "get", "rls", "--all-namespaces", "--no-headers"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert [line.split()[:2] for line in shown.stdout.splitlines()] == [
        ["canary", "web"],
        ["demo", "web"],
        ["pools", "web"],
    ]
