"""The reporter against an API server: what is written, when, and what a refusal changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from controller.budgets.reporting import NUMBERS_EVERY_S, Reporter
from controller.events import EventRecorder
from controller.kube import Kube
from controller.telemetry import Telemetry
from tests.budgets.world import World
from tests.integration.harness import RLSCALERS, Cluster, Namespace
from tests.operator.bodies import rlscaler


@pytest.fixture
async def kube(cluster: Cluster) -> AsyncIterator[Kube]:
    client = await Kube.connect(str(cluster.kubeconfig), timeout_s=5.0)
    yield client
    await client.close()


class Office:
    """A budget for 10 on the API server, in a world of two members that are only known here."""

    def __init__(self, namespace: Namespace, kube: Kube) -> None:
        self.ns, self.kube, self.world, self.telemetry = namespace, kube, World(), Telemetry()
        self.path = namespace.path(RLSCALERS, "rlscalerbudgets", "shop")
        body = {
            "apiVersion": "rlscaler.dev/v1alpha1",
            "kind": "RLScalerBudget",
            "metadata": {"name": "shop"},
            "spec": {"selector": {}, "maxReplicas": 10},
        }
        namespace.api.create(namespace.path(RLSCALERS, "rlscalerbudgets"), body)
        for name in ("a", "b"):
            self._add(name)
        self.watch()
        w = self.world
        self.reporter = Reporter(kube, w.book, w.sharing, EventRecorder(kube), self.telemetry, w.clock)
        w.read()

    def _add(self, name: str) -> None:
        body = rlscaler(name)
        body["metadata"]["namespace"] = self.ns.name
        self.world.replicas[name] = [3]
        entry = self.world.registry.apply(body).entry
        self.world.book.note(entry)

    def watch(self) -> None:
        """The watch brings the budget as it is now."""
        self.world.book.apply(self.ns.api.get(self.path))
        self.world.sharing.changed.add(self.ns.name)

    def wish(self, **wishes: int) -> None:
        for name, wish in wishes.items():
            self.world.book.members[f"uid-{name}"].wish = wish
        self.world.sharing.changed.add(self.ns.name)

    def status(self) -> dict[str, Any]:
        return dict(self.ns.api.get(self.path).get("status") or {})

    def exhausted(self) -> str:
        return next(str(c["status"]) for c in self.status()["conditions"] if c["type"] == "Exhausted")

    def events(self, reason: str) -> list[Any]:
        return [e for e in self.ns.events(reason) if e["involvedObject"]["kind"] == "RLScalerBudget"]


async def test_the_status_and_an_event_tell_when_a_shortage_begins_and_ends(
    namespace: Namespace, kube: Kube
) -> None:
    office = Office(namespace, kube)
    office.wish(a=3, b=3)
    await office.reporter.report()
    assert office.status()["demandedReplicas"] == 6
    assert office.exhausted() == "False"
    assert office.events("BudgetExhausted") == []
    office.wish(a=9, b=9)
    await office.reporter.report()
    assert office.exhausted() == "True"
    assert "a gets 5 of 9, b gets 5 of 9" in office.events("BudgetExhausted")[0]["message"]
    office.wish(a=4, b=4)
    await office.reporter.report()
    assert office.exhausted() == "False"
    assert len(office.events("BudgetRelieved")) == 1


async def test_mere_numbers_wait_and_what_has_not_changed_is_not_written(
    namespace: Namespace, kube: Kube
) -> None:
    office = Office(namespace, kube)
    office.wish(a=3, b=3)
    await office.reporter.report()
    first = office.ns.api.get(office.path)
    office.wish(a=4)
    await office.reporter.report()
    await office.reporter.report()
    assert office.ns.api.get(office.path) == first
    office.world.clock.now_s += NUMBERS_EVERY_S + 1
    office.wish(a=4, b=3)
    office.world.sharing.changed.clear()
    await office.reporter.report()
    assert office.status()["demandedReplicas"] == 7
    second = office.ns.api.get(office.path)
    office.world.clock.now_s += NUMBERS_EVERY_S + 1
    office.wish(a=4, b=3)
    await office.reporter.report()
    assert office.ns.api.get(office.path) == second


async def test_a_leader_does_not_write_over_what_it_has_not_seen(namespace: Namespace, kube: Kube) -> None:
    office = Office(namespace, kube)
    kube.fence_s = lambda: 10.0
    office.wish(a=3, b=3)
    namespace.api.patch(office.path, {"spec": {"maxReplicas": 4}})
    await office.reporter.report()
    assert office.status() == {}
    office.watch()
    await office.reporter.report()
    assert office.status()["observedGeneration"] == 2
    assert office.exhausted() == "True"


async def test_a_budget_that_was_deleted_meanwhile_is_no_error_and_leaves_no_series(
    namespace: Namespace, kube: Kube
) -> None:
    office = Office(namespace, kube)
    office.wish(a=3, b=3)
    budget = next(iter(office.world.book.budgets.values()))
    namespace.api.delete(office.path)
    await office.reporter.report()
    assert f'namespace="{namespace.name}"' in office.telemetry.render().decode()
    office.world.book.forget(budget.uid)
    office.reporter.forget(budget)
    assert f'namespace="{namespace.name}"' not in office.telemetry.render().decode()


@pytest.mark.twin_only
async def test_a_refusal_is_survived_and_tried_again_later(
    namespace: Namespace, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = Office(namespace, kube)
    office.wish(a=3, b=3)
    with monkeypatch.context() as without:
        without.setattr(kube._api.configuration, "host", "http://127.0.0.1:9")
        await office.reporter.report()
    errors = office.telemetry.registry.get_sample_value("rlscaler_api_errors_total", {"error": "Unreachable"})
    assert errors == 1
    await office.reporter.report()
    assert office.status() == {}, "not before it has waited"
    office.world.clock.now_s += 11
    await office.reporter.report()
    assert office.status()["members"] == 2
