"""docs/api.md, and the samples that show the API in use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.api.crd import DEFINITIONS, build_crd
from controller.api.reference import reference_markdown
from controller.api.validation import parse_spec, unknown_fields
from controller.schedules import timetable
from tests.api import apiserver
from tests.api.apiserver import CustomResource

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))
REFERENCE = ROOT / "docs" / "api.md"


def test_the_reference_is_what_the_types_generate() -> None:
    fresh = reference_markdown(DEFINITIONS.values())
    assert REFERENCE.read_text() == fresh, "run: rl-scaler crd all --format markdown > docs/api.md"


def test_the_command_prints_it() -> None:
    command = [sys.executable, "-m", "controller", "crd", "rlscalers", "--format", "markdown"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == reference_markdown([DEFINITIONS["rlscalers"]])


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=list(DEFINITIONS))
def test_every_field_and_every_rule_is_in_it(definition: Any) -> None:
    said = reference_markdown([definition])
    schema = build_crd(definition)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for part in ("spec", "status"):
        for path, node in apiserver.nodes(schema[part]):
            name = path.rpartition(".")[2].removesuffix("[*]")
            assert name == "" or path.endswith("[*]") or f"| `{name}` |" in said, path
            for rule in node.get("x-kubernetes-validations", []):
                assert rule["message"][1:] in said
    assert said.count("\n#### ") == len(set(said.split("\n#### ")[1:])), "no section twice"


def test_its_tables_have_as_many_cells_in_each_row() -> None:
    rows = [line.replace("\\|", "") for line in REFERENCE.read_text().splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {4, 5}


@pytest.mark.parametrize("path", SAMPLES, ids=[path.stem for path in SAMPLES])
def test_every_sample_is_taken_whole(resource: CustomResource, path: Path) -> None:
    for manifest in yaml.safe_load_all(path.read_text()):
        if manifest["kind"] != "RLScaler":
            continue
        assert unknown_fields(manifest) == []
        resource.apply(manifest)
        timetable(parse_spec(manifest["spec"]).schedules)


def test_there_is_a_sample_of_each_guard() -> None:
    assert {path.stem for path in SAMPLES} >= {"office-hours", "scale-to-zero", "guarded", "shadow", "simple"}
