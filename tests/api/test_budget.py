"""RLScalerBudget: what the API server takes and refuses by the generated CRD, and that the types agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api.budget import BudgetReason, RLScalerBudgetSpec, RLScalerBudgetStatus
from controller.api.crd import BUDGET, build_crd, crd_yaml
from controller.api.validation import InvalidSpec, admit
from controller.cli import main
from tests.api import apiserver
from tests.api.apiserver import CustomResource, Refused, TypedRules
from tests.api.samples import changed

Json = dict[str, Any]

CHART_CRD = Path(__file__).parents[2] / "charts" / "crds" / "rlscalerbudgets.yaml"
CRD = build_crd(BUDGET)
RESOURCE = CustomResource(CRD)
SCHEMA = RESOURCE.schema
RULES = list(apiserver.rules(SCHEMA))
NODES = [*apiserver.nodes(SCHEMA["properties"]["spec"]), *apiserver.nodes(SCHEMA["properties"]["status"])]
SMALLEST: Json = {"selector": {}, "maxReplicas": 20}


def manifest(spec: Json) -> Json:
    return {
        "apiVersion": "rlscaler.dev/v1alpha1",
        "kind": "RLScalerBudget",
        "metadata": {"name": "shop", "namespace": "shop"},
        "spec": spec,
    }


def expressed(**expression: Any) -> Json:
    return changed(SMALLEST, "selector.matchExpressions", [expression])


ACCEPTED: dict[str, Json] = {
    "everybody of the namespace": SMALLEST,
    "labels": changed(
        SMALLEST, "selector.matchLabels", {"team": "shop", "example.com/tier": "front", "x": ""}
    ),
    "cost alone": {"selector": {}, "maxCost": "12.5"},
    "cost in thousandths": {"selector": {}, "maxCost": "500m"},
    "replicas and cost": {**SMALLEST, "maxCost": "3"},
    "In": expressed(key="team", operator="In", values=["a", "b", ""]),
    "NotIn": expressed(key="example.com/team", operator="NotIn", values=["a"]),
    "Exists": expressed(key="team", operator="Exists"),
    "DoesNotExist with no values": expressed(key="team", operator="DoesNotExist", values=[]),
    "an unknown field, which is pruned": {**SMALLEST, "maxPods": 3},
}

REFUSED: dict[str, tuple[Json, str]] = {
    "no limit": ({"selector": {}}, "at least one of spec.maxReplicas and spec.maxCost must be set"),
    "no selector": ({"maxReplicas": 3}, "selector"),
    "no replicas": ({"selector": {}, "maxReplicas": 0}, "maxReplicas"),
    "replicas as a string": ({"selector": {}, "maxReplicas": "20"}, "maxReplicas"),
    "cost as a number": ({"selector": {}, "maxCost": 12.5}, "maxCost"),
    "a cost of zero": ({"selector": {}, "maxCost": "0.0"}, "must be a decimal greater than 0 in quotes"),
    "a cost in words": ({"selector": {}, "maxCost": "ten"}, "must be a decimal greater than 0 in quotes"),
    "In without values": (expressed(key="team", operator="In"), "operators In and NotIn need values"),
    "NotIn with no values": (
        expressed(key="team", operator="NotIn", values=[]),
        "operators In and NotIn need values",
    ),
    "Exists with values": (
        expressed(key="team", operator="Exists", values=["a"]),
        "operators Exists and DoesNotExist take no values",
    ),
    "an unknown operator": (expressed(key="team", operator="Gt", values=["1"]), "operator"),
    "a key that is none": (expressed(key="-team", operator="Exists"), "key"),
    "a value that is none": (expressed(key="team", operator="In", values=["a b"]), "values"),
    "a label's value that is none": (changed(SMALLEST, "selector.matchLabels", {"team": "a,b"}), "team"),
    "a label's value as a number": (changed(SMALLEST, "selector.matchLabels", {"team": 1}), "team"),
}


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED)
def test_the_api_server_takes_it_and_the_types_agree(spec: Json) -> None:
    assert admit(manifest(spec), RLScalerBudgetSpec) == RESOURCE.apply(manifest(spec))


@pytest.mark.parametrize(("spec", "message"), REFUSED.values(), ids=REFUSED)
def test_the_api_server_refuses_it_and_names_the_field(spec: Json, message: str) -> None:
    with pytest.raises(Refused) as refused:
        RESOURCE.apply(manifest(spec))
    assert message in str(refused.value)


@pytest.mark.parametrize(("spec", "message"), REFUSED.values(), ids=REFUSED)
def test_the_types_refuse_it_and_name_the_field(spec: Json, message: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        admit(manifest(spec), RLScalerBudgetSpec)
    assert message in str(refused.value)


def test_every_rule_of_the_crd_refuses_something_above() -> None:
    said = ""
    for spec, _ in REFUSED.values():
        with pytest.raises(Refused) as refused:
            RESOURCE.apply(manifest(spec))
        said += str(refused.value)
    assert [rule["message"] for _, _, rule in RULES if rule["message"] not in said] == []


EXPRESSION = st.fixed_dictionaries(
    {
        "key": st.sampled_from(["team", "a.b/c", "", "-x", "a b"]),
        "operator": st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist", "Gt"]),
    },
    optional={"values": st.lists(st.sampled_from(["", "a", "a-", "b.c", "x y", "a\n"]), max_size=2)},
)
SPEC = st.fixed_dictionaries(
    {
        "selector": st.fixed_dictionaries(
            {},
            optional={
                "matchLabels": st.dictionaries(
                    st.sampled_from(["team", "tier"]), st.sampled_from(["", "a", "-"])
                ),
                "matchExpressions": st.lists(EXPRESSION, max_size=2),
            },
        )
    },
    optional={
        "maxReplicas": st.integers(-1, 3) | st.just("3"),
        "maxCost": st.from_regex(r"\A-?[0-9]{0,3}\.?[0-9]{0,2}m?\n?\Z") | st.sampled_from(["1e3", "NaN"]),
    },
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(spec=SPEC)
def test_types_and_crd_agree_on_random_objects(spec: Json) -> None:
    try:
        stored = RESOURCE.apply(manifest(spec))
    except Refused:
        with pytest.raises(InvalidSpec):
            admit(manifest(spec), RLScalerBudgetSpec)
    else:
        assert admit(manifest(spec), RLScalerBudgetSpec) == stored


def test_the_chart_holds_byte_for_byte_what_the_types_generate() -> None:
    hint = "run: rl-scaler crd rlscalerbudgets > charts/crds/rlscalerbudgets.yaml"
    assert CHART_CRD.read_text() == crd_yaml(BUDGET), hint


def test_the_command_line_prints_each_crd_and_both(capsys: pytest.CaptureFixture[str]) -> None:
    printed = {}
    for words in ([], ["rlscalers"], ["rlscalerbudgets"], ["all"]):
        assert main(["crd", *words]) == 0
        printed[" ".join(words)] = capsys.readouterr().out
    assert printed[""] == printed["rlscalers"] == crd_yaml()
    assert printed["rlscalerbudgets"] == crd_yaml(BUDGET)
    assert printed["all"] == f"{crd_yaml()}---\n{crd_yaml(BUDGET)}"


def test_the_schema_is_structural_bounded_and_described_without_floats() -> None:
    assert list(apiserver.structural_problems(SCHEMA)) == []
    assert list(apiserver.unbounded(SCHEMA["properties"]["spec"])) == []
    assert list(apiserver.unbounded(SCHEMA["properties"]["status"])) == []
    undescribed = [path for path, node in NODES if not path.endswith("[*]") and not node.get("description")]
    assert undescribed == []
    assert [path for path, node in NODES if node.get("type") == "number"] == []


@pytest.mark.parametrize(("path", "node", "rule"), RULES, ids=[f"{p}: {r['message']}" for p, _, r in RULES])
def test_every_rule_compiles_with_the_types_of_the_schema(
    path: str, node: Json, rule: dict[str, str]
) -> None:
    assert TypedRules(SCHEMA).compile(node, rule["rule"]) == "BOOL"


def test_kubectl_get_shows_fields_that_there_are() -> None:
    version = CRD["spec"]["versions"][0]
    assert version["subresources"] == {"status": {}}
    assert CRD["spec"]["names"]["shortNames"] == ["rlsb"]
    spec = SCHEMA["properties"]["spec"]["properties"]
    status = SCHEMA["properties"]["status"]["properties"]
    for column in version["additionalPrinterColumns"]:
        _, root, name, *_ = column["jsonPath"].replace("[", ".").split(".")
        assert root == "metadata" or name in (spec if root == "spec" else status), column


def test_the_types_of_the_status_have_every_field_of_the_schema() -> None:
    fields = {field.alias for field in RLScalerBudgetStatus.model_fields.values()}
    assert fields == SCHEMA["properties"]["status"]["properties"].keys()


def test_reasons_are_single_camel_case_words() -> None:
    assert [word for word in BudgetReason if not word.isalnum() or not word[0].isupper()] == []
