"""docs/training.md: its commands are ones that the tools take, its objects ones that the API takes."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.api.types import RLScalerSpec
from training.config import preset_names

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "training.md").read_text()
SHELL = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", " ")
LINES = [line for line in SHELL.splitlines() if line.strip()]
PYTHON = [shlex.split(line, comments=True) for line in LINES if line.startswith("python training/")]
KUBECTL = [shlex.split(line) for line in LINES if line.startswith("kubectl ")]


def test_the_page_has_commands_of_every_tool() -> None:
    assert {words[1] for words in PYTHON} == {
        f"training/{name}.py" for name in ("train", "report", "evaluate", "export", "tune")
    }


@pytest.mark.parametrize("words", PYTHON, ids=[" ".join(words[1:4]) for words in PYTHON])
def test_every_command_is_one_that_its_tool_takes(words: list[str]) -> None:
    assert (ROOT / words[1]).is_file()
    parser = importlib.import_module(f"training.{Path(words[1]).stem}").build_parser()
    args = parser.parse_args(words[2:])
    preset = getattr(args, "preset", None)
    assert preset is None or preset in preset_names() or preset.endswith("/best.yaml")


def rlscaler() -> dict[str, Any]:
    (found,) = [
        item for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
        for item in yaml.safe_load_all(block) if item["kind"] == "RLScaler"
    ]  # fmt: skip
    return dict(found)


def test_the_rlscaler_uses_the_config_map_that_was_made() -> None:
    artifact = RLScalerSpec.model_validate(rlscaler()["spec"]).policy.artifact
    assert artifact is not None
    assert artifact.config_map is not None
    (made,) = [words for words in KUBECTL if words[1:4] == ["create", "configmap", artifact.config_map.name]]
    assert f"--from-file={artifact.config_map.key}=my-policy.onnx" in made
    assert made[made.index("--namespace") + 1] == rlscaler()["metadata"]["namespace"]


def test_the_patches_make_rlscalers_that_are_valid() -> None:
    patches = [json.loads(words[words.index("--patch") + 1]) for words in KUBECTL if "--patch" in words]
    assert len(patches) == 2
    for patch in patches:
        spec = rlscaler()["spec"]
        merge(spec, patch["spec"])
        RLScalerSpec.model_validate(spec)
    (artifact,) = [patch["spec"]["policy"]["artifact"] for patch in patches if "policy" in patch["spec"]]
    assert artifact == {"configMap": None, "file": "my-policy.onnx"}


def merge(into: dict[str, Any], patch: dict[str, Any]) -> None:
    """JSON merge patch: null removes."""
    for name, value in patch.items():
        if value is None:
            into.pop(name, None)
        elif isinstance(value, dict):
            merge(into.setdefault(name, {}), value)
        else:
            into[name] = value


def test_the_mounted_file_is_where_the_operator_looks() -> None:
    (upgrade,) = [shlex.split(line) for line in LINES if line.startswith("helm ")]
    given = [
        upgrade[i + 1].partition("=") for i, word in enumerate(upgrade) if word in ("--set", "--set-json")
    ]
    values = {name: json.loads(value) for name, _, value in given}
    (mount,), (volume,) = values["extraVolumeMounts"], values["extraVolumes"]
    assert mount["name"] == volume["name"]
    from controller.settings import Settings

    assert mount["mountPath"] == Settings.load({}, {}).policy_dir
    name = volume["configMap"]["name"]
    assert any(words[1:4] == ["create", "configmap", name] for words in KUBECTL)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)", TEXT))))
def test_links_lead_to_files(link: str) -> None:
    assert (ROOT / "docs" / link).exists()
