"""Which policy an RLScaler gets without an artifact."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from controller.api.validation import parse_spec
from controller.core.formulas import KedaPolicy
from controller.policybook import Chosen, PolicyBook
from controller.settings import Settings
from tests.api.samples import SMALLEST, changed


async def chosen(book: PolicyBook, policy: dict[str, Any]) -> Chosen:
    spec = parse_spec(changed(SMALLEST, "policy", policy))
    return await book.choose(SimpleNamespace(spec=spec, namespace="shop"))  # type: ignore[arg-type]


def book() -> PolicyBook:
    return PolicyBook(kube=None, settings=Settings())  # type: ignore[arg-type]


def keda(rate: str) -> dict[str, Any]:
    return {"type": "Formula", "formula": {"name": "KEDA", "requestsPerReplica": rate}}


@pytest.mark.parametrize(("kind", "name"), [("HPA", "hpa"), ("Forecast", "forecast")])
async def test_the_builtin_formulas_are_there(kind: str, name: str) -> None:
    found = await chosen(book(), {"type": kind})
    assert (found.facts.type, found.facts.name, found.trouble) == (kind, name, None)


async def test_a_formula_comes_with_its_parameters_and_its_name() -> None:
    found = await chosen(book(), keda("12.5"))
    assert found.policy == KedaPolicy(12.5)
    assert (found.facts.type, found.facts.name, found.facts.digest, found.trouble) == (
        "Formula",
        "KEDA",
        "",
        None,
    )


async def test_equal_formulas_are_one_policy_so_that_the_engine_asks_once_for_all() -> None:
    shelf = book()
    first, second, other = [await chosen(shelf, keda(rate)) for rate in ("5", "5.0", "6")]
    assert first.policy is second.policy
    assert other.policy is not first.policy
