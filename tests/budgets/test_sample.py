"""The sample manifest: an API server takes it as it is written."""

from __future__ import annotations

from pathlib import Path

import yaml

from controller.api.crd import BUDGET, build_crd
from tests.api.apiserver import CustomResource

SAMPLE = Path(__file__).parents[2] / "manifests" / "samples" / "budget.yaml"


def test_the_api_server_takes_the_sample_as_it_is_written() -> None:
    body = yaml.safe_load(SAMPLE.read_text())
    assert CustomResource(build_crd(BUDGET)).apply(body) == body
