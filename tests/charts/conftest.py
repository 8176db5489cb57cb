"""The chart, rendered by the real Helm engine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python.chart import Chart

Json = dict[str, Any]
Render = Callable[..., list[Json]]

CHART = Path(__file__).parents[2] / "charts"
CI_VALUES = sorted((CHART / "ci").glob("*-values.yaml"))


@functools.cache
def values_of(name: str) -> Json:
    """Values of ci/<number>-<name>-values.yaml."""
    (path,) = [path for path in CI_VALUES if path.name.endswith(f"-{name}-values.yaml")]
    loaded: Json = yaml.safe_load(path.read_text())
    return loaded


def ci_names() -> list[str]:
    return [path.name.removesuffix("-values.yaml").split("-", 1)[1] for path in CI_VALUES]


@pytest.fixture(scope="session")
def chart() -> Iterator[Chart]:
    with Chart.load(CHART) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def render(chart: Chart) -> Render:
    """Objects that `helm install rl-scaler charts/ --namespace autoscaling` would create."""

    def rendered(values: Json | None = None) -> list[Json]:
        files = chart.render(values or {}, name="rl-scaler", namespace="autoscaling")
        manifests = [text for name, text in files.items() if name.endswith(".yaml")]
        return [item for text in manifests for item in yaml.safe_load_all(text) if item]

    return rendered


def only(objects: list[Json], kind: str) -> Json:
    """The one object of this kind."""
    (found,) = [item for item in objects if item["kind"] == kind]
    return found
