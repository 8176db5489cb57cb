"""The chart's option `scheduling`: what it makes, what it refuses, and that the service takes its flags."""

from __future__ import annotations

import argparse
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python import chart as helm
from helm_python.chart import Chart
from helm_python.errors import HelmError, HelmValuesError

from service.flags import add_flags
from service.settings import Settings
from tests.charts.conftest import CHART, only

Json = dict[str, Any]
ON: Json = {"scheduling": {"enabled": True}}
COMPONENT = "app.kubernetes.io/component"


@pytest.fixture(scope="module")
def chart() -> Iterator[Chart]:
    with Chart.load(CHART) as loaded:
        yield loaded


def rendered(chart: Chart, values: Json | None = None) -> list[Json]:
    files = chart.render({**ON, **(values or {})}, name="rl-scaler", namespace="autoscaling")
    items = [
        item for name, text in files.items() if name.endswith(".yaml") for item in yaml.safe_load_all(text)
    ]
    return [item for item in items if item and item["metadata"]["labels"].get(COMPONENT) == "scheduling"]


def test_it_is_off_by_default_and_lints_when_on(chart: Chart) -> None:
    assert rendered(chart, {"scheduling": {"enabled": False}}) == []
    report = helm.lint(CHART, ON, strict=True, namespace="autoscaling")
    faults = [message for message in report["messages"] if message["severity"] > 1]
    assert (faults, report["errors"]) == ([], [])
    kinds = [item["kind"] for item in rendered(chart)]
    assert sorted(kinds) == ["ConfigMap", "Deployment", "PersistentVolumeClaim", "Secret", "Service"]


def test_the_service_understands_its_flags_and_servers(chart: Chart, tmp_path: Path) -> None:
    objects = rendered(chart)
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    (tmp_path / "servers.yaml").write_text(only(objects, "ConfigMap")["data"]["servers.yaml"])
    (tmp_path / "token").write_bytes(base64.b64decode(only(objects, "Secret")["data"]["token"]))
    words = [
        word.replace("/servers/", f"{tmp_path}/").replace("/token/", f"{tmp_path}/")
        for word in container["args"]
    ]
    parser = argparse.ArgumentParser()
    add_flags(parser)
    settings = Settings.load(vars(parser.parse_args(words[1:])), {})
    assert words[0] == "serve"
    assert (settings.host, settings.port) == ("0.0.0.0", container["ports"][0]["containerPort"])
    assert settings.fleet.names == [f"server-{k}" for k in range(1, 9)]
    assert len(settings.token) == 40
    assert settings.state == "/state/serve.db"


def test_state_token_and_servers_are_mounted_where_the_flags_say(chart: Chart) -> None:
    pod = only(rendered(chart), "Deployment")["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounts["/state"]]["persistentVolumeClaim"]["claimName"] == "rl-scaler-scheduling"
    assert volumes[mounts["/token"]]["secret"]["items"] == [{"key": "token", "path": "token"}]
    assert volumes[mounts["/servers"]]["configMap"]["name"] == "rl-scaler-scheduling"
    without = rendered(chart, {"scheduling": {"enabled": True, "persistence": {"enabled": False}}})
    volumes = {one["name"]: one for one in only(without, "Deployment")["spec"]["template"]["spec"]["volumes"]}
    assert volumes["state"] == {"name": "state", "emptyDir": {}}
    assert "PersistentVolumeClaim" not in {item["kind"] for item in without}


def test_a_secret_of_ones_own_is_used_and_none_is_made(chart: Chart) -> None:
    objects = rendered(
        chart, {"scheduling": {"enabled": True, "token": {"secretName": "mine", "secretKey": "t"}}}
    )
    assert "Secret" not in {item["kind"] for item in objects}
    volumes = only(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    (token,) = [volume["secret"] for volume in volumes if volume["name"] == "token"]
    assert token == {"secretName": "mine", "items": [{"key": "t", "path": "token"}]}


def test_probes_need_no_token_and_the_pod_is_restricted(chart: Chart) -> None:
    pod = only(rendered(chart), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    paths = {
        probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")
    }
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_selectors_find_this_pod_and_the_operators_do_not(chart: Chart) -> None:
    policy = {"networkPolicy": {"enabled": True}}
    files = chart.render({**ON, **policy}, name="rl-scaler", namespace="autoscaling")
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    objects = [item for text in texts for item in yaml.safe_load_all(text) if item]
    pod = only(rendered(chart), "Deployment")["spec"]["template"]["metadata"]["labels"]
    found = set()
    for item in objects:
        spec = item.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector")
        if selector:
            ours = item["metadata"]["labels"].get(COMPONENT) == "scheduling"
            assert (selector.get("matchLabels", selector).items() <= pod.items()) == ours, item["kind"]
            found.add((item["kind"], ours))
    kinds = ("Deployment", "Service", "NetworkPolicy")
    assert found == {(kind, ours) for kind in kinds for ours in (True, False)}


def test_the_network_policy_lets_nothing_out(chart: Chart) -> None:
    policy = only(rendered(chart, {"networkPolicy": {"enabled": True}}), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    assert policy["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}]}]


def test_a_release_from_before_the_value_can_be_upgraded_with_its_old_values() -> None:
    text = (CHART / "templates" / "service-scheduling.yaml").read_text()
    assert text.startswith("{{- if (.Values.scheduling).enabled }}")


WRONG: dict[str, tuple[Json, str]] = {
    "no servers": ({"servers": []}, "/scheduling/servers"),
    "a server without memory": ({"servers": [{"name": "a", "cpu": 1}]}, "/scheduling/servers"),
    "an unknown strategy": ({"strategy": "best"}, "/scheduling/strategy"),
    "a misspelt value": ({"server": []}, "server"),
}


@pytest.mark.parametrize(("values", "place"), WRONG.values(), ids=WRONG)
def test_wrong_values_are_refused_and_named(chart: Chart, values: Json, place: str) -> None:
    with pytest.raises((HelmValuesError, HelmError)) as refused:
        chart.validate_schema(chart.merge_values({"scheduling": values}))
    assert place in str(refused.value)
