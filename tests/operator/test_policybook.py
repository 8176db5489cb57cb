"""Which policy an RLScaler gets, of formulas and of artifacts that come with the operator."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from controller.api.artifact import Artifact
from controller.api.constants import Reason
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


async def test_a_policy_for_pools_is_refused_where_one_service_is_decided_for() -> None:
    pools = {"builtin": "pools"}
    single = await chosen(book(), {"type": "RL", "artifact": pools})
    canary = await book().candidate("shop", Artifact.model_validate(pools))
    for found, why in (
        (single, "it needs spec.backends"),
        (canary, "a canary is scored by the replicas of one service"),
    ):
        assert found.trouble is not None
        assert found.trouble.reason == Reason.POLICY_NEEDS_POOLS
        assert found.trouble.message == f"pools decides for pools; {why}"
        assert found.policy.type == "RL"
    fine = await book().candidate("shop", Artifact.model_validate({"builtin": "default"}))
    assert (fine.facts.name, fine.trouble) == ("default", None)
