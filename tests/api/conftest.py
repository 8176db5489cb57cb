"""The generated CRD, and an API server's view of it."""

from __future__ import annotations

from typing import Any

import pytest

from controller.api.crd import build_crd
from tests.api.apiserver import CustomResource


@pytest.fixture(scope="session")
def crd() -> dict[str, Any]:
    return build_crd()


@pytest.fixture(scope="session")
def resource(crd: dict[str, Any]) -> CustomResource:
    return CustomResource(crd)
