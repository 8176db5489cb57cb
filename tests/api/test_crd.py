"""The CustomResourceDefinition itself: what API servers ask, and what the design asks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from controller.api.crd import build_crd, crd_yaml
from tests.api import apiserver
from tests.api.apiserver import CustomResource, TypedRules

ROOT = Path(__file__).parents[2]
CHART_CRD = ROOT / "charts" / "crds" / "rlscalers.yaml"
SCHEMA = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
RULES = list(apiserver.rules(SCHEMA))
DEFAULTS = [(path, node) for path, node in apiserver.nodes(SCHEMA) if "default" in node]


def test_the_chart_holds_byte_for_byte_what_the_types_generate() -> None:
    assert CHART_CRD.read_text() == crd_yaml(), "run: rl-scaler crd > charts/crds/rlscalers.yaml"


def test_the_schema_is_structural() -> None:
    assert list(apiserver.structural_problems(SCHEMA)) == []


def test_every_string_list_and_map_is_bounded_so_that_rules_have_a_bounded_cost() -> None:
    spec = SCHEMA["properties"]["spec"]
    assert list(apiserver.unbounded(spec)) == []
    assert list(apiserver.unbounded(SCHEMA["properties"]["status"])) == []


def test_every_field_has_a_description_for_kubectl_explain() -> None:
    nodes = [*apiserver.nodes(SCHEMA["properties"]["spec"]), *apiserver.nodes(SCHEMA["properties"]["status"])]
    undescribed = [path for path, node in nodes if not path.endswith("[*]") and not node.get("description")]
    assert undescribed == []


def test_nothing_is_a_float(crd: dict[str, Any]) -> None:
    assert [path for path, node in apiserver.nodes(SCHEMA) if node.get("type") == "number"] == []


@pytest.mark.parametrize(("path", "node"), DEFAULTS, ids=[path for path, _ in DEFAULTS])
def test_every_default_is_valid_by_itself(resource: CustomResource, path: str, node: dict[str, Any]) -> None:
    """The API server checks a default against schema and rules without filling in nested defaults first."""
    value = node["default"]
    assert apiserver.schema_problems(value, node) == []
    pruned = copy.deepcopy(value)
    apiserver.prune(pruned, node)
    assert pruned == value
    assert list(resource.rule_problems(value, node, path)) == []


@pytest.mark.parametrize(("path", "node", "rule"), RULES, ids=[f"{p}: {r['message']}" for p, _, r in RULES])
def test_every_rule_compiles_with_the_types_of_the_schema(
    path: str, node: dict[str, Any], rule: dict[str, str]
) -> None:
    assert TypedRules(SCHEMA).compile(node, rule["rule"]) == "BOOL"


def test_the_type_checker_notices_a_misspelt_field() -> None:
    with pytest.raises(RuntimeError, match="undefined field 'minReplica'"):
        TypedRules(SCHEMA).compile(SCHEMA["properties"]["spec"], "self.minReplica <= self.maxReplicas")


@pytest.mark.parametrize(("path", "node", "rule"), RULES, ids=[f"{p}: {r['message']}" for p, _, r in RULES])
def test_rules_keep_to_what_api_servers_since_1_26_know_and_can_price(
    path: str, node: dict[str, Any], rule: dict[str, str]
) -> None:
    assert set(rule) == {"rule", "message"}
    for unpriceable in ("type(", ".map(", ".sum(", "cel.bind", "quantity(", "optional", "format(", "?."):
        assert unpriceable not in rule["rule"]
    assert "\n" not in rule["message"]


def test_names_scope_and_short_name() -> None:
    spec = build_crd()["spec"]
    assert build_crd()["metadata"]["name"] == "rlscalers.rlscaler.dev"
    assert (spec["group"], spec["scope"]) == ("rlscaler.dev", "Namespaced")
    assert spec["names"]["shortNames"] == ["rls"]
    assert spec["names"]["categories"] == ["autoscaling"]


def test_status_is_a_subresource_and_the_version_is_v1alpha1() -> None:
    (version,) = build_crd()["spec"]["versions"]
    assert (version["name"], version["served"], version["storage"]) == ("v1alpha1", True, True)
    assert version["subresources"] == {"status": {}}


def test_printer_columns_are_those_of_the_design() -> None:
    columns = build_crd()["spec"]["versions"][0]["additionalPrinterColumns"]
    plain = [column["name"] for column in columns if not column.get("priority")]
    assert plain == ["Target", "Min", "Max", "Current", "Desired", "Mode", "Ready", "Reason", "Age"]


@pytest.mark.parametrize(
    "column", build_crd()["spec"]["versions"][0]["additionalPrinterColumns"], ids=lambda c: c["name"]
)
def test_every_printer_column_points_at_a_field_of_its_type(column: dict[str, Any]) -> None:
    kinds = {"date": "string"}
    if column["jsonPath"].startswith(".metadata"):
        return
    plain = column["jsonPath"].replace('[?(@.type=="Ready")]', "[*]")
    found = dict(apiserver.nodes(SCHEMA))[plain]
    assert found["type"] == kinds.get(column["type"], column["type"])


def test_the_status_has_every_field_of_the_design() -> None:
    status = SCHEMA["properties"]["status"]["properties"]
    assert status.keys() >= {
        "observedGeneration",
        "currentReplicas",
        "desiredReplicas",
        "recommendedReplicas",
        "lastScaleTime",
        "policy",
        "backends",
        "lastDecision",
        "conditions",
        "stabilization",
        "startUpSeconds",
        "outsideChange",
        "budget",
    }
    assert status["policy"]["properties"].keys() == {"type", "name", "digest", "schema", "canary"}
    assert status["backends"]["items"]["properties"].keys() == {
        "name",
        "currentReplicas",
        "desiredReplicas",
        "weight",
    }
